"""The creatures of the tiny world: one chibi body, and the arms that hold things.

Units are picture units; a figure's origin is the ground between its feet, y grows downward, so the head is at
negative y. The order of drawing is the order of depth: tail, legs, body, scarf, head, hat, arms, held thing.
"""

from __future__ import annotations

from dataclasses import dataclass

from tiny.world.clothes import TOPS, draw_scarf, draw_tie, draw_trunk
from tiny.world.heads import draw_head
from tiny.world.pen import COLORS, EDGE, GOLD, RGB, WHITE, Pen, dark, light
from tiny.world.props import HELD, TALL
from tiny.world.scene import PEOPLE, Scene

HEAD_Y = -62.0                                # center of the head above the ground
SKIN: tuple[RGB, ...] = ((252, 218, 188), (238, 192, 152), (196, 138, 100), (140, 94, 68))


@dataclass(frozen=True)
class Look:
    """Identity from outside the world. What is None stays as the scene says."""
    species: str = ""                         # body plan, e.g. "otter", which no random scene has
    fur: RGB | None = None
    mask: RGB | None = None                   # a second color around eyes and mouth
    belly: RGB | None = None
    ears: str = ""                            # one of the kinds in heads.py
    mark: str = ""                            # on the forehead: star, heart or spot
    mark_color: RGB = GOLD
    cheeks: RGB | None = None
    scarf: tuple[RGB, RGB] | None = None      # two colors: stripes
    coat: RGB | None = None                   # a raincoat, over whatever the scene would wear
    waistcoat: RGB | None = None              # over white sleeves and a dark skirt; the same
    skin: RGB | None = None                   # of a person
    frames: RGB | None = None                 # of glasses, then pushed up into the hair
    hair: str = ""                            # of a person: "bun", with a pencil in it
    tail: str = ""                            # a key of TAILS
    tail_color: RGB | None = None
    sprout: RGB | None = None                 # a stem with two leaves on the head, through any hat
    window: tuple[RGB, RGB] | None = None     # a round pane in the chest, its rim and the heart that glows in it
    tie: RGB | None = None                    # a bow tie
    feet: RGB | None = None
    wool: bool = False                        # curls around the head and over the brow
    horns: RGB | None = None                  # a ram's, curled, in place of ears
    beard: RGB | None = None


# head half-width, half-height, ears, tail, height of the eyes, distance of the eyes, height of the mouth
PLANS: dict[str, tuple[float, float, str, str, float, float, float]] = {
    "bear": (25, 22.5, "round", "", -1, 10, 10), "cat": (26.5, 21, "pointed", "thin", -1, 10.5, 8.5),
    "rabbit": (22.5, 21.5, "long", "puff", -1, 9.5, 9.5), "dog": (23.5, 22, "floppy", "short", -2, 9.5, 11),
    "fox": (25, 20.5, "sharp", "bushy", -1, 10, 9.5), "mouse": (22, 20.5, "huge", "thin", -1, 9, 9.5),
    "frog": (28, 19, "", "", -17, 13.5, 5), "penguin": (23.5, 22.5, "", "", -1, 9, 9),
    "owl": (25, 22.5, "tufts", "", -2, 10, 12), "robot": (24.5, 21, "bolts", "", -2, 10, 10),
    "girl": (24, 22, "side", "", 2, 9.5, 11), "boy": (24, 22, "side", "", 2, 9.5, 11),
    "otter": (26.5, 21, "low", "thick", -1, 10, 8.5), "garden robot": (25.5, 21.5, "dials", "", 0, 10, 10),
    "ram": (24, 22, "", "puff", -1, 9.5, 8.5)}


@dataclass
class Body:
    """What every drawing step needs to know about one figure."""
    scene: Scene
    look: Look
    species: str
    fur: RGB
    skin: RGB                                 # what hands and faces are made of
    plan: tuple
    top: str
    top_color: RGB
    drop: float = 0.0                         # how far sitting lowers the upper half


def make_body(scene: Scene, look: Look) -> Body:
    species = look.species or scene.species
    fur = look.fur or COLORS.get(scene.fur, COLORS["gray"])
    tones = SKIN[:-1] if scene.fur == "brown" else SKIN            # brown hair would not show on the darkest
    skin = look.skin or (tones[scene.jitter // 7 % len(tones)] if species in PEOPLE else fur)
    top, color = scene.top, COLORS.get(scene.top_color, COLORS["gray"])
    if look.coat:
        top, color = "coat", look.coat
    elif look.waistcoat:
        top, color = "waistcoat", look.waistcoat
    return Body(scene, look, species, fur, skin, PLANS[species], top, color, 8.0 if scene.pose == "sitting" else 0.0)


def draw_figure(pen: Pen, scene: Scene, look: Look) -> None:
    body = make_body(scene, look)
    upper = pen.at(0, body.drop)
    head = upper.at(0, HEAD_Y)
    if scene.framing != "close":
        _tail(upper, body)
    if body.species == "girl" and not look.hair:
        head.box(-27.5, -14, 27.5, 31, body.fur, 14, EDGE)
    for part, origin in ((_legs, pen), (_torso, upper)) if scene.pose != "sitting" else ((_torso, upper), (_legs, pen)):
        part(origin, body)                    # who sits has the feet in front
    if look.scarf:
        draw_scarf(upper, *look.scarf)
    draw_head(head, body)
    if look.tie:
        draw_tie(upper, look.tie)
    _arms(upper, body)


# ---- tail, legs, trunk -----------------------------------------------------------------------------------------------

TAILS = {"thin": ([(8, -12), (24, -9), (28, -22), (25, -30)], 4.0), "bushy": ([(8, -12), (23, -14), (27, -26)], 13.0),
         "thick": ([(6, -10), (20, -7), (29, -14), (31, -25)], 13), "short": ([(8, -14), (20, -22)], 6.0),
         "puff": ([(14, -12), (16, -13)], 9.0)}


def _tail(pen: Pen, body: Body) -> None:
    name = body.look.tail or body.plan[3]
    if name:
        points, width = TAILS[name]
        away = -1 if body.scene.hand == "right" else 1            # the tail keeps clear of the held thing
        pen.at(0, 0, flip=away).tube(points, body.look.tail_color or body.fur, width)


def _feet_color(body: Body) -> RGB:
    if body.look.feet:
        return body.look.feet
    if body.species in PEOPLE:
        return (112, 70, 58)
    return {"penguin": (246, 160, 52), "owl": (246, 176, 60)}.get(body.species, dark(body.fur, 0.10))


def _legs(pen: Pen, body: Body) -> None:
    leg = body.fur
    if body.species in PEOPLE:
        leg = (74, 88, 140) if body.top not in ("dress", "coat", "waistcoat") else body.skin
    if body.top == "overalls":
        leg = body.top_color
    foot = _feet_color(body)
    for side in (-1, 1):
        if body.scene.pose == "sitting":                          # soles toward the viewer
            pen.tube([(9 * side, -9), (15 * side, -5)], leg, 11)
            pen.ellipse(17 * side, -6, 7, 7.5, foot, EDGE)
            pen.ellipse(17 * side, -5, 3.6, 3.6, light(foot, 0.45))
        else:
            pen.tube([(7.5 * side, -16), (7.5 * side, -5)], leg, 10.5)
            pen.ellipse(8.6 * side, -2.8, 7, 3.8, foot, EDGE)


def _torso(pen: Pen, body: Body) -> None:
    pants = body.species in PEOPLE and body.top in ("shirt", "sweater", "overalls", "")
    base = (74, 88, 140) if pants else body.fur
    draw_trunk(pen, base, 12.5, 17, -44, -9)
    belly = body.look.belly or (WHITE if body.species == "penguin" else light(body.fur, 0.5))
    if body.species == "robot":
        pen.box(-9, -34, 9, -18, light(body.fur, 0.55), 2, 0.9)
        for x, color in ((-4.5, COLORS["red"]), (0.5, COLORS["yellow"]), (5.5, COLORS["green"])):
            pen.ellipse(x - 0.5, -26, 1.9, 1.9, color)
    elif body.look.window:
        _window(pen, *body.look.window)
    elif not pants:
        pen.ellipse(0, -23, 11, 13, belly)
    if body.top:
        TOPS[body.top](pen, body.top_color, body.species in PEOPLE)


def _window(pen: Pen, rim: RGB, heart: RGB) -> None:
    """A pane in the chest, and the heart behind it."""
    pen.ellipse(0, -21, 10, 10, rim, EDGE)
    pen.ellipse(0, -21, 7.5, 7.5, (40, 52, 84))
    for side in (-1, 1):
        pen.ellipse(2.1 * side, -22.6, 2.7, 2.7, heart)
    pen.poly([(-4.6, -21.6), (4.6, -21.6), (0, -16)], heart)


# ---- arms ------------------------------------------------------------------------------------------------------------

ARM_PATHS = {"down": [(13, -38), (20, -28), (21, -20)], "hold": [(13, -38), (21, -29), (27, -33)],
             "up": [(13, -39), (26, -48), (31.5, -62)], "near": [(13, -36), (24, -31), (29, -42)],
             "hips": [(13, -38), (27, -31), (17, -21)]}


def _arm_kinds(scene: Scene) -> dict[str, str]:
    """What each arm does, by side of the picture."""
    if scene.pose == "hands on hips":
        return {"left": "hips", "right": "hips"}
    if scene.pose == "arms up":
        return {"left": "up", "right": "up"}
    kinds = {"left": "down", "right": "down"}
    if scene.held:
        kinds[scene.hand] = "near" if scene.framing == "close" else "hold"
    if scene.pose == "waving":
        kinds["left" if scene.hand == "right" else "right"] = "up"
    return kinds


def _arms(pen: Pen, body: Body) -> None:
    scene = body.scene
    for side, kind in _arm_kinds(scene).items():
        arm = pen.at(0, 0, flip=1 if side == "right" else -1)
        path = ARM_PATHS[kind]
        sleeve = {"sweater": 3, "coat": 3, "waistcoat": 3, "shirt": 2, "dress": 2}.get(body.top, 0)
        arm.tube(path, body.skin, 7.5)
        if sleeve == 2:
            elbow = ((path[0][0] + path[1][0] * 2) / 3, (path[0][1] + path[1][1] * 2) / 3)
            arm.tube([path[0], elbow], body.top_color, 9)
        elif sleeve == 3:
            arm.tube(path, WHITE if body.top == "waistcoat" else body.top_color, 9)
        hand = path[-1]
        if kind != "hips":
            arm.ellipse(*hand, 4.8, 4.8, body.skin, EDGE)
        if scene.held and side == scene.hand:
            inward, low = (0, 0) if kind != "up" else (4, 20) if scene.held in TALL else (3, 0)
            HELD[scene.held](arm.at(hand[0] - inward, hand[1] + low), COLORS.get(scene.held_color, GOLD))
            arm.ellipse(hand[0] - 0.5, hand[1] + 0.5, 4.2, 4.0, body.skin, EDGE)     # the paw closes over it
        elif scene.pose == "waving" and kind == "up":
            for radius in (9, 13):
                arm.arc(*hand, radius, radius, -60, 10, WHITE, 1.5)
