"""What lets a large model be trained on one GPU: low-rank adapters, and frozen weights in eight bits.

    LoRA          y = W x + (alpha / r) B A x, of which only A and B learn                       (arXiv 2106.09685)
    Int8Linear    a frozen W as int8 with one scale per output channel: a quarter of float32, half of bfloat16

The tiny model needs neither and trains in full. A weight that learns takes 16 bytes: itself, its gradient, and two
moments of the optimizer, all in float32. For BAGEL-7B-MoT in full that is 230 GB; for adapters of rank 64 it is 5 GB
(runtime/plan.py).

Shapes: x (..., in), W (out, in), A (r, in), B (out, r).
"""
import math
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from runtime.cli import UserError

# The decoder layers that get adapters: how their names end, for each of the two experts.
UND_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
GEN_PROJECTIONS = ("q_proj_moe_gen", "k_proj_moe_gen", "v_proj_moe_gen", "o_proj_moe_gen",
                   "mlp_moe_gen.gate_proj", "mlp_moe_gen.up_proj", "mlp_moe_gen.down_proj")


@dataclass
class FitOptions:
    """What makes a model fit a machine; options of sft.py and grpo.py alike."""
    image_size: int = 0           # side of the pictures it draws, in pixels; 0 = the model's own
    weights: str = "auto"         # of what is frozen: fp32, bf16 or int8; auto = bf16 from a billion numbers on
    lora: int = 0                 # rank r of the adapters; 0 = train the weights themselves (paper: GRPO 64)
    lora_alpha: int = 0           # their strength alpha; 0 = 2 r, as published
    checkpointing: bool = False   # recompute activations in the backward pass: less memory, a third more time
    compile: bool = False         # compile the decoder's layers: slow first steps, faster ones after; for long runs
    precision: str = "auto"       # of products: bf16 or fp32; auto = bf16 where the hardware multiplies it. What is
                                  # trained and its optimizer are float32 either way
    device: str = "auto"          # auto, cpu, cuda or mps


# ---- layers ----------------------------------------------------------------------------------------------------------

class LoRA(nn.Module):
    """A frozen layer and its adapter. B starts at zero, so at first nothing changes. The names are those of `peft`."""
    def __init__(self, base: nn.Module, r: int, alpha: float):
        super().__init__()
        device = base.weight.device
        self.base, self.r, self.alpha = base.requires_grad_(False), r, alpha
        self.on = True                                     # off: the layer answers as if it had no adapter
        self.lora_A = nn.Linear(base.in_features, r, bias=False, device=device)
        self.lora_B = nn.Linear(r, base.out_features, bias=False, device=device)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        y = self.base(x)
        if not self.on:
            return y
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_A.weight.dtype)
        update = self.lora_B(self.lora_A(x)) * (self.alpha / self.r)
        return y + update.to(y.dtype)


class Int8Product(torch.autograd.Function):
    """x (..., in), q (out, in) int8, s (out,) -> x (s q)', (..., out). What the backward pass needs is kept in eight
    bits; torch's own product would keep a copy of W in the type of x."""
    @staticmethod
    def forward(ctx, x, q, s):
        ctx.save_for_backward(q, s)
        return F.linear(x, q.to(x.dtype)) * s.to(x.dtype)          # integers up to 127 are exact in bfloat16

    @staticmethod
    def backward(ctx, grad):
        q, s = ctx.saved_tensors
        return (grad * s.to(grad.dtype)) @ q.to(grad.dtype), None, None


class Int8Linear(nn.Module):
    """A frozen nn.Linear in eight bits: W ~ s q with s = max |W| / 127 of each output channel."""
    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.register_buffer("weight", torch.empty_like(linear.weight, dtype=torch.int8))
        self.register_buffer("scale", torch.empty(linear.out_features, device=linear.weight.device))
        self.bias = linear.bias
        if not linear.weight.is_meta:
            self.quantize(linear.weight.detach())

    def quantize(self, weight: torch.Tensor):
        """Takes W (out, in)."""
        largest = weight.abs().amax(1).float()
        self.scale = largest.clamp(min=1e-12) / 127
        self.weight = (weight / self.scale[:, None]).round_().to(torch.int8)             # the quotient is in float32

    def forward(self, x):
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y = Int8Product.apply(x, self.weight, self.scale)
        return y if self.bias is None else y + self.bias.to(y.dtype)


# ---- putting them into a model ---------------------------------------------------------------------------------------

def replace(module: nn.Module, applies: Callable[[str, nn.Module], bool], make: Callable[[nn.Module], nn.Module]):
    """Puts make(part) in the place of every part for which applies(name, part)."""
    for name, part in list(module.named_modules()):
        if applies(name, part):
            owner, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(owner), leaf, make(part))


def adapters(model: nn.Module) -> dict[str, LoRA]:
    return {name: part for name, part in model.named_modules() if isinstance(part, LoRA)}


def add_adapters(model: nn.Module, targets: Iterable[str], r: int, alpha: float):
    """Puts an adapter round every projection of the decoder whose name ends like one of `targets`, as peft does."""
    endings = tuple("." + target for target in targets)

    def is_target(name, part):
        return isinstance(part, (nn.Linear, Int8Linear)) and f".{name}".endswith(endings)
    replace(model.language_model["model"].layers, is_target, lambda part: LoRA(part, r, alpha))


def drop_adapters(model: nn.Module):
    """Takes all adapters away. What is left is the base."""
    replace(model, lambda name, part: isinstance(part, LoRA), lambda part: part.base)


@contextmanager
def without_adapters(model: nn.Module):
    """The base again, for as long as this lasts: a frozen judge that costs no memory of its own."""
    for module in adapters(model).values():
        module.on = False
    try:
        yield model
    finally:
        for module in adapters(model).values():
            module.on = True


def quantize(model: nn.Module):
    """Eight bits for the decoder's projections, nine tenths of a 7B's bytes. All else keeps its precision."""
    replace(model.language_model["model"].layers, lambda name, part: type(part) is nn.Linear, Int8Linear)


def to_train(model: nn.Module, options: FitOptions, learns: Callable[[str], bool]):
    """Chooses what is trained, by `learns(name)` of a parameter, and freezes the rest. If the model has adapters, or
    --lora asks for them, these alone are trained, on the projections that `learns` chooses. What is trained becomes
    float32, since small steps vanish in bfloat16. Raises UserError if options disagree."""
    check_adapters(model, options)
    if options.lora and not adapters(model):
        add_adapters(model, to_adapt(model, learns), options.lora, options.lora_alpha or 2 * options.lora)
    low_rank = bool(adapters(model))
    for name, p in model.named_parameters():
        p.requires_grad_(learns(name) and (".lora_" in name or not low_rank))
        if p.requires_grad:
            p.data = p.data.float()


def to_adapt(model: nn.Module, learns: Callable[[str], bool]) -> list[str]:
    """The projections that learn, with their layers: "2.self_attn.q_proj"."""
    paths = [name if name.startswith("mlp") else f"self_attn.{name}" for name in UND_PROJECTIONS + GEN_PROJECTIONS]
    every = [f"{i}.{path}" for i in range(model.config.num_hidden_layers) for path in paths]
    return [path for path in every if learns(f"language_model.model.layers.{path}")]


def compile_layers(model: nn.Module, backend: str = "inductor"):
    """Lets torch.compile fuse what stands between the products of a layer. The mathematics stays, the last bits change.

    A layer meets many shapes, with and without latents, cache and gradient, and each kind is compiled once. At torch's
    own limit of 8 kinds it would go on uncompiled without a word, in the middle of a run."""
    torch._dynamo.config.recompile_limit = 64
    for layer in model.language_model["model"].layers:
        layer.compile(dynamic=True, backend=backend)


def check_adapters(model: nn.Module, options: FitOptions):
    """Raises UserError if the model and its options disagree about adapters."""
    ranks = {adapter.r for adapter in adapters(model).values()}
    if options.lora and ranks and options.lora not in ranks:
        raise UserError(f"--lora {options.lora}: the checkpoint's adapters have rank {min(ranks)}; leave --lora out")
    if options.lora and getattr(options, "backbone", ""):
        raise UserError(f"--lora {options.lora}: the image head that --backbone adds is new, and adapters would leave "
                        "it untrained; leave --lora out")
    eight_bits = any(isinstance(part, Int8Linear) for part in model.modules())
    if eight_bits and not options.lora and not ranks:
        raise UserError("--weights int8: eight bits cannot learn; add --lora 64, or take --weights bf16")
