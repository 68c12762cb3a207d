"""The pictures that the embedded base and its judges learn from, kept on disk as arrays: rendered once, then read.

    pixels.u8     every picture of the World as it was drawn
    worn.u8       every fourth of them as the canvas gives it back, a little off: what a drawn picture looks like
    latents.f16   the canvas' Gaussian for every picture that the base learns to draw
"""
import json
import random
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from backbone.vision import AutoEncoder, to_images
from model import Config
from runtime.files import write_beside
from tiny import language, world


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


def write_text(path: Path, text: str):
    write_beside(path, lambda p: Path(p).write_text(text))


def done_so_far(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def grown_file(path: Path, dtype, shape: tuple) -> np.memmap:
    """An array on disk that is made once and then filled over several runs."""
    return np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=shape)


def to_unit(pixels: np.ndarray) -> torch.Tensor:
    """Bytes (N, H, W, 3) -> (N, 3, H, W) in [-1, 1]; the inverse of model.to_images."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


# ---- world: pictures of random scenes, and of moments in the life of random personas --------------------------------

WORN = 4                                                   # every so many pictures have a worn double


class World:
    """Item i is a pure function of i: a scene; then moments, with their persona and dialogue; then triplets,
    three scenes of one creature in colors of its own, for the identity judge alone."""

    def __init__(self, work: Path, args):
        self.scenes, self.talks, self.held_out = args.scenes, args.scenes + args.moments, args.held_out
        self.count = self.talks + 3 * args.triplets
        self.work, self.done = work, work / "pixels.done"

    @cached_property
    def pixels(self) -> np.memmap:
        return grown_file(self.work / "pixels.u8", np.uint8, (self.count, 128, 128, 3))

    @cached_property
    def worn(self) -> np.memmap:
        return grown_file(self.work / "worn.u8", np.uint8, (-(-self.count // WORN), 128, 128, 3))

    def item(self, i: int):
        """-> (scene, persona or None, moment or None)."""
        rng = random.Random(1_000_003 * 7 + i)
        if i < self.scenes:
            return world.random_scene(rng), None, None
        if i >= self.talks:
            return self.triplet(i)[0], None, None
        persona = language.random_persona(rng)
        moment = language.moment(persona, rng)
        return moment[0], persona, moment

    def triplet(self, i: int):
        """-> (scene, Look): who it is follows from the group of three, everything else from i."""
        who, rng = random.Random(f"creature {(i - self.talks) // 3}"), random.Random(f"scene {i}")
        lasting = ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")
        keep = {k: v for k, v in asdict(world.random_scene(who, framing="full")).items() if k in lasting}
        chances = (("fur", 0.6), ("coat", 0.3), ("mask", 0.2), ("cheeks", 0.2))
        colors = {part: tuple(who.randrange(20, 250) for _ in range(3))
                  for part, chance in chances if who.random() < chance}
        if keep["eyewear"] == "sunglasses":
            keep["expression"] = rng.choice(("happy", "laughing", "sad", "angry"))
        return world.random_scene(rng, **keep), world.Look(**colors)

    def render(self):
        for i in range(done_so_far(self.done), self.count):
            self.pixels[i] = np.asarray(world.draw(*(self.triplet(i) if i >= self.talks else self.item(i)[:1])))
            if (i + 1) % 1000 == 0 or i + 1 == self.count:
                self.pixels.flush()
                write_text(self.done, str(i + 1))
                print("world", i + 1, flush=True)

    def encode(self):
        """Latent means and deviations of all scenes and moments, in half precision: `latents_shape`."""
        ae, done = finished_ae(self.work), self.work / "latents.done"
        out = grown_file(self.work / "latents.f16", np.float16, latents_shape(self))
        for i in range(done_so_far(done), self.talks, 32):
            x = self.batch(range(i, min(i + 32, self.talks)))
            with torch.no_grad(), autocast():
                out[i:i + 32] = torch.stack(ae.encode(x), 1).half().numpy()
            if i % 6400 == 0:
                out.flush()
                write_text(done, str(i))
                print("latents", i, flush=True)
        write_text(done, str(self.talks))

    def wear(self):
        """Every fourth picture through the canvas and back, its latents a little off. Judges that learn from these too
        are not surprised by what the base draws, and give nothing for its softness."""
        ae, done, index = finished_ae(self.work), self.work / "worn.done", range(0, self.count, WORN)
        for k in range(done_so_far(done), len(index), 32):
            x, dice = self.batch(index[k:k + 32]), torch.Generator().manual_seed(k)
            with torch.no_grad(), autocast():
                mean = ae.encode(x)[0].float()
                off = 0.3 * torch.rand(len(x), 1, 1, 1, generator=dice) * torch.randn(mean.shape, generator=dice)
                images = to_images(ae.decode(mean + off))
            self.worn[k:k + 32] = np.stack([np.asarray(image) for image in images])
            if k % 3200 == 0:
                self.worn.flush()
                write_text(done, str(k))
                print("worn", k, flush=True)
        write_text(done, str(len(index)))

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.pixels[i]))

    def batch(self, index) -> torch.Tensor:
        """(N, 3, 128, 128) in [-1, 1]"""
        return to_unit(np.stack([np.asarray(self.pixels[i]) for i in index]))

    def for_judges(self, index) -> torch.Tensor:
        """As `batch`, but every fourth picture is worn."""
        return to_unit(np.stack([np.asarray(self.pixels[i] if i % WORN else self.worn[i // WORN]) for i in index]))

    def train(self, rng, moments=False) -> int:
        """An index for training: the first `held_out` scenes are never drawn."""
        return rng.randrange(self.scenes, self.talks) if moments else rng.randrange(self.held_out, self.scenes)

    def mixed(self, rng) -> int:
        """An index for training, three moments among ten."""
        return self.train(rng, moments=rng.random() < 0.3)


def latents_shape(pictures: World) -> tuple:
    return pictures.talks, 2, 16, 16, 16                   # mean and std, (Z, 16, 16)


def scaled_config(work: Path) -> Config:
    return Config(**json.loads((work / "scale.json").read_text()))


def finished_ae(work: Path) -> AutoEncoder:
    ae = AutoEncoder(scaled_config(work))
    ae.load_state_dict(load_file(work / "ae.safetensors"))
    return ae.requires_grad_(False)


# ---- not of the world ----------------------------------------------------------------------------------------------

def generic_image(rng: np.random.Generator, size=128) -> np.ndarray:
    """Not of the world: dead leaves, gradients, waves or noise, so that the autoencoder also carries real
    photographs."""
    y, x = np.mgrid[:size, :size] / size
    a, b = rng.integers(0, 256, (2, 3))
    ramp = np.clip(x * rng.normal() + y * rng.normal() + rng.random(), 0, 1)[..., None]
    out = (a * ramp + b * (1 - ramp)).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:                                         # dead leaves: disks that cover each other, sizes as in nature
        for r in np.sort(2 + 40 * rng.random(70) ** 3)[::-1]:
            cx, cy = rng.random(2) * size
            inside = (x * size - cx) ** 2 + (y * size - cy) ** 2 < r * r
            out[inside] = rng.integers(0, 256, 3) + rng.normal(0, 8, (inside.sum(), 1))
    elif kind == 1:                                        # waves
        for _ in range(rng.integers(2, 7)):
            fx, fy = rng.normal(0, 12, 2)
            out += np.sin(2 * np.pi * (fx * x + fy * y) + 6 * rng.random())[..., None] * rng.normal(0, 25, 3)
    elif kind == 2:                                        # cloudy noise over several octaves
        for n in (4, 8, 16, 32, 64):
            grid = Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
            out += (np.asarray(grid, np.float32) - 128) * rng.random() * 3 / n ** 0.5
    else:                                                  # boxes and fine grain
        for _ in range(rng.integers(5, 40)):
            x0, y0 = rng.integers(0, size, 2)
            w, h = rng.integers(2, 50, 2)
            out[y0:y0 + h, x0:x0 + w] = rng.integers(0, 256, 3)
        out += rng.normal(0, rng.random() * 8, out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)
