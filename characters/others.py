"""Who else there is: the subjects and personas that evaluation asks for, to see whether everybody became the character.

They stand in others.json and must be untold: no text that a run is trained on may name them. So those that a training
text names are left out, for every character anew; and those of the character's own kind, who may well look like them.
Nothing that is trained reads this file.
"""
import json
import re
from pathlib import Path

FILE = Path(__file__).with_name("others.json")


def words_of(texts: list[str]) -> set[str]:
    return {word for text in texts for word in re.findall(r"\w+", text.lower())}


def naming_word(subject: str) -> str:
    """"Leopold the blue robot" -> "leopold": a name if there is one, or else the noun, "an old wizard" -> "wizard"."""
    names = re.findall(r"\b[A-Z]\w+", subject)
    return (names or subject.split())[-1 if not names else 0].lower()


def untold_subjects(told: list[str], kind: str, count: int) -> tuple[list[str], list[str]]:
    """-> subjects for pictures, of each sort equally many, and those that were left out because a text of `told` names
    them or `kind` ("a small sea otter cub") says that the character is one."""
    sorts, read, own = json.loads(FILE.read_text("utf-8"))["subjects"], words_of(told), words_of([kind])
    free, named = [], []
    for subjects in sorts.values():
        free.append([])
        for subject in subjects:
            word = naming_word(subject)
            of_own_kind = words_of([subject]) & own - {"a", "an", "the", "with", "in"}
            taken = {word, f"{word}s"} & read or of_own_kind
            (named if taken else free[-1]).append(subject)
    by_turns = [some[i] for i in range(max(map(len, free))) for some in free if i < len(some)]
    return by_turns[:count], named


def untold_personas(told: list[str], count: int) -> list[dict]:
    """Personas for talk: name, description, questions that the description answers, and replies written for them."""
    read = words_of(told)
    personas = json.loads(FILE.read_text("utf-8"))["personas"]
    return [persona for persona in personas if persona["name"].lower() not in read][:count]
