"""The tiny world, all that the rest of the project needs of it: scenes, their pictures, and the words about them.

scene.py says what there is; places.py, props.py, figure.py, heads.py and clothes.py draw it; words.py and asking.py
tell it.
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from tiny.asking import questions
from tiny.figure import HEAD_Y, Look, draw_figure
from tiny.pen import COLORS, Pen
from tiny.places import backdrop, falling
from tiny.props import BESIDE
from tiny.scene import (
    ATTRIBUTES,
    CLOSE_POSES,
    EXPRESSIONS,
    EYEWEAR,
    FRAMINGS,
    FURS,
    GROUND,
    HATS,
    HELD,
    INDOORS,
    OUTDOORS,
    PEOPLE,
    PLACES,
    POSES,
    POSITIONS,
    SPECIES,
    TOP_COLORS,
    TOPS,
    WEATHERS,
    Scene,
    conflict,
    labels,
    random_scene,
)
from tiny.words import caption

__all__ = ["Scene", "Look", "random_scene", "conflict", "draw", "caption", "questions", "labels", "ATTRIBUTES",
           "CLOSE_POSES", "EXPRESSIONS", "EYEWEAR", "FRAMINGS", "FURS", "GROUND", "HATS", "HELD", "INDOORS", "OUTDOORS",
           "PEOPLE", "PLACES", "POSES", "POSITIONS", "SPECIES", "TOP_COLORS", "TOPS", "WEATHERS"]

# ---- the picture -----------------------------------------------------------------------------------------------------

def draw(scene: Scene, look: Look | None = None, size: int = 128) -> Image.Image:
    """The picture, drawn at four times its size and scaled down. Small variations (backdrop, skin, rain and snow) come
    from `jitter` alone. Figures stand on the model's grid of 16 px: a small model learns one figure, not one for
    every fraction of a pixel."""
    look, rng, big = look or Look(), random.Random(scene.jitter), 4 * size
    image = backdrop(scene.place, scene.weather, scene.jitter % 3, big).copy()
    pen = Pen(ImageDraw.Draw(image), 0, 0, big / 128)
    if scene.framing == "close":
        lean = {"left": 8, "right": -8}.get(scene.hand, 0)                 # makes room for the held thing
        zoom = 1.5
        draw_figure(pen.at(64 + lean, 72 - HEAD_Y * zoom, zoom), scene, look)
    else:
        x, foot = {"left": 48, "right": 80}.get(scene.position, 64), 119
        if scene.beside:
            spot = {"left": 19, "right": 109}[scene.side]
            _shadow(image, spot, foot - 5, 15, big / 128)
            BESIDE[scene.beside](pen.at(spot, foot - 4), COLORS.get(scene.beside_color, COLORS["gray"]))
        _shadow(image, x, foot, 22, big / 128)
        draw_figure(pen.at(x, foot), scene, look)
    falling(pen, scene.weather, rng, 9)
    return image.resize((size, size), Image.LANCZOS, reducing_gap=2.0)


def _shadow(image: Image.Image, x: float, y: float, radius: float, unit: float) -> None:
    """Darkens the ground in a flat ellipse, keeping its texture."""
    box = [round(v * unit) for v in (x - radius, y - 4, x + radius, y + 4)]
    patch = image.crop(box)
    mask = Image.new("L", patch.size, 0)
    ImageDraw.Draw(mask).ellipse((0, 0, patch.width - 1, patch.height - 1), fill=255)
    image.paste(patch.point(lambda v: int(v * 0.8)), box[:2], mask)
