"""What does each saving cost? Character-GRPO from one and the same stage 1, one saving at a time, side by side.

    python tiny/savings.py --char coco               after sft.py; a table, and runs/<char>/savings.md

`plan.py` says what resolution, guidance in rollouts, a shared start and fewer pictures save at 7B. What they cost in
reward can be measured only where one can train: here, small. All runs are scored alike, on held-out prompts without
guidance, by the reward that they climb and by the reader that none of them knows.
"""
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import UserError, parse_options, run_folder, run_script                                       # noqa: E402
from folders import ModelError, write_beside                                                            # noqa: E402

GRPO = Path(__file__).resolve().parent.parent / "grpo.py"
VARIANTS = {"as by default": [], "guided rollouts (CFG 3)": ["--guidance", "3"], "shared start": ["--share-start"],
            "half the pictures (G = 4)": ["--group", "4"], "half the resolution": ["--image-size", "64"]}
SHOWN = {"total": "reward", "vqa": "VQA", "clip_t": "CLIP-T", "reader": "reader", "likeness": "likeness",
         "diversity": "diversity"}


@dataclass
class Options:
    char: str = "coco"
    iterations: int = 20          # of every run
    seed: int = 0
    out: str = ""                 # folder; empty = runs/<char>/savings


def run(name: str, more: list[str], o: Options, out: Path) -> list[dict]:
    """-> the log's rows; a run that is already complete is not repeated."""
    log = out / "log.jsonl"
    if not (log.exists() and log.read_text().count('"total"') >= o.iterations):
        line = [sys.executable, str(GRPO), "--char", o.char, "--iterations", str(o.iterations), "--eval-every",
                str(o.iterations), "--seed", str(o.seed), "--out", str(out), *more]
        print(name, flush=True)
        if subprocess.run(line).returncode:
            raise UserError(f"{name}: {' '.join(line[1:])} failed; see above")
    return [json.loads(row) for row in log.read_text().splitlines()]


def cells(name: str, rows: list[dict]) -> list[str]:
    steps = [row["seconds"] for row in rows if "total" in row]
    first, last = (row for row in (rows[1], rows[-1]))
    found = [(first[f"held_out/{key}"], last[f"held_out/{key}"]) for key in SHOWN]
    return [name, f"{sum(steps) / len(steps):.1f}", *(f"{a:.3f} → {b:.3f}" for a, b in found)]


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    out = Path(o.out) if o.out else run_folder(o.char, "savings")
    table = [["", "s per iteration", *SHOWN.values()], ["---"] * (2 + len(SHOWN))]
    for i, (name, more) in enumerate(VARIANTS.items()):
        table.append(cells(name, run(name, more, o, out / str(i))))
    text = "\n".join(f"| {' | '.join(row)} |" for row in table) + "\n"
    write_beside(out / "savings.md", lambda path: path.write_text(text, "utf-8"))
    print(text)


if __name__ == "__main__":
    run_script(main, ModelError)
