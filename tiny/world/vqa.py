"""Questions about a scene of the tiny world, with short answers.

For every visible attribute there is an open question and one to answer with yes or no; the latter are as often true as
not. Of a named subject, whose look may come from outside the world, clothes are not denied.
"""

from __future__ import annotations

import random

from tiny.world.captions import AT, an, wear
from tiny.world.scene import (
    EXPRESSIONS, FURS, GROUND, HATS, HELD, INDOORS, PEOPLE, PLACES, POSITIONS, SPECIES, TOP_COLORS, TOPS,
    WEATHERS, Scene)

SIDES = ("left", "right")
# how often the yes-or-no question is true when the thing is there, and is asked at all when it is not: together they
# make up for how rarely the thing is there, so that "no" is no safer a guess than "yes"
HAT, HOLD, BESIDE, EYES = (0.7, 0.4), (0.5, 0.6), (0.85, 0.5), (0.9, 0.2)
POSED = {"arms up": "holding both arms up", "hands on hips": "standing with hands on hips"}
RAISED = {"standing": "zero", "waving": "one", "arms up": "two", "hands on hips": "zero", "sitting": "zero"}
OPEN_EYES = {"winking": "one", "laughing": "zero", "sleepy": "zero"}
WEATHER_CHECK = {"sunny": "it sunny", "cloudy": "it cloudy", "rainy": "it raining", "snowy": "it snowing",
                 "starry night": "it a starry night"}


class Asker:
    """Collects questions. Wordings are templates: {who} the figure, {x} the value in question."""

    def __init__(self, scene: Scene, rng: random.Random, subject: str | None):
        self.scene, self.rng, self.named = scene, rng, bool(subject)
        self.who = subject.split(" the ")[0] if subject else f"the {scene.species or 'creature'}"
        self.asked: list[tuple[str, str, str]] = []

    def open(self, category: str, answer: str, *wordings: str, **words: str) -> None:
        question = self.rng.choice(wordings).format(who=self.who, **words)
        self.asked.append((question[0].upper() + question[1:], answer, category))

    def check(self, category: str, value: str, others, *wordings: str, say=str, true: float = 0.5,
              **words: str) -> None:
        """A yes-or-no question; a false one names another value of the same table, as `say` puts it."""
        yes = self.rng.random() < true
        shown = value if yes else self.rng.choice([other for other in others if other and other != value])
        self.open(category, "yes" if yes else "no", *wordings, x=say(shown), **words)

    def color(self, category: str, name: str, color: str, table, *checks: str) -> None:
        be, have = ("are", "do") if name == "overalls" else ("is", "does")
        self.open(category, color, f"what color {be} the {name}?", f"which color {have} the {name} have?",
                  f"what is the color of the {name}?")
        if self.rng.random() < 1 / 3:
            self.check(category, color, table, f"{be} the {name} {{x}}?")
        else:
            self.check(category, color, table, *checks, say=lambda x: wear(name, x))


def questions(scene: Scene, rng: random.Random, subject: str | None = None) -> list[tuple[str, str, str]]:
    """(question, answer, category) for every attribute that can be seen."""
    ask = Asker(scene, rng, subject)
    for part in (_creature, _feeling, _clothes, _head, _held, _beside, _place, _view):
        part(ask, scene)
    return ask.asked


# ---- the figure ------------------------------------------------------------------------------------------------------

def _creature(ask: Asker, s: Scene) -> None:
    if s.species:
        wordings = ("what is {who}?", "what kind of creature is {who}?", "what creature is {who}?") if ask.named else (
            "who is in the picture?", "what creature is this?", "what kind of creature is in the picture?")
        ask.open("species", s.species, *wordings)
        ask.check("species", s.species, SPECIES, "is this {x}?", "is there {x} in the picture?", "do you see {x}?",
                  say=an)
    if s.fur:
        kind = ("hair" if s.species in PEOPLE else {"robot": "metal", "penguin": "feathers", "owl": "feathers",
                                                    "frog": "skin"}.get(s.species, "fur"))
        be = "are" if kind == "feathers" else "is"
        ask.open("fur", s.fur, "what color {be} the {kind} of {who}?", "which color of {kind} does {who} have?",
                 "what is the color of the {kind}?", be=be, kind=kind)
        ask.check("fur", s.fur, SPECIES.get(s.species, FURS), "{be} the {kind} of {who} {x}?",
                  "does {who} have {x} {kind}?", "do you see {x} {kind}?", be=be, kind=kind)


def _feeling(ask: Asker, s: Scene) -> None:
    if s.expression:
        ask.open("expression", s.expression, "how does {who} feel?", "what expression does {who} have?",
                 "what is the mood?", "how does {who} look?")
        ask.check("expression", s.expression, EXPRESSIONS, "is {who} {x}?", "does {who} seem to be {x}?",
                  "is the expression of {who} {x}?")
        if s.eyewear != "sunglasses":
            ask.open("expression", OPEN_EYES.get(s.expression, "two"), "how many eyes are open?",
                     "how many open eyes does {who} have?", "how many eyes does {who} keep open?")
    if s.pose:
        ask.open("pose", s.pose, "what is the pose of {who}?", "which pose do you see?", "how is {who} posed?")
        # a waving figure also stands and arms up may be a wave, so neither is offered as a wrong answer
        others = [x for x in POSED if x != s.pose] + ["sitting"] + ["waving"] * (s.pose != "arms up")
        ask.check("pose", s.pose, others, "is {who} {x}?", "do you see {who} {x}?", "is it true that {who} is {x}?",
                  say=lambda x: POSED.get(x, x))
        ask.open("pose", RAISED[s.pose], "how many arms are raised?", "how many arms are up in the air?",
                 "how many arms does {who} raise?")


def _clothes(ask: Asker, s: Scene) -> None:
    if s.top:
        ask.open("top", s.top, "what is {who} wearing?", "which piece of clothing does {who} wear?",
                 "what does {who} have on?")
        ask.check("top", s.top, TOPS, "is {who} wearing {x}?", "does {who} wear {x}?", "do you see {x}?", say=wear)
        ask.color("top_color", s.top, s.top_color, TOP_COLORS, "is {who} wearing {x}?", "does {who} have {x}?")
    elif not ask.named:
        ask.open("top", "no", "is {who} wearing a coat?", "does {who} wear a shirt?", "does {who} have a sweater on?")


def _head(ask: Asker, s: Scene) -> None:
    ask.open("hat", s.hat or "nothing", "what is on the head of {who}?", "what does {who} wear on the head?",
             "which hat does {who} wear?")
    if s.hat:
        ask.check("hat", s.hat, HATS, "is {who} wearing {x}?", "does {who} have {x}?", "do you see {x}?", say=an,
                  true=HAT[0])
    elif ask.rng.random() < HAT[1]:
        ask.open("hat", "no", "is {who} wearing a hat?", "does {who} wear a hat?", "is there a hat on the head?")
    if s.hat_color:
        ask.color("hat_color", s.hat, s.hat_color, HATS[s.hat], "do you see {x}?", "does {who} wear {x}?")
    ask.open("eyewear", s.eyewear or "nothing", "what is in front of the eyes?", "what does {who} wear over the eyes?",
             "does {who} wear glasses, sunglasses or nothing?")
    if s.eyewear or ask.rng.random() < EYES[1]:
        true = EYES[0] if s.eyewear else 0.0
        ask.check("eyewear", s.eyewear, ("glasses", "sunglasses"), "is {who} wearing {x}?", "does {who} wear {x}?",
                  "do you see {x}?", true=true)


# ---- things, place, view ---------------------------------------------------------------------------------------------

def _held(ask: Asker, s: Scene) -> None:
    ask.open("held", s.held or "nothing", "what is {who} holding?", "what does {who} hold?",
             "what does {who} have in the hand?", "which thing is held?")
    ask.open("held", "one" if s.held else "zero", "how many things does {who} hold?",
             "how many things is {who} holding?", "how many things are held?")
    if not s.held or ask.rng.random() < HOLD[1]:
        ask.open("held", "yes" if s.held else "no", "is {who} holding something?", "does {who} hold anything?",
                 "is there something in a hand?")
    if not s.held:
        return
    ask.check("held", s.held, HELD, "is {who} holding {x}?", "does {who} hold {x}?", "is there {x} in the hand?",
              say=an, true=HOLD[0])
    ask.open("hand", s.hand, "on which side is the {it}?", "is the {it} on the left or on the right of {who}?",
             "which side is the {it} on?", it=s.held)
    ask.check("hand", s.hand, SIDES, "is the {it} in the hand on the {x}?", "is the {it} held on the {x}?",
              "does {who} hold the {it} on the {x} side?", it=s.held)
    if s.held_color:
        ask.color("held_color", s.held, s.held_color, HELD[s.held], "do you see {x}?", "is there {x}?")


def _beside(ask: Asker, s: Scene) -> None:
    if s.framing != "full":
        return
    there = ("is there {x} in the picture?", "do you see {x}?", "is {x} next to {who}?")
    ask.open("beside", s.beside or "nothing", "what is beside {who}?", "what is next to {who}?",
             "what stands on the ground near {who}?")
    if not s.beside:
        if ask.rng.random() < BESIDE[1]:
            ask.open("beside", "no", *there, x=an(ask.rng.choice(tuple(GROUND))))
        return
    ask.check("beside", s.beside, GROUND, *there, say=an, true=BESIDE[0])
    ask.open("side", s.side, "on which side is the {it}?", "is the {it} on the left or on the right?",
             "on which side of the picture is the {it}?", it=s.beside)
    ask.check("side", s.side, SIDES, "is the {it} on the {x}?", "is the {it} on the {x} side?",
              "do you see the {it} on the {x}?", it=s.beside)
    if s.beside_color:
        ask.color("beside_color", s.beside, s.beside_color, GROUND[s.beside], "do you see {x}?", "is there {x}?")


def _place(ask: Asker, s: Scene) -> None:
    if s.place:
        ask.open("place", s.place, "where is {who}?", "what place is this?", "which place do you see?")
        ask.check("place", s.place, PLACES, "is {who} {x}?", "is this picture {x}?", "does this happen {x}?",
                  say=lambda x: AT[x][0])
        ask.open("place", "indoors" if s.place in INDOORS else "outdoors", "is {who} indoors or outdoors?",
                 "is this indoors or outdoors?", "are we indoors or outdoors?")
    if s.weather:
        ask.open("weather", s.weather, "what is the weather like?", "how is the weather?",
                 "what kind of weather is it?")
        others = [x for x in WEATHERS if (s.weather, x) != ("rainy", "cloudy")]         # rain comes with clouds
        ask.check("weather", s.weather, others, "is {x}?", "is {x} here?", "in this picture, is {x}?",
                  say=WEATHER_CHECK.get)


def _view(ask: Asker, s: Scene) -> None:
    if s.framing:
        close, full = ("yes", "no") if s.framing == "close" else ("no", "yes")
        ask.open("framing", close, "is this a close-up?", "is it a close-up picture?",
                 "do you see only the head and shoulders of {who}?")
        ask.open("framing", full, "can you see the feet of {who}?", "are the feet of {who} in the picture?",
                 "do you see the whole body of {who}?")
    if s.framing == "full" and s.position:
        ask.open("position", s.position, "where in the picture is {who}?",
                 "is {who} on the left, in the center or on the right?", "in which part of the picture is {who}?")
        ask.check("position", s.position, POSITIONS, "is {who} {x} of the picture?", "do you see {who} {x}?",
                  "does {who} appear {x} of the picture?",
                  say=lambda x: "in the center" if x == "center" else f"on the {x}")
