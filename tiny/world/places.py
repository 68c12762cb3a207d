"""Where the tiny world happens: sky, weather and places.

A backdrop is drawn at canvas size for a place, a weather and one of a few variants, then kept.
"""

from __future__ import annotations

import random
from functools import lru_cache

from PIL import Image, ImageDraw

from tiny.world.pen import RGB, WOOD, Pen, dark, light, mix

# ---- sky and weather -------------------------------------------------------------------------------------------------

SKY = {"sunny": ((120, 198, 247), (222, 243, 252)), "cloudy": ((168, 186, 202), (220, 228, 232)),
       "rainy": ((104, 122, 150), (164, 178, 194)), "snowy": ((176, 198, 226), (236, 243, 250)),
       "starry night": ((20, 24, 66), (78, 70, 132)), "space": ((14, 12, 38), (44, 34, 84))}
# weather -> what it tints the land with, how much, and how much the ground
TINT = {"cloudy": ((150, 160, 172), 0.16, 0.16), "rainy": ((76, 92, 120), 0.30, 0.30),
        "snowy": ((240, 246, 254), 0.40, 0.86), "starry night": ((26, 28, 76), 0.50, 0.50)}


class Tone:
    """Colors as the weather shows them."""

    def __init__(self, weather: str):
        self.tint, self.share, self.ground_share = TINT.get(weather, ((0, 0, 0), 0.0, 0.0))

    def __call__(self, color: RGB) -> RGB:
        return mix(color, self.tint, self.share)

    def ground(self, color: RGB) -> RGB:
        return mix(color, self.tint, self.ground_share)


def _cloud(pen: Pen, x: float, y: float, size: float, color: RGB) -> None:
    for dx, dy, r in ((-9, 1, 5), (-3, -3, 7), (5, -1, 6), (10, 2, 4)):
        pen.ellipse(x + dx * size, y + dy * size, r * size, r * size * 0.85, color)
    pen.box(x - 12 * size, y + 1 * size, x + 13 * size, y + 6 * size, color, 2.5 * size)


def _sun(pen: Pen, x: float, y: float) -> None:
    pen.star(x, y, 15, (255, 224, 120), points=12)
    pen.ellipse(x, y, 9.5, 9.5, (255, 204, 64))


def _sky(pen: Pen, weather: str, rng: random.Random) -> None:
    top, bottom = SKY[weather]
    for band in range(24):
        pen.box(0, band * 4, 128, band * 4 + 4.2, mix(top, bottom, band / 23))
    left = rng.random() < 0.5
    if weather == "sunny":
        _sun(pen, 17 if left else 111, 17)
        _cloud(pen, 100 if left else 26, 20 + rng.uniform(-3, 4), 1.0, (255, 255, 255))
    elif weather in ("cloudy", "rainy"):
        color = (246, 248, 250) if weather == "cloudy" else (76, 88, 112)
        for x, y, size in ((18, 17, 1.25), (62, 10, 1.1), (106, 19, 1.35)):
            _cloud(pen, x + rng.uniform(-5, 5), y + rng.uniform(-3, 3), size, mix(color, top, rng.uniform(0, 0.2)))
    elif weather in ("starry night", "space"):
        for _ in range(26):
            pen.star(rng.uniform(2, 126), rng.uniform(2, 74), rng.uniform(1.0, 2.2), (255, 246, 200), points=4)
    if weather == "starry night":
        x = 19 if left else 109
        pen.ellipse(x, 18, 10, 10, (255, 240, 190))
        pen.ellipse(x + 4.5, 15, 8.5, 8.5, mix(top, bottom, 0.16))


def falling(pen: Pen, weather: str, rng: random.Random, count: int) -> None:
    """Rain or snow; drawn behind the figure and, thinly, in front of it."""
    for _ in range(count):
        x, y = rng.uniform(0, 128), rng.uniform(0, 124)
        if weather == "rainy":
            pen.line([(x, y), (x - 2, y + 6)], (190, 214, 240), 0.9)
        elif weather == "snowy":
            pen.ellipse(x, y, 1.5, 1.5, (255, 255, 255))


# ---- places ----------------------------------------------------------------------------------------------------------

def _ground(pen: Pen, y: float, color: RGB, hill: float = 0.0) -> None:
    pen.box(-2, y, 130, 130, color)
    if hill:
        pen.ellipse(64, y + hill, 110, hill * 1.6, color)


def _meadow(pen: Pen, tone: Tone, rng: random.Random) -> None:
    pen.ellipse(20, 100, 60, 26, tone.ground((150, 206, 112)))
    pen.ellipse(112, 102, 62, 30, tone.ground((132, 194, 100)))
    _ground(pen, 92, tone.ground((112, 182, 82)), 8)
    for _ in range(9):
        x, y = rng.uniform(4, 124), rng.uniform(95, 125)
        pen.ellipse(x, y, 1.9, 1.9, tone(rng.choice([(255, 244, 180), (250, 180, 210), (255, 255, 255)])))
        pen.ellipse(x, y, 0.8, 0.8, tone((240, 180, 60)))


def _beach(pen: Pen, tone: Tone, rng: random.Random) -> None:
    pen.box(-2, 66, 130, 100, tone((64, 150, 212)))
    for y in (72, 79):
        for x in range(0, 128, 22):
            pen.arc(x + rng.uniform(0, 8), y, 4, 2, 180, 360, tone((150, 208, 240)), 1)
    pen.ellipse(64, 90, 84, 6, tone((240, 250, 252)))
    _ground(pen, 92, tone.ground((246, 220, 164)), 4)
    for x, y in ((14, 108), (112, 118)):
        pen.star(x + rng.uniform(-5, 5), y, 4, tone((240, 150, 100)))
    side = rng.choice((6, 122))
    pen.tube([(side, 96), (side + 2, 72), (side - 1, 50)], tone((160, 112, 70)), 5, 0)
    for reach, fall in ((-24, 6), (-20, -7), (24, 6), (20, -7), (-12, 14), (12, 14)):
        pen.poly([(side, 47), (side + reach * 0.5, 43 + fall * 0.4), (side + reach, 52 + fall),
                  (side + reach * 0.45, 49 + fall * 0.5)], tone((70, 154, 84) if fall < 10 else (88, 172, 92)))
    pen.ellipse(side, 48, 3, 3, tone((140, 94, 62)))


def _city(pen: Pen, tone: Tone, rng: random.Random) -> None:
    x = -4.0
    while x < 128:
        width, top = rng.uniform(17, 24), rng.uniform(30, 62)
        wall = tone(rng.choice([(206, 128, 108), (226, 178, 126), (150, 142, 178), (132, 160, 186), (186, 112, 104)]))
        pen.box(x, top, x + width - 1, 98, wall)
        pen.box(x - 0.6, top - 1.5, x + width - 0.4, top + 2, dark(wall, 0.25))
        for wy in range(int(top) + 6, 88, 10):
            for wx in (x + width * 0.16, x + width * 0.57):
                pen.box(wx, wy, wx + width * 0.24, wy + 5.5, (255, 230, 140) if rng.random() < 0.7 else dark(wall, 0.2))
        x += width
    _ground(pen, 95, tone.ground((190, 186, 184)))
    pen.box(-2, 110, 130, 130, tone((122, 122, 132)))
    for x in range(4, 128, 26):
        pen.box(x, 118, x + 13, 120.5, tone((240, 236, 220)))


def _pine(pen: Pen, x: float, foot: float, size: float, color: RGB, tone: Tone) -> None:
    pen.box(x - 2 * size, foot - 8 * size, x + 2 * size, foot, tone((120, 82, 56)))
    for i, (w, y) in enumerate(((15, -6), (12, -20), (9, -33))):
        pen.poly([(x - w * size, foot + y * size), (x + w * size, foot + y * size), (x, foot + (y - 21) * size)],
                 light(color, 0.07 * i))


def _forest(pen: Pen, tone: Tone, rng: random.Random) -> None:
    for x in range(-2, 134, 15):
        _pine(pen, x + rng.uniform(-3, 3), 92, rng.uniform(0.75, 1.0), tone((120, 172, 128)), tone)
    _ground(pen, 90, tone.ground((104, 148, 78)), 4)
    for x in (6, 30, 100, 122):
        _pine(pen, x + rng.uniform(-4, 4), 97 + rng.uniform(-2, 3), rng.uniform(1.05, 1.3), tone((48, 116, 76)), tone)


def _desert(pen: Pen, tone: Tone, rng: random.Random) -> None:
    pen.poly([(4, 94), (34, 54), (64, 94)], tone((222, 164, 104)))
    pen.poly([(34, 54), (64, 94), (44, 94)], tone((198, 138, 88)))
    pen.ellipse(102, 100, 58, 20, tone((240, 190, 120)))
    _ground(pen, 93, tone.ground((246, 206, 138)), 5)
    for x, size in ((12, 1.0), (116, 1.25)):
        x, green = x + rng.uniform(-3, 3), tone((92, 150, 84))
        pen.line([(x, 101), (x, 101 - 30 * size)], green, 6 * size)
        pen.line([(x, 90), (x + 8 * size, 90), (x + 8 * size, 90 - 9 * size)], green, 4.4 * size)
        pen.line([(x, 94), (x - 8 * size, 94), (x - 8 * size, 94 - 12 * size)], green, 4.4 * size)


def _mountains(pen: Pen, tone: Tone, rng: random.Random) -> None:
    for x, top, width in ((24, 36, 44), (104, 30, 48), (64, 44, 40)):
        x, rock = x + rng.uniform(-4, 4), tone((132, 146, 178))
        pen.poly([(x - width, 96), (x + width, 96), (x, top)], rock)
        pen.poly([(x, top), (x + width, 96), (x + width * 0.3, 96)], dark(rock, 0.16))
        cap = width * 0.3
        pen.poly([(x - cap, top + 18), (x - cap * 0.4, top + 14), (x, top + 20), (x + cap * 0.45, top + 14),
                  (x + cap, top + 18), (x, top)], (250, 252, 255))
    _ground(pen, 92, tone.ground((138, 178, 112)), 6)
    for _ in range(5):
        x, y = rng.uniform(2, 126), rng.uniform(97, 124)
        pen.ellipse(x, y, 4, 2.6, tone((150, 152, 158)))


def _harbor(pen: Pen, tone: Tone, rng: random.Random) -> None:
    side = rng.choice((18, 110))
    pen.box(-2, 70, 130, 112, tone((70, 138, 192)))
    pen.ellipse(side, 74, 22, 8, tone((124, 116, 116)))
    for i in range(5):                                             # the tower, wide below and narrow above
        half, y = 8.5 - i * 0.8, 70 - i * 9
        pen.poly([(side - half, y), (side + half, y), (side + half - 0.8, y - 9), (side - half + 0.8, y - 9)],
                 tone((250, 246, 240) if i % 2 else (210, 70, 66)))
    pen.box(side - 6.5, 23.5, side + 6.5, 26, tone((80, 70, 84)))
    pen.box(side - 4, 15, side + 4, 24, (255, 236, 140))
    pen.half(side, 15.5, 6, 7, tone((190, 56, 58)))
    boat = 128 - side + rng.uniform(-6, 6)
    pen.poly([(boat - 14, 82), (boat + 14, 82), (boat + 9, 90), (boat - 9, 90)], tone((176, 96, 66)))
    pen.poly([(boat - 1, 80), (boat - 1, 54), (boat - 13, 79)], tone((255, 250, 238)))
    pen.poly([(boat + 1, 80), (boat + 1, 58), (boat + 11, 79)], tone((240, 206, 160)))
    for x in range(4, 128, 20):
        pen.arc(x + rng.uniform(0, 8), 93, 4, 1.8, 180, 360, tone((150, 200, 228)), 1)
    _planks(pen, 98, tone.ground((184, 138, 96)))


def _planks(pen: Pen, top: float, color: RGB) -> None:
    pen.box(-2, top, 130, 130, color)
    for y in range(int(top), 128, 8):
        pen.box(-2, y, 130, y + 0.9, dark(color, 0.25))
    for i, x in enumerate(range(10, 128, 19)):
        pen.box(x, top + 8 * (i % 3), x + 0.9, top + 8 * (i % 3) + 8, dark(color, 0.25))


def _moon(pen: Pen, tone: Tone, rng: random.Random) -> None:
    x = rng.choice((24, 104))
    pen.ellipse(x, 28, 17, 17, (86, 142, 220))                     # the earth, seen from here
    for dx, dy, rx, ry in ((-5, -4, 7, 5), (6, 5, 6, 5), (-4, 9, 4, 2.5)):
        pen.ellipse(x + dx, 28 + dy, rx, ry, (120, 186, 110))
    _ground(pen, 94, (186, 184, 200), 8)
    for cx, cy, r in ((16, 104, 9), (106, 110, 11), (60, 121, 8), (84, 97, 5)):
        pen.ellipse(cx + rng.uniform(-4, 4), cy, r, r * 0.42, (152, 150, 172))


def _wall(pen: Pen, color: RGB, floor: RGB) -> None:
    pen.box(-2, -2, 130, 96, color)
    _planks(pen, 96, floor)
    pen.box(-2, 93, 130, 97, light(color, 0.6))


def _bedroom(pen: Pen, tone: Tone, rng: random.Random) -> None:
    _wall(pen, (250, 222, 200), (196, 146, 104))
    for x in range(6, 128, 16):
        for y in range(8, 92, 16):
            pen.ellipse(x + (y % 32) / 4, y, 1.3, 1.3, (244, 202, 178))
    x = 20 + rng.uniform(-4, 4)
    pen.box(x - 14, 14, x + 14, 50, (255, 250, 240), 2)
    pen.box(x - 12, 16, x + 12, 48, (150, 210, 244))
    pen.box(x - 1, 16, x + 1, 48, (255, 250, 240))
    pen.box(x - 12, 31, x + 12, 33, (255, 250, 240))
    pen.poly([(x - 17, 11), (x - 6, 11), (x - 14, 52), (x - 18, 52)], (226, 108, 118))
    pen.poly([(x + 17, 11), (x + 6, 11), (x + 14, 52), (x + 18, 52)], (226, 108, 118))
    pen.box(88, 48, 94, 106, WOOD, 2)                              # the bed
    pen.box(90, 78, 140, 104, (120, 150, 214), 4)
    pen.ellipse(100, 77, 10, 5, (255, 252, 246))
    pen.box(90, 96, 140, 104, dark((120, 150, 214), 0.2))
    pen.ellipse(64, 116, 46, 9, (238, 178, 150))


def _library(pen: Pen, tone: Tone, rng: random.Random) -> None:
    _wall(pen, (120, 78, 56), (150, 96, 66))
    spines = [(206, 74, 70), (84, 134, 196), (98, 158, 96), (236, 190, 96), (150, 100, 180), (234, 226, 206)]
    for shelf in range(4):
        base = 24 + shelf * 23
        pen.box(-2, base - 20, 130, base, (84, 52, 40))
        x = 2.0
        while x < 126:
            if abs(x - 64) > 4:                                     # the upright between two book cases
                width, tall = rng.uniform(3.6, 6.4), rng.uniform(12, 18)
                pen.box(x, base - tall, x + width - 0.5, base, mix(rng.choice(spines), (96, 62, 50), 0.3))
            x += 5 if abs(x - 64) <= 4 else width
        pen.box(-2, base, 130, base + 3, (166, 112, 78))
    pen.box(62, 0, 67, 96, (166, 112, 78))
    pen.ellipse(64, 116, 48, 9, (176, 62, 66))


def _kitchen(pen: Pen, tone: Tone, rng: random.Random) -> None:
    _wall(pen, (236, 242, 226), (214, 196, 172))
    for x in range(-2, 130, 12):
        pen.box(x, 48, x + 11.2, 58, (206, 224, 214))
        pen.box(x, 59, x + 11.2, 69, (206, 224, 214))
    pen.box(4, 8, 48, 38, (228, 168, 110), 1.5)
    pen.box(84, 8, 126, 38, (228, 168, 110), 1.5)
    for x in (26, 105):
        pen.box(x - 0.5, 9, x + 0.5, 37, (180, 122, 76))
        pen.ellipse(x - 3, 24, 1.3, 1.3, (110, 74, 54))
        pen.ellipse(x + 3, 24, 1.3, 1.3, (110, 74, 54))
    pen.box(-2, 70, 130, 74, (150, 108, 82))
    pen.box(-2, 74, 130, 98, (228, 168, 110))
    for x in range(20, 128, 22):
        pen.box(x, 75, x + 0.9, 98, (180, 122, 76))
    x = rng.choice((14, 112))
    pen.box(x - 9, 58, x + 9, 70, (196, 66, 64), 2)                # a pot on the stove, steaming
    pen.box(x - 10.5, 56, x + 10.5, 59, (150, 46, 50), 1)
    for dx in (-4, 3):
        pen.arc(x + dx, 50, 2, 4, 90, 270, (255, 255, 255), 1.2)


PLACES = {"meadow": _meadow, "beach": _beach, "city": _city, "forest": _forest, "desert": _desert,
          "mountains": _mountains, "harbor": _harbor, "moon": _moon, "bedroom": _bedroom, "library": _library,
          "kitchen": _kitchen}


@lru_cache(maxsize=128)
def backdrop(place: str, weather: str, variant: int, size: int) -> Image.Image:
    """Sky, weather and place at canvas size. The caller copies it: it is kept."""
    image = Image.new("RGB", (size, size), (236, 236, 236))
    pen, rng = Pen(ImageDraw.Draw(image), 0, 0, size / 128), random.Random(variant)
    shown = "space" if place == "moon" else weather
    if shown:
        _sky(pen, shown, rng)
    if place:
        PLACES[place](pen, Tone(weather), rng)
    falling(pen, weather, rng, 60 if weather == "rainy" else 70)
    return image
