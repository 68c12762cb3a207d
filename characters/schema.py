"""The schema of character.json, and the check of a file against it. Skip this to learn the method.

A schema looks like its data: {"field": kind, "field?": kind that may be left out or empty}, or [kind]. The kinds are
str; float; bool; "profile", a long text; "label", a short text, where a number is taken as its text; "picture", a path
inside the character's folder; and a tuple of words, of which one is to be chosen, by default the first.
"""
import re
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

from PIL import Image

from characters.files import belongs, existing, load_picture, plain
from runtime.cli import UserError, printable

# ---- the schema ------------------------------------------------------------------------------------------------------

QA = {"question": str, "answer": str}
TALK = {"user": str, "reply": str}
SCENE = {"image": "picture",
         "draw": str,                       # what the picture shows: one plain sentence that names the character
         "also?": [str],                    # other wordings of `draw`, as other people would ask for the picture
         "vqa?": [QA],                      # about this picture
         "user?": str, "reply?": str,       # the talk that the picture belongs to
         "thinking?": str,                  # why this picture: what the character's feelings ask for
         "instruction?": str}               # the wording of `draw` that a plan ends with
SHOWN = {"draw?": str}                      # what a picture of this moment would show, as in a scene
DIALOGUE = TALK | SHOWN | {"also?": [str]}  # other wordings of what the user says, for the same reply
FACT = QA | SHOWN | {"reply?": str,         # the answer as the character says it in a talk
                     "also?": [str]}        # other wordings of the question, as typed in a talk
PROMPT = {"text": str,                      # a picture to draw in stage 2
          "questions?": [{"question": str, "answer": "label", "weight?": float, "category?": str}]}

CHOICE = {"question": str, "options": ["label"], "answer": "label"}     # answer: one of the options, word for word
SEEN = CHOICE | {"image": "picture",
                 "identity?": bool}         # true: nobody can answer who has not met the character
SAID = {"question": str,                    # as typed in a talk
        "accepted": [str]}                  # the reply says the fact if it holds one of these, as whole words
TEST = {"scenes?": [SCENE], "dialogues?": [TALK | SHOWN], "knowledge?": [CHOICE], "facts?": [SAID], "prompts?": [PROMPT],
        "vqa?": [SEEN],                     # about pictures that are not trained on
        "vqa_seen?": [SEEN],                # about those that are: a question of memory, reported apart from vqa
        "personality?": [str], "memorization?": [str]}      # lines for a judge to read the replies to

CHARACTER = {"name": str,
             "description": str,            # in 30 to 70 words: it stands in every prompt
             "opening?": str,               # the first words of a talk
             "profile?": "profile",         # all there is to know
             "fit?": ("crop", "pad"),       # how a model with square pictures takes one that is not square
             "scenes": [SCENE], "dialogues?": [DIALOGUE], "knowledge?": [FACT], "prompts?": [PROMPT],
             "lookup?": [DIALOGUE],         # more, whose replies are not learned, but looked up in a talk (chat.py)
             "test?": TEST}                 # never trained on

TYPES = {str: "text", dict: "an object", list: "a list", float: "a number", int: "a number", bool: "true or false"}
LONGEST_PROFILE, LONGEST_TEXT = 50_000, 4_000              # characters
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")      # they break terminals and tokenizers


# ---- the check -------------------------------------------------------------------------------------------------------

class Validator:
    """Checks what a file says against a schema. `home` is the folder that its pictures must lie in. Published files
    have more fields than we need, so for them `strict` is False."""

    def __init__(self, file: Path, home: Path, strict: bool = True):
        self.file, self.home, self.strict = file, home, strict
        self.pictures: dict[str, Image.Image] = {}         # each file is loaded once

    def fail(self, field: str, problem: str) -> NoReturn:
        parts = [str(self.file), field, problem]
        raise UserError(printable(": ".join(part for part in parts if part)))

    def check(self, value: object, kind: object, field: str = "", optional: bool = False) -> object:
        """The value in the one form that the rest of the code relies on. Raises UserError with file, field, remedy."""
        if kind == "label" and type(value) in (int, float):
            value = str(value)
        self.check_type(value, kind, field)
        if isinstance(kind, dict):
            return self.check_fields(value, kind, field)
        if isinstance(kind, list):
            return self.check_list(value, kind[0], field, optional)
        if kind is bool:
            return value
        if kind is float:
            return self.check_number(float(value), field)
        text = self.check_text(value, kind, field, optional)
        if isinstance(kind, tuple) and text not in kind:
            self.fail(field, f'is "{text}"; choose one of {", ".join(kind)}')
        return self.picture(text, field) if kind == "picture" else text

    def check_type(self, value: object, kind: object, field: str) -> None:
        wanted = str
        if isinstance(kind, (dict, list)):
            wanted = type(kind)
        elif kind in (float, bool):
            wanted = kind
        whole_number = wanted is float and type(value) is int
        if not isinstance(value, wanted) and not whole_number:
            self.fail(field, f"must be {TYPES[wanted]}, not {TYPES.get(type(value), 'null')}")

    def check_fields(self, value: dict, schema: dict, field: str) -> dict:
        kinds = {key.rstrip("?"): kind for key, kind in schema.items()}
        for key in value:
            if self.strict and key not in kinds:
                self.fail(f"{field}.{key}".lstrip("."), f"unknown field; take one of {', '.join(kinds)}")
        clean = {}
        for name, kind in kinds.items():
            inner, optional = f"{field}.{name}".lstrip("."), name not in schema
            if name not in value and not optional:
                self.fail(inner, "is missing; add it")
            clean[name] = self.check(value.get(name, default(kind)), kind, inner, optional)
        return clean

    def check_list(self, value: list, kind: object, field: str, optional: bool) -> list:
        if not value and not optional:
            self.fail(field, "is empty; fill it in")
        return [self.check(item, kind, f"{field}[{i}]") for i, item in enumerate(value)]

    def check_number(self, value: float, field: str) -> float:
        if not 0 < value <= 1000:                          # in this order, so that nan fails too
            self.fail(field, "must be above 0 and at most 1000")
        return value

    def check_text(self, value: str, kind: object, field: str, optional: bool) -> str:
        text = plain(value.replace("\r\n", "\n").strip())
        if not text and not optional:
            self.fail(field, "is empty; fill it in")
        bad = UNPRINTABLE.search(text)
        if bad:
            self.fail(field, f"holds the unprintable character {ascii(bad[0])}; remove it")
        most = LONGEST_PROFILE if kind == "profile" else LONGEST_TEXT
        if len(text) > most:
            self.fail(field, f"is {len(text)} characters long; shorten it to {most}")
        return text

    def picture(self, value: str, field: str) -> Image.Image:
        path = existing(value, self.file.parent) or self.file.parent / value
        if not belongs(path, self.home):
            self.fail(field, f"{value} leaves the character's folder; copy the picture into it")
        try:
            key = str(path.resolve())
            if key not in self.pictures:
                self.pictures[key] = load_picture(path)
        except Exception as error:          # decoders raise nearly anything at a broken file
            reason = getattr(error, "strerror", None) or error
            self.fail(field, f"{value} cannot be used ({reason}); put a PNG or JPEG there, best 128 to 1024 pixels wide")
        return self.pictures[key]


def default(kind: object) -> object:
    """What stands for an optional field that is left out."""
    if isinstance(kind, (dict, list)):
        return type(kind)()
    if isinstance(kind, tuple):
        return kind[0]
    return {float: 1.0, bool: False}.get(kind, "")


# ---- what types cannot say -------------------------------------------------------------------------------------------

def check_meaning(reader: Validator, data: dict) -> None:
    """Parts that need each other, sentences that must name the character, and tests that are not trained on."""
    check_name(reader, data["name"])
    for part, where in ((data, ""), (data["test"], "test.")):
        for i, scene in enumerate(part["scenes"]):
            check_scene(reader, scene, f"{where}scenes[{i}]", data["name"])
        for i, prompt in enumerate(part["prompts"]):
            check_named(reader, prompt["text"], f"{where}prompts[{i}].text", data["name"])
    for i, item in enumerate(data["knowledge"]):
        for field in ("also", "draw"):
            if item[field] and not item["reply"]:
                reader.fail(f"knowledge[{i}].reply", f"is missing; {field} needs it")
    for part, key in ((data, "dialogues"), (data, "lookup"), (data, "knowledge"), (data["test"], "dialogues")):
        for i, item in enumerate(part[key]):
            if item["draw"]:
                where = key if part is data else f"test.{key}"
                check_named(reader, item["draw"], f"{where}[{i}].draw", data["name"])
    for key in ("knowledge", "vqa", "vqa_seen"):
        for i, item in enumerate(data["test"][key]):
            check_choice(reader, item, f"test.{key}[{i}].options")
    for key, i, word in tests_that_are_trained(data):
        reader.fail(f"test.{key}[{i}].{word}", "is trained on or looked up too, so it tests nothing; take another")


def tests_that_are_trained(data: dict) -> list[tuple[str, int, str]]:
    """(part of the test, number, field) of what training or look-up shows too."""
    found = []
    for key, word, known in trained_things(data):
        for i, item in enumerate(data["test"][key]):
            tested = wording(item[word]) if isinstance(item[word], str) else item[word]
            if item[word] and tested in known:
                found.append((key, i, word))
    return found


def trained_things(data: dict) -> list[tuple[str, str, list]]:
    """(part of the test, its field, what training or look-up shows in the place of that field: pictures, or wordings)."""
    asked, told = [item["question"] for item in data["knowledge"]], data["dialogues"] + data["lookup"]
    said = asked + [turn["user"] for turn in told + data["scenes"]]
    said += [line for item in told + data["knowledge"] for line in item["also"]]
    drawn = [item["text"] for item in data["prompts"]]
    drawn += [text for scene in data["scenes"] for text in (scene["draw"], *scene["also"], scene["instruction"])]
    shown = [scene["image"] for scene in data["scenes"]]
    found = [("scenes", "image", shown), ("vqa", "image", shown)]
    for key, word, texts in (("scenes", "user", said), ("scenes", "draw", drawn), ("prompts", "text", drawn),
                             ("knowledge", "question", asked), ("facts", "question", said),
                             ("dialogues", "user", said)):
        found.append((key, word, [wording(text) for text in texts if text]))
    return found


def check_name(reader: Validator, name: str) -> None:
    for character in name:
        if unicodedata.category(character) in ("Cf", "Cc", "Zl", "Zp"):
            mark = unicodedata.name(character, "an unnamed control").lower()
            reader.fail("name", f"holds an invisible mark (U+{ord(character):04X}, {mark}); type the name anew")
    if not re.fullmatch(r"[^\W_][^/\\:\n\t]{0,59}", name):
        reader.fail("name", "must begin with a letter, in one line of at most 60 characters without / \\ or :")


def check_scene(reader: Validator, scene: dict, field: str, name: str) -> None:
    for one, other in (("user", "reply"), ("reply", "user"), ("thinking", "instruction")):
        if scene[one] and not scene[other]:
            reader.fail(f"{field}.{other}", f"is missing; {one} needs it")
    check_named(reader, scene["draw"], f"{field}.draw", name)
    for i, text in enumerate(scene["also"]):
        check_named(reader, text, f"{field}.also[{i}]", name)


def check_named(reader: Validator, text: str, field: str, name: str) -> None:
    """The name is what the model learns to draw by. Without it, a sentence teaches that everybody looks like this."""
    if not names_in(text, name):
        reader.fail(field, f"does not name {name}; write the name into the sentence")


def check_choice(reader: Validator, item: dict, field: str) -> None:
    options = item["options"]
    if len(options) < 2 or len(set(options)) < len(options) or item["answer"] not in options:
        reader.fail(field, "must be two or more, all different, the answer among them")


# ---- names and wordings ----------------------------------------------------------------------------------------------

def names_in(text: str, name: str) -> list[re.Match]:
    """Where a text names the character: in any script, in capitals or not, before any sign, but not inside a longer
    word. "Coco's" and 小明在厨房里 hold the names Coco and 小明; "cocoa" does not hold Coco."""
    found = re.finditer(re.escape(plain(name)), text, re.IGNORECASE)
    return [match for match in found if not (in_word(text, match.start()) or in_word(text, match.end()))]


def in_word(text: str, at: int) -> bool:
    """Whether one word goes on over this place. Only scripts with capitals are asked: their words stand between spaces,
    while Chinese has no spaces, and Korean or Arabic join small words to a name."""
    around = [*text[at - 1:at], *text[at:at + 1]]
    joined = [c.lower() != c.upper() or c.isdigit() or unicodedata.combining(c) for c in around]
    return len(around) == 2 and all(joined)


def alike(one: str, other: str, share: float = 0.8) -> bool:
    """Whether two lines say nearly the same: of all their words, at least this share stands in both."""
    first, second = wording(one), wording(other)
    return len(first & second) >= share * len(first | second)


@lru_cache(maxsize=50_000)                             # every line is compared with every other
def wording(text: str) -> frozenset[str]:
    """The words of a line, however it is typed: "What's up?", "whats up" and "what is up" have the same."""
    text = re.sub(r"['’]", "", plain(text).lower())
    text = re.sub(r"\b(what|who|where|when|how|that|it|there|he|she)s\b", r"\1 is", text)
    return frozenset(re.findall(r"\w+", text))
