"""How fast is this machine, at equal work: one training step, one denoising step, one reply token.

    python -m runtime.bench           the tiny model and one of a hundred million numbers

The measure that travels between machines is the last column: floating-point operations of the MODEL per second (as
counted by torch.utils.flop_counter; what checkpointing computes twice counts once) over those of the machine's own best
matrix product, measured here, now, in the same precision. Medians; a busy machine shows in the spread.
"""
import statistics
import time
from dataclasses import dataclass, replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from backbone.folders import load, pick_device
from backbone.vision import to_images
from data import Sample
from model import Config, UniModel
from runtime.batching import Row
from runtime.cli import parse_options, run_script
from runtime.runs import Means
from sft import Options as SftOptions
from sft import accumulate

MID = Config(hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8,
             num_key_value_heads=2, vit_hidden_size=384, vit_intermediate_size=1024, vit_num_attention_heads=6)


@dataclass
class Options:
    model: str = "tiny/base"      # the small model, whose tokenizer the large one borrows
    sizes: str = "tiny,mid"       # which of them
    repeats: int = 7              # of every measurement; the first, which compiles kernels, is not counted
    batch: int = 12               # Samples of a micro-batch, of which a training step has three, as sft.py's has;
    #                               pictures of a denoising step
    precision: str = "bf16"       # bf16 or fp32
    device: str = "auto"          # auto, cpu, cuda or mps


def seconds(work, repeats: int, device) -> list[float]:
    """Times of `work()`, sorted, the first run apart."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return sorted(times[1:])


def matmul_rate(device, dtype, n: int = 1536) -> float:
    """FLOP/s of the best of several n x n products: what this machine could do at most."""
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    return 2 * n ** 3 / seconds(lambda: a @ b, 9, device)[0]


def works(model: UniModel, o: Options) -> dict:
    """-> name: (work, how many units it does, of what)."""
    generator = torch.Generator().manual_seed(0)
    pictures = to_images(torch.rand(o.batch, 3, model.config.image_size, model.config.image_size, generator=generator))
    prompts = [f"Coco waves in the meadow, picture {i}." for i in range(o.batch)]
    kinds = (lambda p, x: Sample("t2i", p, target=x), lambda p, x: Sample("reply", p, "Good day to you, my friend."),
             lambda p, x: Sample("vqa", p, "red", image=x))
    samples = [kinds[i // o.batch](p, x) for i, (p, x) in enumerate(zip(3 * prompts, 3 * pictures))]
    batch = [Row(s.task, model.prepare(s), i) for i, s in enumerate(samples)]
    options = replace(SftOptions(), precision=o.precision, micro_batch=o.batch)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0, fused=True)

    def train():
        accumulate(model, batch, options, Means(0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    with torch.no_grad():
        context, one = model.context(prompts), model.context(prompts[:1])
    x, t = model.noise(range(o.batch)), torch.tensor(0.5, device=model.device)
    token = torch.full((1, 1), model.bos, device=model.device)
    return {"training step": (train, len(batch), "Samples"),
            "denoising step": (lambda: model.velocity(x, t, context), o.batch, "images"),
            "reply token": (lambda: model.language_model.lm_head(model.extend(one, token)[0]), 1, "tokens")}


def measure(name: str, model: UniModel, o: Options, peak: float) -> list[str]:
    lines, enabled = [], o.precision == "bf16"
    for what, (work, units, unit) in works(model, o).items():
        with torch.set_grad_enabled(what == "training step"), torch.autocast(
                model.device.type, torch.bfloat16, enabled=enabled and what != "training step"):
            with FlopCounterMode(display=False) as counter:
                work()
            times = seconds(work, o.repeats, model.device)
        middle, flops = statistics.median(times), counter.get_total_flops()
        lines.append(f"{name:6} {what:15} {1000 * middle:9.1f} ms ({1000 * times[0]:.1f} to {1000 * times[-1]:.1f})"
                     f" {units / middle:9.1f} {unit:7}/s {flops / 1e9:9.2f} GFLOP {100 * flops / middle / peak:6.3g} %")
    return lines


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    device = pick_device(o.device)
    peak = matmul_rate(device, torch.bfloat16 if o.precision == "bf16" else torch.float32)
    print(f"{device}, {torch.get_num_threads()} threads, {o.precision}: best matrix product {peak / 1e9:.0f} GFLOP/s")
    model = load(o.model, o.device)
    for name in o.sizes.split(","):
        if name == "mid":
            torch.manual_seed(0)
            model = UniModel(replace(MID, vocab_size=model.config.vocab_size), model.tokenizer).to(device)
            model.init_weights()
        print(*measure(name, model, o, peak), sep="\n", flush=True)


if __name__ == "__main__":
    run_script(main)
