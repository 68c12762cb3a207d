"""What the creatures of the tiny world wear: tops, a scarf, things before the eyes, hats."""

from __future__ import annotations

from tiny.world.pen import COLORS, EDGE, GOLD, INK, RGB, WHITE, Pen, dark, light


def draw_trunk(pen: Pen, color: RGB, shoulder: float, hip: float, top: float, bottom: float) -> None:
    """A pear with rounded corners."""
    pen.poly([(-shoulder + 3, top), (shoulder - 3, top), (shoulder, top + 4), (hip, bottom - 5),
              (hip - 1.5, bottom - 1), (hip - 5, bottom), (-hip + 5, bottom), (-hip + 1.5, bottom - 1),
              (-hip, bottom - 5), (-shoulder, top + 4)], color, EDGE)


# ---- tops ------------------------------------------------------------------------------------------------------------

def _shirt(pen: Pen, c: RGB, person: bool) -> None:
    draw_trunk(pen, c, 13, 16.8, -44.5, -18)
    pen.poly([(-6, -43), (6, -43), (0, -34)], light(c, 0.75))
    for y in (-30, -24.5):
        pen.ellipse(0, y, 1.3, 1.3, dark(c, 0.5))


def _sweater(pen: Pen, c: RGB, person: bool) -> None:
    draw_trunk(pen, c, 13.5, 17.8, -44.5, -13)
    zigzag = [(-15.5 + 5.2 * i, -27 if i % 2 else -23) for i in range(7)]
    pen.line(zigzag, light(c, 0.7), 2.2)
    pen.box(-17.5, -17, 17.5, -12, dark(c, 0.16), 2, 0.9)
    for x in (-10.5, -3.5, 3.5, 10.5):
        pen.line([(x, -16), (x, -13)], dark(c, 0.4), 0.9)


def _dress(pen: Pen, c: RGB, person: bool) -> None:
    pen.poly([(-12, -44), (12, -44), (13, -32), (24, -10), (16, -7.5), (0, -6.5), (-16, -7.5), (-24, -10), (-13, -32)],
             c, EDGE)
    pen.line([(-13, -30), (13, -30)], light(c, 0.7), 2.6)
    for x, y in ((-12, -17), (-4, -22), (4, -14), (12, -19), (-5, -12), (15, -12), (5, -24)):
        pen.ellipse(x, y, 1.6, 1.6, light(c, 0.75))


def _overalls(pen: Pen, c: RGB, person: bool) -> None:
    if person:
        draw_trunk(pen, WHITE, 13, 16.5, -44.5, -18)
    pen.poly([(-17.2, -24), (17.2, -24), (17, -12), (12, -8.5), (-12, -8.5), (-17, -12)], c, EDGE)
    pen.box(-9.5, -35, 9.5, -20, c, 1.5, EDGE)
    pen.box(-8.8, -25, 8.8, -20, c)
    for side in (-1, 1):
        pen.line([(8 * side, -34), (10 * side, -44)], c, 3.4)
        pen.ellipse(7.5 * side, -33, 1.8, 1.8, GOLD, 0.7)
    pen.box(-5, -29, 5, -22, dark(c, 0.22), 1.2)
    pen.line([(0, -14), (0, -9)], dark(c), 1.1)


def _coat(pen: Pen, c: RGB, person: bool) -> None:
    pen.poly([(-12, -44.5), (12, -44.5), (14.5, -38), (20, -12), (17.5, -8), (-17.5, -8), (-20, -12), (-14.5, -38)],
             c, EDGE)
    pen.line([(0, -40), (0, -8.5)], dark(c), 1.2)
    for y in (-33, -25, -17):
        pen.ellipse(-4.5, y, 1.7, 1.7, light(c, 0.8) if c != COLORS["white"] else dark(c), 0.6)
    for side in (-1, 1):
        pen.poly([(1.5 * side, -37), (13 * side, -45), (14 * side, -38), (6 * side, -33)], dark(c, 0.16), 0.9)
        pen.line([(8 * side, -19), (15 * side, -20)], dark(c), 1.6)


def _waistcoat(pen: Pen, c: RGB, person: bool) -> None:
    """A white shirt, a dark skirt, and between them the waistcoat with its gold buttons."""
    draw_trunk(pen, WHITE, 13, 16.8, -44.5, -18)
    pen.poly([(-15.5, -22), (15.5, -22), (20.5, -9.5), (14, -7.5), (0, -7), (-14, -7.5), (-20.5, -9.5)],
             (74, 66, 88), EDGE)
    for side in (-1, 1):
        pen.poly([(0.2 * side, -32), (7 * side, -44.5), (12.5 * side, -43), (15.5 * side, -21), (8 * side, -18.5),
                  (0.2 * side, -16)], c, EDGE)
        pen.line([(6.5 * side, -24), (12.5 * side, -25)], dark(c), 1.6)
    for y in (-29, -24.5, -20):
        pen.ellipse(0, y, 1.8, 1.8, GOLD, 0.6)


TOPS = {"shirt": _shirt, "sweater": _sweater, "dress": _dress, "overalls": _overalls, "coat": _coat,
        "waistcoat": _waistcoat}


def draw_scarf(pen: Pen, first: RGB, second: RGB) -> None:
    """Wound around the neck below the head, one end hanging; stripes when the colors differ."""
    pen.box(3.5, -40, 13, -17, first, 2.5, EDGE)
    for y in (-33, -25):
        pen.box(4.2, y, 12.3, y + 4, second)
    pen.box(-18, -47, 18, -37, first, 5, EDGE)
    for x in (-14, -6, 2, 10):
        pen.poly([(x, -46.3), (x + 4, -46.3), (x + 3, -37.7), (x - 1, -37.7)], second)


def draw_tie(pen: Pen, color: RGB) -> None:
    """A bow with white dots under the chin."""
    for side in (-1, 1):
        pen.poly([(0, -37.5), (12 * side, -43), (13 * side, -37.5), (12 * side, -32)], color, EDGE)
        for x, y in ((6, -37.5), (10, -39.9), (10, -35.1)):
            pen.ellipse(x * side, y, 1.1, 1.1, WHITE)
    pen.ellipse(0, -37.5, 3, 3.4, light(color, 0.25), EDGE)


# ---- before the eyes and on the head --------------------------------------------------------------------------------

def draw_eyewear(pen: Pen, kind: str, x: float, y: float) -> None:
    if kind == "sunglasses":
        pen.box(-4, y - 4.8, 4, y - 0.5, INK)
        for side in (-1, 1):
            pen.box(x * side - 7.6, y - 5, x * side + 7.6, y + 5.5, (38, 36, 52), 4)
            pen.line([(x * side - 4, y + 1), (x * side, y - 3)], (150, 160, 190), 1.6)
    else:
        frame = (196, 60, 66)
        pen.line([(-3, y - 1), (3, y - 1)], frame, 1.7)
        for side in (-1, 1):
            pen.arc(x * side, y, 7.6, 7.6, 0, 360, WHITE, 2.6)
            pen.arc(x * side, y, 7.6, 7.6, 0, 360, frame, 1.7)


def draw_raised_glasses(pen: Pen, frames: RGB) -> None:
    """Pushed up into the hair, with thick frames. Of thin ones before the eyes the autoencoder kept a tint, and thick ones hid
    the face from it: of the expressions the reader found half (a test of originals asks)."""
    pen.line([(-4, -17), (4, -17)], frames, 3)
    for side in (-1, 1):
        pen.ellipse(10 * side, -17, 7.5, 6, (214, 236, 250))
        pen.arc(10 * side, -17, 7.5, 6, 0, 360, frames, 3)


# ---- hats: origin at the top of the head -----------------------------------------------------------------------------

def _cap(pen: Pen, c: RGB) -> None:
    pen.half(0, 6, 19, 15, c, EDGE)
    pen.line([(0, -9), (0, 5)], dark(c, 0.25), 1.0)
    pen.tube([(2, 6), (25, 7)], dark(c, 0.14), 5.5)
    pen.ellipse(0, -9, 2, 1.6, light(c, 0.6), 0.7)


def _beanie(pen: Pen, c: RGB) -> None:
    pen.half(0, 6, 19, 18, c, EDGE)
    for x in (-8, 0, 8):
        pen.line([(x, 4), (x * 0.6, -9)], dark(c, 0.25), 1.2)
    pen.box(-20, 2, 20, 8.5, light(c, 0.45), 3, EDGE)
    pen.ellipse(0, -13.5, 5, 5, light(c, 0.6), EDGE)


def _crown(pen: Pen, c: RGB) -> None:
    pen.poly([(-14, 6), (-16, -11), (-8, -3), (0, -15), (8, -3), (16, -11), (14, 6)], GOLD, EDGE)
    for x, y, color in ((-16, -12, "red"), (0, -15.5, "red"), (16, -12, "red"), (-7, 2, "blue"), (7, 2, "blue"),
                        (0, 1.5, "red")):
        pen.ellipse(x, y, 2, 2, COLORS[color])


def _straw_hat(pen: Pen, c: RGB) -> None:
    straw = (242, 208, 130)
    pen.ellipse(0, 4.5, 31, 6, straw, EDGE)
    pen.half(0, 4, 16.5, 16, straw, EDGE)
    pen.poly([(-16.5, 4), (16.5, 4), (15.8, -2), (-15.8, -2)], (176, 82, 72))
    for x in (-26, -20, 20, 26):
        pen.line([(x, 3), (x * 0.96, 6.5)], dark(straw, 0.25), 0.9)


def _bow(pen: Pen, c: RGB) -> None:
    for side in (-1, 1):
        pen.poly([(0, 0), (14 * side, -8), (16 * side, 0), (14 * side, 8)], c, EDGE)
        pen.poly([(4 * side, 0), (13 * side, -3), (13 * side, 3)], dark(c, 0.2))
    pen.ellipse(0, 0, 4, 4.6, light(c, 0.25), EDGE)


def _party_hat(pen: Pen, c: RGB) -> None:
    pen.poly([(-11.5, 4), (11.5, 4), (0, -24)], c, EDGE)
    for x, y in ((-4.5, 0), (4, -3), (-1, -10), (1.5, -16)):
        pen.ellipse(x, y, 1.9, 1.9, light(c, 0.75))
    pen.ellipse(0, -24, 4, 4, (255, 240, 170), EDGE)


def _top_hat(pen: Pen, c: RGB) -> None:
    pen.box(-13, -18, 13, 5, c, 1.5, EDGE)
    pen.box(-12.4, -2, 12.4, 3, light(c, 0.6))
    pen.box(-21, 2.5, 21, 7, c, 2.2, EDGE)


HATS = {"cap": _cap, "beanie": _beanie, "crown": _crown, "straw hat": _straw_hat, "bow": _bow, "party hat": _party_hat,
        "top hat": _top_hat}
