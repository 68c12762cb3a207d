"""What a run leaves on disk, and how it goes on after any kill. Both stages use it; neither needs it to be understood.

    runs/<char>/<stage>/log.jsonl            a line with seed, options and versions, then one for every step
                        curves.png           the same as a picture
                        step_00100.png       held-out prompts, always with the same seeds
                        config.json ...      the checkpoint that grpo.py, eval.py and chat.py take
                        state.safetensors    what the next step needs: weights, their average, the optimizer's moments
                        nearness.safetensors of stage 1: which lines mean the same (runtime/nearness.py), for chat.py

A stage uses it so:

    run = Run(folder, "sft", options, options.steps, character, begins_with)     mistakes are found before any work
    run.restore(model, trained, optimizer)                 goes on from the last save, or begins
    for step in run.steps():                               0, 1, ...: progress bar, saves, Ctrl-C
        means = Means(step)
        ...
        run.log(means.result())
    run.finish("grpo.py", "--char", options.char)          the last message
"""
import json
import math
import signal
import statistics
import sys
import time
from collections import defaultdict
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from backbone.folders import save
from runtime import processes
from runtime.cli import UserError, check_numbers, command, option_name, peak_memory, printable, say
from runtime.curves import draw_curves
from runtime.files import NEARNESS, STATE, digest, lock, unlock, write_beside
from runtime.grids import picture_grid

FREE_OPTIONS = "out", "save_every", "sample_every", "eval_every", "fresh", "device"
CHECKPOINT = "config.json", "model.safetensors", "ae.safetensors", "adapter_model.safetensors", "adapter_config.json"
SLOW = 5                                                   # a step that takes so many times the median is told
MOMENTS = "exp_avg", "exp_avg_sq", "momentum"                # of AdamW, of Muon
NOTHING = 1e-7                                             # weights that moved by less have learned nothing
EXPLODED = 100                                             # weights that grew so many times have exploded
STEPS_FOR_MEDIAN = 10


class Means:
    """What is logged of a step: weighted means, sums and largest values by name, over all processes.

    A value that is not finite raises UserError at once: what such a loss makes of the weights must not be saved."""
    def __init__(self, step: int):
        self.step = step                                   # counted from 0
        self.rows = []                                     # (name, kind, value, weight)

    def __call__(self, name: str, value: float, weight: float = 1.0):
        self.record(name, "mean", value, weight)

    def add(self, name: str, value: float):
        self.record(name, "sum", value, 1.0)

    def largest(self, name: str, value: float):
        self.record(name, "largest", value, 1.0)

    def record(self, name: str, kind: str, value: float, weight: float):
        check_finite({name: value}, self.step + 1)
        self.rows.append((name, kind, value, weight))

    def result(self) -> dict[str, float]:
        """Sorted by name, the same on every process."""
        kinds, values, weights = {}, defaultdict(list), defaultdict(list)
        for rows in processes.gather(self.rows):
            for name, kind, value, weight in rows:
                kinds[name] = kind
                values[name].append(value)
                weights[name].append(weight)
        found = {}
        for name in sorted(kinds):
            if kinds[name] == "mean":
                found[name] = weighted_mean(values[name], weights[name])
            elif kinds[name] == "sum":
                found[name] = sum(values[name])
            else:
                found[name] = max(values[name])
        return found


def weighted_mean(values: list[float], weights: list[float]) -> float:
    total = sum(weights)
    return sum(value * weight for value, weight in zip(values, weights)) / total if total else 0.0


def check_finite(values: dict[str, float], step: int):
    """Raises UserError, with the step and the names, if a value is not a number or infinite."""
    bad = [f"{name} = {value}" for name, value in values.items()
           if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        raise UserError(f"step {step}: {', '.join(bad)}: the run cannot go on from there; what was saved before is "
                        "sound. Take a lower --lr, or --precision fp32")


class Run:
    """The folder of a run. Everything that the next step needs is in ONE file, state.safetensors, replaced by one
    rename; so no kill can leave halves of two steps. The checkpoint for other scripts is written after it.

    `step` counts the finished steps; inside the loop, the step that is being made counts as finished.

    `total`: the number of its steps. `begins_with`: names of options, and what stands behind them: a model's folder
    as a Path, the Samples of a character. A run does not go on over something that has changed since it began.

    Raises UserError if that happened; if another run is writing in the folder; if the folder belongs to another
    character or stage; if other options were used there; if the run is finished."""

    def __init__(self, folder: Path, stage: str, options, total: int, character=None, begins_with: dict | None = None):
        check_numbers(options)
        model = (begins_with or {}).get("model", [])
        if Path(folder).resolve() in [path.resolve() for path in (model if isinstance(model, list) else [model])]:
            raise UserError(f"--out {folder}: holds the model that the run begins with; give another folder")
        self.folder, self.stage, self.options, self.total = Path(folder), stage, options, total
        self.begins_with = {name: digest(thing) for name, thing in (begins_with or {}).items()}
        self.owner = None
        if character is not None:
            self.owner = {"name": character.name, "folder": str(character.folder), "about": character.description}
        self.state = self.folder / STATE
        self.log_file = self.folder / "log.jsonl"
        self.step = self.first_step = 0
        self.stopped = False                               # asked to stop after the step
        self.began = None                                  # when the step began; None once it is logged
        self.seconds = []                                  # of the steps so far
        self.told_slow = 0                                 # the step at which a slow one was last told
        self.start_time = time.time()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {folder}: no folder can be made there ({error.strerror})") from None
        lock(self.folder)
        try:
            self.record = self.read_state()
            self.compare()
        except UserError:
            unlock(self.folder)
            raise

    # -- what is already there --

    def read_state(self) -> dict | None:
        """What the state says about itself; None without a state, or with --fresh."""
        there = self.state.exists() and not self.options.fresh
        if not processes.gather(there)[0]:                 # the first process decides: it is the one that deletes
            return None
        try:
            with safe_open(self.state, "pt") as file:
                record = json.loads(file.metadata()["run"])
            return {"step": int(record["step"]), "options": dict(record["options"]), **record}
        except Exception as error:                         # whatever a torn or foreign file makes its reader say
            raise UserError(f"{self.state}: cannot be read ({error}); start anew with --fresh") from None

    def compare(self):
        """Refuses a folder that is not this run's."""
        found = read_checkpoint_record(self.folder)
        compare_character(self.folder, found, self.owner)
        holds_model = (self.folder / "config.json").exists() or (self.folder / "llm_config.json").exists()
        if holds_model and found.get("stage") != self.stage:
            raise UserError(f"{self.folder}: holds a model that this stage did not make; give another --out")
        if holds_model and not self.record and not self.options.fresh:
            raise UserError(f"{self.folder}: holds a checkpoint without {self.state.name}, so it cannot go on; "
                            "start anew with --fresh, or give another --out")
        if not self.record:
            return
        compare_character(self.folder, self.record, self.owner)
        had, ours = self.record["options"], asdict(self.options)
        counted = "iterations" if hasattr(self.options, "iterations") else "steps"       # grpo.py's steps are others
        not_compared = {counted, *FREE_OPTIONS, *self.begins_with}
        changed = [name for name in had if name in ours and name not in not_compared and had[name] != ours[name]]
        if changed:
            told = ", ".join(f"{option_name(name)} {had[name]}" for name in changed)
            raise UserError(f"{self.folder}: its run had {told}; use the same to go on, or --fresh")
        for name, value in self.begins_with.items():
            if self.record.get("begins_with", {}).get(name, value) != value:
                raise UserError(f"{self.folder}: {option_name(name)} {ours.get(name, '')}: not what this run began "
                                "with, or changed since; give that one, or start anew with --fresh")
        if self.record["step"] >= self.total and found.get("step") == self.record["step"]:
            raise UserError(f"{self.folder}: finished at step {self.record['step']}; give more --{counted} to go on, or "
                            "--fresh to start anew")

    def restore(self, model, trained: dict, optimizer, average=None):
        """Goes on from the last save, or begins the log.

        model, trained (its parameters that learn, by name) and optimizer are those that the loop will use. `average`,
        if given, stands for a moving average of the weights: average.state() is a dict of its live tensors, which are
        saved and filled again; inside `with average.swapped():` the model has the averaged weights, and so the
        checkpoint has them."""
        self.model, self.trained, self.optimizer, self.average = model, trained, optimizer, average
        if self.record:
            self.load_state()
            self.mend_log()
            self.say(f"going on from step {self.step} of {self.folder}")
        else:
            self.forget()
            write_beside(self.log_file, lambda path: path.write_text(self.log_head() + "\n", "utf-8"))
        self.first_step = self.step
        self.first_weights = {name: sample(p) for name, p in trained.items()}

    @torch.no_grad()
    def load_state(self):
        try:
            with safe_open(self.state, "pt") as file:
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}     # not the file's own memory
            for name, p in self.trained.items():
                p.copy_(processes.sharded_like(tensors[f"weights.{name}"], p))
                for key in MOMENTS:                        # a weight that never had a gradient has none yet
                    if f"{key}.{name}" in tensors:
                        self.optimizer.state[p][key] = processes.sharded_like(tensors[f"{key}.{name}"], p)
                if f"step.{name}" in tensors:
                    self.optimizer.state[p]["step"] = tensors[f"step.{name}"].to(p.device)
            for name, mean in self.average_state().items():
                mean.copy_(processes.sharded_like(tensors[f"average.{name}"], mean))
        except Exception as error:
            raise UserError(f"{self.state}: does not fit ({error}); start anew with --fresh") from None
        self.step = self.record["step"]

    def shown_weights(self):
        """Inside, the model has the weights that are shown, scored and saved for other scripts."""
        return self.average.swapped() if self.average else nullcontext()

    def average_state(self) -> dict:
        return self.average.state() if self.average else {}

    def forget(self):
        """Removes what an earlier run left in the folder, so that nothing of it is taken for this one's."""
        a_run = self.log_file.exists() or self.state.exists() or read_checkpoint_record(self.folder)
        if not processes.is_main() or not a_run:
            return
        for name in (STATE, NEARNESS, self.log_file.name, "curves.png", *CHECKPOINT):
            (self.folder / name).unlink(missing_ok=True)
        for file in self.folder.glob("step_*.png"):
            file.unlink()

    # -- the loop --

    def steps(self, show: tuple = ("loss",)):
        """Yields the number of every step that is left, counted from 0. When the loop's body comes back for the next,
        its step is finished, and is saved if that is due. `show`: what to show of a logged row at the progress bar.

        Ctrl-C asks to stop after the step. Then the run is saved, and the script ends with code 130."""
        self.show = show
        try:
            if self.step >= self.total:                    # killed between its last state and its last checkpoint
                self.save_checkpoint()
            with self.watching_signals(), self.progress_bar() as self.bar:
                while self.step < self.total and not self.asked_to_stop():
                    self.step += 1
                    self.began = time.time()
                    yield self.step - 1
                    self.bar.update()
                    if self.due(self.options.save_every):
                        self.save()
            if self.step < self.total:
                self.stop()
        finally:
            unlock(self.folder)

    def stop(self):
        """The end that Ctrl-C asked for."""
        self.save()
        again = [word for word in getattr(self.options, "argv", []) if word != "--fresh"]
        self.say(f"stopped at step {self.step}, saved in {self.folder}; go on with: "
                  + command(f"{self.stage.replace('-', '_')}.py", *again))
        sys.exit(130)

    def due(self, every: int) -> bool:
        """Whether something that is done every so many steps is to be done now. It is at the last step; with 0, only
        there."""
        return self.step == self.total or (every > 0 and self.step % every == 0)

    def progress_bar(self) -> tqdm:
        return tqdm(total=self.total, initial=self.step, desc=self.stage, disable=not processes.is_main())

    @contextmanager
    def watching_signals(self):
        """Ctrl-C, or a polite kill, only asks: the step is finished first, so what is saved is always a whole step."""
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                before[number] = signal.signal(number, self.interrupt)
            except ValueError:                             # not in the main thread
                pass
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def interrupt(self, *_):
        now = time.time()
        if not self.stopped:
            self.stopped = now
            tqdm.write("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        elif processes.world_size() == 1 or now - self.stopped > 1:     # torchrun passes every signal on twice
            tqdm.write("stopped; the last save stays as it was", file=sys.stderr)
            raise KeyboardInterrupt

    def asked_to_stop(self) -> bool:
        """Whether any process was asked to: all end after the same step."""
        self.stopped = max(processes.gather(self.stopped))
        return bool(self.stopped)

    def finish(self, script: str = "", *arguments):
        """The last message: how long it took, how far the weights moved, and the command to give next. After it the
        processes know nothing of each other."""
        steps = self.step - self.first_step
        parts = [f"at step {self.step} after {steps} steps in {(time.time() - self.start_time) / 60:.1f} min"]
        memory = peak_memory()
        if memory is not None:
            parts.append(f"peak memory {memory:.2f} GB")
        if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
            parts.append(f"on the GPU {torch.cuda.max_memory_allocated() / 2**30:.2f} GB")
        moved = self.moved()
        parts.append(f"weights moved by {100 * moved:.2g} %")
        self.say(f"{self.folder}: {', '.join(parts)}")
        if steps and moved < NOTHING:
            self.say("warning: nothing was learned, the weights are still what they were; is --lr too small?")
        if script:
            self.say(f"Next: {command(script, *arguments)}")
        processes.leave()

    # -- what is written --

    def log(self, row: dict):
        """Appends a row. The first of a step also gets its seconds. Raises UserError if a value is not finite."""
        check_finite(row, self.step)
        row = {"step": self.step, **{name: rounded(value) for name, value in row.items()}}
        if self.began is not None:
            row["seconds"] = round(time.time() - self.began, 3)
            self.began = None
            self.notice_slow_step(row["seconds"])
            self.bar.set_postfix({name.split("/")[-1]: f"{row[name]:.3f}" for name in self.show if name in row})
        if processes.is_main():
            with open(self.log_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def notice_slow_step(self, seconds: float):
        """Another program that keeps a core busy can slow the threads of a step down many times."""
        usual = statistics.median(self.seconds) if len(self.seconds) >= STEPS_FOR_MEDIAN else math.inf
        recently = self.told_slow and self.step - self.told_slow < 100
        if seconds > max(SLOW * usual, 1.0) and not recently:
            self.told_slow = self.step
            threads = torch.get_num_threads()
            self.write(f"step {self.step} took {seconds:.1f} s, the others {usual:.2f}: another program may be using "
                       f"the processor. With OMP_NUM_THREADS={max(1, threads - 1)} set, it disturbs less")
        self.seconds = [*self.seconds[-99:], seconds]

    def log_head(self) -> str:
        versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
        return json.dumps({"stage": self.stage, "seed": self.options.seed, "options": asdict(self.options),
                           "versions": versions, "threads": torch.get_num_threads()})

    def mend_log(self):
        """Leaves the rows up to the step of the state. A kill may have cut the last row, or a full disk another."""
        rows = read_rows(self.log_file)
        lines = [json.dumps(row) for row in rows if row.get("step", math.inf) <= self.step]
        write_beside(self.log_file, lambda path: path.write_text("\n".join([self.log_head(), *lines]) + "\n", "utf-8"))

    def rows(self, name: str) -> list[float]:
        """What the log has of one name."""
        return [row[name] for row in read_rows(self.log_file) if name in row]

    def save(self):
        """The state for going on, the checkpoint that the other scripts take, and the curves."""
        self.check_weights()
        tensors = {}
        for name, p in self.trained.items():
            tensors[f"weights.{name}"] = processes.full(p.detach())
            for key, value in self.optimizer.state.get(p, {}).items():
                tensors[f"{key}.{name}"] = processes.full(value)
        for name, mean in self.average_state().items():
            tensors[f"average.{name}"] = processes.full(mean)
        record = {"step": self.step, "options": asdict(self.options), "begins_with": self.begins_with,
                  "character": self.owner}
        write_beside(self.state, lambda path: save_file(tensors, path, {"run": json.dumps(record)}))
        self.save_checkpoint()
        write_beside(self.folder / "curves.png", lambda path: draw_curves(read_rows(self.log_file), path))

    def save_checkpoint(self):
        with self.shown_weights():
            save(self.model, self.folder, {"stage": self.stage, "step": self.step, "character": self.owner,
                                           **asdict(self.options)})

    def check_weights(self):
        """Raises UserError if the weights cannot be sound: a loss shows that only one step later."""
        finite = all(bool(processes.local(p.detach()).isfinite().all()) for p in self.trained.values())
        moved = self.moved()
        if not all(processes.gather(finite)) or moved > EXPLODED:
            raise UserError(f"{self.folder}: step {self.step}: the weights have exploded (moved by {moved:.3g} times "
                            f"their size) and are not saved; what was saved before is sound. Take a lower --lr")

    def moved(self) -> float:
        """How far the weights went since this process began, relative to what they were, from a sample of them."""
        change = before = 0.0
        for name, first in self.first_weights.items():
            change += float((sample(self.trained[name]) - first).square().sum())
            before += float(first.square().sum())
        change, before = processes.sum_over_processes(change), processes.sum_over_processes(before)
        return math.sqrt(change / before) if before else math.sqrt(change)

    def sample_grid(self, prompts: list[str]):
        """Draws the prompts, always with the same seeds: what the loss cannot show."""
        was_training = self.model.training
        with self.model.autocast(self.options.precision):
            images = self.model.eval().sample_images(prompts, list(range(len(prompts))))
        self.model.train(was_training)
        page = picture_grid([images[at:at + 4] for at in range(0, len(images), 4)])
        path = self.folder / f"step_{self.step:05d}.png"
        write_beside(path, lambda temporary: page.save(temporary, "PNG"))
        self.write(f"step {self.step}: {path}")

    def say(self, text: str):
        """A line of the script's own output."""
        if processes.is_main():
            say(text)

    def write(self, text: str):
        """A line above the progress bar."""
        if processes.is_main():
            tqdm.write(printable(text), file=sys.stderr)


def rounded(value):
    return round(value, 7) if isinstance(value, float) else value


# ---- reading what a run has left -------------------------------------------------------------------------------------

def read_rows(log_file: Path) -> list[dict]:
    """The rows of a log without its head. What is not a whole row is left out."""
    rows = []
    if not log_file.exists():
        return rows
    for line in log_file.read_text("utf-8", "replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            rows.append(row)
    return rows


def read_checkpoint_record(folder: Path) -> dict:
    """What a checkpoint says about the run that made it; {} without a checkpoint, or if it cannot be read."""
    try:
        record = json.loads((Path(folder) / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    run = record.get("run") if isinstance(record, dict) else None
    return run if isinstance(run, dict) else {}


def check_character(folder: Path, character) -> None:
    """Raises UserError if the checkpoint in a folder is another character's: two character folders of one name, in
    different places, share runs/<name>."""
    owner = {"name": character.name, "folder": str(character.folder), "about": character.description}
    compare_character(folder, read_checkpoint_record(folder), owner)


def compare_character(folder: Path, record: dict, owner: dict | None) -> None:
    had = record.get("character")
    if not isinstance(had, dict) or owner is None or had.get("folder") == owner["folder"]:
        return
    if all(had.get(key) == owner[key] for key in ("name", "about")):                # its folder was moved
        return
    raise UserError(f"{folder}: belongs to {had.get('name')} of {had.get('folder')}, not to {owner['name']} of "
                    f"{owner['folder']}; give this one a folder of its own with --out")


def sample(p: torch.Tensor, most: int = 4096) -> torch.Tensor:
    """A copy of some numbers of a parameter, evenly spread, at most about `most`."""
    flat = processes.local(p.detach()).flatten()
    return flat[::max(1, len(flat) // most)].float().clone()
