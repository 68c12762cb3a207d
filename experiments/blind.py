"""Which method do people prefer? The paper's blind preference study: a page that needs no network, and its tally.

    python experiments/blind.py write runs/coco/blind --char coco --methods "SFT=runs/coco/sft, both=runs/coco/grpo"
    python experiments/blind.py tally runs/coco/blind/key.json choices-*.json
    python eval.py --blind FOLDER ..., python eval.py --tally KEY FILES             the same two

`write` makes study.html, with all pictures inside it, and key.json. Give raters the page alone: which method made what
stands only in the key. A rater sees two outputs for the same prompt, in an order of their own, and chooses A, B, both
good or both bad; some pairs come twice, with the sides exchanged, so that the tally can say how far a rater agrees with
themselves. Three kinds, as in the paper: answers in a role-play, answers with their picture, and pictures of a prompt.
"""
import hashlib
import itertools
import json
import random
import re
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from backbone.folders import load, locate  # noqa: E402
from characters.files import read_json  # noqa: E402
from data import Character, draw_prompt, load_character, reply_prompt, run_folder  # noqa: E402
from runtime.cli import UserError, parse_options, run_script, say  # noqa: E402
from runtime.endpoint import data_url  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from runtime.report import markdown, wilson  # noqa: E402
from runtime.stages import find_base, find_stages  # noqa: E402

KINDS = "text", "multimodal", "picture"
CHOICES = "x", "y", "both good", "both bad"


@dataclass
class Task:
    """One prompt and what every method made of it: words, a picture, or both."""
    kind: str                                               # one of KINDS
    prompt: str                                             # as the rater reads it
    texts: dict[str, str] = field(default_factory=dict)     # method -> words
    images: dict[str, Image.Image] = field(default_factory=dict)


# ---- the page --------------------------------------------------------------------------------------------------------

def write_study(folder: Path, character: Character, tasks: list[Task], seed: int = 0, repeats: float = 0.1,
                against: str = "") -> Path:
    """Writes study.html and key.json; gives back the page. Every two methods are compared on every prompt, or each with
    the one that it is to be compared with."""
    trials, key = make_trials(tasks, character, seed, against)
    references = [data_url(resized(scene["image"], 256)) for scene in character.scenes[:4]]
    study = {"id": hashlib.sha256(json.dumps(trials).encode()).hexdigest()[:16], "repeats": repeats, "trials": trials,
             "name": character.name, "description": character.description, "references": references}
    inside = json.dumps(study).replace("<", "\\u003c")      # no text can end the script that holds it
    page = Path(__file__).with_name("blind.html").read_text("utf-8").replace("STUDY", inside, 1)
    told = json.dumps({"study": study["id"], "trials": key}, indent=1)
    folder.mkdir(parents=True, exist_ok=True)
    write_beside(folder / "key.json", lambda draft: draft.write_text(told, "utf-8"))
    write_beside(folder / "study.html", lambda draft: draft.write_text(page, "utf-8"))
    return folder / "study.html"


def make_trials(tasks: list[Task], character: Character, seed: int, against: str = ""
                ) -> tuple[list[dict], dict[str, dict]]:
    """-> trials, whose sides are called x and y, and the key: which method each side is, and which prompt it was.

    Nothing may give a method away: all pictures have one size and one format, and a pair is left out if its words hold
    the name of a method. (Names in small letters alone, such as "base", are ordinary words and are not looked for.)"""
    draw, trials, key, left_out = random.Random(seed), [], {}, 0
    side = max((max(image.size) for task in tasks for image in task.images.values()), default=0)
    names = {name for task in tasks for name in (*task.texts, *task.images)} - {character.name}
    telling = [rf"\b{re.escape(name)}\b" for name in names if name != name.lower()]
    for number, task in enumerate(tasks):
        for pair in itertools.combinations(sorted(task.texts.keys() | task.images.keys()), 2):
            if against and against not in pair:
                continue
            words = " ".join(task.texts.get(method, "") for method in pair)
            if any(re.search(name, words) for name in telling):
                left_out += 1
                continue
            trial = {"id": f"{draw.getrandbits(48):012x}", "kind": task.kind, "prompt": task.prompt}
            key[trial["id"]] = {"kind": task.kind, "prompt": number}
            for where, method in zip("xy", draw.sample(pair, 2)):
                image = task.images.get(method)
                shown = data_url(resized(image, side)) if image else ""
                trial[where] = {"text": task.texts.get(method, ""), "image": shown}
                key[trial["id"]][where] = method
            trials.append(trial)
    if left_out:
        say(f"{left_out} pairs are left out: their words name a method")
    if not trials:
        raise UserError("blind study: there is nothing to compare; give two methods and a prompt")
    return trials, key


def resized(image: Image.Image, side: int) -> Image.Image:
    """With `side` pixels along the longer edge."""
    return image.resize([max(1, round(length * side / max(image.size))) for length in image.size])


# ---- the tally -------------------------------------------------------------------------------------------------------

@dataclass
class Vote:
    rater: str
    trial: str
    choice: str                     # one of CHOICES
    repeat: bool


def read_votes(files: list[Path], key: dict) -> list[Vote]:
    """The choices of all raters. Raises UserError for a file of another study, a rater who stands twice, damage."""
    votes, raters = [], {}
    for file in files:
        row = read_json(file)
        try:
            rater, study, choices = str(row["rater"]), row["study"], row["choices"]
            mine = [Vote(rater, item["trial"], item["choice"], bool(item["repeat"])) for item in choices]
        except (LookupError, TypeError):
            raise UserError(f"{file}: not the choices of a rater; download them from the page again") from None
        if study != key["study"]:
            raise UserError(f"{file}: belongs to another study; give the key.json that lay beside its page")
        if rater in raters:
            raise UserError(f"{file}: {rater} stands in {raters[rater]} too; give one of them")
        if any(vote.trial not in key["trials"] or vote.choice not in CHOICES for vote in mine):
            raise UserError(f"{file}: holds choices that its page cannot make; download them again")
        raters[rater] = file
        votes += mine
    return votes


def tally(files: list[Path], key_file: Path, rounds: int = 2000) -> str:
    """A table in Markdown: for each kind and each two methods, the share of each choice with its 95 % interval.

    The interval is a bootstrap over prompts: what several raters say about one prompt is one cluster, as they all saw
    the same two outputs. What came twice serves only for the agreement of a rater with themselves."""
    key = read_json(key_file)
    if not isinstance(key, dict) or not {"study", "trials"} <= key.keys():
        raise UserError(f"{key_file}: not the key of a study; give the key.json that lay beside the page")
    votes = read_votes(files, key)
    cells: dict[tuple, dict[int, list[str]]] = {}           # (kind, method, method) -> prompt -> what was preferred
    for vote in (vote for vote in votes if not vote.repeat):
        trial = key["trials"][vote.trial]
        one, other = sorted((trial["x"], trial["y"]))
        prompts = cells.setdefault((KINDS.index(trial["kind"]), one, other), {})
        prompts.setdefault(trial["prompt"], []).append(trial.get(vote.choice, vote.choice))
    rows = [["", "", "", "first better", "second better", "both good", "both bad", "choices", "prompts"]]
    for (kind, one, other), prompts in sorted(cells.items()):
        shares = [share(list(prompts.values()), wanted, rounds) for wanted in (one, other, "both good", "both bad")]
        rows.append([KINDS[kind], one, other, *shares, str(sum(map(len, prompts.values()))), str(len(prompts))])
    return markdown(rows) + f"\n{agreement(votes)}\n"


def share(clusters: list[list[str]], wanted: str, rounds: int) -> str:
    """"62 % (48 to 75)": share of one choice, and its interval over prompts drawn anew; Wilson's where all raters
    agree on every prompt, and nothing would change by drawing anew."""
    hits = np.array([cluster.count(wanted) for cluster in clusters])
    sizes = np.array([len(cluster) for cluster in clusters])
    drawn = np.random.default_rng(0).integers(0, len(clusters), (rounds, len(clusters)))
    low, high = np.quantile(hits[drawn].sum(1) / sizes[drawn].sum(1), (0.025, 0.975))
    if low == high:
        low, high = wilson(low, len(clusters))
    return f"{100 * hits.sum() / sizes.sum():.0f} % ({100 * low:.0f} to {100 * high:.0f})"


def agreement(votes: list[Vote]) -> str:
    first = {(vote.rater, vote.trial): vote.choice for vote in votes if not vote.repeat}
    again = [vote for vote in votes if vote.repeat and (vote.rater, vote.trial) in first]
    raters = len({vote.rater for vote in votes})
    if not again:
        return f"{raters} raters; no pair came twice."
    same = sum(first[vote.rater, vote.trial] == vote.choice for vote in again)
    chance = sum(chance_of(vote.rater, first) for vote in again) / len(again)
    return (f"{raters} raters; {same} of {len(again)} pairs that came twice were judged alike "
            f"(chance: {100 * chance:.0f} %).")


def chance_of(rater: str, first: dict[tuple[str, str], str]) -> float:
    """How often two choices that this rater makes blindly would agree: always, if there is only one choice."""
    counts = Counter(choice for (other, _), choice in first.items() if other == rater)
    return sum((count / counts.total()) ** 2 for count in counts.values())


# ---- what the methods make, and the command line ---------------------------------------------------------------------

@dataclass
class Options:
    char: str = "coco"              # a name under characters/, or a folder
    methods: str = ""               # "name=folder, name=folder": checkpoints that are compared; empty: all that are there.
    #                                 A language model with the profile in its prompt, for words alone: "name=lm:MODEL"
    against: str = ""               # a method that is compared with each other one; empty: every two
    items: int = 12                 # prompts of each kind, held out
    steps: int = 15                 # denoising steps of a picture
    seed: int = 0
    repeats: float = 0.1            # share of pairs that come twice


def make_tasks(character: Character, methods: dict[str, str], o: Options) -> list[Task]:
    """The same held-out lines and prompts, and the same noise, for every method."""
    talk = [turn for turn in character.test["scenes"] + character.test["dialogues"] if turn["user"]][:o.items]
    prompts = character.test["prompts"][:o.items]
    tasks = [Task("text", turn["user"]) for turn in talk] + [Task("multimodal", turn["user"]) for turn in talk]
    tasks += [Task("picture", prompt.text) for prompt in prompts]
    name, about = character.name, character.description
    for method, folder in methods.items():
        say(f"{method}: {folder}", sys.stderr)
        if folder.startswith("lm:"):
            for task, reply in zip(tasks, replies_of_language_model(folder.removeprefix("lm:"), character, talk)):
                task.texts[method] = reply
            continue
        model = load(locate(folder))
        asked = [reply_prompt(name, about, character.opening, turn["user"]) for turn in talk]
        replies = model.generate_text(asked, max_tokens=80) if asked else []
        texts = [draw_prompt(name, about, turn["user"], reply) for turn, reply in zip(talk, replies)]
        texts += [prompt.text for prompt in prompts]
        images = []
        for at in range(0, len(texts), 8):                  # at once
            some = texts[at:at + 8]
            images += model.sample_images(some, [o.seed + at + i for i in range(len(some))], o.steps)
        for task, reply in zip(tasks, replies * 2):
            task.texts[method] = reply
        for task, image in zip(tasks[len(talk):], images):
            task.images[method] = image
    return tasks


def replies_of_language_model(name: str, character: Character, talk: list[dict]) -> list[str]:
    from experiments.prompt_only import LanguageModel, system_prompt            # which imports eval.py, and that this file
    model = LanguageModel(name, system_prompt(character), "auto")
    return model.generate_text([turn["user"] for turn in talk], max_tokens=80) if talk else []


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else list(argv)
    given = list(itertools.takewhile(lambda word: not word.startswith("-"), words))
    o = parse_options(Options, __doc__, words[len(given):])
    if given[:1] == ["tally"] and len(given) >= 3:
        return say(tally([Path(name) for name in given[2:]], Path(given[1])))
    if given[:1] != ["write"] or len(given) != 2:
        raise UserError("give: write FOLDER --methods ..., or: tally key.json choices.json ...")
    character = load_character(o.char)
    methods = dict(re.findall(r"\s*([^=,]+?)\s*=\s*([^,]+?)\s*(?:,|$)", o.methods))
    if not o.methods:
        stages = find_stages(character, o.char, find_base(run_folder(o.char, "sft")))
        methods = {stage.name: stage.folder for stage in stages if not stage.before}
    if len(methods) < 2:
        raise UserError('--methods: give two or more, such as "base=tiny/base, SFT=runs/coco/sft"')
    if o.against and o.against not in methods:
        raise UserError(f"--against {o.against}: is none of the methods: {', '.join(methods)}")
    folder = Path(given[1])
    if (folder / "key.json").exists():                      # choices that were collected for it need it
        raise UserError(f"{folder}/key.json: a study is there already; name another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)           # now, not after minutes of drawing
    except OSError as error:
        raise UserError(f"{folder}: no folder can be made there ({error.strerror})") from None
    page = write_study(folder, character, make_tasks(character, methods, o), o.seed, o.repeats, o.against)
    say(f"{page}: give raters this page alone; key.json beside it stays with you")


if __name__ == "__main__":
    run_script(main)
