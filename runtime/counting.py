"""A model without numbers, and what its work costs: how plan.py counts.

The model's own code runs on tensors that have a shape, a type and no numbers (torch's FakeTensorMode), while one mode
counts its FLOPs and another the bytes that are alive. Decoder layers are all alike: what the second adds to the first,
each of the others adds.
"""
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import model as network
from backbone.folders import (
    TABLES,
    base_of,
    blueprint,
    check_size,
    locate,
    own_config,
    place,
    published_config,
    read_config,
    read_tokenizer,
    resting_type,
)
from backbone.lora import add_adapters, quantize
from backbone.vision import AutoEncoder, as_drawn
from model import Config, UniModel
from runtime.cli import UserError

COUNTS = "gpus micro_batch steps sample_every iterations prompts group updates eval_every vqa_batch".split()


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
        raise UserError(f"{folder}: its configuration makes no model ({e})") from None


def imagine(options) -> UniModel:
    """The model as folders.load would make it, of tensors without numbers."""
    for name in COUNTS:
        if getattr(options, name, 1) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be 1 or more")
    if getattr(options, "backbone", ""):
        raise UserError(f"--backbone {options.backbone}: --plan counts a folder's model; leave --backbone out")
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
    except UserError:
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


def fused_attention(q, k, v, mask):
    """A GPU's, in place of model.attend, which takes these tensors for a CPU's."""
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


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
    attend = network.attend if options.device == "cpu" else fused_attention
    as_there = patch.multiple(network, attend=attend, to_images=lambda _: [])
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
