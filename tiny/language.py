"""The language world of the embedded base: invented personas, what is true of them, and how they talk.

Everything here is made from tables and a `random.Random`, so the base can be pre-trained on millions of different
sentences that are all simple, warm and grammatical. The tables, which a reader may skip, have files of their own:

    people.py    names, and the parts that the facts about a persona are combined from
    facts.py     for each kind of fact its answer and its wordings
    phrases.py   manners of speech, lines of a user and replies, sentences of descriptions
    moments.py   what is said in a moment, and what the picture then shows
    tales.py     tiny tales, and things that are true

A template is ordinary text with `{field}` for a value of the persona and `[this/that]` for a free choice of words;
alternatives are separated by ` | `. The functions that other files call stand under "what others call".
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from tiny import people, world
from tiny.facts import FACTS
from tiny.moments import (
    ASKS,
    FACES,
    FEELINGS,
    HERE,
    HOLDING,
    OPEN_AIR,
    POSTURES,
    SKIES,
    SPOTS,
    STANDING_BY,
)
from tiny.people import split
from tiny.phrases import CHAT, DRESS, INTROS, MANNERLY, MANNERS, OPENINGS, SOFT, USER_WORDS, WAYS
from tiny.tales import TALES, TRUTHS

Rng = random.Random

# ---- persona --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Persona:
    """One invented character. The looks are values of the tiny world, "" when absent; the rest fit into templates."""
    name: str
    he: str                # pronoun: "he" or "she"
    species: str
    fur: str
    top: str
    top_color: str
    hat: str
    hat_color: str
    eyewear: str
    home: str              # with article: "a red house by the river"
    job: str               # with article: "a baker at the market"
    likes: str             # what is collected
    dislikes: str
    food: str
    bad_food: str
    drink: str
    fear: str
    refuge: str            # "under the kitchen table"
    friend: str
    friend_species: str    # "a grumpy gull"
    pet: str
    hobby: str             # gerund: "painting boats"
    instrument: str
    play: str              # "very badly"
    habit: str             # gerund
    treasure: str
    dream: str             # infinitive without "to"
    age: str
    birthday: str          # "on a snowy night"
    color: str
    number: str
    day: str
    custom: str            # "pancake day"
    elder: str
    skill: str             # infinitive without "to"
    rival: str
    rival_species: str
    loot: str              # what the rival steals, plural
    bed: str               # "in a hammock under the roof"
    lullaby: str           # gerund: how to fall asleep
    weather: str
    thing: str             # something owned that has a name
    thing_name: str
    steps: str             # how many
    part: str              # of what, in the home: "windows"
    catchphrase: str
    nickname: str          # for the user
    manner: str            # of speech, a key of MANNERS


LOOKS = ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")
COVER = {"frog": "skin", "penguin": "feathers", "owl": "feathers", "robot": "metal", "girl": "hair", "boy": "hair"}
BEING = {"robot": "machine", "girl": "person", "boy": "person"}          # all others are animals, covered with fur


def _fill(template: str, view: dict[str, str], rng: Rng) -> str:
    """Choose among [this/that], then put the persona's values in."""
    chosen = re.sub(r"\[([^\]]*)\]", lambda m: rng.choice(m.group(1).split("/")).strip(), template)
    return chosen.format_map(view)


def _any(table: str, view: dict[str, str], rng: Rng) -> str:
    return _fill(rng.choice(split(table)), view, rng)


def _cap(text: str) -> str:
    return text[:1].upper() + text[1:]


def _a(noun: str) -> str:
    vowel = noun[:1].lower() in "aeiou" and not noun.lower().startswith(("uni", "uku", "use", "eu", "one "))
    return f"{'an' if vowel else 'a'} {noun}"


def _name(rng: Rng, he: str, taken: tuple[str, ...] = ()) -> str:
    """A name for a "he" or a "she". Half of the names are invented."""
    while True:
        made = rng.choice(people.STARTS) + rng.choice(people.ENDS)
        name = made if rng.random() < 0.5 else rng.choice(people.BOYS if he == "he" else people.GIRLS)
        if name not in taken and name != "Coco":
            return name


def random_persona(rng: Rng) -> Persona:
    pick = rng.choice
    species = pick(list(world.SPECIES))
    he = {"girl": "she", "boy": "he"}.get(species, pick(("he", "she")))
    tops = [top for top in world.TOPS if he == "she" or top != "dress"]
    look = world.random_scene(rng, species=species, top=pick(tops))
    name = _name(rng, he)
    friend = _name(rng, pick(("he", "she")), (name,))
    animals = [a for a in people.ANIMALS if a != look.species]
    b = pick(people.CRY_B)
    food, drink = f"{pick(people.FOOD_ADJ)} {pick(people.FOODS)}", f"{pick(people.DRINK_ADJ)} {pick(people.DRINKS)}"
    treasure, origin = f"{_a(pick(people.TREASURE_ADJ))} {pick(people.TREASURES)}", f" {pick(people.TREASURE_FROM)}"
    elder, part = f"{pick(people.ELDERS)} {pick(people.ELDER_NAMES)}", pick(people.PARTS)
    most = 120 if part in ("stairs", "roof tiles") else 20
    values = dict(
        home=f"{_a(pick(people.SIZES))} {pick(people.HOMES)} {pick(people.WHERE)}",
        job=f"{_a(pick(people.JOBS))} {pick(people.JOB_WHERE)}",
        likes=f"{pick(people.LIKE_ADJ)} {pick(people.LIKE_THINGS)}", dislikes=pick(people.DISLIKE),
        food=food if rng.random() < 0.5 else f"{food} {pick(people.TOPPINGS)}",
        bad_food=f"{pick(people.BAD_ADJ)} {pick(people.BAD_FOODS)}",
        drink=drink if rng.random() < 0.5 else f"{drink} {pick(people.DRINK_WITH)}",
        fear=pick(people.FEARS), refuge=pick(people.REFUGES),
        friend=friend, friend_species=f"{_a(pick(people.MOODS))} {pick(animals)}",
        pet=f"{_a(pick(people.MOODS))} {pick(people.PETS)} named {pick(people.PET_NAMES)}", hobby=pick(people.HOBBIES),
        instrument=f"{_a(pick(people.INSTRUMENT_ADJ))} {pick(people.INSTRUMENTS)}",
        play=pick(people.PLAY), habit=pick(people.HABITS), treasure=treasure + origin * (rng.random() < 0.6),
        dream=pick(people.DREAMS), age=pick(people.AGES), birthday=pick(people.BIRTHDAYS),
        color=rng.choice((pick(people.COLORS), f"{pick(people.COLOR_ADJ)} {pick(people.COLORS[:10])}",
                          pick(people.COLOR_NAMES))),
        number=str(rng.choice((rng.randint(2, 12), rng.randint(2, 100)))),
        day=pick(people.DAYS), custom=pick(people.CUSTOMS),
        elder=elder, skill=pick(people.SKILLS), rival=f"{pick(people.RIVAL_TITLES)} {pick(people.RIVAL_NAMES)}",
        rival_species=_a(pick(animals)), loot=pick(people.LOOT), bed=pick(people.BEDS), lullaby=pick(people.LULLABIES),
        weather=pick(people.WEATHERS), thing=pick(people.THINGS), thing_name=pick(people.THING_NAMES), part=part,
        steps=str(rng.randint(2, most)),
        catchphrase=pick(people.CRIES).format(A=pick(people.CRY_A), a=pick(people.CRY_A).lower(), b=b),
        manner=pick(list(MANNERS)),
        nickname=pick(people.NICKS) if rng.random() < 0.4 else f"{pick(people.NICK_ADJ)} {pick(people.NICKS)}")
    values = {field: _fill(value, {}, rng) for field, value in values.items()}
    return Persona(name=name, he=he, **{field: getattr(look, field) for field in LOOKS}, **values)


def _view(p: Persona) -> dict[str, str]:
    """Everything a template may name: the fields, pronouns, and values with article or capital."""
    v = dict(vars(p))
    v.update(n=p.name, his="his" if p.he == "he" else "her", him="him" if p.he == "he" else "her", He=_cap(p.he))
    v["His"], v["cover"], v["being"] = _cap(v["his"]), COVER.get(p.species, "fur"), BEING.get(p.species, "animal")
    v["a_species"] = _a(p.species)
    v["a_look"] = f"{_a(p.species)} with {p.fur} hair" if v["cover"] == "hair" else f"{_a(p.fur)} {p.species}"
    v["a_top"] = _dressed(p.top, p.top_color)
    v["a_hat"], v["a_manner"] = _dressed(p.hat, p.hat_color), _a(p.manner)
    verb, _, rest = p.dream.partition(" ")
    v["dream_ing"] = f"{people.GERUNDS[verb]} {rest}"
    v["friend_kind"] = p.friend_species.split()[-1]
    for field in ("a_species", "a_top", "likes", "dislikes", "food", "drink", "fear", "refuge", "bed", "age", "color",
                  "pet", "hobby", "weather"):
        v[_cap(field)] = v[f"{field}_cap"] = _cap(v[field])
    return v


def _dressed(thing: str, color: str) -> str:
    """"a red sweater", "blue overalls"; "" when nothing is worn."""
    words = f"{color} {thing}".strip()
    return words if words.endswith("s") and not words.endswith("dress") else _a(words) if words else ""


# ---- what others call: facts ----------------------------------------------------------------------------------------

def kinds(p: Persona) -> list[str]:
    """The kinds of fact that this persona has an answer to."""
    return [kind for kind in FACTS if kind != "hat" or p.hat]


def facts(p: Persona) -> dict[str, str]:
    view = _view(p)
    return {kind: FACTS[kind][0].format_map(view) for kind in kinds(p)}


def knowledge(p: Persona, kind: str, rng: Rng) -> tuple[str, str]:
    """A question that names the persona, and the answer: mostly short, one time in six a whole sentence."""
    view = _view(p)
    told = rng.choice(split(FACTS[kind][2])[:2])          # the first two are the plainest
    answer = _fill(told if rng.random() < 1 / 6 else FACTS[kind][0], view, rng)
    return _cap(_any(FACTS[kind][1], view, rng)), _cap(answer)


def statement(p: Persona, kind: str, rng: Rng) -> str:
    return _cap(_any(FACTS[kind][2], _view(p), rng))


def profile(p: Persona, rng: Rng | None = None, about: list[str] | None = None) -> str:
    """All about the persona (or only the kinds in `about`), a sentence each; without `rng` always the same words."""
    rng = rng or random.Random(p.name)
    told = [kind for kind in kinds(p) if kind not in ("play", "skill")]         # other statements contain them
    chosen = rng.sample(told, len(told)) if about is None else list(about)
    sentences = [statement(p, kind, rng) for kind in chosen]
    return " ".join(sentences[:1] + [_pronoun(p, s, rng) for s in sentences[1:]])


def _pronoun(p: Persona, sentence: str, rng: Rng) -> str:
    """Often says "he" or "her" where a sentence starts with the name once more."""
    view = _view(p)
    if rng.random() < 0.4:
        return sentence
    if sentence.startswith(f"{p.name}'s "):
        return view["His"] + sentence[len(p.name) + 2:]
    starts = sentence.startswith(f"{p.name} ") and not sentence.startswith(f"{p.name} and ")
    return view["He"] + sentence[len(p.name):] if starts else sentence


SHOWN = ("species", "fur", "top", "hat", "manner", "home", "job", "catchphrase", "nickname")   # said elsewhere


def description(p: Persona, rng: Rng, about: tuple[str, ...] = ()) -> str:
    """25 to 45 words in the third person: who, often the looks, some facts. Facts in `about` are surely mentioned."""
    view = _view(p)
    worn = [x for x in (view["a_top"], view["a_hat"], p.eyewear) if x]
    view["outfit"] = ", ".join(worn[:-1]) + " and " + worn[-1] if len(worn) > 1 else worn[0]
    sentences = [_any(INTROS, view, rng)]
    if rng.random() < 0.7:
        sentences.append(_any(DRESS, view, rng))
    rest = list(about)
    while rest or len(" ".join(sentences).split()) < 45:
        if not rest:
            spare = [k for k in kinds(p) if k not in about and k not in SHOWN]
            rest = ["manner"] * (rng.random() < 0.4) + rng.sample(spare, 4)
        kind = rest.pop(0)
        ways = WAYS if p.manner in sentences[0] else MANNERLY
        new = _any(ways, view, rng) if kind == "manner" else _pronoun(p, statement(p, kind, rng), rng)
        before, after = len(" ".join(sentences).split()), len(" ".join([*sentences, new]).split())
        if kind not in about and (after > 45 or before >= 25 and rng.random() < 0.4):
            break
        sentences.append(new)
    return " ".join(sentences)


def opening(p: Persona, rng: Rng) -> str:
    """What the persona says first; nothing, half of the time."""
    if rng.random() < 0.5:
        return ""
    view = _view(p)
    line = _any(OPENINGS, view, rng)
    return _voice(p, _joined(p, _any(MANNERS[p.manner][1], view, rng), line) if rng.random() < 0.4 else line, rng)


def _joined(p: Persona, opener: str, line: str) -> str:
    """Opener and line; after a comma or colon the line goes on in lower case, which names and outcries do not allow."""
    if opener[-1] not in ",:" or line.startswith(("I ", p.name)):
        return f"{opener} {line}"
    if line.startswith((p.friend, p.rival, p.elder, p.day, p.catchphrase)):
        return line
    return f"{opener} {line[:1].lower()}{line[1:]}"


# ---- what others call: talk -----------------------------------------------------------------------------------------

PIRATE = ((r"\bmy\b", "me"), (r"\bMy\b", "Me"), (r"\bHello\b", "Ahoy"), (r"\bYes\b", "Aye"), (r"\byou are\b", "ye are"))
SHORT = ((r"(^|[.!?] )I am (?=[a-z])", r"\1I'm "), (r"(^|[.!?] )It is (?=[a-z])", r"\1It's "), (r"\bdo not\b", "don't"),
         (r"\bcannot\b", "can't"), (r"(?<!and )\bI will\b", "I'll"), (r"\bLet us\b", "Let's"), (r"\blet us\b", "let's"),
         (r"\bdid not\b", "didn't"))


def _voice(p: Persona, text: str, rng: Rng) -> str:
    """The manner's own touch on a finished line."""
    changes: tuple = ()
    if p.manner == "pirate-like":
        changes = PIRATE
    elif p.manner not in ("formal", "poetic", "wise") and rng.random() < 0.5:
        changes = SHORT
    quote = p.catchphrase                                  # is never changed
    for old, new in changes:
        text = quote.join(re.sub(old, new, part) for part in text.split(quote))
    if p.manner == "excited":
        text = re.sub(r"(?<!\.)\.(?= |$)", "!", text)
    elif p.manner == "sleepy":
        text = re.sub(r"(?<=[a-z])\. (?=[A-Z])", "... ", text, count=1)
    return text


CHAT_KINDS = tuple(FACTS) + tuple(CHAT)


def chat(p: Persona, rng: Rng, kind: str | None = None) -> tuple[str, str]:
    """A line of the user and the persona's answer to it. `kind` is one of CHAT_KINDS (default: any)."""
    view = _view(p)
    kind = kind or rng.choice((rng.choice(kinds(p)), rng.choice(list(CHAT))))
    asked, plain, soft, last = MANNERS[p.manner]
    word = rng.choice(USER_WORDS)
    view.update(u=word, u_cap=_cap(word), U=_name(rng, p.he, (p.name, p.friend)))
    if kind in FACTS:
        (users, replies), openers = FACTS[kind][3:], asked
    else:
        (users, replies), openers = CHAT[kind], soft if kind in SOFT else plain
    user, reply = _any(users, view, rng), _any(replies, view, rng)
    return _cap(user), _dress_up(p, view, _cap(reply), openers, last if kind in FACTS else "", rng)


def _dress_up(p: Persona, view: dict[str, str], core: str, openers: str, last: str, rng: Rng) -> str:
    """Opener, answer, last words: 8 to 30 words, more of the manner where the answer is short."""
    core = core.strip()
    count = len(core.split())
    if rng.random() < 0.6 or count < 10:
        core = _joined(p, _any(openers, view, rng), core)
    ending = ""
    if rng.random() < 0.18 and p.catchphrase not in core:
        ending = p.catchphrase
    elif last and (rng.random() < 0.4 or count < 10):
        ending = _any(last, view, rng)
    elif rng.random() < 0.12 and p.nickname not in core:
        core = re.sub(r"([.!?])$", rf", {p.nickname}\1", core)
    if ending and len(core.split()) + len(ending.split()) <= 30:
        core = f"{core} {ending}"
    return _voice(p, core, rng)


# ---- what others call: moments --------------------------------------------------------------------------------------

def _stage(p: Persona, rng: Rng) -> world.Scene:
    """A scene with the persona in it, whose parts suit each other. Without a word about it, the weather is sunny."""
    moods = [m for m in FEELINGS if not (p.eyewear == "sunglasses" and m in ("sleepy", "winking", "surprised"))]
    mood, place = rng.choice(moods), rng.choice(list(SPOTS))
    outdoors = place in world.OUTDOORS
    weather = rng.choice([w for w in SKIES if not (place == "desert" and w == "snowy")]) if outdoors else ""
    framing = "close" if rng.random() < 0.2 else "full"
    pose = rng.choice(FEELINGS[mood][3] if framing == "full" else ("", "waving") if mood == "happy" else ("",))
    things = [thing for thing in HOLDING if outdoors or thing != "kite"]
    held = rng.choice(things) if pose != "hands on hips" and rng.random() < 0.8 else ""
    near = [b for b in STANDING_BY if not (b in OPEN_AIR and not outdoors) and b != "snowman"]
    near += ["snowman"] * (4 if weather == "snowy" else 0)            # its only weather
    beside = rng.choice(near) if framing == "full" and rng.random() < (0.4 if held else 0.75) else ""
    return world.random_scene(rng, expression=mood, pose=pose, held=held, beside=beside, place=place, weather=weather,
                              framing=framing, **{field: getattr(p, field) for field in LOOKS})


def _lines(p: Persona, s: world.Scene, view: dict[str, str], rng: Rng) -> tuple[str, str]:
    """User line and reply that together give away mood, place and all that is held, near or special about the scene."""
    say = {"place": SPOTS[s.place][1], "held": HOLDING.get(s.held, ""), "beside": STANDING_BY.get(s.beside, ""),
           "pose": POSTURES[s.pose][1] if s.pose else "", "weather": SKIES[s.weather][1] if s.weather else ""}
    say = {part: lines for part, lines in say.items() if lines}
    if s.weather == "sunny" and rng.random() < 0.5:
        del say["weather"]
    events, mood = FEELINGS[s.expression][:2]
    asks = [ask for ask in ASKS if ask.split("_")[0] in say]
    first = ""
    if rng.random() < 0.45:                                # the user causes the mood
        user, first = _any(events, view, rng).split(" => ")
        if rng.random() < 0.5:                             # and names the place, since nothing else does
            del say["place"]
            user = f"{_any(HERE, view, rng)} {user}"
    else:                                                  # the user asks about one thing, perhaps naming another one
        ask = rng.choice(asks)
        about, given = ask.split("_")[0], ask.endswith("given")
        user, answer = _any(ASKS[ask], view, rng), _any(say.pop(about), view, rng)
        first = _any(mood, view, rng) if given else f"{answer} {_any(mood, view, rng)}"
    rest = [_any(lines, view, rng) for lines in say.values()]
    rng.shuffle(rest)
    return user, " ".join([first, *rest])


def _thinking(s: world.Scene, view: dict[str, str], rng: Rng) -> str:
    """15 to 30 words from what was said to what has to be seen."""
    why, face = _any(FEELINGS[s.expression][2], view, rng), FACES[s.expression]
    view["sky"] = SKIES[s.weather][0] if s.weather else ""
    view["Sky"] = _cap(view["sky"])
    start = f"{_cap(why)}, so {_any('I draw | we see | there must be', view, rng)} {face}."
    holds = """{He} holds {a_held} {spot}. | {Spot}, {he} has {a_held} in one hand. |
        The scene is {spot}, with {a_held} in {his} hand."""
    empty = "The scene is {spot}. | {He} is {spot}. | All of this happens {spot}."
    parts = [start, _any(holds if s.held else empty, view, rng)]
    if s.beside:
        parts.append(_any("Next to {him} there is {a_beside}. | {A_beside} is beside {him}.", view, rng))
    if s.weather:
        parts.append(_any("{Sky}. | Also, {sky}.", view, rng))
    if s.pose and (s.pose != "standing" or rng.random() < 0.3):
        parts.append(_fill(POSTURES[s.pose][0], {**view, "n": view["He"]}, rng) + ".")
    if s.framing == "close":
        parts.append("The picture is a close-up.")
    while len(" ".join(parts).split()) > 30:
        parts.pop()
    return " ".join(parts)


def moment(p: Persona, rng: Rng) -> tuple[world.Scene, str, str, str, str, str]:
    """(scene, user, reply, thinking, instruction, draw): a dialogue from which the picture follows."""
    view = _view(p)
    while True:
        s = _stage(p, rng)
        held, beside = f"{s.held_color} {s.held}".strip(), f"{s.beside_color} {s.beside}".strip()
        view.update(held=held, beside=beside, a_held=_a(held), a_beside=_a(beside), A_beside=_cap(_a(beside)),
                    spot=SPOTS[s.place][0], Spot=_cap(SPOTS[s.place][0]))
        view["sky_line"] = _any(SKIES[s.weather][1], view, rng) if s.weather else ""
        user, reply = _lines(p, s, view, rng)
        thinking = _thinking(s, view, rng)
        if 9 <= len(reply.split()) <= 28 and 15 <= len(thinking.split()):
            break
    if rng.random() < 0.3 and s.expression == "happy" and len(reply.split()) < 26:
        reply = _joined(p, _any(MANNERS[p.manner][1], view, rng), reply)
    subject = f"{p.name} the {p.fur} {p.species}"
    if view["cover"] == "hair":
        subject = f"{p.name} the {p.species} with {p.fur} hair"
    bare = replace(s, fur="", top="", top_color="", hat="", hat_color="", eyewear="")
    instruction, bare_instruction = world.caption(s, rng, subject), world.caption(bare, rng, p.name)
    return s, _cap(user), _voice(p, reply, rng), thinking, instruction, bare_instruction


# ---- what others call: stories --------------------------------------------------------------------------------------

def stories(rng: Rng) -> str:
    """Two to four sentences of plain English: a tiny tale, things that are true, or a few facts about somebody."""
    p = random_persona(rng)
    view = _view(p)
    view["a_thing"] = _a(f"{rng.choice(people.TREASURE_ADJ)} {rng.choice(people.TREASURES)}")
    form = rng.random()
    if form < 0.6:
        parts = [_any(table, view, rng) for table in rng.choice(TALES)]
        return " ".join(_cap(part) for part in parts[:rng.choice((3, 4, 4, 4))])
    if form < 0.8:
        return " ".join(rng.sample(split(TRUTHS), rng.randint(2, 4)))
    return profile(p, rng, rng.sample(kinds(p), rng.randint(3, 4)))
