"""The generation expert learns to draw from what the understanding expert, which stays as it is, has read.

A prompt is read once, without a gradient, and serves several noised versions of its picture: it is t and noise that the
gradient varies with. Three things shape the loss:

1. Times. Composition is decided near t = 1 and faces are decided near t = 0, so neither end may be starved (`times`).
2. Alignment. Half-way through the layers, what is at a place of the noised picture should tell what the vision encoder
   sees there in the clean one (REPA, arXiv 2410.06940). It speeds training up several times.
3. Near misses, in the first part of training: the velocity leads from a picture with some things changed to the one
   that was asked for. All else is in sight, so what moves the weights is which words belong to which thing. It costs
   sharpness, as x_t then is no mixture of the target, and so it ends early.
"""
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image

from data import draw_prompt
from model import UniModel, patchify, shift_time
from runtime.processes import world_size
from tiny import language, world
from tiny.training.pictures import Pictures, to_unit
from tiny.training.trainer import Trainer, autocast, compile_layers
from tiny.world.changes import HALF_COLORS, retold

PROMPTS, COPIES = 32, 3                # prompts a step, noised versions of the picture of each
LONG = 4                               # prompts with a whole dialogue in every other step: as long as three short ones
DROP = 0.1                             # of the prompts are left out, for guidance
NEAR = 12                              # near misses a step, while there are any
ALIGN_LAYER, ALIGN_WEIGHT = 3, 0.5
LEARNING_RATE, MUON_RATE = 2e-3, 3e-3


@dataclass
class Order:
    """A prompt, the number of its picture, and the near miss that training begins from (None: the picture itself)."""
    prompt: str
    index: int
    near: Image.Image | None = None


class Orders:
    """What is asked for, made on the spot."""

    def __init__(self, pictures: Pictures):
        self.pictures = pictures

    def short(self, rng) -> Order:
        i = self.pictures.mixed(rng)
        scene, persona, moment = self.pictures.item(i)
        keep = rng.choice((1.0, 1.0, 1.0, 0.8, 0.5))
        if moment and rng.random() < 0.5:
            told = f"{language.description(persona, rng)}\n{moment.draw}"
            return Order(rng.choice((moment.instruction, moment.draw, told)), i)
        subject = None
        if moment or rng.random() < 0.3:
            name = persona.name if persona else language.random_name(rng, rng.choice(("he", "she")))
            subject = rng.choice((name, f"{name} the {scene.fur} {scene.species}", f"{name}, a {scene.species},"))
        return Order(world.caption(scene, rng, subject=subject, keep=keep), i)

    def long(self, rng) -> Order:
        i = self.pictures.train(rng, moments=True)
        _, p, moment = self.pictures.item(i)
        plan = (moment.thinking, moment.instruction) if rng.random() < 0.5 else ()
        return Order(draw_prompt(p.name, language.description(p, rng), moment.user, moment.reply, *plan), i)

    def near_miss(self, rng) -> Order:
        """The same picture with up to three told things otherwise: mostly colors."""
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject, seed = persona.name if persona and rng.random() < 0.5 else None, rng.random()

        def caption(scene):
            return world.caption(scene, random.Random(seed), subject=subject)

        near = scene
        for _ in range(rng.randint(1, 3)):
            near, _ = retold(near, caption, rng, HALF_COLORS)
        return Order(caption(scene), i, world.draw(near))


# ---- losses ---------------------------------------------------------------------------------------------------------

def times(n: int) -> torch.Tensor:
    """t (n,): 45 % logit-normal and moved towards noise, 35 % uniform, 20 % in the last quarter."""
    middle = shift_time(torch.sigmoid(torch.randn(n)), 2.0)
    uniform, kind = torch.rand(n), torch.rand(n)
    t = torch.where(kind < 0.45, middle, torch.where(kind < 0.8, uniform, 0.75 + 0.25 * uniform))
    return t.clamp(0.002, 0.999)


def velocity_error(model: UniModel, context, x0, t, shown=None) -> torch.Tensor:
    """(B,): mean squared error of the velocity that leads from `shown` (x0 itself, if not given), noised to t, to x0.

    Where both are one that velocity is noise - x0, the flow-matching target of model.py. x0 (B, N, token_dim)."""
    t_ = t[:, None, None]
    x_t = (1 - t_) * (x0 if shown is None else shown) + t_ * torch.randn_like(x0)
    v = model.velocity(x_t, t, context)
    return (v - (x_t - x0) / t_).square().mean((1, 2))


class Aligner(nn.Module):
    """From a hidden state of the generation expert to the vision encoder's feature at the same place. For training
    alone: it is thrown away."""

    def __init__(self, model: UniModel, layer: int = ALIGN_LAYER):
        super().__init__()
        C, out = model.config.hidden_size, model.config.vit_hidden_size
        self.net = nn.Sequential(nn.Linear(C, C), nn.SiLU(), nn.Linear(C, out))
        self.hidden = None
        model.language_model.model.layers[layer - 1].register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.hidden = output[1]

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Mean cosine with features (B, N, C_vit), for the pictures that the model has just been given."""
        with autocast():
            told = self.net(self.hidden)
        return F.cosine_similarity(told.float(), features, dim=-1).mean()


class DrawingLoss:
    """Sends the losses of a step backwards."""

    def __init__(self, model: UniModel, aligner: Aligner, pictures: Pictures):
        self.model, self.aligner, self.pictures, self.orders = model, aligner, pictures, Orders(pictures)

    def latents(self, pixels_or_index) -> torch.Tensor:
        z = self.pictures.known_latents(pixels_or_index)
        return patchify(z, self.model.config.latent_patch_size).repeat_interleave(COPIES, 0)

    def context(self, orders: list[Order], rng):
        prompts = [order.prompt if rng.random() >= DROP else None for order in orders]
        with torch.no_grad(), autocast():
            return self.model.context(prompts).repeat(COPIES)

    def features(self, index) -> torch.Tensor:
        """What the vision encoder sees, place by place: its patches are as large as the latent tokens."""
        c, tower = self.model.config, self.model.vit_model["vision_model"]
        place = torch.arange(c.vit_max_patches ** 2).expand(len(index), -1)
        with torch.no_grad(), autocast():
            seen = tower(patchify(self.pictures.batch(index), c.vit_patch_size), place).float()
        return seen.repeat_interleave(COPIES, 0)

    def draw(self, orders: list[Order], rng, weight: float) -> dict:
        index = [order.index for order in orders]
        x0 = self.latents(index)
        t = times(len(x0))
        context = self.context(orders, rng)
        with autocast():
            error = velocity_error(self.model, context, x0, t)
        aligned = self.aligner(self.features(index))
        (weight * (error.mean() - ALIGN_WEIGHT * aligned)).backward()
        error = error.detach()
        by_time = {f"t{k}": error[(4 * t).long() == k].mean() for k in range(4) if ((4 * t).long() == k).any()}
        return {"flow": error.mean(), "aligned": aligned.detach(), **by_time}

    def mend(self, orders: list[Order], rng) -> dict:
        near = to_unit(np.stack([np.asarray(order.near) for order in orders]))
        with torch.no_grad():
            miss = self.model.vae.encode(near)[0].float()
        shown = patchify(miss, self.model.config.latent_patch_size).repeat_interleave(COPIES, 0)
        x0 = self.latents([order.index for order in orders])
        t = (0.5 + 0.5 * torch.rand(len(x0))).clamp(max=0.999)
        context = self.context(orders, rng)
        with autocast():
            error = velocity_error(self.model, context, x0, t, shown).mean()
        (0.5 * error).backward()
        return {"mend": error.detach()}

    def step(self, rng, near: bool, long: bool) -> dict:
        orders = sorted((self.orders.short(rng) for _ in range(PROMPTS // world_size())),
                        key=lambda order: len(order.prompt))
        half = len(orders) // 2
        seen = [self.draw(part, rng, 0.5) for part in (orders[:half], orders[half:])]
        if long:
            self.draw([self.orders.long(rng) for _ in range(LONG // world_size())], rng, 0.25)
        found = {key: sum(float(row[key]) for row in seen if key in row) / sum(key in row for row in seen)
                 for key in set().union(*seen)}
        if near:
            found |= self.mend([self.orders.near_miss(rng) for _ in range(NEAR // world_size())], rng)
        return found


# ---- training -------------------------------------------------------------------------------------------------------

def learns(name: str) -> bool:
    """The generation expert and the image head."""
    return "moe_gen" in name or name.startswith(("vae2llm", "llm2vae", "time_embedder"))


def train_drawing(model: UniModel, work: Path, pictures: Pictures, steps: int, near_share: float = 0.4, look=None):
    for name, p in model.named_parameters():
        p.requires_grad_(learns(name))
    torch.manual_seed(9)
    together = nn.ModuleDict({"model": model, "aligner": Aligner(model)})
    trainer = Trainer(work, "drawing", together, steps, LEARNING_RATE, MUON_RATE, average=0.998)
    loss = DrawingLoss(model, together["aligner"], pictures)
    compile_layers(model)

    def loss_of(step, rng):
        return loss.step(rng, near=step < near_share * steps, long=step % 2 == 0)

    trainer.run(loss_of, look, 1000)
    return trainer
