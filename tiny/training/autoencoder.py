"""The autoencoder: first as a whole, then, when the base can draw, its decoder alone with what the base draws.

1. `train_autoencoder`: pictures there and back, and a strong KL, so that latents are smooth enough for a small model to
   draw. L1 and L2 alone leave outlines soft: 40 % of the Laplacian energy.
2. `finish_decoder`: the encoder and so the base know nothing of it. The decoder learns from three kinds of latents:
   true ones; worn ones, which are true latents noised to some t and denoised by the base; and drawn ones. The first
   two have a picture to compare with, and a small PatchGAN (arXiv 1611.07004) judges all three, so the decoder learns
   to give outlines back where the base was not sure of them.
"""
import json
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import save_file

from backbone.vision import AutoEncoder, to_images
from model import Config, UniModel, euler, patchify, unpatchify
from runtime.files import write_beside
from tiny import world
from tiny.training.grids import sample_grid
from tiny.training.pictures import LATENT, WORN, Pictures, done_so_far, generic_image, grown_file, to_unit, write_text
from tiny.training.trainer import Trainer, autocast

CROP, CROPS = 64, 32                   # pixels a side, crops a step: the network is local, many pictures teach more
KL_WEIGHT = 0.02


def save_autoencoder(autoencoder: AutoEncoder, work: Path):
    weights = {k: v.contiguous() for k, v in autoencoder.state_dict().items()}
    write_beside(work / "ae.safetensors", lambda path: save_file(weights, path))


# ---- the whole ------------------------------------------------------------------------------------------------------

def generic_pictures(n: int = 1500) -> np.ndarray:
    """Not of the world, so that the autoencoder also carries photographs."""
    return np.stack([generic_image(np.random.default_rng(i)) for i in range(n)])


def crops_of(pictures: Pictures, generic: np.ndarray, rng) -> torch.Tensor:
    """(CROPS, 3, CROP, CROP), a fifth of them not of the world."""
    crops = []
    for _ in range(CROPS):
        image = pictures.pixels[pictures.train(rng)] if rng.random() >= 0.2 else rng.choice(generic)
        y, x = rng.randrange(0, 65), rng.randrange(0, 65)
        crops.append(np.asarray(image[y:y + CROP, x:x + CROP]))
    return to_unit(np.stack(crops))


def train_autoencoder(work: Path, config: Config, pictures: Pictures, steps: int):
    torch.manual_seed(0)
    autoencoder = AutoEncoder(config)
    trainer = Trainer(work, "autoencoder", autoencoder, steps, 2e-3)
    generic = generic_pictures()

    def loss_of(step, rng):
        x = crops_of(pictures, generic, rng)
        with autocast():
            mean, std = autoencoder.encode(x)
            y = autoencoder.decode(mean + std * torch.randn_like(mean))
        mean, std, error = mean.float(), std.float(), y.float() - x
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.clamp(min=1e-6).log()).mean()
        loss = error.abs().mean() + 2 * error.square().mean() + KL_WEIGHT * kl
        loss.backward()
        return {"loss": loss.detach(), "l1": error.detach().abs().mean(), "kl": kl.detach()}

    trainer.run(loss_of, lambda step: look(autoencoder, trainer, pictures))
    with torch.no_grad():
        # The wide posterior has made the decoder patient; as a target of the flow it would be noise that no network
        # can predict, two fifths of the variance. A fifth of its width is left.
        autoencoder.encoder.conv_out.bias[config.z_channels:] -= 2 * math.log(5)
        index = range(0, pictures.described, pictures.described // 500)
        z = torch.cat([autoencoder.encode(pictures.batch(index[k:k + 50]))[0] for k in range(0, len(index), 50)])
    scale = {"scale_factor": float(1 / z.std()), "shift_factor": float(z.mean())}      # unit variance, zero mean
    write_text(work / "scale.json", json.dumps(scale))
    save_autoencoder(autoencoder, work)


@torch.no_grad()
def look(autoencoder: AutoEncoder, trainer: Trainer, pictures: Pictures):
    """Held-out pictures, what the autoencoder makes of them, and how near that is."""
    x = pictures.batch(range(64))
    with autocast():
        y = autoencoder.decode(autoencoder.encode(x)[0]).float().clamp(-1, 1)
    psnr = float((-10 * ((y - x) / 2).square().mean((1, 2, 3)).log10()).mean())
    trainer.log({"step": trainer.step, "psnr": round(psnr, 2)})
    sample_grid([to_images(part) for part in (x[:8], y[:8], x[8:16], y[8:16])], trainer.work / f"{trainer.name}.png")


# ---- latents as the base leaves them --------------------------------------------------------------------------------

@torch.no_grad()
def denoise(model: UniModel, prompts: list[str], x, t0: float, steps: int) -> torch.Tensor:
    """From latent tokens x at time t0 to latents (B, Z, h, w), without guidance."""
    with autocast():
        context = model.context(prompts)
        times = torch.linspace(t0, 0, steps + 1)
        for t, t_next in zip(times, times[1:]):
            x = euler(x, model.velocity(x, t, context), t, t_next)
    return unpatchify(x, model.config.latent_patch_size, *model.grid)


def make_worn_latents(model: UniModel, work: Path, pictures: Pictures, worn: int = 6000, drawn: int = 2000):
    """worn_latents.f16: of held-in scenes, noised to t0 in 0.15 to 0.7 and denoised by the base. drawn_latents.f16:
    from noise alone, guided. Both with the numbers of their pictures implied: see `worn_index`."""
    p = model.config.latent_patch_size
    for name, count in (("worn", worn), ("drawn", drawn)):
        done = work / f"{name}_latents.done"
        out = grown_file(work / f"{name}_latents.f16", np.float16, (count, *LATENT))
        for i in range(done_so_far(done), count, 20):
            index = [worn_index(pictures, k) for k in range(i, min(i + 20, count))]
            rng, generator = random.Random(i), torch.Generator().manual_seed(i)
            prompts = [world.caption(pictures.item(k)[0], rng) for k in index]
            x0 = patchify(pictures.known_latents(index), p)
            noise = torch.randn(x0.shape, generator=generator)
            if name == "worn":
                t0 = rng.uniform(0.15, 0.7)
                z = denoise(model, prompts, (1 - t0) * x0 + t0 * noise, t0, max(2, round(12 * t0)))
            else:
                with torch.no_grad(), autocast():
                    x = model.flow(noise, model.context(prompts), 12, scale=model.config.guidance)
                z = unpatchify(x, p, *model.grid)
            out[i:i + len(index)] = z.half().numpy()
            if i % 400 == 0:
                out.flush()
                write_text(done, str(i))
                print(f"{name} latents: {i} of {count}", flush=True)
        out.flush()
        write_text(done, str(count))


def worn_index(pictures: Pictures, k: int) -> int:
    """The number of the picture that worn latent k belongs to: one in `WORN`, the ones that judges see worn."""
    return pictures.held_out + WORN * k if pictures.held_out + WORN * k < pictures.described else WORN * k


# ---- the decoder, finished ------------------------------------------------------------------------------------------

class PatchJudge(nn.Module):
    """True or decoded? One opinion for every patch of about 30 pixels, (B, 3, h, w) -> [features ...], (B, 1, ., .)."""

    def __init__(self, widths=(32, 64, 96)):
        super().__init__()
        pairs = zip((3, *widths), widths)
        self.layers = nn.ModuleList(nn.Conv2d(into, out, 4, stride=2, padding=1) for into, out in pairs)
        self.head = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return features, self.head(x)


class LatentCrops:
    """Crops of latents with the pixels that belong to them."""

    def __init__(self, work: Path, pictures: Pictures, autoencoder: AutoEncoder):
        def known(name: str):
            count = done_so_far(work / f"{name}_latents.done")
            return grown_file(work / f"{name}_latents.f16", np.float16, (count, *LATENT))
        self.pictures, self.worn, self.drawn = pictures, known("worn"), known("drawn")
        self.generic, self.autoencoder = generic_pictures(400), autoencoder

    def cut(self, latent, rng, pixels=None):
        side = CROP // 8
        y, x = rng.randrange(0, 9), rng.randrange(0, 9)
        z = torch.from_numpy(np.asarray(latent[:, y:y + side, x:x + side])).float()
        if pixels is None:
            return z, None
        return z, np.asarray(pixels[8 * y:8 * y + CROP, 8 * x:8 * x + CROP])

    def batch(self, rng):
        """-> latents (B, Z, 8, 8) and pixels (B, 3, 64, 64): half true, 40 % worn, 10 % not of the world."""
        rows = []
        for k in range(CROPS):
            if k < CROPS // 2:
                i = self.pictures.mixed(rng)
                z, x = self.cut(self.pictures.latents[i], rng, self.pictures.pixels[i])
                z = z + 0.25 * rng.random() ** 2 * torch.randn_like(z)
            elif k < CROPS * 9 // 10:
                k = rng.randrange(len(self.worn))
                z, x = self.cut(self.worn[k], rng, self.pictures.pixels[worn_index(self.pictures, k)])
            else:
                image = rng.choice(self.generic)[:CROP, :CROP]
                with torch.no_grad():
                    z = self.autoencoder.encode(to_unit(image[None]))[0][0]
                x = image
            rows.append((z, x))
        return torch.stack([z for z, _ in rows]), to_unit(np.stack([x for _, x in rows]))

    def drawn_batch(self, rng, n: int) -> torch.Tensor:
        return torch.stack([self.cut(rng.choice(self.drawn), rng)[0] for _ in range(n)])


def edge_error(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Differences of neighboring pixels, at three scales."""
    total = torch.zeros(())
    for _ in range(3):
        total = total + (y.diff(dim=2) - x.diff(dim=2)).abs().mean() + (y.diff(dim=3) - x.diff(dim=3)).abs().mean()
        y, x = F.avg_pool2d(y, 2), F.avg_pool2d(x, 2)
    return total


ADVERSARIAL, MATCHING, FROM_STEP = 0.03, 0.2, 300          # weights; the step at which the patch judge is heard


def finish_decoder(model: UniModel, work: Path, pictures: Pictures, steps: int):
    """Writes ae.safetensors with the finished decoder; `model` lends the encoder, and gets the decoder back."""
    autoencoder = model.vae
    autoencoder.requires_grad_(False)
    autoencoder.decoder.requires_grad_(True)
    torch.manual_seed(8)
    judge = PatchJudge()
    trainer = Trainer(work, "decoder", autoencoder, steps, 1e-3, flat=0.1)
    judging = Trainer(work, "patch_judge", judge, steps, 1e-3)
    crops = LatentCrops(work, pictures, autoencoder)

    def loss_of(step, rng):
        z, x = crops.batch(rng)
        z_drawn = crops.drawn_batch(rng, CROPS * 2 // 5)
        with autocast():
            y = autoencoder.decode(torch.cat((z, z_drawn))).float()
        compared = y[:CROPS]                               # those that have a picture to compare with
        error = compared - x
        loss = error.abs().mean() + 2 * error.square().mean() + 0.5 * edge_error(compared, x)
        seen = {"l1": error.detach().abs().mean()}
        if step >= FROM_STEP:
            judge.requires_grad_(False)
            with autocast():
                features, opinion = judge(y)
                with torch.no_grad():
                    wanted, _ = judge(x)
            matched = sum((a[:CROPS].float() - b.float()).abs().mean() for a, b in zip(features, wanted))
            loss = loss - ADVERSARIAL * opinion.float().mean() + MATCHING * matched
            judge.requires_grad_(True)
        loss.backward()
        with autocast():
            true, fake = judge(x)[1].float(), judge(y.detach())[1].float()
        hinge = F.relu(1 - true).mean() + F.relu(1 + fake).mean()
        hinge.backward()
        judging.update()
        return seen | {"loss": loss.detach(), "judge": hinge.detach()}

    trainer.saved_along.append(judging)
    trainer.run(loss_of, lambda step: look(autoencoder, trainer, pictures), 200)
    save_autoencoder(autoencoder, work)
