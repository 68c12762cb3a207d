"""Stage 1, Unified-SFT: one model learns to talk as the character and to draw it, in one loop and one loss.

    python sft.py --char coco                  about eight minutes on two CPU cores -> runs/coco/sft
    python sft.py --char path/to/folder        your own character, or a folder of RoleScape-20 as published

Every step draws Samples of all seven tasks (data.py) and minimizes   w_ce CE(text) + w_mse MSE(velocity).
What the paper does (arXiv 2605.08129 and its code), and where this file differs:

1. The mixture is counted per step (--mix). The published packing gives practically one text sample per pack of
   pictures; with a small decoder the voice then hardly learns.
2. CE and MSE are means over ALL tokens of a step, however it is cut into micro-batches: --micro-batch only saves
   memory.
3. Every random number of step k comes from generators seeded with (seed, k). So a run that was killed and resumed is,
   down to the bits, the run that was never stopped. (The published resume reads a folder that is never written.)
4. The loss before the first step is checked: a base that was not really loaded shows as ln(vocabulary), and is refused.

What a fine-tune on ten pictures destroys is prompt-following: watch the held-out sheets in runs/<char>/sft, not the
loss.
"""
import json
import math
import random
import signal
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from data import UserError, load_character, parse_options, peak_memory, run_folder, run_script, training_samples
from folders import ModelError, load, save, write_beside


@dataclass
class Options:
    char: str = "coco"            # a name under characters/, or a folder
    model: str = "tiny/base"      # the base: a checkpoint folder
    out: str = ""                 # the run's folder; empty = runs/<char>/sft
    steps: int = 300              # optimizer steps (paper: 501)
    mix: str = "t2i=6,t2i_dialogue=3,t2i_plan=3,reply=5,think=1,knowledge=5,vqa=3"    # Samples of each task per step
    micro_batch: int = 12         # Samples per backward pass: lower it if memory is short
    lr: float = 3e-4              # AdamW (paper: 2e-5 on 7B)
    warmup: int = 20              # steps of linear warm-up, then constant
    clip: float = 1.0             # largest gradient norm
    w_ce: float = 0.25            # weight of cross-entropy
    w_mse: float = 1.0            # weight of the flow-matching error
    drop_text: float = 0.1        # share of T2I samples that lose their text: what guidance needs
    checkpointing: bool = False   # recompute activations in the backward pass: less memory, a third more time
    precision: str = "bf16"       # bf16 or fp32 arithmetic; weights and optimizer are float32 either way
    device: str = "auto"          # auto, cpu, cuda or mps
    seed: int = 0
    save_every: int = 50          # steps between saves
    sheet_every: int = 100        # steps between sample sheets
    fresh: bool = False           # forget a run that is already there


# ---- the mixture ---------------------------------------------------------------------------------------------------

def parse_mix(text: str, present: set[str]) -> dict[str, int]:
    """"t2i=6,reply=5" -> counts per step, of the tasks that the character has examples for."""
    try:
        mix = {task: int(count) for task, count in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"--mix {text}: write task=count,task=count with whole numbers") from None
    unknown = mix.keys() - {"t2i", "t2i_dialogue", "t2i_plan", "reply", "think", "knowledge", "vqa"}
    if unknown:
        raise UserError(f"--mix: no task is called {', '.join(sorted(unknown))}; see data.py for the seven")
    return {task: count for task, count in mix.items() if task in present and count > 0}


def draw_batch(by_task: dict[str, list], mix: dict[str, int], seed: int, step: int,
               drop_text: float) -> list[tuple[str, object]]:
    """The (task, Example) pairs of a step. Each task walks through its own shuffled list, epoch after epoch, so that in
    few steps nothing is left out; where it stands follows from the step alone."""
    batch, rng = [], random.Random(f"{seed} drop {step}")
    for task, count in mix.items():
        examples = by_task[task]
        for at in range(step * count, (step + 1) * count):
            epoch, i = divmod(at, len(examples))
            order = random.Random(f"{seed} {task} {epoch}").sample(range(len(examples)), len(examples))
            example = examples[order[i]]
            batch.append((task, example.bare if example.bare and rng.random() < drop_text else example))
    return sorted(batch, key=lambda pair: len(pair[1].ids))          # equal lengths together: little padding


# ---- one step ------------------------------------------------------------------------------------------------------

def accumulate(model, batch, options: Options, generator, record) -> float:
    """Forward and backward over all micro-batches -> loss. `record(name, value, weight)` gets the parts for the log."""
    n_ce = max(1, sum(int((e.labels >= 0).sum()) for _, e in batch))
    cells = sum(e.latent[0, 0].numel() for _, e in batch if e.latent is not None)
    n_mse = max(1, cells // model.config.latent_patch_size ** 2)
    total = 0.0
    for part in (batch[i:i + options.micro_batch] for i in range(0, len(batch), options.micro_batch)):
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            losses = model([example for _, example in part], generator)
        loss = options.w_ce * losses.ce.sum() / n_ce + options.w_mse * losses.mse.sum() / n_mse
        if loss.requires_grad:
            loss.backward()
        total += loss.item()
        per_example = (losses.ce, losses.ce_tokens, losses.mse, losses.mse_tokens, losses.t)
        for (task, _), ce, words, mse, tokens, t in zip(part, *(x.tolist() for x in per_example)):
            if words:
                record(f"ce/{task}", ce / words, words)
            if tokens:
                record(f"mse/{task}", mse / tokens, tokens)
                record(f"mse/t{int(min(t, 0.999) * 4)}", mse / tokens, tokens)     # by noise level: quarters of t
    return total


class Means:
    """Weighted means by name."""
    def __init__(self):
        self.sums = defaultdict(lambda: [0.0, 0.0])

    def __call__(self, name: str, value: float, weight: float = 1.0):
        self.sums[name][0] += value * weight
        self.sums[name][1] += weight

    def largest(self, name: str, value: float):
        self.sums[name] = [max(value, self.sums[name][0]), 1.0]

    def result(self) -> dict[str, float]:
        return {name: round(total / weight, 7) for name, (total, weight) in sorted(self.sums.items())}


# ---- the loop ------------------------------------------------------------------------------------------------------

def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    character = load_character(options.char)
    folder = Path(options.out) if options.out else run_folder(options.char, "sft")
    model = load(options.model, options.device).train()
    model.language_model.model.gradient_checkpointing = options.checkpointing
    by_task = defaultdict(list)
    for sample in tqdm(training_samples(character), "preparing", leave=False):
        by_task[sample.task].append(model.prepare(sample))
    mix = parse_mix(options.mix, set(by_task))
    counts = (f"{task} {len(items)} ({mix.get(task, 0)} a step)" for task, items in by_task.items())
    print(f"{character.name}:", ", ".join(counts))

    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=options.lr, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.0)
    run = Run(folder, "sft", options, model, trained, optimizer)
    prompts = [p.text for p in character.test["prompts"][:8]] or [scene["draw"] for scene in character.scenes[:8]]
    if run.step == 0:
        run.sheet(prompts)
    progress = tqdm(total=options.steps, initial=run.step, desc="sft")
    while run.step < options.steps and not run.stopped:
        step, start, means = run.step, time.time(), Means()
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = options.lr * min(1.0, (step + 1) / options.warmup)
        batch = draw_batch(by_task, mix, options.seed, step, options.drop_text)
        loss = accumulate(model, batch, options, generator, means)
        if step == 0:
            check_base(means.result(), model.config.vocab_size, options.model)
        norm = torch.nn.utils.clip_grad_norm_(trained.values(), options.clip).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.step += 1
        seconds = round(time.time() - start, 3)
        run.log({"loss": round(loss, 5), "grad_norm": round(norm, 4), "seconds": seconds, **means.result()})
        progress.update()
        progress.set_postfix(loss=f"{loss:.3f}")
        if run.step % options.save_every == 0 or run.step == options.steps:
            run.save()
        if run.step % options.sheet_every == 0 or run.step == options.steps:
            run.sheet(prompts)
    progress.close()
    again = "python sft.py " + " ".join(sys.argv[1:] if argv is None else argv)
    run.finish(f"python grpo.py --char {options.char}", again)


def check_base(means: dict, vocabulary: int, path: str):
    """A decoder with random weights guesses every word: CE = ln V."""
    ce = [value for name, value in means.items() if name.startswith("ce/")]
    print("loss before the first step:", ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    if ce and sum(ce) / len(ce) > 0.95 * math.log(vocabulary):
        found = f"{sum(ce) / len(ce):.2f} of ln V = {math.log(vocabulary):.2f}"
        raise UserError(f"{path}: its cross-entropy is that of random weights ({found}); give a trained base")


# ---- what a run leaves on disk: shared with grpo.py ----------------------------------------------------------------

class Run:
    """A run's folder: log.jsonl, sheets, the checkpoint, and state.safetensors, from which it goes on after any kill.

    Everything that a step needs is in ONE file, replaced by one rename, so no kill can leave halves of two steps.
    """

    def __init__(self, folder: Path, stage: str, options, model, trained: dict, optimizer):
        self.folder, self.stage, self.options = folder, stage, options
        self.model, self.trained, self.optimizer = model, trained, optimizer
        self.step, self.stopped, self.start = 0, False, time.time()
        self.state, self.log_file = folder / "state.safetensors", folder / "log.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        if options.fresh:
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
        free = (length, "save_every", "sheet_every", "eval_every", "fresh", "device")
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
                p.copy_(tensors[f"weights.{name}"])
                if f"step.{name}" in tensors:       # no gradient yet, no state: as the eye's before the first look
                    self.optimizer.state[p] = {k: tensors[f"{k}.{name}"].to("cpu" if k == "step" else p.device)
                                               for k in ("step", "exp_avg", "exp_avg_sq")}
        rows = self.log_file.read_text().splitlines()
        rows = [row for row in rows if row.endswith("}")]                           # a kill may have cut the last one
        kept = rows[:1] + [row for row in rows[1:] if json.loads(row)["step"] <= self.step]
        write_beside(self.log_file, lambda path: path.write_text("\n".join(kept) + "\n"))
        print(f"going on from step {self.step} of {self.folder}")

    def save(self):
        """State for going on, and the checkpoint that the other scripts take."""
        tensors = {}
        for name, p in self.trained.items():
            tensors[f"weights.{name}"] = p.detach()
            if p in self.optimizer.state:
                tensors |= {f"{k}.{name}": v for k, v in self.optimizer.state[p].items()}
        record = json.dumps({"step": self.step, "options": asdict(self.options)})
        write_beside(self.state, lambda path: save_file(tensors, path, {"run": record}))
        save(self.model, self.folder, {"stage": self.stage, "step": self.step, **asdict(self.options)})

    def log(self, row: dict):
        with open(self.log_file, "a") as file:
            file.write(json.dumps({"step": self.step, **row}) + "\n")

    def sheet(self, prompts: list[str], per_prompt: int = 1):
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


if __name__ == "__main__":
    run_script(main, ModelError)
