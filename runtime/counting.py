"""A model without numbers, and what its work costs: how plan.py counts.

The model's own code runs on tensors that have a shape and a type but no numbers (torch's FakeTensorMode). Meanwhile one
mode counts the FLOPs, and another the bytes that are alive. Decoder layers are all alike, so only models of one and of
two layers are run: what the second layer adds to the first, each further layer adds.
"""
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import model as network
from backbone.folders import (
    TABLES, base_of, blueprint, check_size, has_weights, locate, own_config, place, published_config, read_config,
    read_tokenizer, resting_type)
from backbone.lora import add_adapters, quantize
from backbone.vision import AutoEncoder, as_drawn
from model import Config, UniModel
from runtime.cli import UserError, check_numbers


# ---- a model without numbers -----------------------------------------------------------------------------------------

@cache
def fake() -> FakeTensorMode:
    """The one mode in which all tensors of a plan are made."""
    return FakeTensorMode(allow_non_fake_inputs=True)


class RoughTokenizer:
    """Stands in for a tokenizer that is not there: four characters a token."""
    def convert_tokens_to_ids(self, tokens):
        return [0] * len(tokens)

    def encode(self, text, **_):
        return [0] * -(-len(text) // 4)

    def decode(self, ids):
        return ""


def described(folder: Path, image_size: int) -> UniModel:
    """The model of a folder, on the meta device. If its weights are there, they are compared with it by name and shape.
    Raises UserError."""
    if has_weights(folder):
        return blueprint(folder, image_size)[0]
    if (folder / "llm_config.json").exists():
        config = config_without_weights(folder, image_size)
    else:
        config, _ = own_config(folder)
        config.image_size = image_size or config.image_size
    try:
        with torch.device("meta"):
            return UniModel(config)
    except (TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        raise UserError(f"{folder}: its configuration makes no model ({error})") from None


def config_without_weights(folder: Path, image_size: int) -> Config:
    """Of a published folder whose weights have not arrived. No file but the weights tells the sizes of the autoencoder:
    here it is FLUX's, which BAGEL ships."""
    flux = Config(ae_ch=128, ae_num_res_blocks=2, ae_norm_groups=32)
    with torch.device("meta"):
        shapes = {f"vae.{name}": p.shape for name, p in AutoEncoder(flux).state_dict().items()}
    shapes["vae2llm.weight"] = flux.hidden_size, flux.token_dim
    return published_config(folder, shapes, image_size)


def imagine(options) -> UniModel:
    """The model as folders.load would make it for these options of a stage, of tensors without numbers. Raises
    UserError."""
    check_numbers(options)
    if getattr(options, "backbone", ""):
        raise UserError(f"--backbone {options.backbone}: a plan counts a folder's model; leave --backbone out")
    folder = base = Path(locate(options.model))
    adapter, image_size = None, options.image_size
    if (folder / "adapter_config.json").exists():
        adapter = read_config(folder / "adapter_config.json")
        base = Path(base_of(folder))
        image_size = image_size or read_config(folder / "config.json")["model"]["image_size"]
    model = described(base, image_size)
    check_size(model.config, base)
    fill_with_fakes(model, options.weights)
    if adapter:
        with fake():
            add_adapters(model, adapter["target_modules"], adapter["r"], adapter["lora_alpha"])
    try:
        model.set_tokenizer(read_tokenizer(base, model.config.vocab_size))
    except UserError:
        print(f"{base}: no tokenizer yet; a token is taken to be four characters")
        model.set_tokenizer(RoughTokenizer())
    spare_numbers(model)
    return model


def fill_with_fakes(model: UniModel, weights: str) -> None:
    """Puts a tensor without numbers where folders.fill would put a weight, of the same type."""
    shapes = {name: p.shape for name, p in model.state_dict().items()}
    dtype = resting_type(model, weights)
    if weights == "int8":
        quantize(model)
    with fake():
        for name, shape in shapes.items():
            exact = name.startswith(("vae.", *TABLES))
            place(model, name, torch.empty(shape, dtype=torch.float32 if exact else dtype))


def spare_numbers(model: UniModel) -> None:
    """Replaces the methods that need numbers: pictures that the model would draw or encode are blank, and each picture
    is cut into patches only once, however many Samples ask about it."""
    c, known, cut = model.config, {}, model.patches

    def patches(image):
        if id(image) not in known:
            known[id(image)] = image, cut(image)           # the image too, or another could get its id
        return known[id(image)][1]

    def latents(images):
        width, height = as_drawn(images[0], c).size
        w, h = width // c.stride * c.latent_patch_size, height // c.stride * c.latent_patch_size
        return torch.zeros(1, 2, c.z_channels, h, w)

    def sample_images(prompts, *_, **__):
        return [Image.new("RGB", (c.image_size, c.image_size))] * len(prompts)

    def generate_text(prompts, *_, **__):
        return ["I am here, and I am glad to see you."] * len(prompts)

    model.patches, model.latents = patches, latents
    model.sample_images, model.generate_text = sample_images, generate_text


# ---- counting --------------------------------------------------------------------------------------------------------

class LiveBytes(TorchDispatchMode):
    """Bytes of the tensors that were made under it and are still alive (`now`), and the most at one time (`peak`)."""
    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        old = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor) and id(x.untyped_storage()) not in old:   # no view, no result in place
                self.add(x.untyped_storage())
        return result

    def add(self, storage):
        if storage in self.known:
            return
        self.known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.subtract, storage.nbytes())

    def subtract(self, size: int):
        self.now -= size


def fused_attention(q, k, v, mask):
    """A GPU's, in place of model.attend, which would take these tensors for a CPU's."""
    shared = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(shared, 1), v.repeat_interleave(shared, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def flop_counter() -> FlopCounterMode:
    """torch's, and the fused attention that it does not know: what a CPU, here in place of a GPU, would run."""
    forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return FlopCounterMode(display=False, custom_mapping={
        forward: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
        backward: lambda grad, q, k, v, *_, **__: sdpa_backward_flop_count(grad, q, k, v)})


@dataclass
class Cost:
    flops: float
    saved: float                                           # bytes alive between forward and backward pass: activations
    peak: float                                            # most bytes alive at any time, gradients apart


def cost(model: UniModel, options, work, trained=(), memory=True) -> Cost:
    """What `work()` costs. If parameters are `trained`, work() returns a loss, which is then sent backwards.

    FLOPs and bytes are counted in two runs, since torch's counter keeps alive what checkpointing would free. Without
    `memory` the second is spared, and its figures are 0."""
    decoder = model.language_model.model
    layers, L = decoder.layers, model.config.num_hidden_layers
    attend = network.attend if options.device == "cpu" else fused_attention
    on_target = patch.multiple(network, attend=attend, to_images=lambda _: [])
    try:
        with fake(), on_target, torch.set_grad_enabled(bool(trained)):
            for p in trained:
                p.grad = torch.zeros_like(p)               # made before, so that LiveBytes does not meet them
            decoder.layers = layers[-1:]                   # the last learn; what is frozen below costs less
            one = run_counted(model, options, work, bool(trained), memory)
            decoder.layers = layers[-2:]
            two = run_counted(model, options, work, bool(trained), memory)
    finally:
        decoder.layers = layers
    return Cost(*(first + (L - 1) * (second - first) for first, second in zip(one, two)))


def run_counted(model: UniModel, options, work, backward: bool, memory: bool) -> tuple[float, float, float]:
    """-> FLOPs, bytes saved for the backward pass, peak bytes."""
    flops, live = flop_counter(), LiveBytes()
    saved = 0
    for counter in (flops, live) if memory else (flops,):
        with counter:
            with model.autocast(options.precision):
                loss = work()
            saved = live.now
            if backward:
                loss.backward()
            del loss
    return flops.get_total_flops(), saved, live.peak
