"""A moment in the life of a persona: a dialogue, the picture that follows from it, and the thought that leads there."""
from dataclasses import dataclass, replace

from tiny import world
from tiny.language.facts import facts_behind
from tiny.language.personas import LOOKS, Persona, template_values
from tiny.language.talk import in_voice, joined
from tiny.language.templates import Rng, capital, fill, fill_any, table, with_article


@dataclass
class Moment:
    scene: world.Scene
    user: str
    reply: str
    thinking: str          # why this picture
    instruction: str       # a caption of all that is seen, the persona's looks too
    draw: str              # a caption by name, of all but the looks
    about: dict            # the facts of the persona that user and reply rest on: kind -> fields


def moment(p: Persona, rng: Rng) -> Moment:
    """A dialogue of 9 to 28 words of reply from which place, mood, things and weather of its picture follow."""
    values = template_values(p)
    while True:
        scene = stage(p, rng)
        values |= scene_values(scene, rng)
        user, lines = exchange(p, scene, values, rng)
        reply = " ".join(fill(line, values, rng) for line in lines)
        thinking = reasons(scene, values, rng)
        if 9 <= len(reply.split()) <= 28 and 15 <= len(thinking.split()):
            break
    about = facts_behind(user, *lines)
    if rng.random() < 0.3 and scene.expression == "happy" and len(reply.split()) < 26:
        reply = joined(p, fill_any(table("manners")[p.manner]["plain"], values, rng), reply)
        about.setdefault("manner", set()).add("manner")
    subject = f"{p.name} the {p.fur} {p.species}"
    if values["cover"] == "hair":
        subject = f"{p.name} the {p.species} with {p.fur} hair"
    bare = replace(scene, fur="", top="", top_color="", hat="", hat_color="", eyewear="")
    known = {kind: fields for kind, fields in about.items() if kind in table("facts")}
    return Moment(scene, capital(fill(user, values, rng)), in_voice(p, reply, rng), thinking,
                  world.caption(scene, rng, subject), world.caption(bare, rng, p.name), known)


def stage(p: Persona, rng: Rng) -> world.Scene:
    """A scene with the persona in it, whose parts suit each other."""
    tables = table("moments")
    hidden_by_sunglasses = ("sleepy", "winking", "surprised")
    moods = [m for m in tables["feelings"] if not (p.eyewear == "sunglasses" and m in hidden_by_sunglasses)]
    mood, place = rng.choice(moods), rng.choice(list(tables["spots"]))
    outdoors = place in world.OUTDOORS
    skies = [sky for sky in tables["skies"] if not (place == "desert" and sky == "snowy")]
    weather = rng.choice(skies) if outdoors else ""
    framing = "close" if rng.random() < 0.2 else "full"
    poses = tables["feelings"][mood]["poses"]
    if framing == "close":
        poses = ("", "waving") if mood == "happy" else ("",)
    pose = rng.choice(poses)
    things = [thing for thing in tables["holding"] if outdoors or thing != "kite"]
    held = rng.choice(things) if pose != "hands on hips" and rng.random() < 0.8 else ""
    near = [thing for thing in tables["beside"] if outdoors or thing not in tables["open_air"]]
    near = [thing for thing in near if thing != "snowman"]
    near += ["snowman"] * (4 if weather == "snowy" else 0)             # its only weather
    beside = rng.choice(near) if framing == "full" and rng.random() < (0.4 if held else 0.75) else ""
    return world.random_scene(rng, expression=mood, pose=pose, held=held, beside=beside, place=place, weather=weather,
                              framing=framing, **{field: getattr(p, field) for field in LOOKS})


def scene_values(s: world.Scene, rng: Rng) -> dict[str, str]:
    """What templates about a scene may name."""
    tables = table("moments")
    held, beside = f"{s.held_color} {s.held}".strip(), f"{s.beside_color} {s.beside}".strip()
    spot = tables["spots"][s.place]["where"]
    sky = tables["skies"][s.weather]["words"] if s.weather else ""
    return {"held": held, "beside": beside, "a_held": with_article(held), "a_beside": with_article(beside),
            "A_beside": capital(with_article(beside)), "spot": spot, "Spot": capital(spot),
            "sky": sky, "Sky": capital(sky),
            "sky_line": rng.choice(tables["skies"][s.weather]["said"]) if s.weather else ""}


def exchange(p: Persona, s: world.Scene, values: dict, rng: Rng) -> tuple[str, list[str]]:
    """Templates of a user's line, and of a reply, that together give away mood, place and all that is held, near or
    special. Without a word about it, the weather is sunny."""
    tables = table("moments")
    say = {"place": tables["spots"][s.place]["said"], "held": tables["holding"].get(s.held),
           "beside": tables["beside"].get(s.beside),
           "pose": tables["postures"][s.pose]["said"] if s.pose else None,
           "weather": tables["skies"][s.weather]["said"] if s.weather else None}
    say = {part: lines for part, lines in say.items() if lines}
    if s.weather == "sunny" and rng.random() < 0.5:
        del say["weather"]
    feeling = tables["feelings"][s.expression]
    if rng.random() < 0.45:                                # the user causes the mood
        event = rng.choice(feeling["events"])
        user, first = event["user"], [event["reply"]]
        if rng.random() < 0.5:                             # and names the place, since nothing else does
            del say["place"]
            user = f"{rng.choice(tables['here'])} {user}"
    else:                                                  # the user asks about one thing, perhaps naming another one
        ask = rng.choice([ask for ask in tables["asks"] if ask.split("_")[0] in say])
        user, answers = rng.choice(tables["asks"][ask]), say.pop(ask.split("_")[0])
        first = [rng.choice(feeling["said"])]
        if not ask.endswith("given"):
            first.insert(0, rng.choice(answers))
    rest = [rng.choice(lines) for lines in say.values()]
    rng.shuffle(rest)
    return user, first + rest


def reasons(s: world.Scene, values: dict, rng: Rng) -> str:
    """15 to 30 words from what was said to what has to be seen."""
    tables = table("moments")
    feeling, wordings = tables["feelings"][s.expression], tables["reasons"]
    why = capital(fill_any(feeling["why"], values, rng))
    parts = [f"{why}, so {rng.choice(wordings['so'])} {feeling['face']}."]
    parts.append(fill_any(wordings["holds" if s.held else "empty"], values, rng))
    if s.beside:
        parts.append(fill_any(wordings["beside"], values, rng))
    if s.weather:
        parts.append(fill_any(wordings["weather"], values, rng))
    if s.pose and (s.pose != "standing" or rng.random() < 0.3):
        parts.append(tables["postures"][s.pose]["words"].format(n=values["He"]) + ".")
    if s.framing == "close":
        parts.append("The picture is a close-up.")
    while len(" ".join(parts).split()) > 30:
        parts.pop()
    return " ".join(parts)
