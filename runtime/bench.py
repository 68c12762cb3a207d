"""How fast is this machine: a training step, a denoising step, a reply token; and text beside transformers' Qwen2.

    python -m runtime.bench           the tiny model and one of a hundred million numbers; about three minutes

1. Each kind of work is timed alone. The last column travels between machines: floating-point operations of the model
   per second, over those of this machine's own best matrix product, measured here and now in the same precision. What
   checkpointing computes twice counts once.
2. The und expert is a Qwen2 (or, with norms on q and k, a Qwen3). So the same weights are put into transformers' class,
   and both make the same forward and backward pass over the same replies. They take turns, so a busy machine slows
   both. Ours meets the vocabulary only where a token is learned, and reads once what all texts begin with.

All times are medians. A busy machine shows in the spread.
"""
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from backbone.folders import load
from backbone.vision import to_images
from data import Sample, load_character, training_samples
from model import EXPERTS, Config, Example, UniModel
from runtime.batching import Row
from runtime.cli import UserError, parse_options, run_script
from runtime.processes import pick_device, pick_precision
from runtime.runs import Means
from sft import Options as SftOptions
from sft import accumulate

MID = Config(hidden_size=512, intermediate_size=1408, num_hidden_layers=12, num_attention_heads=8,
             num_key_value_heads=2, vit_hidden_size=384, vit_intermediate_size=1024, vit_num_attention_heads=6)


@dataclass
class Options:
    model: str = "tiny/base"      # the small model, whose tokenizer the large one borrows
    char: str = "coco"            # whose replies are compared with transformers' Qwen2
    sizes: str = "tiny,mid"       # which of them
    repeats: int = 7              # of every measurement; one more, which compiles kernels, is not counted
    batch: int = 12               # Samples of a micro-batch (a training step has three), pictures of a denoising step
    precision: str = "auto"       # of products: bf16 or fp32; auto = bf16 where the hardware multiplies it
    device: str = "auto"          # auto, cpu, cuda or mps


# ---- timing ----------------------------------------------------------------------------------------------------------

def seconds(work: Callable, device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def take_turns(works: list[Callable], repeats: int, device: torch.device) -> list[list[float]]:
    """Seconds of each work, `repeats` times, one after the other in every round. The first round is not counted."""
    rounds = [[seconds(work, device) for work in works] for _ in range(repeats + 1)]
    return [list(times) for times in zip(*rounds[1:])]


def matmul_rate(device: torch.device, dtype: torch.dtype, n: int = 1536) -> float:
    """FLOP/s of the best of several n x n products: what this machine could do at most."""
    a, b = torch.randn(2, n, n, device=device, dtype=dtype)
    [times] = take_turns([lambda: a @ b], 9, device)
    return 2 * n ** 3 / min(times)


def matmul_type(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float32


# ---- the kinds of work -----------------------------------------------------------------------------------------------

@dataclass
class Work:
    name: str
    run: Callable
    count: int                                             # of units that it does
    unit: str


def training_step(model: UniModel, o: Options) -> Work:
    """Three micro-batches as sft.py has them: pictures to draw, replies, questions about pictures."""
    side, generator = model.config.image_size, torch.Generator().manual_seed(0)
    samples = []
    for i, picture in enumerate(to_images(torch.rand(o.batch, 3, side, side, generator=generator))):
        prompt = f"Coco waves in the meadow, picture {i}."
        samples += [Sample("t2i", prompt, target=picture), Sample("reply", prompt, "Good day to you, my friend."),
                    Sample("vqa", prompt, "red", image=picture)]
    samples.sort(key=lambda sample: sample.task)
    batch = [Row(sample.task, model.prepare(sample), i) for i, sample in enumerate(samples)]
    options = replace(SftOptions(), precision=o.precision, micro_batch=o.batch)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, fused=True)

    def step():
        with torch.enable_grad():
            accumulate(model, batch, options, Means(0))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return Work("training step", step, len(batch), "Samples")


def denoising_step(model: UniModel, o: Options) -> Work:
    context = model.context([f"Coco waves in the meadow, picture {i}." for i in range(o.batch)])
    x, t = model.noise(range(o.batch)), torch.tensor(0.5, device=model.device)
    return Work("denoising step", lambda: model.velocity(x, t, context), o.batch, "images")


def reply_token(model: UniModel, o: Options) -> Work:
    context = model.context(["Coco waves in the meadow."])
    token = torch.full((1, 1), model.bos, device=model.device)

    def write():
        hidden, _ = model.extend(context, token)
        return model.language_model.lm_head(hidden)
    return Work("reply token", write, 1, "tokens")


@torch.no_grad()
def measure(name: str, model: UniModel, o: Options, peak: float):
    """A line for each kind of work; `peak` is the machine's best rate in FLOP/s."""
    with model.autocast(o.precision):
        works = [training_step(model, o), denoising_step(model, o), reply_token(model, o)]
        for work in works:
            with FlopCounterMode(display=False) as counter:
                work.run()
            [times] = take_turns([work.run], o.repeats, model.device)
            middle, flops = statistics.median(times), counter.get_total_flops()
            print(f"{name:5} {work.name:14} {1000 * middle:8.1f} ms ({1000 * min(times):.1f} to "
                  f"{1000 * max(times):.1f}) {work.count / middle:8.1f} {work.unit:7}/s "
                  f"{flops / 1e9:8.2f} GFLOP {100 * flops / middle / peak:6.3g} %", flush=True)


# ---- beside transformers' Qwen2 --------------------------------------------------------------------------------------

def qwen2_like(model: UniModel) -> tuple[UniModel, Qwen2ForCausalLM]:
    """A model of these sizes without norms on q and k, and a Qwen2 with the weights of its und expert."""
    c = replace(model.config, qk_norm=False)
    ours = UniModel(c, model.tokenizer)
    ours.init_weights()
    theirs = Qwen2ForCausalLM(Qwen2Config(
        vocab_size=c.vocab_size, hidden_size=c.hidden_size, intermediate_size=c.intermediate_size,
        num_hidden_layers=c.num_hidden_layers, num_attention_heads=c.num_attention_heads,
        num_key_value_heads=c.num_key_value_heads, head_dim=c.head_dim, rms_norm_eps=c.rms_norm_eps,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta}))
    weights = ours.language_model.state_dict()
    theirs.load_state_dict({name: value for name, value in weights.items() if EXPERTS[1] not in name})
    return ours.to(model.device), theirs.to(model.device)


def our_pass(model: UniModel, examples: list[Example], precision: str) -> float:
    """Forward and backward -> cross-entropy."""
    with model.autocast(precision):
        losses = model(examples)
    loss = losses.ce.sum() / losses.ce_tokens.sum()
    loss.backward()
    model.zero_grad(set_to_none=True)
    return loss.item()


def their_pass(theirs: Qwen2ForCausalLM, examples: list[Example], precision: str) -> float:
    """The same by transformers, whose labels stand one token later."""
    device = theirs.device
    ids = pad_sequence([e.ids for e in examples], True).to(device)
    real = pad_sequence([torch.ones_like(e.ids) for e in examples], True).to(device)
    labels = pad_sequence([torch.cat((e.labels[-1:], e.labels[:-1])) for e in examples], True, -100).to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
        loss = theirs(input_ids=ids, attention_mask=real, labels=labels, use_cache=False).loss
    loss.backward()
    theirs.zero_grad(set_to_none=True)
    return loss.item()


def compare(name: str, model: UniModel, o: Options):
    """A line for short replies and one for a character's."""
    ours, theirs = qwen2_like(model)
    short = [Sample("reply", f"Coco waves in the meadow, picture {i}.", "Good day to you, my friend.")
             for i in range(o.batch)]
    replies = [s for s in training_samples(load_character(o.char)) if s.task == "reply"]
    own = [s for s in replies if s.image is None][:o.batch]
    for what, samples in (("short replies", short), (f"{o.char}'s replies", own)):
        if not samples:
            raise UserError(f"--char {o.char}: has no dialogues to compare; name another")
        examples = [ours.prepare(sample) for sample in samples]
        a, b = our_pass(ours, examples, o.precision), their_pass(theirs, examples, o.precision)
        our_times, their_times = take_turns([lambda: our_pass(ours, examples, o.precision),
                                             lambda: their_pass(theirs, examples, o.precision)], o.repeats, ours.device)
        ratio = statistics.median(theirs / ours for theirs, ours in zip(their_times, our_times))
        print(f"{name:5} {len(examples)} {what}: ours {1000 * statistics.median(our_times):.1f} ms, transformers "
              f"{1000 * statistics.median(their_times):.1f} ms, theirs / ours {ratio:.2f}; "
              f"cross-entropy {a:.4f} and {b:.4f}", flush=True)


def main(argv: list[str] | None = None):
    o = parse_options(Options, __doc__, argv)
    sizes = o.sizes.split(",")
    if not {"tiny", "mid"}.issuperset(sizes) or o.repeats < 1:
        raise UserError(f"--sizes {o.sizes} --repeats {o.repeats}: give tiny, mid or both, and one repeat or more")
    device = pick_device(o.device)
    o.precision = pick_precision(device, o.precision)
    peak = matmul_rate(device, matmul_type(o.precision))
    print(f"{device}, {torch.get_num_threads()} threads, {o.precision}: best matrix product {peak / 1e9:.0f} GFLOP/s")
    small = load(o.model, o.device)
    for name in sizes:
        model = small
        if name == "mid":
            torch.manual_seed(0)
            model = UniModel(replace(MID, vocab_size=small.config.vocab_size), small.tokenizer).to(device)
            model.init_weights()
        measure(name, model, o, peak)
        compare(name, model, o)


if __name__ == "__main__":
    run_script(main)
