"""What a run takes, before anything is loaded: parameters, memory, FLOPs, and GPU-hours on four cards.

    python sft.py  --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing --plan
    python grpo.py --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing --plan --gpus 1

A folder with the configuration files is enough: weights and tokenizer are looked at if they are there, and never read.
Nothing here is a formula for what a layer costs: counting.py runs the model's own code on tensors without numbers.

1. FLOPs are those that are computed: what checkpointing computes twice counts twice. Hours = FLOPs over UTILISATION of
   a card's best dense rate; waiting for other GPUs or for the disk is no part of it.
2. Attention is the fused kernel's, as on a GPU, which never writes out its scores; with --device cpu the plain one's.
3. Not counted: the small judges of the reward (2 GB and 1 % of the work, at the paper's size), CUDA itself (1 GB), and
   what the allocator loses. So a card counts as large enough with a tenth of it to spare.

Shapes as in model.py; P prompts, G pictures of each, W GPUs. GB are 2^30 bytes, as in `peak_memory`.
"""
import math
from collections import Counter
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image

from backbone.folders import TABLES
from backbone.lora import adapters, without_adapters
from model import Context, UniModel, pad_rows, shared_beginning
from runtime.cli import UserError
from runtime.counting import Cost, cost, fake

UTILISATION = 0.4                                          # of the rates below; good training code reaches 0.3 to 0.5
CARDS = {"A100": (80, 312, 19.5), "H100": (80, 989, 67),   # GB; dense TFLOP/s in bf16 and in fp32
         "L40S": (48, 362, 91.6), "RTX 4090": (24, 165, 82.6)}
SHEET = 8, 20, 2                                           # pictures, steps and passes (guidance) of a sample sheet


# ---- what the stages compute ----------------------------------------------------------------------------------------

def read(model: UniModel, B: int, T: int, pictures: int, n: int) -> torch.Tensor:
    """und tokens (B, T, C), of which `pictures` pictures of n patches each went through the eye."""
    und = model.language_model.model.embed_tokens(torch.zeros(B, T, dtype=torch.long))
    if not pictures:
        return und
    eye, places = model.vit_model["vision_model"], torch.zeros(pictures, n, dtype=torch.long)
    patches = torch.zeros(pictures, n, 3 * model.config.vit_patch_size ** 2, dtype=model.llm2vae.weight.dtype)
    x = eye.embeddings["patch_embedding"](patches) + eye.embeddings["position_embedding"](places)
    for layer in eye.encoder["layers"]:                    # its own forward looks for padding, at numbers
        x = layer(x, None)
    x = model.connector(eye.post_layernorm(x)) + model.vit_pos_embed.pos_embed[places]
    return und.index_put((places.flatten(), places.flatten()), x.flatten(0, 1).to(und.dtype))


def write(model: UniModel, hidden, words: int):
    """The cross-entropy of some words: only those meet the head."""
    some = torch.zeros(words, dtype=torch.long)
    return F.cross_entropy(model.language_model.lm_head(hidden.flatten(0, 1)[some]).float(), some, reduction="sum")


def layout(model: UniModel, examples: list) -> tuple:
    """(B, T, N, pictures looked at, patches of the largest, words, tokens that are read once) of a micro-batch, padded
    as the model pads it."""
    cells = [e.latent[0, 0].numel() for e in examples if e.latent is not None]
    patches = [len(e.patches) for e in examples if e.patches is not None]
    words, once = torch.cat([e.labels[e.labels >= 0] for e in examples]), shared_beginning(examples)
    return (len(examples), pad_rows([e.ids[once:] for e in examples]).shape[1],
            max(cells, default=0) // model.config.latent_patch_size ** 2, len(patches), max(patches, default=0),
            pad_rows([words], 0, 64).shape[1], once)


def losses(model: UniModel, B: int, T: int, N: int, pictures: int, n: int, words: int, once: int):
    """UniModel.forward of such a micro-batch."""
    decoder, before = model.language_model.model, None
    if once:
        beginning, position = read(model, 1, once, 0, 0), torch.zeros(1, once, dtype=torch.long)
        before = Context(decoder(beginning, beginning[:, :0], position)[2], position, position[:, 0]).repeat(B)
    und, places = read(model, B, T, pictures, n), torch.zeros(B, N, dtype=torch.long)
    gen = model.embed_gen(torch.zeros(B, N, model.config.token_dim), torch.zeros(B), places).to(und.dtype)
    und, gen, _ = decoder(und, gen, torch.zeros(B, T + N, dtype=torch.long), before)
    return write(model, und, words) + model.llm2vae(gen).float().square().mean(-1).sum()


def context(model: UniModel, B: int, T: int) -> Context:
    """What T tokens of B prompts leave in the cache."""
    c = model.config
    with fake():
        pair = [torch.zeros(B, c.num_key_value_heads, T, c.head_dim, dtype=torch.bfloat16) for _ in "kv"]
        position = torch.zeros(B, T, dtype=torch.long)
        return Context([pair] * c.num_hidden_layers, position, torch.zeros(B, dtype=torch.long))


def denoise(model: UniModel, B: int, T: int, guidance: float):
    """-> work(): one step of B pictures behind prompts of T tokens."""
    def work():
        x = torch.zeros(B, model.latent_count, model.config.token_dim)
        return model.velocity(x, torch.zeros(()), prompt, nothing, guidance).square().mean()
    prompt, nothing = context(model, B, T), context(model, B, 0)
    return work


def ask(model: UniModel, rows: int, T: int, pictures: int, n: int, words: int):
    """Pictures of n patches are read once, and behind them questions with answers (rows, T): rewards.answer_log_p."""
    length = pad_rows([torch.zeros(n + 2)]).shape[1]
    und, position = read(model, pictures, length, pictures, n), torch.zeros(pictures, length, dtype=torch.long)
    _, _, kv = model.language_model.model(und, und[:, :0], position)
    seen = Context(kv, position, position[:, 0]).rows(torch.zeros(rows, dtype=torch.long))
    return write(model, model.extend(seen, torch.zeros(rows, T, dtype=torch.long))[0], words)


# ---- the two stages -------------------------------------------------------------------------------------------------

@dataclass
class Plan:
    """Memory is that of the largest micro-batch among those that were looked at."""
    trained: int                                           # parameters
    frozen: int
    step: float                                            # FLOPs of a step or iteration, of all GPUs together
    steps: int
    reports: float                                         # FLOPs of sheets and held-out scores, in the whole run
    resting: dict[str, float]                              # bytes on each GPU, all the time
    moments: dict[str, float]                              # bytes that come on top of those
    cache: float                                           # part of those: keys, values, latents kept for the update
    update: dict[bool, Cost]                               # of the largest micro-batch, with checkpointing or without

    @property
    def total(self) -> float:
        return self.step * self.steps + self.reports

    @property
    def peak(self) -> float:
        return sum(self.resting.values()) + max(self.moments.values())

    def hours(self, card: str, precision: str) -> float:
        rate = CARDS[card][1 if precision == "bf16" else 2] * 1e12 * UTILISATION
        return self.total / rate / 3600


def both(model: UniModel, options, trained: dict, work) -> dict[bool, Cost]:
    """The cost of an update without and with checkpointing."""
    decoder, found = model.language_model.model, {}
    for decoder.gradient_checkpointing in (False, True):
        found[decoder.gradient_checkpointing] = cost(model, options, work, trained.values())
    decoder.gradient_checkpointing = options.checkpointing
    return found


def at_rest(model: UniModel, options, trained: dict) -> dict[str, float]:
    """FSDP divides all parameters but canvas and tables, no buffers, and has two layers collected at a time: from here
    on what learns is then in half precision too."""
    W, learn = options.gpus, sum(p.numel() for p in trained.values())
    alone = Counter()
    for name, p in model.named_parameters():
        alone[name.startswith(("vae.", *TABLES))] += 0 if name in trained else p.nbytes
    whole = alone[True] + sum(b.nbytes for b in model.buffers())
    layer = 2 * sum(p.numel() for p in model.language_model.model.layers[0].parameters())
    for p in trained.values() if W > 1 and options.precision == "bf16" else ():
        p.data = p.data.bfloat16()
    average = {"average": 4 * learn / W} if getattr(options, "ema", 0) else {}
    weights = (4 * learn + alone[False]) / W + whole + 2 * layer * (W > 1)
    return {"weights": weights, "optimizer": 8 * learn / W, **average}


def plan(model: UniModel, options, trained: dict, update: dict, cache=0.0, **more) -> Plan:
    """Adds what both stages have: counts, gradients, an optimizer."""
    learn = sum(p.numel() for p in trained.values())
    eights = sum(b.numel() for b in model.buffers() if b.dtype == torch.int8)          # parameters, though buffers
    frozen = sum(p.numel() for p in model.parameters()) + eights - learn
    grads = 4 * learn / options.gpus
    more["moments"] |= {"update": grads + cache + update[options.checkpointing].peak}
    return Plan(learn, frozen, update=update, cache=cache, **more)


def sheet(model: UniModel, options, T: int) -> float:
    """FLOPs of a sample sheet, which every process draws for itself."""
    pictures, steps, passes = SHEET
    return pictures * steps * passes * options.gpus * cost(model, options, denoise(model, 1, T, 1), memory=False).flops


def sft(model: UniModel, options, trained: dict, batches: list, prior: int) -> Plan:
    """Stage 1. `batches` are those of some steps, cut as sft.micro_batches does: their mean stands for all. `prior` is
    the number of pictures that the base draws before."""
    W, resting = options.gpus, at_rest(model, options, trained)
    shares = (part[r::W] for batch in batches for part in batch for r in range(W))
    parts = Counter(layout(model, [example for _, example, _ in share]) for share in shares if share)
    if not parts:
        raise UserError(f"--mix {options.mix}: draws nothing from this character; name a task with a count above 0")
    flops = {part: cost(model, options, lambda: losses(model, *part), trained.values(), False).flops for part in parts}
    largest = max(flops, key=flops.get)
    return plan(model, options, trained, both(model, options, trained, lambda: losses(model, *largest)),
                step=sum(flops[part] * count for part, count in parts.items()) / len(batches), steps=options.steps,
                reports=(1 + options.steps // options.sample_every + prior / SHEET[0]) * sheet(model, options, 64),
                resting=resting, moments={})


def grpo(model: UniModel, options, trained: dict, prompts: list, held_out: int) -> Plan:
    """Stage 2, an iteration part by part. `prompts` are trained on; those held out are drawn twice at every report."""
    c, resting, G, K = model.config, at_rest(model, options, trained), options.group, options.steps
    P = options.prompts // options.gpus                    # on each GPU, and P G pictures
    T = pad_rows([e.ids for e in model.readings([p.text for p in prompts], None)]).shape[1]
    micro = min(options.micro_batch, G)
    if not adapters(model):                                # else the policy itself judges, its adapters switched off
        resting["VQA judge"] = sum(p.numel() * (4 if options.weights == "fp32" else 2) for p in model.parameters())
    update = both(model, options, trained, denoise(model, micro, T, options.guidance))
    nothing = context(model, P, 0)
    texts = cost(model, options, lambda: model.extend(nothing, torch.zeros(P, T, dtype=torch.long)), memory=False)
    drawing = cost(model, options, denoise(model, G, T, options.guidance))             # of one group
    shown = min(G, -(-2 ** 20 // c.image_size ** 2))   # what decode() takes at once
    decoding = cost(model, options, lambda: model.decode(torch.zeros(shown, model.latent_count, c.token_dim)))
    judging, judged = judge(model, options, prompts, P * G)
    saved = (1 - 1 / G) * (options.window_end - options.window) / 2 if options.share_start else 0
    reward, learning = judging.flops / judged, options.window * update[options.checkpointing].flops / micro
    finish = decoding.flops / shown + reward               # of one picture, as learning is
    step = texts.flops + P * (K - saved) * drawing.flops + P * G * (finish + learning)
    report = 2 * held_out * (K * drawing.flops / G + finish)
    kv = 4 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * T                       # of one prompt
    latents = 4 * (options.window + 1) * P * G * model.latent_count * c.token_dim
    cache = latents + (P + G) * kv
    return plan(model, options, trained, update, cache, step=step * options.gpus, steps=options.iterations,
                reports=(1 + options.iterations // options.eval_every) * (
                    report * options.gpus + sheet(model, options, T)), resting=resting,
                moments={"drawing": cache + drawing.peak, "decoding": cache + decoding.peak,
                         "judging": cache + judging.peak})


def judge(model: UniModel, options, prompts: list, pictures: int) -> tuple[Cost, float]:
    """Of one batch of questions, and the number of pictures that it is about."""
    asked = [pair for prompt in prompts for pair in prompt.questions]
    if not asked:
        return Cost(0, 0, 0), 1
    each, c = len(asked) / len(prompts), model.config
    examples = model.readings([q.question for q in asked], None, [q.answer for q in asked])
    rows, T = min(options.vqa_batch, round(each * pictures)), pad_rows([e.ids for e in examples]).shape[1]
    words = rows * sum(int((e.labels >= 0).sum()) for e in examples) // len(examples)
    n = len(model.patches(Image.new("RGB", (c.image_size, c.image_size)))[0])
    with without_adapters(model):
        return cost(model, options, lambda: ask(model, rows, T, math.ceil(rows / each), n, words)), rows / each


def show(found: Plan, options):
    """Prints a plan."""
    def line(name: str, text: str, count: float | None = None):
        print(f"{name:26}", "" if count is None else f"{count / 2**30:8.2f} GB ", text, sep="")

    top, rest, on = max(found.moments, key=found.moments.get), sum(found.resting.values()), options.checkpointing
    line("parameters", f"{found.trained:,} learn, {found.frozen:,} are frozen")
    for name, count in found.resting.items():
        line(name, "", count)
    line("gradients", "", 4 * found.trained / options.gpus)
    line("activations", f"({'without' if on else 'with'} checkpointing: {found.update[not on].peak / 2**30:.2f} GB)",
         found.update[on].peak)
    line("cache", "", found.cache)
    for name, count in found.moments.items():
        line(f"in all, {name}", "<- peak" if name == top else "", rest + count)
    line("work", f"{found.step:.3g} FLOP a step, {found.total:.3g} in {found.steps} steps and their reports")
    for card, (size, *_) in CARDS.items():
        fits = "fits" if found.peak < 0.9 * size * 2**30 else "does NOT fit"
        line(card, f"{found.hours(card, options.precision):.2f} GPU-hours at {UTILISATION:.0%} of its best rate; "
             f"{fits} in {size} GB" + (f", on each of {options.gpus}" if options.gpus > 1 else ""))
