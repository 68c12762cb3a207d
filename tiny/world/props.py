"""The things of the tiny world: those held in a hand, and those that stand on the ground.

Each is drawn around its own origin: a held thing around the hand, a thing on the ground around its foot.
"""

from __future__ import annotations

import math

from tiny.world.pen import COLORS, GOLD, INK, RGB, Pen, dark, light, mix

# ---- things held in a hand -------------------------------------------------------------------------------------------
# Drawn for the hand on the right of the picture; for the other hand the pen is mirrored.

def _balloon(pen: Pen, c: RGB) -> None:
    pen.line([(0, 0), (3, -16), (7, -40)], (90, 80, 90), 0.9)
    pen.poly([(7, -40), (4.5, -36.5), (9.5, -36.5)], dark(c, 0.2))
    pen.ellipse(7, -51, 10.5, 12.5, c, 1.1)
    pen.ellipse(3, -55, 2, 3.4, light(c, 0.65))


def _umbrella(pen: Pen, c: RGB) -> None:
    pen.line([(0, 5), (6, -36)], (96, 70, 60), 1.8)
    pen.arc(-1.8, 5, 2, 3, 0, 180, (96, 70, 60), 1.8)
    top = pen.at(6.5, -35, 0.86)
    top.half(0, 0, 18, 17, c, 1.1)
    for x in (-12, 0, 12):
        top.half(x, 0.6, 6, 3.4, c)
        top.half(x, 0.6, 6, 3.4, mix(c, INK, 0.22))
    top.half(0, 0, 6, 16.5, light(c, 0.4))
    top.line([(0, -17), (0, -19.5)], (96, 70, 60), 1.8)


def _book(pen: Pen, c: RGB) -> None:
    pen.box(-7, -17, 10, 5, c, 1.2, 1.1)
    pen.box(-4, -17, -2.8, 5, dark(c, 0.3))
    pen.box(8.2, -15, 11, 4, (252, 248, 236))
    pen.box(0, -12, 7, -6.5, light(c, 0.75), 0.8)


def _flower(pen: Pen, c: RGB) -> None:
    pen.line([(0, 6), (1, -14)], (72, 142, 70), 1.8)
    pen.ellipse(4.5, -4, 4, 2, (92, 168, 84))
    for i in range(6):
        a = math.pi * i / 3
        pen.ellipse(1 + 6 * math.sin(a), -18 - 6 * math.cos(a), 4.4, 4.4, c, 0.9)
    pen.ellipse(1, -18, 4, 4, (255, 206, 74) if c != COLORS["yellow"] else (150, 90, 50))


def _ball(pen: Pen, c: RGB) -> None:
    pen.ellipse(3, -7, 10.5, 10.5, c, 1.1)
    pen.arc(-5, -7, 8, 10, -55, 55, light(c, 0.8), 2.2)
    pen.arc(11, -7, 8, 10, 125, 235, light(c, 0.8), 2.2)


def _cup(pen: Pen, c: RGB) -> None:
    pen.arc(10, -5, 5, 5, -90, 90, dark(c), 3.4)
    pen.arc(10, -5, 5, 5, -90, 90, c, 1.6)
    pen.box(-7, -13, 10, 4, c, 2.5, 1.1)
    pen.ellipse(1.5, -12.5, 7.5, 2, (120, 76, 52))
    for x in (-1.5, 4):
        pen.line([(x, -17), (x + 1.5, -20), (x, -23)], (255, 255, 255), 1.5)


def _fish(pen: Pen, c: RGB) -> None:
    pen.poly([(-4, -4), (-12, -11), (-12, 3)], dark(c, 0.12), 1.0)
    pen.ellipse(5, -4, 12, 7.5, c, 1.1)
    pen.half(4, -10, 5, 4, dark(c, 0.15))
    for x in (1, 5):
        pen.arc(x - 3, -4, 4, 5, -50, 50, light(c, 0.5), 1.1)
    pen.ellipse(11.5, -6, 2.4, 2.4, (255, 255, 255))
    pen.ellipse(12, -6, 1.2, 1.2, INK)


def _ice_cream(pen: Pen, c: RGB) -> None:
    pen.poly([(-5.5, -8), (8.5, -8), (1.5, 9)], (226, 168, 98), 1.1)
    pen.line([(-2.5, -6), (3.5, 3)], (184, 124, 68), 0.9)
    pen.line([(5.5, -6), (-0.5, 3)], (184, 124, 68), 0.9)
    pen.ellipse(1.5, -19, 6.5, 6.5, light(c, 0.25), 1.0)
    pen.ellipse(1.5, -12, 8.8, 7, c, 1.1)
    pen.ellipse(1.5, -25.5, 2.2, 2.2, (206, 44, 56))


def _lantern(pen: Pen, c: RGB) -> None:
    pen.arc(2, 4, 5, 6, 180, 360, (70, 60, 70), 1.4)
    pen.ellipse(2, 12, 14, 14, (255, 236, 170))
    pen.box(-5, 5, 9, 20, (255, 216, 90), 1.5)
    pen.poly([(2, 6), (-0.5, 14), (2, 17.5), (4.5, 14)], (255, 140, 50))
    pen.box(-7, 2.5, 11, 6.5, c, 1.2, 0.9)
    pen.box(-7, 18.5, 11, 22.5, c, 1.2, 0.9)
    for x in (-5.5, 8):
        pen.box(x, 6, x + 1.6, 19, dark(c))


def _kite(pen: Pen, c: RGB) -> None:
    pen.line([(0, 0), (4, -18), (8, -32)], (90, 80, 90), 0.9)
    pen.line([(8, -32), (13, -27), (9, -22), (14, -17)], dark(c), 1.2)
    for x, y in ((13, -27), (9, -22), (14, -17)):
        pen.poly([(x - 2.6, y - 2), (x - 2.6, y + 2), (x + 2.6, y - 2), (x + 2.6, y + 2)], light(c, 0.5))
    pen.poly([(8, -66), (19, -50), (8, -31), (-3, -50)], c, 1.1)
    pen.poly([(8, -66), (19, -50), (8, -50)], light(c, 0.55))
    pen.poly([(8, -31), (-3, -50), (8, -50)], light(c, 0.55))


def _apple(pen: Pen, c: RGB) -> None:
    pen.ellipse(-1.8, -7, 7, 8.5, c, 1.1)
    pen.ellipse(5.8, -7, 7, 8.5, c, 1.1)
    pen.box(-2.5, -13.5, 6.5, 0, c, 3)
    pen.line([(2, -14), (3, -19)], (104, 70, 50), 1.8)
    pen.ellipse(7.5, -18, 4.2, 2.2, (92, 168, 84))
    pen.ellipse(-4, -10, 1.6, 2.8, light(c, 0.6))


def _key(pen: Pen, c: RGB) -> None:
    for color, extra in ((dark(GOLD), 1.6), (GOLD, 0.0)):
        pen.line([(1, 3), (1, -15)], color, 3 + extra)
        pen.line([(1, -13), (7, -13)], color, 2.6 + extra)
        pen.line([(1, -8), (6, -8)], color, 2.6 + extra)
        pen.arc(1, 8, 5, 5, 0, 360, color, 3 + extra)


def _letter(pen: Pen, c: RGB) -> None:
    paper = (255, 250, 236)
    pen.box(-8, -13, 15, 4, paper, 1.2, 1.1)
    pen.line([(-7, -12), (3.5, -3.5), (14, -12)], dark(paper, 0.4), 1.2)
    pen.ellipse(3.5, -3.5, 2.8, 2.8, (206, 54, 60))


def _spoon(pen: Pen, c: RGB) -> None:
    silver = (206, 212, 222)
    pen.line([(0, 7), (2, -12)], dark(silver, 0.5), 4)
    pen.line([(0, 7), (2, -12)], silver, 2.2)
    pen.ellipse(2.8, -18.5, 6, 8.5, silver, 1.2)
    pen.ellipse(1.6, -20, 2.4, 4, light(silver, 0.7))


HELD = {"balloon": _balloon, "umbrella": _umbrella, "book": _book, "flower": _flower, "ball": _ball, "cup": _cup,
        "fish": _fish, "ice cream": _ice_cream, "lantern": _lantern, "kite": _kite, "apple": _apple, "key": _key,
        "letter": _letter, "spoon": _spoon}


# ---- things on the ground --------------------------------------------------------------------------------------------

def _plant(pen: Pen, c: RGB) -> None:
    for x, y, angle in ((-8, -26, 0), (8, -26, 0), (-5, -34, 0), (5, -34, 0), (0, -38, 0)):
        pen.tube([(0, -14), (x, y)], (82, 158, 80), 6, 1.0)
    pen.poly([(-9, -15), (9, -15), (6.5, 0), (-6.5, 0)], c, 1.1)
    pen.box(-10.5, -18, 10.5, -13, c, 1.2, 1.0)


def _gift(pen: Pen, c: RGB) -> None:
    ribbon = (255, 236, 150) if c != COLORS["yellow"] else (212, 52, 58)
    pen.box(-12, -19, 12, 0, c, 1, 1.1)
    pen.box(-14, -24, 14, -17, c, 1, 1.1)
    pen.box(-2.5, -23, 2.5, -1, ribbon)
    for flip in (1, -1):
        pen.ellipse(5 * flip, -27.5, 5.5, 3.5, ribbon, 1.0)
    pen.ellipse(0, -26.5, 2.4, 2.4, ribbon, 0.8)


def _tent(pen: Pen, c: RGB) -> None:
    pen.poly([(-19, 0), (19, 0), (0, -36)], c, 1.2)
    pen.poly([(-7, 0), (9, 0), (0, -30)], dark(c, 0.6))
    pen.poly([(-7, 0), (-11, 0), (0, -30)], light(c, 0.5))
    pen.line([(-2, -39), (0, -36), (2, -39)], (110, 76, 54), 1.5)


def _campfire(pen: Pen, c: RGB) -> None:
    for flip in (1, -1):
        pen.tube([(-12 * flip, -1.5), (11 * flip, -6)], (134, 90, 60), 5, 1.0)
    for scale, color in ((1.0, (238, 92, 44)), (0.68, (255, 164, 56)), (0.38, (255, 232, 130))):
        points = [(-9, -8), (-10, -17), (-6, -14), (-5, -25), (0, -34), (4, -24), (7, -17), (10, -20), (9, -9), (0, -4)]
        pen.poly([(x * scale, -5 + (y + 5) * scale) for x, y in points], color)


def _snowman(pen: Pen, c: RGB) -> None:
    snow = (250, 252, 255)
    pen.line([(-10, -20), (-18, -27)], (110, 76, 54), 1.5)
    pen.line([(10, -20), (18, -27)], (110, 76, 54), 1.5)
    pen.ellipse(0, -10, 12.5, 11, snow, 1.1)
    pen.ellipse(0, -27, 9, 8.5, snow, 1.1)
    for x in (-3, 3):
        pen.ellipse(x, -29, 1.2, 1.2, INK)
    pen.poly([(0, -27.5), (0, -24.5), (8, -25.5)], (246, 140, 50))
    for y in (-14, -8):
        pen.ellipse(0, y, 1.3, 1.3, INK)
    pen.box(-6.5, -42, 6.5, -34, (60, 56, 68), 1)
    pen.box(-9.5, -36, 9.5, -33.5, (60, 56, 68), 1)


def _chest(pen: Pen, c: RGB) -> None:
    pen.half(0, -15, 15, 12, (150, 96, 58), 1.2)
    pen.box(-15, -15, 15, 0, (164, 106, 64), 1, 1.2)
    for x in (-11, 8):
        pen.box(x, -23, x + 3, -0.6, GOLD)
    pen.box(-15, -16.5, 15, -13.5, dark(GOLD, 0.2))
    pen.box(-3.5, -18, 3.5, -10, GOLD, 1, 0.9)
    pen.ellipse(0, -14, 1.3, 1.3, INK)


def _mushroom(pen: Pen, c: RGB) -> None:
    pen.box(-5.5, -17, 5.5, 0, (252, 240, 218), 3.5, 1.1)
    pen.half(0, -14, 15, 17, c, 1.2)
    for x, y, r in ((-7, -19, 2.6), (1, -25, 3), (8, -18.5, 2.4), (0.5, -17.5, 1.8)):
        pen.ellipse(x, y, r, r, (255, 252, 246) if c != COLORS["white"] else (206, 60, 62))


def _pumpkin(pen: Pen, c: RGB) -> None:
    orange = (240, 132, 44)
    for x, rx in ((-8, 7), (8, 7), (0, 8.5)):
        pen.ellipse(x, -10, rx, 10.5, orange, 1.1)
    pen.line([(0, -20), (2, -25)], (86, 130, 66), 3.2)
    for flip in (1, -1):
        pen.poly([(3 * flip, -11), (8 * flip, -11), (5.5 * flip, -15.5)], (90, 48, 30))
    pen.half(0, -8, 7, 5, (90, 48, 30), up=False)


def _bucket(pen: Pen, c: RGB) -> None:
    pen.arc(0, -17, 10, 12, 180, 360, (96, 92, 104), 1.5)
    pen.poly([(-11.5, -18), (11.5, -18), (8.5, 0), (-8.5, 0)], c, 1.1)
    pen.ellipse(0, -18, 11.5, 3, dark(c, 0.45))
    pen.poly([(-10.8, -12), (10.8, -12), (10.3, -8.5), (-10.3, -8.5)], light(c, 0.6))


TALL = ("balloon", "umbrella", "kite")          # held lower when the hand is up, or they would leave the picture
BESIDE = {"potted plant": _plant, "gift box": _gift, "tent": _tent, "campfire": _campfire, "snowman": _snowman,
          "treasure chest": _chest, "mushroom": _mushroom, "pumpkin": _pumpkin, "bucket": _bucket}
