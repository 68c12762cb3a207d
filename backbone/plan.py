"""What a run takes, before anything is loaded: parameters, memory, FLOPs, and GPU-hours on four cards.

    python sft.py  --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing --plan
    python grpo.py --model path/to/BAGEL-7B-MoT --image-size 512 --lora 64 --checkpointing --plan --gpus 1

A folder with the configuration files is enough: weights and tokenizer are looked at if they are there, and never read.
Nothing here is a formula for what a layer costs. The model's own code runs on tensors that have a shape, a type and no
numbers (torch's FakeTensorMode), while one mode counts its FLOPs and another the bytes that are alive:

1. Decoder layers are all alike: what the second adds to the first, each of the others adds.
2. FLOPs are those that are computed: what checkpointing computes twice counts twice. Hours = FLOPs over UTILISATION of
   a card's best dense rate; waiting for other GPUs or for the disk is no part of it.
3. Attention is the fused kernel's, as on a GPU, which never writes out its scores; with --device cpu the plain one's.
4. Not counted: the small judges of the reward (2 GB and 1 % of the work, at the paper's size), CUDA itself (1 GB), and
   what the allocator loses. So a card counts as large enough with a tenth of it to spare.

Shapes as in model.py; P prompts, G pictures of each, W GPUs. GB are 2^30 bytes, as in `peak_memory`.
"""
import math
import weakref
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import model as network
from backbone.folders import (TABLES, ModelError, base_of, blueprint, check_size, locate, own_config, place,
                              published_config, read_config, read_tokenizer, resting_type)
from backbone.lora import adapters, add_adapters, quantize, without_adapters
from backbone.vision import AutoEncoder, as_drawn
from model import Config, Context, UniModel, pad_rows

UTILISATION = 0.4                                          # of the rates below; good training code reaches 0.3 to 0.5
CARDS = {"A100": (80, 312, 19.5), "H100": (80, 989, 67),   # GB; dense TFLOP/s in bf16 and in fp32
         "L40S": (48, 362, 91.6), "RTX 4090": (24, 165, 82.6)}
COUNTS = "gpus micro_batch steps sheet_every iterations prompts group updates eval_every vqa_batch".split()
SHEET = 8, 20, 2                                           # pictures, steps and passes (guidance) of a sample sheet


# ---- a model without numbers ----------------------------------------------------------------------------------------

@cache
def fake() -> FakeTensorMode:
    """The one mode in which all tensors of a plan are made; with torch's compiler behind it, so not before --plan."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class Guess:
    """Stands in for a tokenizer that is not there: four characters a token."""
    def convert_tokens_to_ids(self, tokens):
        return [0] * len(tokens)

    def encode(self, text, **_):
        return [0] * -(-len(text) // 4)


def described(folder: Path, image_size: int) -> UniModel:
    """The model of a folder on the meta device, strictly checked if the weights are there."""
    if (folder / "ae.safetensors").exists():
        return blueprint(folder, image_size)[0]
    if (folder / "llm_config.json").exists():              # what only weights tell: FLUX's canvas, as BAGEL ships it
        c = Config(ae_ch=128, ae_num_res_blocks=2, ae_norm_groups=32)
        with torch.device("meta"):
            shapes = {f"vae.{name}": p.shape for name, p in AutoEncoder(c).state_dict().items()}
        shapes["vae2llm.weight"] = c.hidden_size, c.token_dim
        config = published_config(folder, {name: (None, name, shape) for name, shape in shapes.items()}, image_size)
    else:
        config = own_config(folder)[0]
        config.image_size = image_size or config.image_size
    try:
        with torch.device("meta"):
            return UniModel(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as e:
        raise ModelError(f"{folder}: its configuration makes no model ({e})") from None


def imagine(options) -> UniModel:
    """The model as folders.load would make it, of tensors without numbers."""
    for name in COUNTS:
        if getattr(options, name, 1) < 1:
            raise ModelError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be 1 or more")
    if getattr(options, "backbone", ""):
        raise ModelError(f"--backbone {options.backbone}: --plan counts a folder's model; leave --backbone out")
    folder = base = Path(locate(options.model))
    about, size = {}, options.image_size
    if (folder / "adapter_config.json").exists():
        about, base = read_config(folder / "adapter_config.json"), Path(base_of(folder))
        size = size or read_config(folder / "config.json")["model"]["image_size"]
    model = described(base, size)
    check_size(model.config, base)
    shapes, dtype = {name: p.shape for name, p in model.state_dict().items()}, resting_type(model, options.weights)
    if options.weights == "int8":
        quantize(model)
    with fake():
        for name, shape in shapes.items():
            exact = name.startswith(("vae.", *TABLES))
            place(model, name, torch.empty(shape, dtype=torch.float32 if exact else dtype))
        if about:
            add_adapters(model, about["target_modules"], about["r"], about["lora_alpha"])
    try:
        model.set_tokenizer(read_tokenizer(base, model.config.vocab_size))
    except ModelError:
        print(f"{base}: no tokenizer yet; four characters are taken for a token")
        model.set_tokenizer(Guess())
    only_shapes(model)
    return model


def only_shapes(model: UniModel):
    """Preparing a Sample then costs little: a picture has one set of patches however many ask about it, and its latents
    need no canvas."""
    seen, look, c = {}, model.patches, model.config

    def patches(image):
        if id(image) not in seen:
            seen[id(image)] = image, look(image)           # the image too, or another could get its id
        return seen[id(image)][1]

    def latents(images):
        w, h = (side // c.stride * c.latent_patch_size for side in as_drawn(images[0], c).size)
        return torch.zeros(1, 2, c.z_channels, h, w)
    model.patches, model.latents = patches, latents


# ---- counting -------------------------------------------------------------------------------------------------------

class Live(TorchDispatchMode):
    """Bytes of the tensors that were made under it and are still alive, and the most there were at one time."""
    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for storage in (x.untyped_storage() for x in tree_leaves(result) if isinstance(x, torch.Tensor)):
            if storage not in self.known and id(storage) not in old:       # neither a view nor a result in place
                self.known.add(storage)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage.nbytes())
        return result

    def freed(self, count: int):
        self.now -= count


def flop_counter() -> FlopCounterMode:
    """torch's, and the fused attention that it does not know: what a CPU, here in place of a GPU, would run."""
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    back = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={
        fused: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        back: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)})


@dataclass
class Cost:
    flops: float
    saved: float                                           # bytes alive between forward and backward pass: activations
    peak: float                                            # most bytes alive at any time, gradients apart


def cost(model: UniModel, options, work, trained=(), memory=True) -> Cost:
    """Of `work()`: with parameters that are trained, of a loss that is then sent backwards, else without gradient.
    FLOPs and bytes are counted in two runs: torch's counter keeps alive what checkpointing would free."""
    decoder, found, L = model.language_model.model, [], model.config.num_hidden_layers
    layers, half = decoder.layers, options.precision == "bf16"
    plain = sdpa_kernel if options.device == "cpu" else lambda _: nullcontext()
    as_there = patch.multiple(network, sdpa_kernel=plain, to_images=lambda _: [])
    with fake(), as_there, torch.set_grad_enabled(bool(trained)):
        for p in trained:
            p.grad = torch.zeros_like(p)                   # there before, so that Live does not meet them
        for decoder.layers in (layers[:1], layers[:2]):
            flops, live = flop_counter(), Live()
            for counter in (flops, live)[:1 + memory]:
                with counter:
                    with torch.autocast("cpu", torch.bfloat16, enabled=half):
                        loss = work()
                    saved = live.now
                    if trained:
                        loss.backward()
                    del loss
            found.append((flops.get_total_flops(), saved, live.peak))
        decoder.layers = layers
    return Cost(*(one + (L - 1) * (two - one) for one, two in zip(*found)))


# ---- what the stages compute ----------------------------------------------------------------------------------------

def read(model: UniModel, B: int, T: int, looks: int, n: int) -> torch.Tensor:
    """und tokens (B, T, C), of which `looks` pictures of n patches each went through the eye."""
    und = model.language_model.model.embed_tokens(torch.zeros(B, T, dtype=torch.long))
    if not looks:
        return und
    eye, places = model.vit_model["vision_model"], torch.zeros(looks, n, dtype=torch.long)
    patches = torch.zeros(looks, n, 3 * model.config.vit_patch_size ** 2, dtype=model.llm2vae.weight.dtype)
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
    """(B, T, N, pictures looked at, patches of the largest, words) of a micro-batch, padded as the model pads it."""
    cells = [e.latent[0, 0].numel() for e in examples if e.latent is not None]
    patches = [len(e.patches) for e in examples if e.patches is not None]
    words = torch.cat([e.labels[e.labels >= 0] for e in examples])
    return (len(examples), pad_rows([e.ids for e in examples]).shape[1],
            max(cells, default=0) // model.config.latent_patch_size ** 2, len(patches), max(patches, default=0),
            pad_rows([words], 0, 64).shape[1])


def losses(model: UniModel, B: int, T: int, N: int, looks: int, n: int, words: int):
    """UniModel.forward of such a micro-batch."""
    und, places = read(model, B, T, looks, n), torch.zeros(B, N, dtype=torch.long)
    gen = model.embed_gen(torch.zeros(B, N, model.config.token_dim), torch.zeros(B), places).to(und.dtype)
    und, gen, _ = model.language_model.model(und, gen, torch.zeros(B, T + N, dtype=torch.long))
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


def ask(model: UniModel, rows: int, T: int, looks: int, n: int, words: int):
    """Pictures of n patches are read once, and behind them questions with answers (rows, T): rewards.answer_log_p."""
    length = pad_rows([torch.zeros(n + 2)]).shape[1]
    und, position = read(model, looks, length, looks, n), torch.zeros(looks, length, dtype=torch.long)
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
        raise ModelError(f"--mix {options.mix}: draws nothing from this character; name a task with a count above 0")
    flops = {part: cost(model, options, lambda: losses(model, *part), trained.values(), False).flops for part in parts}
    largest = max(flops, key=flops.get)
    return plan(model, options, trained, both(model, options, trained, lambda: losses(model, *largest)),
                step=sum(flops[part] * count for part, count in parts.items()) / len(batches), steps=options.steps,
                reports=(1 + options.steps // options.sheet_every + prior / SHEET[0]) * sheet(model, options, 64),
                resting=resting, moments={})


def grpo(model: UniModel, options, trained: dict, prompts: list, held_out: int) -> Plan:
    """Stage 2, an iteration part by part. `prompts` are trained on; those held out are drawn twice at every report."""
    c, resting, G, K = model.config, at_rest(model, options, trained), options.group, options.steps
    P = options.prompts // options.gpus                    # on each GPU, and P G pictures
    T = pad_rows([e.ids for e in model.readings([p.text for p in prompts], None)]).shape[1]
    micro = min(options.micro_batch, -(-P // options.updates) * G)
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
    step = 2 * texts.flops + P * (K - saved) * drawing.flops + P * G * (finish + learning)
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
