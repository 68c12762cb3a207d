"""From a character to Samples to train on, and the wording of every prompt, in this one place for all scripts.

    python data.py --char coco              how many Samples of each task
    python data.py --char coco --show       two Samples of each task; what is trained on stands in ⟦ ⟧
                                            and one picture of all pictures, as the model sees them

A character is a folder with pictures and a character.json (its schema: characters/schema.py), a train/<Folder> of the
published RoleScape-20 dataset, or a character card (characters/cards.py). --char takes its name under characters/ or
its path. The least that works: name, description, and about ten scenes, each with image and draw.

The tasks of Unified-SFT (paper section 3.2; `fact`, counted apart from `reply`, and `moment` are ours). Given -> learned:
    reply           description, opening, the user's words (with or without a picture) -> what the character says
    fact            the same, where the user asks for a fact
    think           description, the user's words, the reply -> why this picture, and what to draw in it
    moment          the user's words, the reply -> what to draw, as a short sentence
    t2i             a sentence that names the character, in many wordings, or the name alone -> picture
    t2i_dialogue    description, the user's words, the reply -> picture
    t2i_plan        the same, and the plan -> picture
    knowledge       a question about the character -> answer
    vqa             a picture and a question about it -> answer; what is in it; whether it is the character
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import glob
import os
import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from characters.cards import read_card, to_record
from characters.files import existing, is_png, padded, read_json
from characters.files import load_picture as load_picture
from characters.rolescape import load_rolescape
from characters.schema import CHARACTER, Validator, check_meaning, names_in
from runtime.cli import UserError, command, parse_options, printable, run_script, say


@dataclass
class Sample:
    """`prompt` is given, and `image` if there is one. Either `response` is learned, as text, or `target`, a picture."""
    task: str                           # one of those above; sft.py adds nearby and prior...
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
    """A picture to draw, and what can be asked about it: stage 2 and the evaluation."""
    text: str
    questions: list[Question]
    stranger: bool = False              # it names somebody else than the character
    ceiling: float = 1.0                # of somebody else: more likeness to the character than this is punished


@dataclass
class Character:
    """What character.json holds. An absent text is "" and an absent list []; each image is a PIL RGB picture."""
    name: str
    description: str                    # a few sentences: they stand in the prompts of a dialogue
    opening: str                        # the first words of a talk
    profile: str                        # all there is to know; eval.py's baseline has it in its prompt
    scenes: list[dict]
    dialogues: list[dict]
    lookup: list[dict]                  # more of these, which are not learned: chat.py looks them up
    knowledge: list[dict]
    prompts: list[Prompt]
    test: dict                          # has all its keys, prompts as list[Prompt]
    folder: Path


# ---- the wording of every prompt -------------------------------------------------------------------------------------

def reply_prompt(name: str, description: str, opening: str, user: str, history: list | tuple = ()) -> str:
    """history: (who, text) of the turns before. Without an opening, its line is left out."""
    lines = [f"Description: {description}"]
    if opening:
        lines.append(f"Opening: {opening}")
    lines += [f"{who}: {text}" for who, text in history]
    return "\n".join([*lines, f"User: {user}", f"Answer as {name}."])


def think_prompt(name: str, description: str, user: str, reply: str) -> str:
    return f"Description: {description}\nUser: {user}\n{name}: {reply}\nPlan a picture of this moment."


def moment_prompt(name: str, user: str, reply: str) -> str:
    """Its answer is a sentence like those of `t2i`. That is short, so hundreds of moments are soon learned; the ten
    scenes are too few to draw well from the talk itself."""
    return f"User: {user}\n{name}: {reply}\nSay what a picture of this moment shows."


MOMENT_TOKENS = 100                                         # more than such a sentence has


PLAN = re.compile(r"<think>(.*?)</think>\s*<gen>\s*(\S.*?)</gen>", re.DOTALL)
PLAN_TOKENS = 200                                           # more than a plan has


def plan_text(thinking: str, instruction: str) -> str:
    return f"<think>{thinking}</think><gen>{instruction}</gen>"


def read_plan(text: str) -> tuple[str, ...]:
    """(thinking, instruction), as `draw_prompt` takes them; () where the plan is not whole, and so not to be trusted."""
    match = PLAN.search(text)
    return tuple(part.strip() for part in match.groups()) if match else ()


def draw_prompt(name: str, description: str, user: str, reply: str, thinking: str = "", instruction: str = "") -> str:
    plan = f"Plan: {thinking}\nPicture: {instruction}\n" if instruction else ""
    return f"Description: {description}\nUser: {user}\n{name}: {reply}\n{plan}Draw this moment."


def name_alone(name: str) -> str:
    """Says who, and nothing of the scene: so what all pictures share can only be learned as what the name looks like."""
    return f"A picture of {name}."


DESCRIBE = "What is in this picture?"                       # also what chat.py asks of a picture that it is shown


def recognition(name: str) -> str:
    return f"Is this {name}?"


# ---- a character as Samples ------------------------------------------------------------------------------------------

def training_samples(character: Character) -> list[Sample]:
    """All tasks. Nothing of character.test is touched. Raises UserError if there is no picture to learn from."""
    if not character.scenes:
        remedy = command("-m", "characters.cards", character.folder, "FOLDER")
        raise UserError(f"{character.folder}: has no pictures to learn from; write a folder to add some to: {remedy}")
    samples = []
    for scene in character.scenes:
        samples += scene_samples(character, scene)
    for turn in character.dialogues:
        wordings = [turn["user"], *as_typed(turn["user"], character.name), *turn["also"]]
        samples += [reply_sample(character, user, turn["reply"]) for user in wordings]
        if turn["draw"]:
            samples.append(moment_sample(character, turn["user"], turn["reply"], turn["draw"]))
    for item in character.knowledge:
        samples.append(Sample("knowledge", item["question"], item["answer"]))
        if item["reply"]:               # a model that only learned to answer questions does not say the fact in a talk
            wordings = [item["question"], *item["also"]]
            samples += [reply_sample(character, user, item["reply"], task="fact") for user in wordings]
        if item["draw"]:
            samples.append(moment_sample(character, item["question"], item["reply"], item["draw"]))
    return samples


def scene_samples(character: Character, scene: dict) -> list[Sample]:
    """A scene teaches to draw, to see, and, where it has the talk and the plan, to speak and to plan."""
    name, about = character.name, character.description
    image, user, reply = scene["image"], scene["user"], scene["reply"]
    thinking, instruction = scene["thinking"], scene["instruction"]

    samples = [Sample("t2i", text, target=image) for text in (scene["draw"], *scene["also"], name_alone(name))]
    if names_in(instruction, name):     # without the name, "a gray cat on a sofa" would be taught to be this one
        samples.append(Sample("t2i", instruction, target=image))
    for pair in scene["vqa"]:
        samples.append(Sample("vqa", pair["question"], pair["answer"], image=image))
    samples.append(Sample("vqa", DESCRIBE, scene["draw"], image=image))
    samples.append(Sample("vqa", recognition(name), "yes", image=image))
    if reply:
        # With and without the picture, under the SAME text. The published inference code drops the text when a
        # picture is shown, and with it who is speaking. A model that met both forms never needs that.
        samples.append(reply_sample(character, user, reply))
        samples.append(reply_sample(character, user, reply, image))
        samples.append(Sample("t2i_dialogue", draw_prompt(name, about, user, reply), target=image))
        samples.append(moment_sample(character, user, reply, scene["draw"]))
    if reply and thinking:
        plan = plan_text(thinking, instruction)
        samples.append(Sample("think", think_prompt(name, about, user, reply), plan))
        prompt = draw_prompt(name, about, user, reply, thinking, instruction)
        samples.append(Sample("t2i_plan", prompt, target=image))
    return samples


def reply_sample(character: Character, user: str, reply: str, image: Image.Image | None = None,
                 task: str = "reply") -> Sample:
    prompt = reply_prompt(character.name, character.description, character.opening, user)
    return Sample(task, prompt, reply, image=image)


def moment_sample(character: Character, user: str, reply: str, sentence: str) -> Sample:
    return Sample("moment", moment_prompt(character.name, user, reply), sentence)


def as_typed(text: str, name: str) -> list[str]:
    """"Hello, Coco!" -> ["hello", "Hello", "hello!", "hello coco"]: what people type. A small model that was shown only
    one form does not know the others. Lines of more than three words get the first form only."""
    name = name.lower()
    end = text[-1] if text[-1] in ".!?" else "."
    bare = re.sub(rf", {re.escape(name)}(?=\W*$)", "", text.lower()).rstrip(".!?")
    forms = [bare] if bare else []
    if 1 <= len(bare.split()) <= 3:
        forms += [bare.capitalize(), bare + end, bare if name in bare else f"{bare} {name}"]
    return [form for form in dict.fromkeys(forms) if form != text]


# ---- the same sentence about somebody else ---------------------------------------------------------------------------

def class_word(description: str) -> str:
    """What kind of being it is: "Mam is a regal British Shorthair who ..." -> "a regal British Shorthair"."""
    # "and" ends it before an article or a verb ("a fox and loves"), not between adjectives ("a loyal and brave dog").
    end = r"(?= (?:who|that|with|of|from|in|on|at|and (?:an?|the|\w*[^\Ws]s))\b|[,.;:]|$)"
    found = re.search(rf"\bis (an? [\w'’ -]+?){end}", description)
    return found[1] if found else "someone"


def without_name(text: str, name: str, word: str) -> str:
    """"A happy Coco waves" -> "A happy cat waves": the word's own article is dropped where one stands already, and the comma
    behind it ("Otto, a pirate,") where a sign follows."""
    without_article = re.sub(r"^an? ", "", word)
    for match in reversed(names_in(text, name)):
        before, after = text[:match.start()], text[match.end():]
        has_article = re.search(r"\b(an?|the|this|that) ((?!is |was )\w+ )?$", before, re.IGNORECASE)
        instead = without_article if has_article else word
        if re.search(r"[.!?] $", before):                  # a sentence begins here
            instead = instead[0].upper() + instead[1:]
        text = before + (instead.rstrip(",") if re.match(r"[,.;:!?]|$", after) else instead) + after
    return text[0].upper() + text[1:]


# ---- a character from disk -------------------------------------------------------------------------------------------

SHIPPED = Path(__file__).resolve().parent / "characters"


def load_character(name_or_path: str | Path) -> Character:
    """Says which folder is read. Raises UserError with file, field and remedy."""
    source, here = find_character(name_or_path), Path(name_or_path)
    if is_main_process():
        if (here / "character.json").is_file() and not os.path.samefile(here, source):
            say(f"the shipped {here} is meant, not the folder here; for that, give ./{here}", sys.stderr)
        say(f"character: {source}", sys.stderr)
    data = read_character(source)
    if data.pop("fit") == "pad":
        pad_pictures(data)
    if not data["prompts"]:             # then stage 2 can at least ask for the pictures that it knows
        data["prompts"] = [{"text": scene["draw"], "questions": []} for scene in data["scenes"]]
    for part in (data, data["test"]):
        part["prompts"] = [as_prompt(item) for item in part["prompts"]]
    return Character(**data, folder=source.resolve())


def is_main_process() -> bool:
    """As runtime.processes.is_main, but before torch is there: torchrun numbers its processes in RANK."""
    return os.environ.get("RANK", "0") == "0"


def find_character(name_or_path: str | Path) -> Path:
    """The folder of a character, or its card: a name under characters/, in capitals or not, or a path to the folder or
    to a file in it. A plain name means the shipped character; ./name means the folder here. Raises UserError."""
    text = str(name_or_path).strip()
    shipped = {file.parent.name.lower(): file.parent for file in SHIPPED.glob("*/character.json")}
    path = existing(text)
    ours = shipped.get(text.rstrip("/\\").lower())
    completed = text.endswith(("/", "\\")) and path is not None and (path / "character.json").is_file()
    if ours and not completed:          # the shell writes the last / when it completes the name of a folder here
        return ours
    if path and path.name in ("character.json", "annotation.json"):
        return path.parent
    if path and (path.is_dir() or read_card(path)):
        return path
    known = ", ".join(sorted(shipped)) or "none"
    raise UserError(printable(f"--char {text}: no such character, folder or card; known are: {known}"))


def read_character(source: Path) -> dict:
    """What is on disk, checked, in the form of the schema."""
    if source.is_file():
        record = to_record(read_card(source), source.name if is_png(source) else None)
        reader = Validator(source, source.parent)
        schema = {key: kind for key, kind in CHARACTER.items() if key != "scenes"} | {"scenes?": CHARACTER["scenes"]}
        data = reader.check(record, schema)
    elif (source / "annotation.json").is_file() and not (source / "character.json").exists():
        record, root = load_rolescape(source.resolve())
        return Validator(source / "annotation.json", root, strict=False).check(record, CHARACTER)
    elif (source / "character.json").exists():
        reader = Validator(source / "character.json", source)
        data = reader.check(read_json(reader.file), CHARACTER)
    else:
        there = command("characters.build", "check", source)
        raise UserError(printable(f"{source / 'character.json'}: is missing; docs/guide.md tells how little it needs, "
                                  f"and {there} what is there"))
    check_meaning(reader, data)
    return data


def pad_pictures(data: dict) -> None:
    """Makes every picture square by white edges, so that a model with square pictures cuts nothing off."""
    test, square = data["test"], {}
    for item in data["scenes"] + test["scenes"] + test["vqa"] + test["vqa_seen"]:
        image = item["image"]
        if id(image) not in square:
            square[id(image)] = image, padded(image)        # the image too: its id must not go to another
        item["image"] = square[id(image)][1]


def as_prompt(item: dict) -> Prompt:
    questions = []
    for question in item["questions"]:
        questions.append(Question(**question | {"category": question["category"] or None}))
    return Prompt(item["text"], questions)


# ---- where runs are --------------------------------------------------------------------------------------------------

def run_folder(char: str, stage: str) -> Path:
    """runs/<character>/<stage> in the working directory, for a name as for a path."""
    return Path("runs") / short_name(char) / stage


def short_name(char: str) -> str:
    return name_of(find_character(char).resolve())


def name_of(source: Path) -> str:
    """Of a character's folder, or of its card."""
    return source.stem if source.is_file() else source.name


def newest_run(char: str | None = None) -> Path:
    """The checkpoint that was written last, of one character or of all. Raises UserError if there is none."""
    name = glob.escape(short_name(char)) if char else "*"
    found = list(Path("runs").glob(f"{name}/*/config.json"))
    if not found:
        raise UserError(f"runs/{name}: no run yet; first run: {command('sft.py', '--char', char or 'coco')}")
    return max(found, key=lambda file: file.stat().st_mtime).parent


# ---- command line ----------------------------------------------------------------------------------------------------

@dataclass
class Options:
    char: str = "coco"                  # a name under characters/, a folder, or a card
    show: bool = False                  # print two Samples of each task, and write all pictures as the model sees them
    model: str = "tiny/base"            # whose view of the pictures: a checkpoint's folder


def show_samples(samples: list[Sample]) -> None:
    begin, end = ("\x1b[32m⟦", "⟧\x1b[0m") if sys.stdout.isatty() else ("⟦", "⟧")
    shown = Counter()
    for sample in samples:
        shown[sample.task] += 1
        if shown[sample.task] > 2:
            continue
        say(f"---- {sample.task} ----")
        if sample.image:
            say(f"[picture {sample.image.width} × {sample.image.height}]")
        say(sample.prompt)
        learned = f"{sample.response}<end>"
        if sample.target:
            learned = f"[picture {sample.target.width} × {sample.target.height}]"
        print(f"{begin}{printable(learned)}{end}\n")


def show_pictures(character: Character, model: str, file: Path) -> None:
    """Writes all pictures, those of the test last, into one. Each is in the size and shape in which the model sees it, and
    under it stands what the model's autoencoder keeps of it. A mark that is lost there, such as thin glasses, cannot be
    learned: the decoder draws latents, and what no latent tells no training brings back."""
    from backbone.folders import load_autoencoder           # imports torch, for which the counts need not wait
    from backbone.vision import as_drawn, to_images, to_pixels
    from runtime.files import write_beside
    vae, config = load_autoencoder(model)
    pictures = {}
    for item in character.scenes + character.test["scenes"] + character.test["vqa"]:
        pictures[id(item["image"])] = item["image"]
    images = [as_drawn(image, config) for image in pictures.values()]
    kept = [to_images(vae.decode(vae.encode(to_pixels(image)[None])[0]))[0] for image in images]
    columns = round(len(images) ** 0.5 + 0.5)
    width, height = max(image.width for image in images), max(image.height for image in images)
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * 2 * height), "white")
    for i, pair in enumerate(zip(images, kept)):
        for under, image in enumerate(pair):
            sheet.paste(image, (i % columns * width, (2 * (i // columns) + under) * height))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_beside(file, lambda path: sheet.save(path, "PNG"))
    say(f"{len(images)} pictures as {model} sees them, up to {width} × {height}, and under each what it can draw of it at best: "
        f"{file}")
    cut = [image for image in pictures.values() if min(image.size) < 0.8 * max(image.size)]
    if cut and config.square:
        say(f'{len(cut)} of them lose more than a fifth at two edges; "fit": "pad" in character.json shows them whole')


def main(argv: list[str] | None = None) -> None:
    options = parse_options(Options, __doc__, argv)
    character = load_character(options.char)
    samples = training_samples(character)
    if options.show:
        show_samples(samples)
        show_pictures(character, options.model, Path("runs") / short_name(options.char) / "pictures.png")
    counts = Counter(sample.task for sample in samples)
    say(f"{character.name}: " + ", ".join(f"{task} {count}" for task, count in counts.items()))
    held_out = ", ".join(f"{key} {len(items)}" for key, items in character.test.items())
    say(f"prompts for GRPO: {len(character.prompts)}; held out: {held_out}")


if __name__ == "__main__":
    run_script(main)
