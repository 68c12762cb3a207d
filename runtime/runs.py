"""What a run leaves on disk, and how it goes on after any kill. Both stages use it; neither needs it to be understood.

    runs/<char>/<stage>/log.jsonl            a line with seed, options and versions, then one for every step
                        step_00100.png       held-out prompts, always with the same seeds
                        config.json ...      the checkpoint that grpo.py, eval.py and chat.py take
                        state.safetensors    what the next step needs: weights, their average, the optimizer's moments
"""
import json
import math
import signal
import sys
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from backbone.folders import save
from runtime import processes
from runtime.cli import UserError, peak_memory
from runtime.files import write_beside


class Means:
    """Weighted means and largest values by name, over all processes."""
    def __init__(self):
        self.rows = []                                     # of (name, value, weight); weight None: only the largest

    def __call__(self, name: str, value: float, weight: float = 1.0):
        self.rows.append((name, value, weight))

    def largest(self, name: str, value: float):
        self.rows.append((name, value, None))

    def result(self) -> dict[str, float]:
        by_name = defaultdict(list)
        for name, value, weight in (row for rows in processes.gathered(self.rows) for row in rows):
            by_name[name].append((value, weight))
        return {name: round(max(v for v, _ in rows) if rows[0][1] is None else
                            sum(v * w for v, w in rows) / sum(w for _, w in rows), 7)
                for name, rows in sorted(by_name.items())}


class Run:
    """A run's folder: log.jsonl, sheets, the checkpoint, and state.safetensors, from which it goes on after any kill.

    Everything that a step needs is in ONE file, replaced by one rename, so no kill can leave halves of two steps.
    With `ema` above 0 the checkpoint has a moving average of the weights.
    """

    def __init__(self, folder: Path, stage: str, options, model, trained: dict, optimizer, ema: float = 0.0):
        self.ema, self.average = ema, {name: p.detach().clone() for name, p in trained.items()} if ema else {}
        self.folder, self.stage, self.options = folder, stage, options
        self.model, self.trained, self.optimizer = model, trained, optimizer
        self.step, self.stopped, self.start = 0, False, time.time()
        self.state, self.log_file = folder / "state.safetensors", folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if options.fresh and processes.rank() == 0:
            for file in (self.state, self.log_file):
                file.unlink(missing_ok=True)
        if self.state.exists():
            self.resume()
        else:
            versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
            head = {"stage": stage, "seed": options.seed, "options": asdict(options), "versions": versions,
                    "threads": torch.get_num_threads()}
            write_beside(self.log_file, lambda path: path.write_text(json.dumps(head) + "\n"))
        # Ctrl-C only asks: the step is finished first, so what is saved is always a whole step.
        signal.signal(signal.SIGINT, self.interrupt)

    @torch.no_grad()
    def advance(self):
        """A step is done. The first ones weigh alike in the average, so that it soon forgets where the run began."""
        self.step += 1
        for name, mean in self.average.items():
            mean.lerp_(self.trained[name].detach(), max(1 - self.ema, 1 / self.step))

    @contextmanager
    def averaged(self):
        """Inside, the model has the averaged weights: those that are shown, scored, and saved for other scripts."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self):
        for name, mean in self.average.items():
            kept = self.trained[name].detach().clone()
            self.trained[name].copy_(mean)
            mean.copy_(kept)

    def stop(self) -> bool:
        """Whether any process was asked to: they end after the same step."""
        self.stopped = any(processes.gathered(self.stopped))
        return self.stopped

    def interrupt(self, *_):
        if self.stopped:
            raise KeyboardInterrupt
        self.stopped = True
        tqdm.write("stopping after this step; Ctrl-C again stops at once", file=sys.stderr)

    def resume(self):
        try:
            with safe_open(self.state, "pt") as file:
                record = json.loads(file.metadata()["run"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
        except Exception as error:
            raise UserError(f"{self.state}: cannot be read ({error}); start anew with --fresh") from None
        ours, length = asdict(self.options), "iterations" if self.stage == "grpo" else "steps"     # grpo's steps are K
        free = (length, "out", "save_every", "sample_every", "eval_every", "fresh", "device", "gpus")
        changed = [k for k, v in record["options"].items() if k not in free and ours.get(k) != v]
        if changed:
            had = ", ".join(f"--{k} {record['options'].get(k)}" for k in changed)
            raise UserError(f"{self.folder}: its run had {had}; use the same to go on, or --fresh")
        if record["step"] >= ours[length]:
            raise UserError(f"{self.folder}: finished at step {record['step']}; "
                            f"give more --{length} to go on, or --fresh to start anew")
        self.step = record["step"]
        with torch.no_grad():
            for name, p in self.trained.items():
                p.copy_(processes.divided(tensors[f"weights.{name}"], p))
                if name in self.average:
                    self.average[name].copy_(processes.divided(tensors[f"average.{name}"], p))
                if f"step.{name}" in tensors:       # no gradient yet, no state: as the connector's before a look
                    self.optimizer.state[p] = {"step": tensors[f"step.{name}"].to(p.device)} | {
                        k: processes.divided(tensors[f"{k}.{name}"], p) for k in ("exp_avg", "exp_avg_sq")}
        rows = self.log_file.read_text().splitlines()
        rows = [row for row in rows if row.endswith("}")]                           # a kill may have cut the last one
        kept = rows[:1] + [row for row in rows[1:] if json.loads(row)["step"] <= self.step]
        write_beside(self.log_file, lambda path: path.write_text("\n".join(kept) + "\n"))
        print(f"going on from step {self.step} of {self.folder}")

    def save(self):
        """State for going on, and the checkpoint that the other scripts take."""
        tensors = {}
        for name, p in self.trained.items():
            tensors[f"weights.{name}"] = processes.whole(p.detach())
            if p in self.optimizer.state:
                tensors |= {f"{k}.{name}": processes.whole(v) for k, v in self.optimizer.state[p].items()}
        tensors |= {f"average.{name}": processes.whole(mean) for name, mean in self.average.items()}
        record = json.dumps({"step": self.step, "options": asdict(self.options)})
        write_beside(self.state, lambda path: save_file(tensors, path, {"run": record}))
        with self.averaged():
            save(self.model, self.folder, {"stage": self.stage, "step": self.step, **asdict(self.options)})

    def log(self, row: dict):
        if processes.rank() > 0:
            return
        with open(self.log_file, "a") as file:
            file.write(json.dumps({"step": self.step, **row}) + "\n")

    def rows(self, name: str) -> list[float]:
        """What the log has of one name."""
        rows = map(json.loads, self.log_file.read_text().splitlines()[1:])
        return [row[name] for row in rows if name in row]

    def sample_grid(self, prompts: list[str], per_prompt: int = 1):
        """Held-out prompts, always with the same seeds: what the loss cannot show."""
        was_training, repeated = self.model.training, [p for p in prompts for _ in range(per_prompt)]
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.options.precision == "bf16"):
            images = self.model.eval().sample_images(repeated, list(range(len(repeated))))
        self.model.train(was_training)
        w, h = images[0].size
        page = Image.new("RGB", (w * min(4, len(images)), h * math.ceil(len(images) / 4)))
        for i, image in enumerate(images):
            page.paste(image, (i % 4 * w, i // 4 * h))
        path = self.folder / f"step_{self.step:05d}.png"
        write_beside(path, lambda p: page.save(p, "PNG"))
        tqdm.write(f"step {self.step}: {path}", file=sys.stderr)

    def finish(self, following: str, again: str):
        if self.stopped:
            self.save()
            print(f"stopped at step {self.step}, saved in {self.folder}; go on with: {again}")
            sys.exit(130)
        print(f"{self.folder}: {self.step} steps in {(time.time() - self.start) / 60:.1f} min, "
              f"peak memory {peak_memory():.2f} GB. Next: {following}")
