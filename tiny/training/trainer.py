"""One training loop for everything that tiny/ trains: it saves, resumes, logs, and averages the weights."""
import json
import random
import shutil
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel

from runtime.files import write_beside
from runtime.processes import is_main, pick_precision, rank, world_size

SAVE_EVERY = 120                       # seconds of work that a kill may cost


def autocast():
    return torch.autocast("cpu", torch.bfloat16, enabled=pick_precision(torch.device("cpu")) == "bf16")


def compile_layers(model):
    """Makes the decoder's layers 1.45 times faster on a CPU (bf16, forward and backward), after a minute of compiling,
    where there is a C++ compiler. Too slow to start for the few hundred steps of sft.py."""
    if shutil.which("g++"):
        torch._dynamo.config.recompile_limit = 64          # at the default, 8, it gives up in silence
        for layer in model.language_model.model.layers:
            layer.compile(dynamic=True)


@contextmanager
def as_written(model):
    """Without what `compile_layers` did: for a look now and then, whose shapes are not worth compiling for."""
    layers = model.language_model.model.layers
    compiled = [layer._compiled_call_impl for layer in layers]
    for layer in layers:
        layer._compiled_call_impl = None
    yield
    for layer, fast in zip(layers, compiled):
        layer._compiled_call_impl = fast


class Trainer:
    """Trains the parameters of a module that require a gradient, for a number of steps that is known from the start.

    Step k draws its random numbers from the seed k alone, so a run that was killed goes on as if it had not been.
    Of W processes (torchrun) each has numbers of its own, and the gradients are averaged.
    Matrices inside layers can learn with Muon, which makes the update of a weight matrix orthogonal
    (kellerjordan.github.io/posts/muon); tables, heads and vectors keep AdamW."""

    def __init__(self, work: Path, name: str, module, steps: int, lr: float, muon_lr: float = 0.0,
                 decay: float = 0.01, average: float = 0.999, warmup: int = 100, flat: float = 0.2,
                 tables: dict[str, float] | None = None):
        self.work, self.name, self.module, self.steps = work, name, module, steps
        self.state_file, self.log_file = work / f"{name}.state", work / f"{name}.jsonl"
        self.average_rate, self.warmup, self.flat = average, warmup, flat
        self.step, self.seconds = 0, 0.0
        self.params = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.params.items()}
        self.optimizers = self.make_optimizers(lr, muon_lr, decay, tables or {})
        self.peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.saved_along: list[Trainer] = []               # others that take their steps inside this one's
        if self.state_file.exists():
            self.resume()

    def make_optimizers(self, lr: float, muon_lr: float, decay: float, tables: dict[str, float]) -> list:
        """`tables`: name of a parameter -> a rate of its own, with AdamW."""
        inside = {n for n, p in self.params.items() if muon_lr and p.ndim == 2 and "layer" in n}
        others = [p for n, p in self.params.items() if n not in inside and n not in tables]
        groups = [{"params": [self.params[n]], "weight_decay": decay, "lr": rate} for n, rate in tables.items()]
        groups += [{"params": [p for p in others if p.ndim > 1], "weight_decay": decay},
                   {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0}]
        optimizers = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]
        if inside:
            matrices = [self.params[n] for n in sorted(inside)]
            optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=decay,
                                               adjust_lr_fn="match_rms_adamw"))
        return optimizers

    # -- what survives a kill --
    def save(self):
        state = {"step": self.step, "seconds": self.seconds, "average": self.average,
                 "weights": {n: p.detach() for n, p in self.params.items()},
                 "buffers": dict(self.module.named_buffers()),
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        write_beside(self.state_file, lambda path: torch.save(state, path))
        for other in self.saved_along:
            other.save()

    def resume(self):
        state = torch.load(self.state_file, weights_only=True)
        self.step, self.seconds, self.average = state["step"], state["seconds"], state["average"]
        self.module.load_state_dict({**state["weights"], **state["buffers"]}, strict=False)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def log(self, row: dict):
        with open(self.log_file, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(self.name, json.dumps(row), flush=True)

    # -- the average of the weights, which is better than any single step's --
    @torch.no_grad()
    def use_average(self):
        for name, p in self.params.items():
            p.copy_(self.average[name])

    @contextmanager
    def averaged(self):
        """For a look at the averaged weights in the middle of a run."""
        kept = {name: p.detach().clone() for name, p in self.params.items()}
        self.use_average()
        yield
        with torch.no_grad():
            for name, p in self.params.items():
                p.copy_(kept[name])

    def rate(self) -> float:
        """Share of the peak: warm-up, constant for a part of the way, then down in a line to one hundredth."""
        down = (1 - self.step / self.steps) / (1 - self.flat)
        return min(1.0, (self.step + 1) / self.warmup, max(0.01, down))

    # -- the loop --
    def run(self, loss_of, look=None, look_every: int = 1000):
        """`loss_of(step, rng)` sends the loss of a batch backwards, and returns numbers to log. `look(step)` is for a
        look at the averaged weights, now and then and at the end. Returns with the averaged weights in the module."""
        seen, last_save = defaultdict(list), time.monotonic()
        while self.step < self.steps:
            start = time.process_time()
            for optimizer, peaks in zip(self.optimizers, self.peaks):
                for group, peak in zip(optimizer.param_groups, peaks):
                    group["lr"] = peak * self.rate()
            seed = self.step * world_size() + rank()
            torch.manual_seed(seed)
            with sdpa_kernel(SDPBackend.MATH):             # on a CPU the fused kernel's backward pass is slow
                losses = loss_of(self.step, random.Random(seed))
            for name, value in losses.items():
                seen[name].append(float(value))
            self.update()
            self.seconds += world_size() * (time.process_time() - start)
            if not is_main():
                continue
            if self.step % 50 == 0:
                means = {name: round(sum(values) / len(values), 5) for name, values in sorted(seen.items())}
                self.log({"step": self.step, "cpu_minutes": round(self.seconds / 60, 2), **means})
                seen.clear()
            if time.monotonic() - last_save > SAVE_EVERY or self.step == self.steps:
                self.save()
                last_save = time.monotonic()
            if look and (self.step % look_every == 0 or self.step == self.steps):
                with self.averaged():
                    look(self.step)
        self.use_average()

    def update(self):
        if world_size() > 1:
            self.average_gradients()
        torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        keep = min(self.average_rate, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.params.values()], 1 - keep)

    def average_gradients(self):
        """Over the processes. All have gradients of the same parameters."""
        gradients = [p.grad for p in self.params.values() if p.grad is not None]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(whole)
        parts = (whole / world_size()).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts):
            gradient.copy_(part.view_as(gradient))
