"""Stage 1, Unified-SFT: one model learns to talk as the character and to draw it, in one loop and one loss.

    python sft.py --char coco                  about five minutes on two CPU cores -> runs/coco/sft
    python sft.py --char path/to/folder        your own character, or a folder of RoleScape-20 as published

Every step draws Samples of all seven tasks (data.py) and minimizes   w_ce CE(text) + w_mse MSE(velocity).
What the paper does (arXiv 2605.08129 and its code), and where this file differs:

1. The mixture is counted per step (--mix). The published packing gives practically one text sample per pack of
   pictures; with a small decoder the voice then hardly learns.
2. CE and MSE are means over ALL tokens of a step, however it is cut into micro-batches: --micro-batch only saves
   memory.
3. Every random number of step k comes from generators seeded with (seed, k), one for each Sample. So a run that was
   killed and resumed is, down to the bits, the run that was never stopped (the published resume reads a folder that is
   never written), and neither micro-batches nor the number of GPUs change what is learned.
4. The loss before the first step is checked: a base that was not really loaded shows as ln(vocabulary), and is refused.
5. Prior preservation (DreamBooth, arXiv 2208.12242): beside the character's pictures stand some that the base itself
   drew, before it learned anything, of the same scenes with somebody else in them. Without these every creature in a
   prompt becomes the character, and it forgets how to draw what it is asked for. --mix with prior=0 does as the paper.
6. The vision tower stays as it is. At the rates that a small decoder needs, ten pictures could teach it little and make
   it forget much: so it was in the pre-training of the tiny base (tiny/pretrain.py). --train-vision-encoder does as the paper.
7. The und expert learns at a higher rate than the gen expert: hundreds of lines are to be learned by heart, while ten
   pictures are soon learned too well. --und-rate 1 does as the paper.

What a fine-tune on ten pictures destroys is prompt-following: watch the held-out sheets in runs/<char>/sft, not the
loss.
"""
import math
import random
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from tqdm import tqdm

from backbone.folders import load
from backbone.lora import GEN_PROJECTIONS, UND_PROJECTIONS, FitOptions, to_train
from backbone.wrap import wrap
from data import Sample, class_word, load_character, run_folder, training_samples, without_name
from model import Example
from runtime import counting, plan, processes
from runtime.cli import UserError, parse_options, run_script
from runtime.runs import Means, Run


@dataclass
class Options(FitOptions):        # sizes, precision and adapters (backbone/lora.py) are options of this command too
    char: str = "coco"            # a name under characters/, or a folder
    model: str = "tiny/base"      # the base: a checkpoint folder, or BAGEL-7B-MoT's as published
    backbone: str = ""            # a Qwen2-family language model to wrap instead; --model lends eye and canvas
    out: str = ""                 # the run's folder; empty = runs/<char>/sft
    steps: int = 260              # optimizer steps (paper: 501)
    mix: str = "t2i=8,t2i_dialogue=2,t2i_plan=2,prior=2,reply=14,think=1,knowledge=5,vqa=3"    # Samples per step
    micro_batch: int = 16         # Samples per backward pass, of up to LONG tokens: lower it if memory is short
    lr: float = 3e-4              # AdamW (paper: 2e-5 on 7B)
    und_rate: float = 2.0         # times lr: the rate of the und expert and all that is not drawing (paper: 1)
    warmup: int = 20              # steps of linear warm-up, then constant
    clip: float = 1.0             # largest gradient norm
    w_ce: float = 0.25            # weight of cross-entropy
    w_mse: float = 1.0            # weight of the flow-matching error
    drop_text: float = 0.1        # share of T2I samples that lose their text: what guidance needs
    train_vision_encoder: bool = False       # the vision tower too (paper: yes, at 2e-5)
    seed: int = 0
    save_every: int = 50          # steps between saves
    sample_every: int = 100        # steps between sample sheets
    fresh: bool = False           # forget a run that is already there


# ---- the mixture ---------------------------------------------------------------------------------------------------

def parse_mix(text: str, present: set[str]) -> dict[str, int]:
    """"t2i=6,reply=5" -> counts per step, of the tasks that the character has examples for."""
    try:
        mix = {task: int(count) for task, count in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"--mix {text}: write task=count,task=count with whole numbers") from None
    unknown = mix.keys() - {"t2i", "t2i_dialogue", "t2i_plan", "prior", "reply", "think", "knowledge", "vqa"}
    if unknown:
        raise UserError(f"--mix: no task is called {', '.join(sorted(unknown))}; take those of the default")
    return {task: count for task, count in mix.items() if task in present and count > 0}


def prior_samples(model, character, options) -> list[Sample]:
    """What the base draws for the texts of the scenes with the class word ("a sea otter cub") in place of the name. The
    very same sentences, so that nothing but the name tells who is meant: of other sentences the decoder would learn
    that THEY show somebody else."""
    if options.backbone or not parse_mix(options.mix, {"prior"}):      # a fresh image head has nothing to preserve
        return []
    word, samples = class_word(character.description), []
    texts = [without_name(scene["draw"], character.name, word) for scene in character.scenes] * 4       # four seeds
    for at in tqdm(range(0, len(texts), 8), "drawing the prior", leave=False):
        some = texts[at:at + 8]
        if options.plan:
            images = [Image.new("RGB", (model.config.image_size,) * 2)] * len(some)
        else:
            with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
                images = model.sample_images(some, range(at, at + len(some)))
        samples += [Sample("prior", text, target=image) for text, image in zip(some, images)]
    return samples


def draw_batch(by_task: dict[str, list], mix: dict[str, int], seed: int, step: int,
               drop_text: float) -> list[tuple[str, Example, int]]:
    """The (task, Example, its seed) of a step. Each task walks through its own shuffled list, epoch after epoch, so
    that in few steps nothing is left out; where it stands follows from the step alone."""
    batch, rng = [], random.Random(f"{seed} drop {step}")
    for task, count in mix.items():
        examples = by_task[task]
        for at in range(step * count, (step + 1) * count):
            epoch, i = divmod(at, len(examples))
            order = random.Random(f"{seed} {task} {epoch}").sample(range(len(examples)), len(examples))
            example = examples[order[i]]
            batch.append((task, example.bare if example.bare and rng.random() < drop_text else example))
    batch.sort(key=lambda pair: (kind(*pair), len(pair[1].ids)))
    return [(*pair, (seed * 1_000_003 + step) * 1000 + i) for i, pair in enumerate(batch)]


# ---- one step ------------------------------------------------------------------------------------------------------

LONG = 240                        # of longer texts a backward pass takes fewer: memory grows with length squared


def kind(task: str, example: Example) -> tuple:
    """What is computed together: so what does not draw has no idle latents beside it, and of replies, which begin
    alike, the beginning is read once (UniModel.read_once)."""
    return (example.latent is None, example.patches is None, task if example.latent is None else "")


def micro_batches(batch: list, size: int, W: int) -> list[list]:
    """Cuts a batch, which is sorted by kind and length, into parts for W processes that take `size` Samples each, or
    fewer where texts are long. Short and long texts stand apart, or much would be padding."""
    parts = []
    for row in batch:
        task, first, _ = parts[-1][0] if parts else row
        count, length = len(parts[-1]) + 1 if parts else 0, len(row[1].ids)
        unlike = kind(*row[:2]) != kind(task, first) or length > 2 * max(24, len(first.ids))
        if not parts or unlike or count > W * size or count * length ** 2 > W * size * LONG ** 2:
            parts.append([])
        parts[-1].append(row)
    return parts


def accumulate(model, batch, options: Options, record) -> float:
    """Forward and backward over all micro-batches -> loss. `record(name, value, weight)` gets the parts for the log.

    Several processes deal the batch out among themselves; the counts below are of the whole batch, so the sum of their
    losses is the loss of one process. A blank Example of weight 0 makes all of them reach all weights (see
    runtime/processes.py); it begins like nothing else, so all of them pass through the decoder once, and keep step."""
    n_ce = max(1, sum(int((e.labels >= 0).sum()) for _, e, _ in batch))
    cells = sum(e.latent[0, 0].numel() for _, e, _ in batch if e.latent is not None)
    n_mse = max(1, cells // model.config.latent_patch_size ** 2)
    W, total = processes.world_size(), 0.0
    blank = [("", blank_example(model.config), 0)] * (W > 1)
    for part in micro_batches(batch, options.micro_batch, W):
        part = part[processes.rank()::W] + blank
        with torch.autocast(model.device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            losses = model([example for _, example, _ in part], [seed for _, _, seed in part])
        real = torch.tensor([float(task != "") for task, _, _ in part], device=losses.mse.device)
        loss = options.w_ce * losses.ce.sum() / n_ce + options.w_mse * (losses.mse * real).sum() / n_mse
        if loss.requires_grad:
            (loss * W).backward()
        total += loss.item()
        per_example = (losses.ce, losses.ce_tokens, losses.mse, losses.mse_tokens * real, losses.t)
        for (task, _, _), ce, words, mse, tokens, t in zip(part, *(x.tolist() for x in per_example)):
            if words:
                record(f"ce/{task}", ce / words, words)
            if tokens:
                record(f"mse/{task}", mse / tokens, tokens)
                record(f"mse/t{int(min(t, 0.999) * 4)}", mse / tokens, tokens)     # by noise level: quarters of t
    return total


def blank_example(c) -> Example:
    """A patch to look at, no word to write, a latent token to draw: the least that reaches every part of a model."""
    return Example(torch.zeros(6, dtype=torch.long), torch.full((6,), -100), torch.tensor([0, 0, 0, 1, 2, 2]),
                   torch.zeros(1, 3 * c.vit_patch_size ** 2), torch.zeros(1, dtype=torch.long),
                   torch.zeros(2, c.z_channels, c.latent_patch_size, c.latent_patch_size))


# ---- what learns ---------------------------------------------------------------------------------------------------

FROZEN = "vae.", "latent_pos_embed.", "vit_pos_embed."           # the canvas, and two tables that are computed


def draws(name: str) -> bool:
    """The parameters of the gen expert and the image head: all that learns in stage 2."""
    return "moe_gen" in name or name.startswith(("vae2llm", "llm2vae", "time_embedder"))


def learns(options: Options):
    """Chooses parameters by name."""
    frozen = FROZEN if options.train_vision_encoder else (*FROZEN, "vit_model.")
    return lambda name: not name.startswith(frozen)


def base_model(options: Options):
    if options.backbone:
        return wrap(options.backbone, options.model, options.device, options.image_size)
    return load(options.model, options.device, options.weights, options.image_size)


def learners(model, options: FitOptions, targets, chosen) -> dict:
    """-> the parameters that learn, by name: see lora.to_train. Also of grpo.py, which chooses others."""
    model.language_model.model.gradient_checkpointing = options.checkpointing
    torch.manual_seed(options.seed)                        # new adapters begin alike on every process
    try:
        with counting.fake() if options.plan else nullcontext():
            to_train(model, options, targets, chosen)
    except ValueError as error:
        raise UserError(str(error)) from None
    processes.shard(model, options.precision == "bf16" and model.device.type == "cuda")
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


# ---- the loop ------------------------------------------------------------------------------------------------------

def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    processes.start(options.device)
    character = load_character(options.char)
    folder = Path(options.out) if options.out else run_folder(options.char, "sft")
    model = (counting.imagine(options) if options.plan else base_model(options)).train()
    trained = learners(model, options, UND_PROJECTIONS + GEN_PROJECTIONS, learns(options))
    by_task = defaultdict(list)
    samples = training_samples(character) + prior_samples(model, character, options)
    for sample in tqdm(samples, "preparing", leave=False):
        by_task[sample.task].append(model.prepare(sample))
    mix = parse_mix(options.mix, set(by_task))
    counts = (f"{task} {len(items)} ({mix.get(task, 0)} a step)" for task, items in by_task.items())
    print(f"{character.name}:", ", ".join(counts))
    if options.plan:
        batches = [draw_batch(by_task, mix, options.seed, step, options.drop_text) for step in range(3)]
        batches = [micro_batches(batch, options.micro_batch, options.gpus) for batch in batches]
        return plan.show(plan.sft(model, options, trained, batches, len(by_task["prior"])), options)

    rates = [(options.lr, [p for name, p in trained.items() if draws(name)]),
             (options.lr * options.und_rate, [p for name, p in trained.items() if not draws(name)])]
    optimizer = torch.optim.AdamW([{"params": some, "peak": rate} for rate, some in rates if some], lr=options.lr,
                                  betas=(0.9, 0.95), eps=1e-15, weight_decay=0.0, fused=True)
    run = Run(folder, "sft", options, model, trained, optimizer)
    prompts = [p.text for p in character.test["prompts"][:8]] or [scene["draw"] for scene in character.scenes[:8]]
    if run.step == 0:
        run.sample_grid(prompts)
    progress = tqdm(total=options.steps, initial=run.step, desc="sft", disable=processes.rank() > 0)
    while run.step < options.steps and not run.stop():
        step, start, means = run.step, time.time(), Means()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * min(1.0, (step + 1) / options.warmup)
        batch = draw_batch(by_task, mix, options.seed, step, options.drop_text)
        loss = sum(processes.gathered(accumulate(model, batch, options, means)))
        parts = means.result()
        if step == 0:
            check_base(parts, model, options.model, character.description)
        norm = processes.whole(torch.nn.utils.clip_grad_norm_(trained.values(), options.clip)).item()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.advance()
        seconds = round(time.time() - start, 3)
        run.log({"loss": round(loss, 5), "grad_norm": round(norm, 7), "seconds": seconds, **parts})
        progress.update()
        progress.set_postfix(loss=f"{loss:.3f}")
        if run.step % options.save_every == 0 or run.step == options.steps:
            run.save()
        if run.step % options.sample_every == 0 or run.step == options.steps:
            run.sample_grid(prompts)
    progress.close()
    if processes.rank() == 0 and not run.stopped and mix.keys() >= {"t2i", "prior"}:
        print(about_pictures(run.rows("mse/t2i"), run.rows("mse/prior"), options.steps))
    again = "python sft.py " + " ".join(sys.argv[1:] if argv is None else argv)
    run.finish(f"python grpo.py --char {options.char}", again)


def about_pictures(own: list[float], prior: list[float], steps: int) -> str:
    """Whether the character's pictures were shown often enough, from the flow losses of a run. The measure is what the
    base itself drew: to halve that takes Coco, who lives in its world, 100 steps, and photographs of a cat 600."""
    own, prior = (sum(losses[-50:]) / len(losses[-50:]) for losses in (own, prior))
    told = f"flow loss at the end: {own:.2f} of the character's pictures, {prior:.2f} of what the base drew"
    return told if own < prior / 2 else f"{told}. They are not learned yet: the same with --steps {2 * steps} goes on"


@torch.no_grad()
def check_base(means: dict, model, path: str, text: str):
    """Random weights know nothing, CE = ln V, and are not sure of anything: so is the entropy of their next word behind
    any `text`. Of a stranger's texts a trained base may know as little (CE above ln V), but it is sure of something."""
    ce, guess = [value for name, value in means.items() if name.startswith("ce/")], math.log(model.config.vocab_size)
    print("loss before the first step:", ", ".join(f"{name} {value:.3f}" for name, value in means.items()))
    if not ce or sum(ce) / len(ce) <= 0.95 * guess:
        return
    hidden, _ = model.extend(model.context([text]), torch.tensor([[model.bos]], device=model.device))
    log_p = model.language_model.lm_head(hidden[0, -1]).float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum().item()
    if entropy > 0.85 * guess:
        raise UserError(f"{path}: its cross-entropy is that of random weights ({sum(ce) / len(ce):.2f}, and of its "
                        f"next word {entropy:.2f}, of ln V = {guess:.2f}); give a trained base")


if __name__ == "__main__":
    run_script(main)
