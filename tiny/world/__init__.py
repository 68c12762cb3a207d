"""The tiny world, all that the rest of the project needs of it: scenes, their pictures, and the words about them.

    scene.py       what there is, and which scenes exist           tables/scene.json
    figure.py, heads.py, clothes.py, props.py, places.py, pen.py   draw it
    captions.py    tells it                                        tables/captions.json
    vqa.py         asks about it
    changes.py     the same scene with one thing otherwise
"""

from __future__ import annotations

import random

from PIL import Image, ImageDraw

from tiny.world.captions import caption, tell
from tiny.world.figure import HEAD_Y, Look, draw_figure
from tiny.world.pen import COLORS, Pen
from tiny.world.places import backdrop, falling
from tiny.world.props import BESIDE
from tiny.world.scene import (
    ATTRIBUTES, CLOSE_POSES, EXPRESSIONS, EYEWEAR, FRAMINGS, FURS, GROUND, HATS, HELD, INDOORS, OUTDOORS, PEOPLE,
    PLACES, POSES, POSITIONS, SPECIES, TOP_COLORS, TOPS, WEATHERS, Scene, conflict, labels, random_scene)
from tiny.world.vqa import questions

__all__ = ["Scene", "Look", "random_scene", "conflict", "draw", "caption", "tell", "questions", "labels", "ATTRIBUTES",
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
