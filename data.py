"""A character on disk -> Samples to train on; and the wording of every prompt, in this one place for all scripts.

    python data.py --char coco              counts per task
    python data.py --char coco --show       Samples as the model meets them; what is trained on stands in ⟦ ⟧

--char takes a name under characters/, a path, or a train/<Folder> of the published RoleScape-20 dataset as it is.
character.json lies beside its pictures; its schema is CHARACTER below, written as the data look and checked strictly.
The least that works: name, description, and about ten scenes of image and draw.
"""
import json
import os
import re
import sys
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from PIL import Image, ImageOps

from characters.rolescape import load_rolescape
from runtime.cli import UserError, parse_options, run_script


@dataclass
class Sample:
    """`image` and `prompt` are given; `response` is learned as text, or `target` as a picture."""
    task: str                           # reply, think, t2i, t2i_dialogue, t2i_plan, knowledge, vqa; prior: see sft.py
    prompt: str
    response: str | None = None
    image: Image.Image | None = None
    target: Image.Image | None = None


@dataclass
class Question:
    question: str
    answer: str
    weight: float = 1.0
    category: str | None = None


@dataclass
class Prompt:
    text: str
    questions: list[Question]


@dataclass
class Character:
    """character.json as it is, except: an absent text is "" and an absent list [], image is a PIL RGB picture."""
    name: str
    description: str
    opening: str
    profile: str
    scenes: list[dict]
    dialogues: list[dict]
    knowledge: list[dict]
    prompts: list[Prompt]
    test: dict                          # has all its keys, prompts as list[Prompt]
    folder: Path


# ---- prompt wording and samples --------------------------------------------------------------------------------------

def reply_prompt(name: str, description: str, opening: str, user: str, history: list | tuple = ()) -> str:
    return (f"Description: {description}\n" + (f"Opening: {opening}\n" if opening else "")
            + "".join(f"{who}: {text}\n" for who, text in history) + f"User: {user}\nAnswer as {name}.")


def think_prompt(name: str, description: str, user: str, reply: str) -> str:
    return f"Description: {description}\nUser: {user}\n{name}: {reply}\nPlan a picture of this moment."


def plan_text(thinking: str, instruction: str) -> str:
    return f"<think>{thinking}</think><gen>{instruction}</gen>"


def draw_prompt(name: str, description: str, user: str, reply: str, thinking: str = "", instruction: str = "") -> str:
    plan = f"Plan: {thinking}\nPicture: {instruction}\n" if instruction else ""
    return f"Description: {description}\nUser: {user}\n{name}: {reply}\n{plan}Draw this moment."


def class_word(description: str) -> str:
    """"Mam is a regal British Shorthair who ..." -> "a regal British Shorthair"."""
    found = re.search(r"\bis (an? [\w'’ -]+?)(?= (?:who|that|with|of|from|in|on|at|and)\b|[,.;:]|$)", description)
    return found[1] if found else "someone"


def without_name(text: str, name: str, word: str) -> str:
    """"A happy Coco waves" -> "A happy cat waves": its own article is dropped where one stands already."""
    bare, pattern = re.sub(r"^an? ", "", word), rf"(\b(?:an?|the|this|that) (?:\w+ )?)?\b{re.escape(name)}\b"
    text = re.sub(pattern, lambda match: match[1] + bare if match[1] else word, text, flags=re.I)
    return text[0].upper() + text[1:]


def as_typed(text: str, name: str) -> list[str]:
    """"Hello, Coco!" -> ["hello", "Hello", "hello!", "hello coco"]: what people type. A small model shown only the one
    does not know the other. Lines of more than three words, which say more of themselves, have the first form only."""
    called, end = name.lower(), text[-1] if text[-1] in ".!?" else "."
    lower = re.sub(rf", {re.escape(called)}(?=\W*$)", "", text.lower()).rstrip(".!?")
    forms = [lower, lower.capitalize(), lower + end, lower if called in lower else f"{lower} {called}"]
    return [form for form in dict.fromkeys(forms[:4 if len(lower.split()) <= 3 else 1]) if lower and form != text]


def training_samples(character: Character) -> list[Sample]:
    """All seven tasks. Nothing of character.test is touched."""
    name, about, samples = character.name, character.description, []
    for scene in character.scenes:
        image, user, reply, *plan = (scene[key] for key in ("image", "user", "reply", "thinking", "instruction"))
        samples += [Sample("t2i", text, target=image) for text in (scene["draw"], plan[1]) if text]
        samples += [Sample("vqa", pair["question"], pair["answer"], image=image) for pair in scene["vqa"]]
        if reply:
            # With and without the picture, under the SAME text: the published inference code drops the text when a
            # picture is shown, and with it who is speaking. A model that met both forms never needs that.
            prompt = reply_prompt(name, about, character.opening, user)
            samples += [Sample("reply", prompt, reply), Sample("reply", prompt, reply, image=image),
                        Sample("t2i_dialogue", draw_prompt(name, about, user, reply), target=image)]
        if reply and all(plan):
            samples += [Sample("think", think_prompt(name, about, user, reply), plan_text(*plan)),
                        Sample("t2i_plan", draw_prompt(name, about, user, reply, *plan), target=image)]
    for turn in character.dialogues:
        for user in [turn["user"], *as_typed(turn["user"], name), *turn["also"]]:
            samples.append(Sample("reply", reply_prompt(name, about, character.opening, user), turn["reply"]))
    for item in character.knowledge:
        samples.append(Sample("knowledge", item["question"], item["answer"]))
        for user in [item["question"], *item["also"]] if item["reply"] else []:
            samples.append(Sample("reply", reply_prompt(name, about, character.opening, user), item["reply"]))
    return samples


# ---- reading: every complaint is one line with file, field and remedy ------------------------------------------------
# A schema looks like its data: {"field": kind, "field?": kind that may be left out or empty} or [kind]. Kinds: str,
# float, "profile" (a long text), "label" (text; a number is taken as its text), "picture" (a path inside the folder).

QA, TALK = {"question": str, "answer": str}, {"user": str, "reply": str}
DIALOGUE = TALK | {"also?": [str]}                      # also: other wordings of what the user says, for the same reply
FACT = QA | {"reply?": str, "also?": [str]}             # reply: the answer as the character says it in a talk
CHOICE = {"question": str, "options": ["label"], "answer": "label"}     # answer: one of the options, word for word
SEEN = CHOICE | {"image": "picture", "identity?": bool}     # identity: whoever has not met the character cannot know
SCENE = {"image": "picture", "vqa?": [QA],
         "draw": str,                                   # what it shows: one sentence that names the character
         "user?": str, "reply?": str,                   # the talk that it belongs to
         "thinking?": str, "instruction?": str}         # why this picture; the wording of draw that a plan ends with
PROMPT = {"text": str, "questions?": [{"question": str, "answer": "label", "weight?": float, "category?": str}]}
TEST = {"scenes?": [SCENE], "dialogues?": [TALK], "knowledge?": [CHOICE], "prompts?": [PROMPT],     # never trained on
        "vqa?": [SEEN], "vqa_seen?": [SEEN],      # vqa_seen: on TRAINING
        "facts?": [{"question": str, "accepted": [str]}],   # as typed in a talk; a reply says the fact with any of these
        "personality?": [str], "memorization?": [str]}  # pictures, memory, not to be mixed with vqa; lines for a judge
CHARACTER = {"name": str, "description": str, "opening?": str, "profile?": "profile",   # in 30 to 70 words; first words
             "scenes": [SCENE], "dialogues?": [DIALOGUE], "knowledge?": [FACT], "prompts?": [PROMPT], "test?": TEST}
TYPES = {str: "text", dict: "an object", list: "a list", float: "a number", int: "a number", bool: "true or false"}


def read_json(file: Path) -> object:
    def unique(pairs: list[tuple]) -> dict:
        if twice := [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]:
            raise ValueError(f"{twice[0]}: stands twice in one object")       # json itself would quietly keep the last
        return dict(pairs)

    try:
        text = file.read_text("utf-8-sig")
        if file.suffix == ".jsonl":     # rows, with blank lines between some: made one list, the line numbers unchanged
            text = "[" + re.sub(r"}(\s*\n\s*){", r"},\1{", text) + "]"
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{file}: line {error.lineno}: not JSON ({error.msg}); mend it there or just before") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: {getattr(error, 'strerror', 0) or error}; put sound JSON in UTF-8 there") from None


def load_picture(file: Path) -> Image.Image:
    """RGB, upright, transparency on white (dropping alpha would uncover whatever colour lies beneath)."""
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):     # refused two lines on
        image = Image.open(file, formats=["PNG", "JPEG", "WEBP", "BMP", "GIF"])         # by content: the name may lie
    if min(image.size) < 16 or image.width * image.height > 50_000_000:
        raise ValueError(f"{image.width} × {image.height} pixels")
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image.thumbnail((1024, 1024), Image.Resampling.LANCZOS)         # no model here uses more
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image)
    return white


class Validator:
    """Checks what a file says against a schema. Pictures must lie inside `home`: a stranger's character must not reach
    for other files. Published files have more fields than we need, so for them `strict` is False."""
    def __init__(self, file: Path, home: Path, strict: bool = True):
        self.file, self.home, self.strict, self.pictures = file, home, strict, {}

    def fail(self, field: str, problem: str) -> NoReturn:
        raise UserError(": ".join(filter(None, (str(self.file), field, problem))))

    def check(self, value: object, kind: object, field: str = "", optional: bool = False) -> object:
        """The value in the one form that the rest of the code relies on."""
        wanted = type(kind) if isinstance(kind, (dict, list)) else kind if kind in (float, bool) else str
        if kind == "label" and type(value) in (int, float):
            value = str(value)
        if not isinstance(value, wanted) and not (wanted is float and type(value) is int):
            self.fail(field, f"must be {TYPES[wanted]}, not {TYPES.get(type(value), 'null')}")
        if wanted is dict:
            return self.fields(value, kind, field)
        if wanted is bool:
            return value
        if wanted is float:
            return float(value) if 0 < value <= 1000 else self.fail(field, "must be above 0 and at most 1000")
        value = value.replace("\r\n", "\n").strip() if wanted is str else value
        if not value and not optional:
            self.fail(field, "is empty; fill it in")
        if wanted is list:
            return [self.check(item, kind[0], f"{field}[{i}]") for i, item in enumerate(value)]
        if bad := re.search("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]", value):        # breaks terminals and tokenizers
            self.fail(field, f"holds the unprintable character {bad[0]!r}; remove it")
        if len(value) > (most := 50_000 if kind == "profile" else 4_000):
            self.fail(field, f"is {len(value)} characters long; shorten it to {most}")
        return self.picture(value, field) if kind == "picture" else value

    def fields(self, value: dict, schema: dict, field: str) -> dict:
        kinds, clean = {key.rstrip("?"): kind for key, kind in schema.items()}, {}
        for unknown in (key for key in value if self.strict and key not in kinds):
            self.fail(f"{field}.{unknown}".lstrip("."), f"unknown field; take one of {', '.join(kinds)}")
        for name, kind in kinds.items():
            inner, optional = f"{field}.{name}".lstrip("."), name not in schema
            if name not in value and not optional:
                self.fail(inner, "is missing; add it")
            absent = type(kind)() if isinstance(kind, (dict, list)) else {float: 1.0, bool: False}.get(kind, "")
            clean[name] = self.check(value.get(name, absent), kind, inner, optional)
        return clean

    def picture(self, value: str, field: str) -> Image.Image:
        path = Path(os.path.realpath(self.file.parent / value))
        if not path.is_relative_to(os.path.realpath(self.home)):
            self.fail(field, f"{value} leaves the character's folder; copy the picture into it")
        try:
            self.pictures[path] = self.pictures.get(path) or load_picture(path)
        except Exception as error:      # decoders raise nearly anything at a broken file
            why = getattr(error, "strerror", 0) or re.sub(r" file \w*Path.*", "", str(error))
            self.fail(field, f"{value} cannot be used ({why}); put a PNG or JPEG of 128 to 1024 pixels a side there")
        return self.pictures[path]


# ---- a character, in our schema or as published ----------------------------------------------------------------------

def find_character(name_or_path: str | Path) -> Path:
    home = Path(__file__).parent / "characters"
    known = sorted(path.name for path in home.glob("*/"))
    path = (home if str(name_or_path) in known else Path()) / name_or_path
    if not str(name_or_path) or not os.path.isdir(path):
        raise UserError(f"--char {name_or_path}: no such character or folder; known are: {', '.join(known) or 'none'}")
    return path


def load_character(name_or_path: str | Path) -> Character:
    folder = find_character(name_or_path)
    if (folder / "annotation.json").is_file() and not (folder / "character.json").exists():
        try:
            data, root = load_rolescape(folder.resolve(), read_json)
        except ValueError as error:
            raise UserError(str(error)) from None
        data = Validator(folder / "annotation.json", root, strict=False).check(data, CHARACTER)
    else:
        reader = Validator(folder / "character.json", folder)
        data = reader.check(read_json(reader.file), CHARACTER)
        check_meaning(reader, data)
    if not data["prompts"]:             # then Character-GRPO can at least ask for the pictures it knows
        data["prompts"] = [{"text": scene["draw"], "questions": []} for scene in data["scenes"]]
    for part in (data, data["test"]):
        part["prompts"] = [Prompt(item["text"], [Question(**question | {"category": question["category"] or None})
                                                 for question in item["questions"]]) for item in part["prompts"]]
    return Character(**data, folder=folder.resolve())


def check_meaning(reader: Validator, data: dict) -> None:
    """What types cannot say: parts that need each other, and that a test is not trained on."""
    if not re.fullmatch(r"[^\W_][^/\\:\n\t]{0,59}", data["name"]):
        reader.fail("name", "must begin with a letter, in one line of at most 60 characters without / \\ or :")
    for where, scenes in (("scenes", data["scenes"]), ("test.scenes", data["test"]["scenes"])):
        for i, scene in enumerate(scenes):
            for one, other in (("user", "reply"), ("reply", "user"), ("thinking", "instruction")):
                if scene[one] and not scene[other]:
                    reader.fail(f"{where}[{i}].{other}", f"is missing; {one} needs it")
    for key in ("knowledge", "vqa", "vqa_seen"):
        for i, item in enumerate(data["test"][key]):
            if len(set(item["options"])) < max(2, len(item["options"])) or item["answer"] not in item["options"]:
                reader.fail(f"test.{key}[{i}].options", "must be two or more, all different, the answer among them")
    for key, word in (("prompts", "text"), ("knowledge", "question"), ("scenes", "image"), ("vqa", "image")):
        trained = [item[word] for item in data["scenes" if word == "image" else key]]
        for i, item in enumerate(data["test"][key]):
            if item[word] in trained:
                reader.fail(f"test.{key}[{i}].{word}", "is trained on too, so it tests nothing; take another")


# ---- where runs are --------------------------------------------------------------------------------------------------

def run_folder(char: str, stage: str) -> Path:
    """runs/<character>/<stage> in the working directory, for a name as for a path."""
    return Path("runs") / find_character(char).resolve().name / stage


def newest_run(char: str | None = None) -> Path:
    """The checkpoint that was written last, of one character or of all."""
    pattern = f"{find_character(char).resolve().name if char else '*'}/*/config.json"
    found = sorted(Path("runs").glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        raise UserError(f"runs/{pattern}: no run yet; first run: python sft.py --char {char or 'coco'}")
    return found[-1].parent


# ---- command line ----------------------------------------------------------------------------------------------------

@dataclass
class Options:
    char: str = "coco"                  # a name under characters/ or a folder
    show: bool = False                  # print two Samples of each task, not only counts


def main(argv: list[str] | None = None) -> None:
    options = parse_options(Options, __doc__, argv)
    character = load_character(options.char)
    samples = training_samples(character)
    begin, end = ("\x1b[32m⟦", "⟧\x1b[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    counts = Counter(sample.task for sample in samples)
    for task in counts if options.show else ():
        for sample in [sample for sample in samples if sample.task == task][:2]:
            seen, drawn = (f"[picture {im.width} × {im.height}]" if im else "" for im in (sample.image, sample.target))
            learned = f"{sample.response}<end>" if sample.response else drawn
            print(f"---- {task} ----", *filter(None, [seen, sample.prompt]), f"{begin}{learned}{end}\n", sep="\n")
    print(f"{character.name}:", ", ".join(f"{task} {count}" for task, count in counts.items()))
    print(f"prompts for GRPO: {len(character.prompts)}; held out:",
          ", ".join(f"{key} {len(items)}" for key, items in character.test.items()))


if __name__ == "__main__":
    run_script(main)
