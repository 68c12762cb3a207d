"""What a run takes, before anything is loaded: parameters, memory, FLOPs, and GPU-hours on four cards.

    python -m runtime.plan sft  --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing
    python -m runtime.plan grpo --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing --gpus 8

The options are those of the stage, and --gpus. A folder with the configuration files is enough: weights and tokenizer
are looked at if they are there, and never read. No formula here says what a layer costs: counting.py runs the model's
own code on tensors without numbers, and this file says which calls a run consists of.

1. FLOPs are those that are computed: what checkpointing computes twice counts twice. Hours are FLOPs over UTILISATION
   of a card's best dense rate. Waiting for other GPUs or for the disk is not in them.
2. Attention is the fused kernel's, as on a GPU, which never writes out its scores; with --device cpu the plain one's.
3. Not counted: the small judges of the reward (2 GB and 1 % of the work, at the paper's size), CUDA itself (1 GB), and
   what the allocator loses. So a card counts as large enough if a tenth of it stays free.

Shapes as in model.py: B batch, T und tokens, N latent tokens; P prompts, G pictures of each, W GPUs. GB are 2^30 bytes.
"""
import math
import sys
from collections import Counter
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from PIL import Image

import grpo
import sft
from backbone.folders import TABLES
from backbone.lora import adapters, without_adapters
from data import load_character, training_samples
from model import Context, UniModel, pad_rows, shared_beginning
from runtime import batching
from runtime.cli import UserError, parse_options, run_script
from runtime.counting import Cost, cost, fake, imagine

UTILISATION = 0.4                                          # of the rates below; good training code reaches 0.3 to 0.5


@dataclass
class Card:
    memory: float                                          # GB
    half: float                                            # dense TFLOP/s in bf16
    single: float                                          # ... and in fp32


CARDS = {"A100": Card(80, 312, 19.5), "H100": Card(80, 989, 67), "L40S": Card(48, 362, 91.6),
         "RTX 4090": Card(24, 165, 82.6)}
GRID_PICTURES, GRID_STEPS, GRID_PASSES = 8, 20, 2          # of a sample grid; guidance makes two passes of a step
STEPS_COUNTED = 3                                          # of stage 1: their mean stands for all


@dataclass
class SftOptions(sft.Options):
    gpus: int = 1
    precision: str = "bf16"                                # of products: bf16 or fp32; all cards named above have both


@dataclass
class GrpoOptions(grpo.Options):
    gpus: int = 1
    precision: str = "bf16"                                # as above


# ---- the calls that a run consists of --------------------------------------------------------------------------------
# Each function runs the layers that the model's method of the same purpose runs, on shapes instead of examples. The
# methods themselves ask their tensors for numbers, such as where the padding is, and here there are none.

def embed_und(model: UniModel, B: int, T: int, pictures: int, patches: int) -> torch.Tensor:
    """UniModel.embed_und: tokens (B, T, C), with `pictures` pictures of so many `patches` each among them."""
    und = model.language_model.model.embed_tokens(torch.zeros(B, T, dtype=torch.long))
    if not pictures:
        return und
    vision_encoder = model.vit_model["vision_model"]
    places = torch.zeros(pictures, patches, dtype=torch.long)
    pixels = torch.zeros(pictures, patches, 3 * model.config.vit_patch_size ** 2, dtype=model.llm2vae.weight.dtype)
    x = vision_encoder.embeddings["patch_embedding"](pixels) + vision_encoder.embeddings["position_embedding"](places)
    for layer in vision_encoder.encoder["layers"]:
        x = layer(x, None)
    x = model.connector(vision_encoder.post_layernorm(x)) + model.vit_pos_embed.pos_embed[places]
    where = places.flatten()
    return und.index_put((where, where), x.flatten(0, 1).to(und.dtype))


def cross_entropy(model: UniModel, hidden, words: int) -> torch.Tensor:
    """UniModel.cross_entropy of so many words: only these meet the vocabulary."""
    labels = torch.zeros(words, dtype=torch.long)
    logits = model.language_model.lm_head(hidden.flatten(0, 1)[labels]).float()
    return F.cross_entropy(logits, labels, reduction="sum")


@dataclass(frozen=True)
class MicroBatch:
    """The sizes of a micro-batch, padded as the model pads it."""
    rows: int
    tokens: int                                            # of the longest row, without its shared beginning
    latents: int                                           # of the largest picture to draw
    pictures: int                                          # that are looked at
    patches: int                                           # of the largest of them
    words: int                                             # that are learned
    shared: int                                            # tokens that all rows begin with, and that are read once


def sizes(model: UniModel, examples: list) -> MicroBatch:
    shared = shared_beginning(examples)
    rest = pad_rows([e.ids[shared:] for e in examples])
    labels = torch.cat([e.labels[e.labels >= 0] for e in examples])
    cells = [e.latent[0, 0].numel() for e in examples if e.latent is not None]
    patches = [len(e.patches) for e in examples if e.patches is not None]
    return MicroBatch(rows=len(examples), tokens=rest.shape[1],
                      latents=max(cells, default=0) // model.config.latent_patch_size ** 2,
                      pictures=len(patches), patches=max(patches, default=0),
                      words=len(labels), shared=shared)


def losses(model: UniModel, m: MicroBatch) -> torch.Tensor:
    """UniModel.forward of a micro-batch."""
    decoder, c = model.language_model.model, model.config
    before = None
    if m.shared:
        beginning = embed_und(model, 1, m.shared, 0, 0)
        position = torch.zeros(1, m.shared, dtype=torch.long)
        _, _, kv = decoder(beginning, beginning[:, :0], position)
        before = Context(kv, position, position[:, 0]).repeat(m.rows)
    und = embed_und(model, m.rows, m.tokens, m.pictures, m.patches)
    places = torch.zeros(m.rows, m.latents, dtype=torch.long)
    gen = model.embed_gen(torch.zeros(m.rows, m.latents, c.token_dim), torch.zeros(m.rows), places).to(und.dtype)
    position = torch.zeros(m.rows, m.tokens + m.latents, dtype=torch.long)
    und, gen, _ = decoder(und, gen, position, before)
    return cross_entropy(model, und, m.words) + model.llm2vae(gen).float().square().mean(-1).sum()


def context(model: UniModel, B: int, T: int) -> Context:
    """What T tokens of B prompts leave in the cache."""
    c = model.config
    with fake():
        shape = B, c.num_key_value_heads, T, c.head_dim
        k, v = torch.zeros(shape, dtype=torch.bfloat16), torch.zeros(shape, dtype=torch.bfloat16)
        position = torch.zeros(B, T, dtype=torch.long)
        return Context([(k, v)] * c.num_hidden_layers, position, torch.zeros(B, dtype=torch.long))


def denoise(model: UniModel, B: int, T: int, guidance: float):
    """-> work(): one sampling step of B pictures behind prompts of T tokens."""
    prompt, nothing = context(model, B, T), context(model, B, 0)

    def work():
        x = torch.zeros(B, model.latent_count, model.config.token_dim)
        return model.velocity(x, torch.zeros(()), prompt, nothing, guidance).square().mean()
    return work


def ask(model: UniModel, rows: int, T: int, pictures: int, patches: int, words: int) -> torch.Tensor:
    """rewards.answer_log_p: pictures are read once, and behind them questions with answers (rows, T)."""
    length = pad_rows([torch.zeros(patches + 2)]).shape[1]            # SOI and EOI too
    und = embed_und(model, pictures, length, pictures, patches)
    position = torch.zeros(pictures, length, dtype=torch.long)
    _, _, kv = model.language_model.model(und, und[:, :0], position)
    read = Context(kv, position, position[:, 0]).rows(torch.zeros(rows, dtype=torch.long))
    hidden, _ = model.extend(read, torch.zeros(rows, T, dtype=torch.long))
    return cross_entropy(model, hidden, words)


# ---- memory and work of a whole run ----------------------------------------------------------------------------------

@dataclass
class Plan:
    """Memory is that of the largest micro-batch among those that were looked at."""
    trained: int                                           # parameters that learn
    frozen: int
    step: float                                            # FLOPs of a step or iteration, of all GPUs together
    steps: int
    reports: float                                         # FLOPs of the whole run beside its steps: sample grids, held-out
    #                                                        scores, and what is drawn before the first step
    resting: dict[str, float]                              # bytes on each GPU, all the time
    moments: dict[str, float]                              # bytes that come on top of those, one moment after another
    cache: float                                           # bytes of those: keys, values, latents kept for the update
    update: dict[bool, Cost]                               # of the largest micro-batch, with checkpointing or without

    @property
    def total(self) -> float:
        return self.step * self.steps + self.reports

    @property
    def peak(self) -> float:
        return sum(self.resting.values()) + max(self.moments.values())

    def hours(self, card: str, precision: str) -> float:
        rate = CARDS[card].half if precision == "bf16" else CARDS[card].single
        return self.total / (rate * 1e12 * UTILISATION) / 3600


def count(parameters) -> int:
    return sum(p.numel() for p in parameters)


def count_frozen(model: UniModel, trained: dict) -> int:
    int8_weights = [b for b in model.buffers() if b.dtype == torch.int8]      # buffers to torch, parameters to us
    return count(model.parameters()) + count(int8_weights) - count(trained.values())


def update_costs(model: UniModel, options, trained: dict, work) -> dict[bool, Cost]:
    """The cost of forward and backward pass, without checkpointing and with it."""
    decoder = model.language_model.model
    found = {}
    for checkpointing in (False, True):
        decoder.gradient_checkpointing = checkpointing
        found[checkpointing] = cost(model, options, work, trained.values())
    decoder.gradient_checkpointing = options.checkpointing
    return found


def bytes_at_rest(model: UniModel, options, trained: dict, W: int) -> dict[str, float]:
    """What lies on each of W GPUs all the time. FSDP divides all parameters but those of the autoencoder and of the
    tables, and no buffers; two layers at a time are collected in bfloat16.

    With W > 1 the trained weights are bfloat16 from here on, as each layer sees them then."""
    learn = count(trained.values())
    divided = undivided = 0
    for name, p in model.named_parameters():
        if name.startswith(("vae.", *TABLES)):
            undivided += p.nbytes
        elif name not in trained:
            divided += p.nbytes
    undivided += sum(b.nbytes for b in model.buffers())
    weights = (4 * learn + divided) / W + undivided
    if W > 1:
        weights += 2 * 2 * count(model.language_model.model.layers[0].parameters())
        if options.precision == "bf16":
            for p in trained.values():
                p.data = p.data.bfloat16()
    one_moment = 0                                         # of Muon; AdamW has two. In float32
    if getattr(options, "muon", 0):
        groups = sft.make_optimizer(trained, options).param_groups
        one_moment = count(p for group in groups if group["muon"] for p in group["params"])
    resting = {"weights": weights, "optimizer": 4 * (2 * learn - one_moment) / W}
    if getattr(options, "ema", 0):
        resting["average"] = 4 * learn / W
    return resting


def grid_flops(model: UniModel, options, T: int, W: int) -> float:
    """FLOPs of a sample grid, which every process draws for itself."""
    one = cost(model, options, denoise(model, 1, T, 1), memory=False).flops
    return W * GRID_PICTURES * GRID_STEPS * GRID_PASSES * one


def stage_one(model: UniModel, options, trained: dict, batches: list, prior: int, W: int = 1) -> Plan:
    """`batches` are those of some steps, each cut by batching.micro_batches. `prior`: the pictures that the base draws
    before. Raises UserError if nothing is learned."""
    resting = bytes_at_rest(model, options, trained, W)
    parts = Counter()
    for batch in batches:
        parts.update(sizes(model, [row.example for row in part]) for part in batch)
    if not parts:
        raise UserError(f"--mix {options.mix}: takes nothing of this character; name a task with a count above 0")
    flops = {m: cost(model, options, lambda: losses(model, m), trained.values(), memory=False).flops for m in parts}
    largest = max(flops, key=flops.get)
    update = update_costs(model, options, trained, lambda: losses(model, largest))
    gradients = 4 * count(trained.values()) / W
    grids = 1 + per_run(options.steps, options.sample_every) + prior / GRID_PICTURES
    return Plan(trained=count(trained.values()), frozen=count_frozen(model, trained),
                step=sum(flops[m] * times for m, times in parts.items()) / len(batches), steps=options.steps,
                reports=grids * grid_flops(model, options, 64, W),
                resting=resting, moments={"update": gradients + update[options.checkpointing].peak}, cache=0.0,
                update=update)


def per_run(steps: int, every: int) -> int:
    """How often something happens that is due every so many steps, and after the last."""
    return -(-steps // every) if every > 0 else 1


def stage_two(model: UniModel, options, trained: dict, prompts: list, held_out: int, W: int = 1) -> Plan:
    """`prompts` are trained on; `held_out` others are drawn twice at every report. Before the first iteration, each of
    `prompts` is drawn four times with somebody else in it (grpo.with_ceilings), by every process for itself."""
    c, G, K = model.config, options.group, options.steps
    P = options.prompts // W                               # on each GPU
    T = pad_rows([e.ids for e in model.readings([prompt.text for prompt in prompts], None)]).shape[1]
    rows = min(options.micro_batch, G)
    resting = bytes_at_rest(model, options, trained, W)
    if not adapters(model):                                # with adapters, the policy without them is the judge
        resting["VQA judge"] = count(model.parameters()) * (4 if options.weights == "fp32" else 2)

    update = update_costs(model, options, trained, denoise(model, rows, T, options.guidance))
    nothing = context(model, 1, 0)
    reading = cost(model, options, lambda: model.extend(nothing, torch.zeros(1, T, dtype=torch.long)), memory=False)
    drawing = cost(model, options, denoise(model, G, T, options.guidance))
    at_once = min(G, -(-2 ** 20 // c.image_size ** 2))     # pictures that UniModel.decode takes together
    decoding = cost(model, options, lambda: model.decode(torch.zeros(at_once, model.latent_count, c.token_dim)))
    judging, judged = judge_cost(model, options, prompts, P * G)

    learning = options.window * update[options.checkpointing].flops / rows            # of one picture
    finishing = decoding.flops / at_once + judging.flops / judged                     # of one picture
    iteration = P * (reading.flops + K * drawing.flops + G * (finishing + learning))
    report = 2 * held_out * (K * drawing.flops / G + finishing)
    drawn = len(prompts) if grpo.others_of(options) else 0
    ceilings = drawn * (reading.flops + 4 * (K * drawing.flops / G + decoding.flops / at_once))
    reports = 1 + per_run(options.iterations, options.eval_every)

    keys_and_values = 4 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * T                # of one prompt
    latents = 4 * (options.window + 1) * P * G * model.latent_count * c.token_dim
    cache = latents + (P + G) * keys_and_values
    gradients = 4 * count(trained.values()) / W
    moments = {"drawing": cache + drawing.peak, "decoding": cache + decoding.peak, "judging": cache + judging.peak,
               "update": cache + gradients + update[options.checkpointing].peak}
    return Plan(trained=count(trained.values()), frozen=count_frozen(model, trained), step=W * iteration,
                steps=options.iterations,
                reports=W * ceilings + reports * (W * report + grid_flops(model, options, T, W)),
                resting=resting, moments=moments, cache=cache, update=update)


def judge_cost(model: UniModel, options, prompts: list, pictures: int) -> tuple[Cost, float]:
    """Of one batch of questions to the VQA judge, and the number of pictures that it is about."""
    asked = [question for prompt in prompts for question in prompt.questions]
    if not asked:
        return Cost(0, 0, 0), 1
    each = len(asked) / len(prompts)                       # questions about a picture
    examples = model.readings([q.question for q in asked], None, [q.answer for q in asked])
    rows = min(options.vqa_batch, round(each * pictures))
    T = pad_rows([e.ids for e in examples]).shape[1]
    words = rows * sum(int((e.labels >= 0).sum()) for e in examples) // len(examples)
    side = model.config.image_size
    patches = len(model.patches(Image.new("RGB", (side, side)))[0])
    with without_adapters(model):
        found = cost(model, options, lambda: ask(model, rows, T, math.ceil(rows / each), patches, words))
    return found, rows / each


# ---- the command -----------------------------------------------------------------------------------------------------

def plan_sft(options: SftOptions) -> Plan:
    character = sft.chosen_character(options)
    model = imagine(options)
    with fake():
        trained = sft.trainable_parameters(model, options, lambda name: sft.learns_in_sft(name, options, model.config))
    prior = sft.prior_samples(model, character, options)
    own = training_samples(character)
    nearby = [replace(sample, task="nearby") for sample in own if sample.task == "reply"]      # as long as these, about
    most = len(sft.lines_to_others(character.name)) // 2
    examples = sft.prepare_examples(model, own + prior + nearby[:most])
    mix = sft.parse_mix(options.mix, set(examples))
    print(sft.about_mixture(character.name, examples, mix))
    batches = []
    for step in range(STEPS_COUNTED):
        batch = sft.next_batch(examples, mix, options.seed, step, options.drop_text, options.truncate)
        batches.append(batching.micro_batches(batch, options.micro_batch))
    drawn = sum(sample.target is not None for sample in prior)
    return stage_one(model, options, trained, batches, drawn, options.gpus)


def plan_grpo(options: GrpoOptions) -> Plan:
    character = load_character(options.char)
    options.model = grpo.stage_one(options)
    grpo.check(options)
    if options.gpus < 1 or options.prompts % options.gpus:
        raise UserError(f"--prompts {options.prompts}: cannot be dealt out to {options.gpus} GPUs evenly")
    model = imagine(options)
    with fake():
        trained = sft.trainable_parameters(model, options, sft.is_generation_weight)
    held_out = character.test["prompts"][:16] or character.prompts[:8]
    strangers = len(held_out[:8])                          # the first eight with somebody else, see grpo.train
    return stage_two(model, options, trained, character.prompts, len(held_out) + strangers, options.gpus)


def show(found: Plan, options) -> None:
    """Prints a plan."""
    resting = sum(found.resting.values())
    largest = max(found.moments, key=found.moments.get)
    now, otherwise = options.checkpointing, not options.checkpointing
    print(f"{'parameters':26}{found.trained:,} learn, {found.frozen:,} are frozen")
    for name, size in found.resting.items():
        show_memory(name, size)
    show_memory("gradients", 4 * found.trained / options.gpus)
    show_memory("activations", found.update[now].peak, f"({'without' if now else 'with'} checkpointing: "
                                                       f"{found.update[otherwise].peak / 2**30:.2f} GB)")
    show_memory("cache", found.cache)
    for name, size in found.moments.items():
        show_memory(f"in all, {name}", resting + size, "<- peak" if name == largest else "")
    print(f"{'work':26}{found.step:.3g} FLOP a step, {found.total:.3g} in {found.steps} steps and their reports")
    each = f", on each of {options.gpus}" if options.gpus > 1 else ""
    for name, card in CARDS.items():
        fits = "fits" if found.peak < 0.9 * card.memory * 2**30 else "does NOT fit"
        print(f"{name:26}{found.hours(name, options.precision):.2f} GPU-hours at {UTILISATION:.0%} of its best rate; "
              f"{fits} in {card.memory} GB{each}")


def show_memory(name: str, size: float, remark: str = "") -> None:
    print(f"{name:26}{size / 2**30:8.2f} GB {remark}".rstrip())


STAGES = {"sft": (SftOptions, plan_sft), "grpo": (GrpoOptions, plan_grpo)}


def main(argv: list[str] | None = None) -> None:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["--help"], ["-h"]):
        print(__doc__)
        return
    if not argv or argv[0] not in STAGES:
        raise UserError("name the stage first: python -m runtime.plan sft ... or python -m runtime.plan grpo ...")
    options_class, plan = STAGES[argv[0]]
    options = parse_options(options_class, __doc__, argv[1:])
    show(plan(options), options)


if __name__ == "__main__":
    run_script(main)
