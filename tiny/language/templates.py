"""Tables of templates, and how a template becomes a sentence.

A template is ordinary text. `{field}` stands for a value, and `[this/that]` for a free choice of words. The tables are
JSON files in tables/, one template a line, so that a person can read and extend them without reading code.
"""
import json
import random
import re
from functools import cache
from pathlib import Path

Rng = random.Random
TABLES = Path(__file__).parent / "tables"


@cache
def table(name: str):
    """The content of tables/<name>.json. It is shared: do not change it."""
    return json.loads((TABLES / f"{name}.json").read_text())


def fields_of(template: str) -> set[str]:
    """The names in braces."""
    return set(re.findall(r"{(\w+)}", template))


def choose_words(template: str, rng: Rng) -> str:
    """Settles every [this/that]."""
    return re.sub(r"\[([^\]]*)\]", lambda match: rng.choice(match[1].split("/")).strip(), template)


def fill(template: str, values: dict[str, str], rng: Rng) -> str:
    return choose_words(template, rng).format_map(values)


def fill_any(templates: list[str], values: dict[str, str], rng: Rng) -> str:
    """One of the templates, filled in."""
    return fill(rng.choice(templates), values, rng)


# ---- small matters of grammar ---------------------------------------------------------------------------------------

def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def with_article(noun: str) -> str:
    """"an owl", "a unicorn"."""
    sounds_like_consonant = noun.lower().startswith(("uni", "uku", "use", "eu", "one "))
    vowel = noun[:1].lower() in "aeiou" and not sounds_like_consonant
    return f"{'an' if vowel else 'a'} {noun}"


def dressed(garment: str, color: str) -> str:
    """"a red sweater", "blue overalls"; "" when nothing is worn."""
    words = f"{color} {garment}".strip()
    if not words:
        return ""
    plural = words.endswith("s") and not words.endswith("dress")
    return words if plural else with_article(words)
