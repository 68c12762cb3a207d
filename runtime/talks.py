"""What a talk stands on: the checkpoints that a character can answer with, and the folder that keeps what was said.

    runs/<char>/{sft,grpo}/                 checkpoints; without any: characters/<char>/adapter/, else the base alone
    runs/<char>/chat/<time>/talk.jsonl      a line with the options, then one for every turn
                            001-sft.png     the picture of turn 1, drawn by stage sft; 001-shown.png was shown to it
"""
import itertools
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from backbone.folders import base_of, load, locate
from data import Character, load_character, name_of, newest_run
from model import UniModel
from runtime.cli import UserError, command, is_unprintable, printable
from runtime.nearness import Learned
from runtime.recall import Recall, known_exchanges, known_moments, usual_share
from runtime.runs import check_character, read_checkpoint_record
from runtime.terminal import write_picture

LABELS = {"base": "base", "sft": "SFT", "grpo": "SFT + GRPO"}


class Stages:
    """The models that one character can answer with in chat.py: base, sft and grpo. Each is read when it is first asked.

    Without a run it is the adapter that lies in the character's folder, or the base, which only reads the description.
    `folders` are the checkpoints by stage, `default` is the newest of them. `share` of known replies: see `recall`;
    less than 0 is the usual one.
    """
    def __init__(self, checkpoint: str, char: str, untrained: str, device: str, weights: str, share: float = 0.0):
        self.device, self.weights, self.models, self.recalls = device, weights, {}, {}
        newest = Path(locate(checkpoint)) if checkpoint else newest_checkpoint(char)
        if checkpoint and not newest.is_dir():
            raise UserError(f"--model {checkpoint}: no such folder; give a checkpoint, such as runs/coco/sft")
        if checkpoint and not is_checkpoint(newest):
            inside = [str(folder) for folder in sorted(newest.iterdir()) if is_checkpoint(folder)]
            raise UserError(f"--model {checkpoint}: no checkpoint; " + (f"inside it are {', '.join(inside)}" if inside
                            else "give one, such as runs/coco/sft"))
        taught = read_checkpoint_record(newest).get("char") if newest else ""
        self.character = load_character(char or taught or "coco")
        if newest and not checkpoint:
            check_character(newest, self.character)
        self.char = char or self.character.folder.name              # as commands take it
        adapter = self.character.folder / "adapter"
        self.trained = newest is not None
        if self.trained:
            self.find_checkpoints(newest)
        elif (adapter / "config.json").is_file():
            self.folders, self.default = {"base": Path(base_of(adapter)), "sft": adapter}, "sft"
        else:
            self.folders, self.default = {"base": Path(untrained)}, "base"
        base, checkpoint = Path(locate(self.folders["base"])), self.folders[self.default]
        self.share = share if share >= 0 else usual_share(base, checkpoint, self.trained)

    def find_checkpoints(self, newest: Path) -> None:
        """The base that it began with, the two stages beside each other in one folder, and the one that was asked."""
        self.folders = {"base": Path(base_of(newest))}
        for stage in ("sft", "grpo"):
            if (newest.parent / stage / "config.json").is_file():
                self.folders[stage] = newest.parent / stage
        known = [stage for stage, folder in self.folders.items() if folder.resolve() == newest.resolve()]
        self.default = known[-1] if known else newest.name
        self.folders[self.default] = newest

    def check(self, *stages: str) -> None:
        for stage in stages:
            if stage not in self.folders:
                raise UserError(f"stage {printable(stage)[:40]}: not here; there are: {', '.join(self.folders)}")

    def model(self, stage: str) -> UniModel:
        """Small models stay loaded; of large ones, only the last."""
        if stage not in self.models:
            sizes = [sum(p.numel() for p in model.parameters()) for model in self.models.values()]
            if sum(sizes) > 10 ** 9:
                self.models.clear()
            self.models[stage] = load(self.folders[stage], self.device, self.weights)
        return self.models[stage]

    def recall(self, stage: str, who: Character, line: str) -> Callable | None:
        """What known replies add to the words in which this stage answers the line: runtime/recall.py. None where the
        base stands beside others, to be seen as it is, and for another persona."""
        return self.mixed_in(stage, who, line, known_exchanges, Learned.of)

    def moment(self, stage: str, who: Character, reply: str) -> Callable | None:
        """The same of the sentence that says what to draw with a reply."""
        return self.mixed_in(stage, who, reply, known_moments)

    def mixed_in(self, stage: str, who: Character, text: str, known: Callable,
                 nearness: Callable = lambda folder: None) -> Callable | None:
        if not self.helped(stage, who):
            return None
        key = stage, known
        if key not in self.recalls:                         # all that is known is put into tokens once
            pairs = known(who)
            self.recalls[key] = Recall(self.model(stage), pairs, nearness(self.folders[stage])) if pairs else None
        found = self.recalls[key]
        return found.of([text], self.share) if found else None

    def helped(self, stage: str, who: Character) -> bool:
        beside = stage == "base" and len(self.folders) > 1
        return self.share > 0 and self.plays(who) and not beside

    def plays(self, who: Character) -> bool:
        """Whether this is the character that was trained, whatever it greeted with."""
        return (who.name, who.description) == (self.character.name, self.character.description)

    def says_moments(self, stage: str, who: Character) -> bool:
        """May this stage have learned to say what to draw, or do known sentences help it?"""
        learned = self.plays(who) and stage != "base"
        return bool(known_moments(who)) and (learned or self.helped(stage, who))

    def introduction(self) -> str:
        """Who answers, and what could be done about it."""
        name = self.character.name
        known = self.share and known_exchanges(self.character)
        helped = ", helped by the known replies (--recall 0: without)" if known else ""
        if self.trained:
            return f"{name}, from {self.folders[self.default]}{helped}"
        who = f"a small adapter of {name}" if "sft" in self.folders else f"the base, which reads {name}'s description"
        return f"No run of {name} yet: this is {who}{helped}. To train: {command('sft.py', '--char', self.char)}"


def is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "llm_config.json"))


def newest_checkpoint(char: str) -> Path | None:
    try:
        return newest_run(char or None)
    except UserError:                                       # none yet; a wrong --char is found by load_character
        return None


class TalkFolder:
    """Made when there is something to keep. A disk that is full or read-only ends the keeping, not the talk."""
    def __init__(self, home: Path, head: dict):
        self.home, self.head, self.folder, self.broken = home, head, None, False

    def open(self) -> Path:
        if self.folder is None:
            self.folder = new_folder(self.home / time.strftime("%Y%m%d-%H%M%S"))
            self.write_line(self.head)
        return self.folder

    def write_line(self, line: dict) -> None:
        with open(self.open() / "talk.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def add_turn(self, turn: dict) -> None:
        self.attempt(lambda: self.write_line(turn))

    def add_picture(self, image: Image.Image, name: str) -> str:
        """-> its file; "" if it could not be written."""
        return self.attempt(lambda: write_picture(self.open() / name, image)) or ""

    def attempt(self, write):
        try:
            return None if self.broken else write()
        except OSError as error:
            self.broken = True
            print(f"this talk is not kept any longer: {error.filename}: {error.strerror}", file=sys.stderr)


# ---- what is said ----------------------------------------------------------------------------------------------------

def first_lines(who: Character) -> list[str]:
    """Three lines to begin with: one that asks nothing, which is a greeting where dialogues begin with one, and two
    questions. Lines of scenes come last: they refer to a picture that the visitor does not see."""
    lines = [turn["user"] for turn in who.dialogues or who.scenes if turn["user"]]
    short = [line for line in lines if len(line) <= 40] or sorted(lines, key=len)
    asked = [line for line in short if line.rstrip().endswith(("?", "？"))]
    told = [line for line in short if line not in asked]
    return list(dict.fromkeys(told[:1] + asked[:2] + short))[:3] or [f"Who are you, {who.name}?"]


def cleaned(text: str, longest: int = 4000) -> str:
    """Without control characters, invisible marks and halves of a character, which no tokenizer can read."""
    if len(text) > longest:
        raise UserError(f"{len(text)} characters are too many at once; say it in {longest}")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(character for character in text if not is_unprintable(character)).strip()


class GoesInCircles(Exception):
    """Ends an answer that says the same again and again."""


def goes_in_circles(text: str) -> bool:
    """Whether it ends with the same few signs four times or more, over 40 signs or more."""
    return len(text) >= 40 and any(text.endswith(text[-n:] * max(4, -(-40 // n))) for n in range(1, 61))


def chat_folder(character: Character) -> Path:
    return Path("runs", name_of(character.folder), "chat")


def new_folder(wanted: Path) -> Path:
    """Makes a folder of this name, with a number behind it if there is one already."""
    for i in itertools.count(1):
        folder = wanted if i == 1 else wanted.with_name(f"{wanted.name}-{i}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
