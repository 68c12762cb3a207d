"""The pictures that everything learns from, kept on disk as arrays: rendered once, then read.

    pixels.u8     every picture as it was drawn
    worn.u8       every fourth of them as the base would draw it: a noised latent, denoised and decoded
    latents.f16   the autoencoder's means for every picture that the base learns to draw
"""
import hashlib
import json
import random
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from backbone.vision import AutoEncoder
from model import Config
from runtime.cli import UserError
from runtime.files import write_beside
from tiny import language, world
from tiny.training.trainer import autocast

SIDE = 128                                                 # pixels
LATENT = (16, 16, 16)                                      # Z, h, w
WORN = 4                                                   # every so many pictures have a worn double


def write_text(path: Path, text: str):
    write_beside(path, lambda p: Path(p).write_text(text))


def done_so_far(path: Path) -> int:
    return int(path.read_text()) if path.exists() else 0


def grown_file(path: Path, dtype, shape: tuple) -> np.memmap:
    """An array on disk that is made once and then filled over several runs."""
    return np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=shape)


def to_unit(pixels: np.ndarray) -> torch.Tensor:
    """Bytes (N, H, W, 3) -> (N, 3, H, W) in [-1, 1]; the inverse of vision.to_images."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


class Pictures:
    """Item i is a pure function of i: single scenes; then moments, with their persona and dialogue; then triplets,
    three scenes of one creature in colors of its own, for the identity judge alone.

    The first `held_out` scenes are never trained on."""

    def __init__(self, work: Path, scenes: int = 60000, moments: int = 20000, triplets: int = 4000,
                 held_out: int = 1000):
        self.work, self.scenes, self.held_out = work, scenes, held_out
        self.described = scenes + moments                  # pictures that come with words
        self.count = self.described + 3 * triplets

    @cached_property
    def pixels(self) -> np.memmap:
        return grown_file(self.work / "pixels.u8", np.uint8, (self.count, SIDE, SIDE, 3))

    @cached_property
    def worn(self) -> np.memmap:
        return grown_file(self.work / "worn.u8", np.uint8, (-(-self.count // WORN), SIDE, SIDE, 3))

    @cached_property
    def worn_count(self) -> int:
        """How many worn doubles there are: judges can begin to learn before the base can draw, and go on after."""
        return done_so_far(self.work / "worn.done")

    @cached_property
    def latents(self) -> np.memmap:
        return grown_file(self.work / "latents.f16", np.float16, (self.described, *LATENT))

    # -- what is in a picture --
    def item(self, i: int):
        """-> (scene, persona or None, moment or None)."""
        rng = random.Random(1_000_003 * 7 + i)
        if i < self.scenes:
            return world.random_scene(rng), None, None
        if i >= self.described:
            return self.creature(i)[0], None, None
        persona = language.random_persona(rng)
        moment = language.moment(persona, rng)
        return moment.scene, persona, moment

    def creature(self, i: int):
        """-> (scene, Look): who it is follows from the group of three, everything else from i."""
        who, rng = random.Random(f"creature {(i - self.described) // 3}"), random.Random(f"scene {i}")
        lasting = ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")
        keep = {k: v for k, v in asdict(world.random_scene(who, framing="full")).items() if k in lasting}
        chances = (("fur", 0.6), ("coat", 0.3), ("mask", 0.2), ("cheeks", 0.2))
        colors = {part: tuple(who.randrange(20, 250) for _ in range(3))
                  for part, chance in chances if who.random() < chance}
        if keep["eyewear"] == "sunglasses":
            keep["expression"] = rng.choice(("happy", "laughing", "sad", "angry"))
        return world.random_scene(rng, **keep), world.Look(**colors)

    def fingerprint(self) -> str:
        """Of what the items are. Whoever changes a table of the world changes the items, but not the pixels on disk."""
        step = max(1, self.described // 200)
        known = [self.item(i)[:2] for i in range(0, self.described, step)]
        return hashlib.sha256(repr(known).encode()).hexdigest()[:16]

    def check(self):
        """Raises UserError if the pictures on disk are those of another world."""
        path = self.work / "pictures.fingerprint"
        if path.exists() and path.read_text() != self.fingerprint():
            raise UserError(f"{path}: the tables of the world or of personas have changed since these pictures were "
                            f"rendered; delete {self.work}/*.u8, *.f16, *.done and *.npy, and begin anew")
        write_text(path, self.fingerprint())

    # -- making the arrays --
    def render(self):
        done = self.work / "pixels.done"
        for i in range(done_so_far(done), self.count):
            scene, look = self.creature(i) if i >= self.described else (self.item(i)[0], None)
            self.pixels[i] = np.asarray(world.draw(scene, look))
            if (i + 1) % 4000 == 0 or i + 1 == self.count:
                self.pixels.flush()
                write_text(done, str(i + 1))
                print(f"rendered {i + 1} of {self.count} pictures", flush=True)

    def encode(self):
        """Latent means of all scenes and moments, in half precision."""
        autoencoder, done = load_autoencoder(self.work), self.work / "latents.done"
        for i in range(done_so_far(done), self.described, 32):
            x = self.batch(range(i, min(i + 32, self.described)))
            with torch.no_grad(), autocast():
                self.latents[i:i + 32] = autoencoder.encode(x)[0].half().numpy()
            if i % 6400 == 0:
                self.latents.flush()
                write_text(done, str(i))
                print(f"encoded {i} of {self.described} pictures", flush=True)
        self.latents.flush()
        write_text(done, str(self.described))

    # -- reading them --
    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.pixels[i]))

    def batch(self, index) -> torch.Tensor:
        """(N, 3, 128, 128) in [-1, 1]"""
        return to_unit(np.stack([np.asarray(self.pixels[i]) for i in index]))

    def for_judges(self, index) -> torch.Tensor:
        """As `batch`, but every fourth picture is worn, as soon as there are any."""
        rows = [self.worn[i // WORN] if i % WORN == 0 and i // WORN < self.worn_count else self.pixels[i] for i in index]
        return to_unit(np.stack([np.asarray(row) for row in rows]))

    def known_latents(self, index) -> torch.Tensor:
        """(N, Z, h, w)"""
        return torch.from_numpy(np.stack([self.latents[i] for i in index])).float()

    def train(self, rng, moments: bool = False) -> int:
        """An index for training."""
        return rng.randrange(self.scenes, self.described) if moments else rng.randrange(self.held_out, self.scenes)

    def mixed(self, rng) -> int:
        """An index for training, three moments among ten."""
        return self.train(rng, moments=rng.random() < 0.3)


def scaled_config(work: Path) -> Config:
    """The sizes of the base; what scales its latents was measured when the autoencoder was done."""
    return Config(**json.loads((work / "scale.json").read_text()))


def load_autoencoder(work: Path) -> AutoEncoder:
    autoencoder = AutoEncoder(scaled_config(work))
    autoencoder.load_state_dict(load_file(work / "ae.safetensors"))
    return autoencoder.requires_grad_(False)


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
