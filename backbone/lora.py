"""What lets a large model be trained on one GPU: low-rank adapters, and frozen weights in eight bits.

    LoRA          y = W x + (alpha / r) B A x, of which only A and B learn                       (arXiv 2106.09685)
    Int8Linear    a frozen W as int8 with one scale per output channel: a quarter of float32, half of bfloat16

The tiny model needs neither and trains in full. At 7B the optimizer's two float32 moments, the float32 weights and
their gradients are 16 bytes for every number that learns: 230 GB in full, 5 GB for adapters of rank 64 (`runtime.plan`).

Shapes: x (..., in), W (out, in), A (r, in), B (out, r).
"""
import math
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from runtime.cli import UserError

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")     # of one expert
GEN_PROJECTIONS = tuple(name + "_moe_gen" for name in PROJECTIONS[:4]) + tuple(
    f"mlp_moe_gen.{name}" for name in PROJECTIONS[4:])
UND_PROJECTIONS = PROJECTIONS[:4] + tuple(f"mlp.{name}" for name in PROJECTIONS[4:])


@dataclass
class FitOptions:
    """What makes a model fit a machine; options of sft.py and grpo.py alike."""
    image_size: int = 0           # side of the pictures it draws, in pixels; 0 = the model's own
    weights: str = "auto"         # of what is frozen: fp32, bf16 or int8; auto = bf16 from a billion numbers on
    lora: int = 0                 # rank r of the adapters; 0 = train the weights themselves (paper: GRPO 64)
    lora_alpha: int = 0           # their strength alpha; 0 = 2 r, as published
    checkpointing: bool = False   # recompute activations in the backward pass: less memory, a third more time
    precision: str = "bf16"       # bf16 or fp32 arithmetic; what is trained and its optimizer are float32 either way
    device: str = "auto"          # auto, cpu, cuda or mps


class LoRA(nn.Module):
    """A frozen layer and its adapter. B starts at zero, so at first nothing changes. The names are peft's."""
    def __init__(self, base: nn.Module, r: int, alpha: float):
        super().__init__()
        device = base.weight.device
        self.base, self.r, self.alpha, self.on = base.requires_grad_(False), r, alpha, True
        self.lora_A = nn.Linear(base.in_features, r, bias=False, device=device)
        self.lora_B = nn.Linear(r, base.out_features, bias=False, device=device)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        y = self.base(x)
        if not self.on:
            return y
        x = x if torch.is_autocast_enabled(x.device.type) else x.to(self.lora_A.weight.dtype)
        return y + (self.lora_B(self.lora_A(x)) * (self.alpha / self.r)).to(y.dtype)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer W + (alpha / r) B A. Raises TypeError on int8, where the sum would be rounded away."""
        if isinstance(self.base, Int8Linear):
            raise TypeError("adapters on int8 weights cannot be merged; load the base in bf16 or fp32")
        W = self.base.weight
        W += (self.alpha / self.r * (self.lora_B.weight @ self.lora_A.weight)).to(W.dtype)
        return self.base


class Int8Product(torch.autograd.Function):
    """x (..., in), q (out, in) int8, s (out,) -> x (s q)'. Saves the bytes, not their bf16 image, for the way back."""
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
        scale = weight.float().abs().amax(1).clamp(min=1e-12) / 127
        self.scale, self.weight = scale, (weight.float() / scale[:, None]).round().to(torch.int8)

    def forward(self, x):
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        y = Int8Product.apply(x, self.weight, self.scale)
        return y if self.bias is None else y + self.bias.to(y.dtype)


# ---- putting them into a model --------------------------------------------------------------------------------------

def replace(model: nn.Module, found, make):
    """Every module for which found(name, module) gives way to make(module)."""
    for name, module in list(model.named_modules()):
        if found(name, module):
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, make(module))


def adapters(model: nn.Module) -> dict[str, LoRA]:
    return {name: module for name, module in model.named_modules() if isinstance(module, LoRA)}


def add_adapters(model: nn.Module, targets, r: int, alpha: float):
    """LoRA round every decoder projection whose name ends like one of `targets`."""
    replace(model.language_model["model"].layers, lambda name, module: name.endswith(tuple(f".{t}" for t in targets))
            and isinstance(module, (nn.Linear, Int8Linear)), lambda module: LoRA(module, r, alpha))


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


def merge_adapters(model: nn.Module):
    replace(model, lambda name, module: isinstance(module, LoRA), LoRA.merged)


def drop_adapters(model: nn.Module):
    replace(model, lambda name, module: isinstance(module, LoRA), lambda module: module.base)


def quantize(model: nn.Module):
    """Int8 for the decoder's projections: nine tenths of a 7B's bytes. Norms, tables and heads keep their precision."""
    replace(model.language_model["model"].layers, lambda name, module: type(module) is nn.Linear, Int8Linear)


def to_train(model: nn.Module, options: FitOptions, learns):
    """Chooses what is trained, by `learns(name)` of a parameter, and freezes the rest. If the model has adapters, or
    --lora asks for them, these alone are trained, on the projections that `learns` chooses. What is trained becomes
    float32, since small steps vanish in bfloat16. Raises UserError if options disagree."""
    present = adapters(model)
    if present and options.lora not in (0, next(iter(present.values())).r):
        had = next(iter(present.values())).r
        raise UserError(f"--lora {options.lora}: the checkpoint's adapters have rank {had}; leave --lora out")
    if options.lora and not present:
        targets = [name for name in UND_PROJECTIONS + GEN_PROJECTIONS if learns(name)]
        add_adapters(model, targets, options.lora, options.lora_alpha or 2 * options.lora)
    low_rank = bool(adapters(model))
    eight_bits = any(isinstance(module, Int8Linear) for module in model.modules())
    if eight_bits and not low_rank:
        raise UserError("--weights int8: eight bits cannot learn; add --lora 64, or take --weights bf16")
    for name, p in model.named_parameters():
        p.requires_grad_(learns(name) and (".lora_" in name or not low_rank))
        if p.requires_grad:
            p.data = p.data.float()
