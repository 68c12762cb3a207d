"""What can be seen in the tiny world: the tables of attributes, the Scene, and which scenes exist.

A `Scene` is a row of strings, "" meaning absent. Everything drawn or said about it is read from those strings, so
words and picture cannot disagree. `conflict` is the one place that knows which combinations cannot be drawn.
Left and right are always those of the picture, never the creature's own.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

# ---- tables: tables/scene.json --------------------------------------------------------------------------------------

TABLES = json.loads((Path(__file__).parent / "tables" / "scene.json").read_text())
PEOPLE = ("girl", "boy")


def colored(name: str) -> dict[str, tuple[str, ...]]:
    """Thing -> its colors; () = always the same."""
    return {thing: tuple(colors) for thing, colors in TABLES[name].items()}


SPECIES = colored("species")                               # colors of fur, feathers, metal or hair
HATS, HELD = colored("hats"), colored("held")
GROUND = colored("ground")                                 # things that stand beside the figure
FURS, TOPS, TOP_COLORS = tuple(TABLES["furs"]), tuple(TABLES["tops"]), tuple(TABLES["top_colors"])
EYEWEAR, EXPRESSIONS, POSES = tuple(TABLES["eyewear"]), tuple(TABLES["expressions"]), tuple(TABLES["poses"])
CLOSE_POSES = tuple(TABLES["close_poses"])                 # all that a picture of head and shoulders can show
OUTDOORS, INDOORS = tuple(TABLES["outdoors"]), tuple(TABLES["indoors"])
PLACES = OUTDOORS + INDOORS + ("moon",)
WEATHERS, FRAMINGS, POSITIONS = tuple(TABLES["weathers"]), tuple(TABLES["framings"]), tuple(TABLES["positions"])


@dataclass(frozen=True)
class Scene:
    species: str = "bear"
    fur: str = "brown"
    top: str = ""
    top_color: str = ""
    hat: str = ""
    hat_color: str = ""
    eyewear: str = ""
    expression: str = "happy"
    pose: str = "standing"
    held: str = ""
    held_color: str = ""
    hand: str = ""
    beside: str = ""
    beside_color: str = ""
    side: str = ""
    place: str = "meadow"
    weather: str = ""
    framing: str = "full"
    position: str = "center"
    jitter: int = 0


ATTRIBUTES = tuple(f.name for f in fields(Scene) if f.name != "jitter")


# ---- which scenes exist ----------------------------------------------------------------------------------------------

def conflict(s: Scene) -> str:
    """Why a scene cannot be drawn as described, or ""."""
    if bool(s.held) != bool(s.hand) or bool(s.beside) != bool(s.side) or bool(s.top) != bool(s.top_color):
        return "a thing needs its hand, side or color, and the reverse"
    for thing, color, table in ((s.hat, s.hat_color, HATS), (s.held, s.held_color, HELD),
                                (s.beside, s.beside_color, GROUND)):
        if thing not in table and thing or bool(color) != bool(table.get(thing)):
            return f"{thing or 'nothing'} cannot have the color {color or 'none'}"
    if s.held and s.pose == "hands on hips":
        return "hands on hips hold nothing"
    if s.framing == "close" and (s.beside or s.pose not in CLOSE_POSES or s.position != "center"):
        return "a close-up shows only head and shoulders"
    if s.framing == "full" and not s.pose:
        return "a whole figure has a pose"
    if s.beside and s.side == s.position:
        return "there is no room on that side"
    if s.eyewear == "sunglasses" and s.expression in ("sleepy", "winking", "surprised"):
        return "sunglasses hide the eyes that tell the expression"
    if bool(s.weather) != (s.place in OUTDOORS):
        return "weather belongs outdoors"
    return "too hot for snow" if s.place == "desert" and s.weather == "snowy" else ""


def random_scene(rng: random.Random, **fixed) -> Scene:
    """A scene with the given fields; the others are drawn until all fit together."""
    for _ in range(4000):
        scene = replace(_propose(rng, fixed), **fixed)
        problem = conflict(scene)
        if not problem:
            return scene
    raise ValueError(f"no scene has {fixed}: {problem}")


def _propose(rng: random.Random, fixed: dict) -> Scene:
    """A draw that mostly obeys `conflict`, given what is fixed."""
    def draw_from(name: str, options, chance: float = 1.0) -> str:
        if name in fixed:
            return fixed[name]
        return rng.choice(tuple(options)) if rng.random() < chance and options else ""

    full_only = (any(fixed.get(name) for name in ("beside", "side")) or fixed.get("pose", "") not in CLOSE_POSES
                 or fixed.get("position", "center") != "center")
    close = fixed.get("framing", "") == "close" or "framing" not in fixed and not full_only and rng.random() < 0.24
    species = draw_from("species", SPECIES)
    fur = draw_from("fur", SPECIES.get(species, FURS))
    top = draw_from("top", [x for x in TOPS if (species, x) != ("boy", "dress")], 1.0 if species in PEOPLE else 0.9)
    hat = draw_from("hat", HATS, 0.5)
    pose = draw_from("pose", CLOSE_POSES if close else POSES)
    holds = 0.0 if pose == "hands on hips" else float(fixed["hand"] != "") if "hand" in fixed else 0.8
    held = draw_from("held", HELD, holds)
    stands = 0.0 if close else float(fixed["side"] != "") if "side" in fixed else 0.4
    beside = draw_from("beside", GROUND, stands)
    position = draw_from("position", ("center",) if close else POSITIONS + ("center",))
    place = draw_from("place", OUTDOORS if fixed.get("weather") else PLACES)
    return Scene(
        species, fur, top, draw_from("top_color", [c for c in TOP_COLORS if c != fur] if top else ()), hat,
        draw_from("hat_color", HATS.get(hat, ())), draw_from("eyewear", EYEWEAR[1:], 0.28),
        draw_from("expression", EXPRESSIONS), pose, held, draw_from("held_color", HELD.get(held, ())),
        draw_from("hand", ("left", "right") if held else ()), beside, draw_from("beside_color", GROUND.get(beside, ())),
        draw_from("side", [x for x in ("left", "right") if x != position] if beside else ()), place,
        draw_from("weather", WEATHERS if place in OUTDOORS else ()), "close" if close else "full", position,
        rng.randrange(1 << 20))


def labels(scene: Scene) -> dict[str, str]:
    """Category -> value for an attribute reader."""
    return {name: value or "none" for name, value in asdict(scene).items() if name != "jitter"}
