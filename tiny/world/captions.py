"""The tiny world in words: phrases for every attribute, and captions in many wordings.

A caption only reads the Scene and stays silent about whatever is "".
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from tiny.world.scene import PEOPLE, Scene

# ---- phrases: tables/captions.json -----------------------------------------------------------------------------------

PHRASES = json.loads((Path(__file__).parent / "tables" / "captions.json").read_text())
AT, WHEN, MOOD, POSE, VERB = (PHRASES[name] for name in ("at", "when", "mood", "pose", "verb"))
ON_SIDE = PHRASES["on_side"]
MOST_WORDS = 40


def an(phrase: str) -> str:
    return ("an " if phrase[:1].lower() in "aeiou" else "a ") + phrase


def thing(name: str, color: str) -> str:
    return an(f"{color} {name}".strip())


def wear(name: str, color: str = "") -> str:
    return f"{color} {name}".strip() if name == "overalls" else thing(name, color)


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


def _pronouns(scene: Scene, subject: str | None) -> tuple[str, str]:
    """The words that stand for the figure as subject and as owner."""
    if subject:
        return subject.split(" the ")[0], subject.split(" the ")[0] + "'s"
    return {"girl": ("She", "her"), "boy": ("He", "his")}.get(scene.species, ("It", "its"))


# ---- captions --------------------------------------------------------------------------------------------------------

class Telling:
    """The phrases of one caption, chosen once; an attribute that is not kept gives ""."""

    def __init__(self, scene: Scene, rng: random.Random, subject: str | None):
        pick = rng.choice
        self.scene, self.subject, self.rng = scene, subject, rng
        self.they, self.their = _pronouns(scene, subject)
        color = "" if subject else scene.fur
        person = scene.species in PEOPLE
        self.adjective = scene.expression if not subject else ""
        self.noun = scene.species or "creature" if person else f"{color} {scene.species or 'creature'}".strip()
        self.hair = f"with {color} hair" if person and color else ""
        clothes = [wear(scene.top, scene.top_color)] if scene.top else []
        clothes += [thing(scene.hat, scene.hat_color)] if scene.hat else []
        clothes += [scene.eyewear] if scene.eyewear else []
        rng.shuffle(clothes)
        self.clothes = _join(clothes) if clothes else ""
        how = ("wearing", "in", "dressed in") if scene.top else ("wearing", "with")
        self.wearing = f"{pick(how)} {self.clothes}" if clothes else ""
        self.mood = pick(MOOD[scene.expression]).replace("its", self.their) if scene.expression else ""
        self.at = pick(AT[scene.place]) if scene.place else ""
        self.when = pick(WHEN[scene.weather]) if scene.weather else ""
        self.where = " ".join(filter(None, (self.at, self.when)))
        self.pose = pick(POSE[scene.pose]) if scene.pose else ""
        self.held = thing(scene.held, scene.held_color) if scene.held else ""
        hand = pick(("on the {}", "in the hand on the {}", "on the {} side"))
        self.hand = hand.format(scene.hand) if scene.hand else ""
        self.beside = thing(scene.beside, scene.beside_color) if scene.beside else ""
        self.side = pick(ON_SIDE).format(scene.side) if scene.side else ""
        self.spot = pick(ON_SIDE[:2]).format(scene.position) if scene.position in ("left", "right") else ""

    def figure(self, mood: bool = False) -> str:
        if self.subject:
            return self.subject
        return " ".join(filter(None, (an(f"{self.adjective if mood else ''} {self.noun}".strip()), self.hair)))

    def holding(self) -> str:
        return " ".join(filter(None, ("holding", self.held, self.hand))) if self.held else ""

    def thing_beside(self) -> str:
        start = self.rng.choice(("with {}", "next to {}", "beside {}")).format(self.beside)
        return " ".join(filter(None, (start, self.side))) if self.beside else ""

    def sentence_beside(self) -> str:
        if not self.beside:
            return ""
        them = {"She": "her", "He": "him", "It": "it"}.get(self.they, self.they)
        where = self.side or self.rng.choice(("nearby", f"beside {them}"))
        return self.rng.choice((f"{self.beside} is {where}", f"{where}, there is {self.beside}",
                                f"there is {self.beside} {where}"))

    def sentence_mood(self) -> str:
        """For a named figure: others carry the mood as an adjective."""
        return f"{self.they} is {self.scene.expression}" if self.subject and self.mood else ""

    def sentence_clothes(self) -> str:
        return f"{self.they} wears {self.clothes}" if self.clothes else ""


def _list(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _run(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _plain(t: Telling) -> list[str]:
    return [_list(_run(t.figure(), t.wearing, VERB[t.scene.pose] if t.pose or t.where else "is here", t.spot, t.where),
                  t.mood, t.holding()), t.sentence_beside()]


def _place_first(t: Telling) -> list[str]:
    verb = VERB[t.scene.pose] if t.pose or t.spot else "is here"
    return [_list(t.where, _run(t.figure(True), t.wearing, verb, t.spot), t.holding()),
            t.sentence_mood(), t.sentence_beside()]


def _holds(t: Telling) -> list[str]:
    verb = _run("holds", t.held, t.hand) if t.held else VERB[t.scene.pose] if t.pose or t.where else "is here"
    first = _list(_run(t.figure(), verb, t.where), t.mood, t.pose if t.held else "")
    return [first, t.sentence_clothes(), t.sentence_beside()]


def _picture_of(t: Telling) -> list[str]:
    start = t.rng.choice(("a picture of", "a drawing of", "a cartoon of"))
    parts = [t.wearing, t.pose, t.holding()]
    t.rng.shuffle(parts)
    return [_list(_run(start, t.figure(True), t.spot, t.where), t.mood if t.subject else "", *parts, t.thing_beside())]


def _fragments(t: Telling) -> list[str]:
    parts = [t.wearing, t.pose, t.holding(), t.mood, t.where]
    t.rng.shuffle(parts)
    return [_list(_run(t.figure(), t.spot), *parts, t.thing_beside())]


def _there_is(t: Telling) -> list[str]:
    start = _run(t.where, "there is") if t.where else "here is"
    return [_list(_run(start, t.figure(True), t.wearing), t.mood if t.subject else "", t.pose, t.holding()),
            t.sentence_beside()]


def _is_doing(t: Telling) -> list[str]:
    doing = _list(t.pose, t.holding())
    return [_run(t.figure(True), "is", doing or t.mood or "here", t.where), t.sentence_mood() if doing else "",
            t.sentence_clothes(), t.sentence_beside()]


FRAMES = (_plain, _place_first, _holds, _picture_of, _fragments, _there_is, _is_doing)
CLOSE_UP = ("a close-up of {}", "a close-up portrait of {}", "close-up of {}")
OPTIONAL = ("top", "hat", "eyewear", "expression", "pose", "held", "beside", "place", "weather", "framing", "position",
            "hand", "side", "fur", "top_color", "hat_color", "held_color", "beside_color")


def caption(scene: Scene, rng: random.Random, subject: str | None = None, keep: float = 1.0) -> str:
    """One to three sentences, 8 to 40 words where the scene has enough to say."""
    return tell(scene, rng, subject, keep)[0]


def tell(scene: Scene, rng: random.Random, subject: str | None = None, keep: float = 1.0) -> tuple[str, Scene]:
    """A caption, and the scene with nothing but what the caption says."""
    for attempt in range(6):
        kept = keep + (1 - keep) * attempt / 5                      # a caption that came out too short keeps more
        told = replace(scene, **{name: "" for name in OPTIONAL if rng.random() >= kept})
        text = _tell(told, rng, subject)
        if len(text.split()) >= 8:
            break
    minor = ["weather", "eyewear", "side", "hand", "position", "beside_color", "beside", "pose", "hat"]
    while len(text.split()) > MOST_WORDS and minor:
        told = replace(told, **{minor.pop(0): ""})
        text = _tell(told, rng, subject)
    return text, told


def _tell(scene: Scene, rng: random.Random, subject: str | None) -> str:
    telling = Telling(scene, rng, subject)
    if scene.framing == "close":
        whole = telling.figure()
        telling.figure = lambda mood=False: whole
        sentences = [_list(_run(rng.choice(CLOSE_UP).format(whole), telling.where), *rng.sample(
            [telling.wearing, telling.mood, telling.pose, telling.holding()], 4))]
    else:
        sentences = rng.choice(FRAMES)(telling)
    return ". ".join(s[0].upper() + s[1:] for s in sentences if s) + "."
