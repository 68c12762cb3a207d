"""The heads of the tiny world: ears, skull, the second tone of a face, and the features that tell the expression.

The origin is the center of the head. Mirrored pens make left and right from one description.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tiny.world.clothes import HATS, draw_eyewear, draw_raised_glasses
from tiny.world.pen import COLORS, EDGE, GOLD, INK, RGB, WHITE, Pen, dark, light, mix
from tiny.world.scene import PEOPLE

if TYPE_CHECKING:
    from tiny.world.figure import Body, Look

PINK: RGB = (246, 170, 176)

# ---- heads -----------------------------------------------------------------------------------------------------------

def _ears(pen: Pen, kind: str, c: RGB, mask: RGB | None) -> None:
    inner = mask or mix(light(c, 0.45), PINK, 0.5)
    for side in (-1, 1):
        p = pen.at(0, 0, flip=side)
        if kind in ("round", "low", "huge"):
            x, y, r = {"round": (18, -17, 8.5), "low": (22, -12, 6), "huge": (20, -17, 13)}[kind]
            p.ellipse(x, y, r, r, c, EDGE)
            p.ellipse(x, y, r * 0.58, r * 0.58, inner)
        elif kind in ("pointed", "sharp"):
            tip = (22, -32) if kind == "pointed" else (23, -37)
            p.poly([(5, -18), tip, (25.5, -4)], c, EDGE)
            p.poly([(12, -19), (tip[0] - 1, tip[1] + 6), (22, -12)], inner if kind == "pointed" else dark(c, 0.5))
        elif kind == "long":
            p.ellipse(10, -35, 6.2, 19, c, EDGE)
            p.ellipse(10, -34, 3.2, 14, inner)
        elif kind == "tufts":
            p.poly([(4, -19), (22, -31), (23, -10)], c, EDGE)
        elif kind == "side":
            p.ellipse(23.5, 3, 4.5, 5, c, EDGE)
        elif kind == "bolts":
            p.box(22, -6, 30, 6, dark(c, 0.25), 2, EDGE)
        elif kind == "dials":
            p.ellipse(26, 1, 5.5, 8.5, GOLD, EDGE)
            p.line([(27.5, -2.5), (27.5, 4.5)], dark(GOLD, 0.45), 1.5)


def draw_head(pen: Pen, body: Body) -> None:
    rx, ry = body.plan[:2]
    kind, c = body.look.ears or body.plan[2], body.skin
    if body.look.hair == "bun":
        _bun(pen, body.fur)
    if body.look.wool:
        _wool(pen, c)
    if kind != "floppy":
        _ears(pen, kind, c, body.look.mask)
    if body.species == "robot":
        if not body.scene.hat:
            pen.line([(0, -20), (0, -28)], dark(c, 0.4), 2)
            pen.ellipse(0, -30, 3.4, 3.4, COLORS["red"] if body.scene.fur != "red" else COLORS["yellow"], EDGE)
        pen.box(-rx, -ry, rx, ry, c, 7, EDGE)
        pen.box(-rx + 4, -ry + 5, rx - 4, ry - 4, (228, 238, 244), 5, 0.9)
    elif body.species == "garden robot":
        _pot(pen, c, rx, ry)
    elif body.species == "fox":
        pen.poly([(-18, -16), (-8, -20), (8, -20), (18, -16), (25, -4), (30, 9), (20, 14), (9, 20), (0, 22.5), (-9, 20),
                  (-20, 14), (-30, 9), (-25, -4)], c, EDGE)
    else:
        pen.ellipse(0, 0, rx, ry, c, EDGE)
    if body.species == "frog":                                     # its eyes stand above the brow, in front of any hat
        _hat(pen, body)
        for side in (-1, 1):
            pen.ellipse(13.5 * side, -16, 9, 9, c, EDGE)
        pen.ellipse(0, -7.5, 20, 8, c)
    _face_ground(pen, body)
    if body.scene.hat == "" or body.scene.hat in ("bow", "party hat", "crown"):
        _mark(pen, body.look)
    if body.look.beard:
        _beard(pen, body.look.beard)
    if body.look.wool:
        _curls(pen, c)
    if body.look.horns:
        _horns(pen, body.look.horns)
    _features(pen, body)
    if body.species in PEOPLE:
        _hair(pen, body)
    if raised(body):
        draw_raised_glasses(pen, body.look.frames)
    if kind == "floppy":
        for side in (-1, 1):
            pen.tube([(19 * side, -14), (24.5 * side, -4), (25.5 * side, 7)], dark(body.fur, 0.26), 11.5)
    if body.species != "frog":
        _hat(pen, body)
    if body.look.sprout:
        _sprout(pen.at(0, -ry - (9 if body.scene.hat else 0)), body.look.sprout)


def raised(body: Body) -> bool:
    """Whether glasses of its own are pushed up into the hair."""
    return body.look.frames is not None and body.scene.eyewear == "glasses"


def _pot(pen: Pen, c: RGB, rx: float, ry: float) -> None:
    """A cooking pot upside down: a dome with a shine, above a rim with rivets."""
    pen.box(-rx, -ry, rx, ry, c, 17, EDGE)
    pen.box(-rx, 0, rx, ry, c, 9, EDGE)
    pen.box(-rx + 0.6, -9, rx - 0.6, 9, c)
    pen.arc(0, 0, rx - 4, ry - 3.5, 205, 245, light(c, 0.6), 2.2)


def _sprout(pen: Pen, c: RGB) -> None:
    pen.line([(0, 2), (0, -8)], dark(c, 0.25), 2.4)
    for side in (-1, 1):
        leaf = [(0, -7), (4 * side, -14), (11 * side, -16.5), (14 * side, -14), (10.5 * side, -7.5), (4 * side, -5.5)]
        pen.poly(leaf, c, EDGE)
        pen.line([(1.5 * side, -7.5), (9.5 * side, -12.5)], light(c, 0.5), 1.0)


def _hat(pen: Pen, body: Body) -> None:
    if body.scene.hat:
        HATS[body.scene.hat](pen.at(0, -body.plan[1]), COLORS.get(body.scene.hat_color, GOLD))


def _face_ground(pen: Pen, body: Body) -> None:
    """The second tone of the face: muzzles, discs, masks, beaks come later with the features."""
    s, c = body.species, body.fur
    pale = light(c, 0.62)
    if s == "garden robot":
        pen.box(-19.5, -13, 19.5, 17.5, body.look.mask or pale, 11, 0.9)
        for x in (-22.4, 22.4):
            for y in (-4, 13):
                pen.ellipse(x, y, 1.2, 1.2, dark(c, 0.4))
    elif body.look.mask:
        for side in (-1, 1):
            pen.ellipse(9.5 * side, -1, 11.5, 12.5, body.look.mask)
        pen.ellipse(0, 9, 18, 11, body.look.mask)
    elif s in ("bear", "dog", "mouse", "otter"):
        pen.ellipse(0, 9.5, 12 if s != "mouse" else 9, 8.8, pale)
    elif s == "fox":
        for side in (-1, 1):
            pen.poly([(0, 21.5), (9 * side, 19.5), (19 * side, 13.5), (28.5 * side, 9), (14 * side, 5.5),
                      (0, 9)], WHITE)
    elif s == "penguin":
        for side in (-1, 1):
            pen.ellipse(8.5 * side, -1, 10.5, 11.5, WHITE)
        pen.ellipse(0, 9, 17, 11, WHITE)
    elif s == "owl":
        for side in (-1, 1):
            pen.ellipse(10 * side, -2, 11, 11.5, pale, 0.8)
    elif s in ("cat", "rabbit"):
        for side in (-1, 1):
            pen.ellipse(4.2 * side, 9, 5.6, 4.8, pale)
    elif s == "frog":
        pen.ellipse(0, 10, 18, 7, light(c, 0.3))


def _mark(pen: Pen, look: Look) -> None:
    if look.mark == "star":
        pen.star(0, -14, 6.2, look.mark_color, 0.9)
    elif look.mark == "heart":
        for side in (-1, 1):
            pen.ellipse(2.1 * side, -15, 2.7, 2.7, look.mark_color)
        pen.poly([(-4.4, -14), (4.4, -14), (0, -9)], look.mark_color)
    elif look.mark:
        pen.ellipse(0, -14, 4, 4, look.mark_color, 0.9)


def _bun(pen: Pen, c: RGB) -> None:
    """Behind the head, on top of it; a yellow pencil holds it."""
    pen.tube([(-15, -37), (15, -25)], COLORS["yellow"], 3.6)
    pen.poly([(-15.5, -35.2), (-14.2, -38.6), (-20, -39)], COLORS["brown"], 0.6)
    pen.ellipse(0, -28, 10.5, 9.5, c, EDGE)
    pen.arc(0, -27, 6, 5, 190, 330, dark(c, 0.3), 1.4)
    pen.arc(1, -28, 2.5, 2, 20, 200, dark(c, 0.3), 1.2)


def _hair(pen: Pen, body: Body) -> None:
    c = body.fur
    if body.look.hair == "bun":
        for side in (-1, 1):
            pen.poly([(0, -23.5), (12 * side, -22), (22.5 * side, -12), (24.8 * side, 4), (21.5 * side, 5),
                      (19.5 * side, -4), (11 * side, -11), (0, -15)], c, EDGE)
        pen.line([(0, -22.5), (0, -15)], dark(c, 0.3), 1.2)
    elif body.species == "girl":
        pen.poly([(-24.8, 2), (-23, -12), (-13, -21.5), (0, -24), (13, -21.5), (23, -12), (24.8, 2), (19, -4), (12, -9),
                  (2, -11), (-8, -9), (-18, -4)], c, EDGE)
    else:
        pen.poly([(-24.5, -1), (-24, -14), (-15, -22), (-8, -27), (-4, -23.5), (3, -29), (7, -23.5), (15, -25),
                  (16, -20.5), (24, -14), (24.5, -1), (19, -7), (13, -9), (9, -6), (3, -10), (-4, -6), (-9, -10),
                  (-17, -7)], c, EDGE)


# ---- what only originals have: wool, horns, a beard ----------------------------------------------------------------

def _wool(pen: Pen, c: RGB) -> None:
    """Curls that stand out around the skull, drawn before it."""
    for degrees in range(-150, 331, 24):
        angle = math.radians(degrees)
        pen.ellipse(22 * math.cos(angle), 19.5 * math.sin(angle) - 1, 6.5, 6.5, c, EDGE)


def _curls(pen: Pen, c: RGB) -> None:
    """Curls over the brow, in front of the face."""
    for x, y, r in ((-13, -17, 5.5), (13, -17, 5.5), (-5, -19, 6.5), (5, -19, 6.5)):
        pen.ellipse(x, y, r, r, c, EDGE)
        pen.arc(x, y, r * 0.5, r * 0.5, 40, 250, dark(c, 0.3), 1.0)


def _horns(pen: Pen, c: RGB) -> None:
    """Two spirals where other creatures have ears, ever thinner. Wider ones would pass for raised arms."""
    for side in (-1, 1):
        p = pen.at(0, 0, flip=side)
        turns = [(math.radians(24 * i - 128), 8 - 0.45 * i) for i in range(15)]
        path = [(18.5 + r * math.cos(angle), -15 + r * math.sin(angle)) for angle, r in turns]
        for color, edge in ((dark(c), 1.2), (c, -1.2)):
            for i, ends in enumerate(zip(path, path[1:])):
                p.line(ends, color, 8 - 0.35 * i + edge)
        for (angle, _), (x, y) in list(zip(turns, path))[2:12:2]:
            p.line([(x, y), (x + 2.4 * math.cos(angle), y + 2.4 * math.sin(angle))], dark(c, 0.3), 1.2)


def _beard(pen: Pen, c: RGB) -> None:
    half = [(0, 36), (3, 30), (6.5, 31), (8, 26), (12.5, 27), (14, 22), (18.5, 16), (19, 9), (14.5, 14.5), (8, 18.5)]
    pen.poly([*half, (0, 19.5), *((-x, y) for x, y in reversed(half))], c, EDGE)
    for x in (-4, 4):
        pen.line([(x, 21), (x * 0.6, 27)], dark(c, 0.22), 1.0)


# ---- faces -----------------------------------------------------------------------------------------------------------

def _features(pen: Pen, body: Body) -> None:
    eye_y, eye_x, mouth_y = body.plan[4:7]
    scene, s = body.scene, body.species
    if body.look.cheeks:
        for side in (-1, 1):
            pen.ellipse(18.5 * side, 8.5, 4.8, 3.9, body.look.cheeks)
    _nose(pen, body, mouth_y)
    ink = WHITE if _is_dark(body) else INK
    for side in (-1, 1):
        _eye(pen.at(eye_x * side, eye_y, flip=side), scene.expression, side, ink, s)
    mouth_x = mouth_y + (1.5 if s in ("penguin", "owl") else 0)
    _mouth(pen.at(0, mouth_x, 1.25 if s == "frog" else 1.0), scene.expression, ink if s not in LIGHT_MOUTH else INK)
    if scene.eyewear and not raised(body):
        draw_eyewear(pen, scene.eyewear, eye_x, eye_y)
    if scene.expression == "sleepy":
        busy = scene.hand
        if scene.pose == "waving":                                 # then the other arm is the one beside the head
            busy = "left" if busy == "right" else "right"
        side = -1 if busy == "right" else 1
        for x, y, r in ((27, -20, 3), (33, -29, 4.2)):
            x *= side
            pen.line([(x - r, y - r), (x + r, y - r), (x - r, y + r), (x + r, y + r)], WHITE, 3.4)
            pen.line([(x - r, y - r), (x + r, y - r), (x - r, y + r), (x + r, y + r)], (84, 96, 160), 1.7)


LIGHT_MOUTH = ("bear", "dog", "mouse", "cat", "rabbit", "penguin", "fox", "owl", "robot", "otter", "garden robot",
               "ram")


def _is_dark(body: Body) -> bool:
    """Faces on which ink lines would vanish."""
    return body.species not in ("penguin", "owl", "robot") + PEOPLE and sum(body.fur) < 260 and not body.look.mask


def _nose(pen: Pen, body: Body, mouth_y: float) -> None:
    s, y = body.species, mouth_y - 4.6
    if s in ("bear", "dog", "otter", "ram"):
        pen.ellipse(0, y - 0.5, 4.2 if s != "otter" else 3.6, 3, INK)
        pen.ellipse(-1.2, y - 1.5, 1.2, 0.8, (160, 150, 164))
    elif s == "fox":
        pen.ellipse(0, y + 1, 3.4, 2.6, INK)
    elif s in ("cat", "rabbit", "mouse"):
        pen.poly([(-2.8, y - 1.5), (2.8, y - 1.5), (0, y + 1.8)], (236, 120, 140), 0.9)
    elif s in ("penguin", "owl"):
        pen.poly([(-5, y - 2.5), (5, y - 2.5), (0, y + 4)], (248, 164, 48), 0.9)
    elif s in PEOPLE:
        pen.ellipse(0, y - 0.5, 2, 1.4, dark(body.skin, 0.2))
    elif s == "frog":
        for side in (-1, 1):
            pen.ellipse(3 * side, y - 1, 1, 0.8, dark(body.fur, 0.5))
    if s in ("cat", "mouse"):
        hair = (240, 240, 240) if _is_dark(body) else dark(body.look.mask or body.fur, 0.6)
        for side in (-1, 1):
            for dy in (-1.2, 2.2):
                pen.line([(13 * side, mouth_y - 1 + dy * 0.5), (23 * side, mouth_y - 2 + dy * 1.6)], hair, 0.8)


def _eye(pen: Pen, mood: str, side: int, ink: RGB, species: str) -> None:
    """One eye; the pen is mirrored so that +x points away from the nose."""
    if species == "frog" or (ink == WHITE and mood in ("happy", "sad", "angry", "surprised", "winking")):
        if mood not in ("laughing", "sleepy") and not (mood == "winking" and side == 1):
            pen.ellipse(0, 0, 6, 6.4, WHITE)
    line = ink if species != "frog" else INK
    if mood == "laughing":
        pen.line([(-4.5, 2), (0, -3), (4.5, 2)], line, 2.1)
    elif mood == "sleepy":
        pen.arc(0, -1, 4.6, 3.6, 15, 165, line, 2.1)
    elif mood == "winking" and side == 1:
        pen.line([(4.6, -3), (-3.4, 0.2), (4.6, 3)], line, 2.1)
    elif mood == "surprised":
        pen.ellipse(0, 0, 6.2, 7, WHITE, 1.1)
        pen.ellipse(-0.3, 0.2, 2.7, 3, INK)
        pen.arc(0, -6, 5, 5, 235, 305, line, 1.8)
    else:
        pen.ellipse(0, 0.4, 3.7, 4.6, INK)
        pen.ellipse(-1.2 * side, -1.3, 1.5, 1.7, WHITE)
    if species == "girl" and mood in ("happy", "sad", "surprised", "sleepy"):
        pen.line([(3, -3.4 if mood != "sleepy" else 2), (6.6, -5.6 if mood != "sleepy" else 3.6)], line, 1.5)
    if mood == "angry":
        pen.line([(-4.5, -3.6), (5.5, -8.2)], line, 2.4)
    elif mood == "sad":
        pen.line([(-4, -8.6), (5, -5.4)], line, 2.0)
        if side == 1:
            pen.ellipse(1.5, 9.5, 2.5, 3.2, (104, 178, 246))
            pen.poly([(-0.8, 8.6), (3.8, 8.6), (1.5, 3.8)], (104, 178, 246))


def _mouth(pen: Pen, mood: str, ink: RGB) -> None:
    if mood == "laughing":
        pen.half(0, -1.2, 7, 8.6, (140, 40, 52), 1.0, up=False)
        pen.half(0, 7, 4, 3, (244, 124, 130))
        pen.box(-5, -1, 5, 0.9, WHITE)
    elif mood == "surprised":
        pen.ellipse(0, 2.4, 3, 4, (140, 40, 52), 0.9)
    elif mood == "sad":
        pen.arc(0, 5.4, 5, 4, 205, 335, ink, 1.9)
    elif mood == "angry":
        pen.box(-5.5, -0.2, 5.5, 5, WHITE, 1.6, 1.3)
        for x in (-1.8, 1.8):
            pen.line([(x, 0.4), (x, 4.4)], INK, 0.8)
        pen.line([(-5, 2.4), (5, 2.4)], INK, 0.7)
    elif mood == "sleepy":
        pen.ellipse(0, 2, 2.4, 2, (140, 40, 52))
    elif mood == "winking":
        pen.arc(0, -2, 6, 5, 15, 165, ink, 1.9)
        pen.half(2, 2.6, 2.8, 4, (244, 124, 130), 0.8, up=False)
    else:
        pen.arc(0, -2, 6, 5, 15, 165, ink, 1.9)
