"""Ordinary lines that no training ever saw, and what the character answers: to be read by a person.

    python experiments/lines.py --char coco --model runs/coco/sft --lines docs/sixty-lines.txt > answers.md

Each line begins a talk of its own, and is answered greedily. Refused are lines that say nearly the same as a line that
stage 1 may learn or a talk looks up: an answer to those would show memory, not understanding. Where a known line stands
whole in what is said, or differs in one word, that line is told: count these apart, for they are easier. Two columns stay
empty. Write into them whether the reply answers the line, and whether it is plain English: yes or no.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there
from backbone.folders import load  # noqa: E402
from characters.schema import alike, wording  # noqa: E402
from data import load_character, reply_prompt, run_folder  # noqa: E402
from runtime.cli import UserError, parse_options, run_script  # noqa: E402
from runtime.nearness import Learned  # noqa: E402
from runtime.recall import Recall, exchanges, known_exchanges  # noqa: E402
from sft import lines_to_others, shipped_others  # noqa: E402


@dataclass
class Options:
    char: str = "coco"            # a name under characters/, or a folder
    model: str = ""               # the checkpoint that answers; empty: runs/<char>/sft
    lines: str = "docs/sixty-lines.txt"    # a text file, one line each
    recall: float = 0.0           # share of known replies, see runtime/recall.py; 0: the weights alone
    device: str = "auto"          # cuda, mps, cpu
    precision: str = "auto"       # of products: bf16 or fp32; auto = bf16 where the hardware multiplies it


def known_lines(character) -> list[str]:
    """All that a user says anywhere in the character's file, in every wording, and to the others: stage 1 learns from
    most of that, and the rest is looked up."""
    told = character.dialogues + character.lookup
    said = [turn["user"] for turn in told + character.scenes]
    said += [wording for turn in told + character.knowledge for wording in turn.get("also", [])]
    said += [fact["question"] for fact in character.knowledge]
    asked = [line for other in shipped_others(character.name) for line, _ in exchanges([], other["knowledge"])]
    return said + asked + sorted(lines_to_others(character.name))


def unseen(lines: list[str], known: list[str]) -> list[str]:
    kept = []
    for line in lines:
        twin = next((other for other in known if alike(line, other)), "")
        if twin:
            print(f'left out: "{line}", as she knows "{twin}"', file=sys.stderr)
        else:
            kept.append(line)
    return kept


def near(line: str, known: list[str]) -> str:
    """The known line of three words or more that stands whole in this one, or differs from it in one word; or ""."""
    said = wording(line)
    for other in known:
        words = wording(other)
        if len(words) >= 3 and len(words - said) <= 1 and (words <= said or len(said - words) <= 1):
            return other
    return ""


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    path = Path(options.lines)
    if not path.is_file():
        raise UserError(f"--lines {path}: no such file; give a text file with a line to say in each line")
    if not 0 <= options.recall <= 1:
        raise UserError(f"--recall {options.recall}: must be from 0 to 1")
    character = load_character(options.char)
    lines = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    told = known_lines(character)
    lines = unseen(lines, told)
    folder = options.model or run_folder(options.char, "sft")
    model, known = load(folder, options.device), known_exchanges(character)
    recall = Recall(model, known, Learned.of(folder)) if options.recall and known else None
    print(f"| | line | near | {character.name} | answers it | plain English |\n|---|---|---|---|---|---|")
    for i, line in enumerate(lines, 1):
        prompt = reply_prompt(character.name, character.description, character.opening, line)
        helped = recall.of([line], options.recall) if recall else None
        with model.autocast(options.precision):
            reply, = model.generate_text([prompt], max_tokens=80, recall=helped)
        print(f"| {i} | {line} | {near(line, told)} | {reply.replace('|', '/')} | | |", flush=True)


if __name__ == "__main__":
    run_script(main)
