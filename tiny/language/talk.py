"""How personas talk: an exchange, and whole prompts of which the reply rests on what stands in the prompt."""
import re
from dataclasses import dataclass

from tiny.language.facts import CONTAINED, description, facts_behind, kinds, opening, profile
from tiny.language.personas import Persona, random_name, template_values
from tiny.language.templates import Rng, capital, choose_words, fill_any, table

# What a manner of speech changes in a finished line.
PIRATE = ((r"\bmy\b", "me"), (r"\bMy\b", "Me"), (r"\bHello\b", "Ahoy"), (r"\bYes\b", "Aye"),
          (r"\byou are\b", "ye are"))
SHORT = ((r"(^|[.!?] )I am (?=[a-z])", r"\1I'm "), (r"(^|[.!?] )It is (?=[a-z])", r"\1It's "), (r"\bdo not\b", "don't"),
         (r"\bcannot\b", "can't"), (r"(?<!and )\bI will\b", "I'll"), (r"\bLet us\b", "Let's"), (r"\blet us\b", "let's"),
         (r"\bdid not\b", "didn't"))


@dataclass
class Exchange:
    """A line of the user, the reply, and the facts that both rest on: kind -> fields."""
    user: str
    reply: str
    about: dict[str, set[str]]


def topics(p: Persona) -> list[str]:
    """What an exchange can be about: the facts of this persona, and everything else that people say."""
    return kinds(p) + list(table("chat"))


def chat(p: Persona, rng: Rng, topic: str | None = None) -> Exchange:
    """An exchange about a topic (default: a fact or anything else, equally often)."""
    if topic is None:
        topic = rng.choice(kinds(p)) if rng.random() < 0.5 else rng.choice(list(table("chat")))
    asks_for_fact = topic in table("facts")
    entry = table("facts" if asks_for_fact else "chat")[topic]
    users, replies = entry.get("asked", entry.get("user")), entry.get("said", entry.get("reply"))
    if "pairs" in entry and rng.random() < (0.3 if asks_for_fact else 0.5):
        pair = rng.choice(entry["pairs"])
        users, replies = pair["user"], pair["reply"]
    user, reply = rng.choice(users), rng.choice(replies)
    values = template_values(p)
    word = rng.choice(table("descriptions")["user_words"])
    values.update(u=word, u_cap=capital(word), U=random_name(rng, rng.choice(("he", "she")), (p.name, p.friend)))
    manner = table("manners")[p.manner]
    openers = manner["asked" if asks_for_fact else "comfort" if entry.get("comfort") else "plain"]
    spoken, extra = in_manner(p, reply, values, openers, manner["last"] if asks_for_fact else [], rng)
    about = facts_behind(reply, *extra)
    for kind, fields in facts_behind(user).items():
        about.setdefault(kind, set()).update(fields)
    user = choose_words(user, rng).format_map(values)
    return Exchange(as_typed(capital(user), p.name, rng), spoken, about)


def in_manner(p: Persona, reply: str, values: dict, openers: list[str], endings: list[str],
              rng: Rng) -> tuple[str, list[str]]:
    """Opener, answer, last words -> the spoken line, and the templates that were added to it. Short answers have more
    of the manner; half of all answers are plain, so that a persona without a known manner can speak too."""
    line = capital(choose_words(reply, rng).format_map(values)).strip()
    extra, short = [], len(line.split()) < 8
    if rng.random() < (0.6 if short else 0.4):
        line = joined(p, fill_any(openers, values, rng), line)
        extra.append("{manner}")
    chance = rng.random()
    if chance < 0.12 and p.catchphrase not in line:
        line, extra = f"{line} {p.catchphrase}", [*extra, "{catchphrase}"]
    elif chance < 0.3 and p.nickname not in line:
        line, extra = re.sub(r"([.!?])$", rf", {p.nickname}\1", line), [*extra, "{nickname}"]
    elif chance < 0.5 and endings and short:
        line, extra = f"{line} {fill_any(endings, values, rng)}", [*extra, "{manner}"]
    return in_voice(p, line, rng), extra


def joined(p: Persona, opener: str, line: str) -> str:
    """Opener and line; after a comma or colon the line goes on in lower case, which names and outcries do not allow."""
    if opener[-1] not in ",:" or line.startswith(("I ", "I'", p.name)):
        return f"{opener} {line}"
    if line.startswith((p.friend, p.rival, p.elder, p.day, p.catchphrase, p.thing_name, p.pet_name)):
        return line
    return f"{opener} {line[:1].lower()}{line[1:]}"


def in_voice(p: Persona, text: str, rng: Rng) -> str:
    """The manner's own touch on a finished line."""
    changes: tuple = ()
    if p.manner == "pirate-like":
        changes = PIRATE
    elif p.manner not in ("formal", "poetic", "wise") and rng.random() < 0.5:
        changes = SHORT
    kept = p.catchphrase                                   # is never changed
    for old, new in changes:
        text = kept.join(re.sub(old, new, part) for part in text.split(kept))
    if p.manner == "excited":
        text = re.sub(r"(?<!\.)\.(?= |$)", "!", text)
    elif p.manner == "sleepy":
        text = re.sub(r"(?<=[a-z])\. (?=[A-Z])", "... ", text, count=1)
    return text


# ---- what people type -----------------------------------------------------------------------------------------------

CONTRACTIONS = ((r"\b([Ww])hat is\b", r"\1hat's"), (r"\b([Ww])ho is\b", r"\1ho's"), (r"\b([Ww])here is\b", r"\1here's"),
                (r"\bI am\b", "I'm"), (r"\bdo not\b", "don't"), (r"\bcannot\b", "can't"), (r"\bIt is\b", "It's"),
                (r"\bHow is\b", "How's"), (r"\bdid not\b", "didn't"), (r"\bI have\b", "I've"), (r"\bI will\b", "I'll"))
BEFORE_QUESTION = ("So, ", "Tell me, ", "Hey, ", "Okay, ", "Well, ", "By the way, ", "One question: ", "And ", "Hm, ",
                   "I wonder, ", "Please tell me, ", "Excuse me, ", "Oh, ", "Now, ")


def as_typed(line: str, name: str, rng: Rng) -> str:
    """The same line as other people would type it: contracted, with the name, in small letters, without a full stop."""
    if rng.random() < 0.4:
        for old, new in CONTRACTIONS:
            line = re.sub(old, new, line)
    if line.endswith("?") and rng.random() < 0.15:
        first, _, rest = line.partition(" ")
        proper = first.startswith("I'") or first == "I" or not first[:1].isupper() or not rest
        line = rng.choice(BEFORE_QUESTION) + (line if proper else first.lower() + " " + rest)
    if name not in line and rng.random() < 0.12 and line[-1] in ".?!":
        line = f"{line[:-1]}, {name}{line[-1]}" if rng.random() < 0.7 else f"{name}, {line[:1].lower()}{line[1:]}"
    if rng.random() < 0.12:
        line = line.lower()
    if rng.random() < 0.12:
        line = line.rstrip(".!?")
    return line


# ---- whole prompts --------------------------------------------------------------------------------------------------

@dataclass
class Conversation:
    """What stands in a prompt, and the reply to it."""
    description: str
    opening: str
    history: list[tuple[str, str]]                         # (who, what), oldest first
    user: str
    reply: str


def conversation(p: Persona, rng: Rng, known: bool = False) -> Conversation:
    """An exchange under a description from which the reply follows. Of a `known` persona, whose facts the base learns
    by heart, the description is always the same and says little, as that of a character who is trained on.

    One time in three other exchanges came before, and one time in eight the description is a whole profile."""
    turns = [chat(p, rng) for _ in range(1 + (rng.random() < 0.35) + (rng.random() < 0.1))]
    about: dict[str, set[str]] = {}
    for turn in turns:
        for kind, fields in turn.about.items():
            about.setdefault(kind, set()).update(fields)
    if known:
        told = description(p, Rng(f"{p.name} {rng.randrange(2)}"))
    elif rng.random() < 0.12:
        others = [kind for kind in kinds(p) if kind not in about and kind not in CONTAINED]
        told = description(p, rng, about, 30) + " " + profile(p, rng, rng.sample(others, min(len(others), 12)))
    else:
        told = description(p, rng, about, rng.choice((30, 45, 45, 60)))
    history = [line for turn in turns[:-1] for line in (("User", turn.user), (p.name, turn.reply))]
    first = opening(p, rng) if rng.random() < 0.5 else ""
    return Conversation(told, first, history, turns[-1].user, turns[-1].reply)
