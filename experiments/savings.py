"""What does each saving cost, and what is a departure from the paper worth? Character-GRPO from one and the same stage
1, changed in one thing at a time, side by side.

    python experiments/savings.py --char coco               after sft.py; a table, and runs/<char>/savings/savings.md

`--plan` says what resolution, guidance in rollouts, a shared start and fewer pictures save at 7B. What they cost can be
measured only where one can train: here, small. All results are evaluated alike, by eval.py, at full resolution.
"""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import run_folder  # noqa: E402
from experiments.seeds import complete  # noqa: E402
from runtime.cli import parse_options, run_script  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from runtime.report import Figure, cell, label, markdown  # noqa: E402

VARIANTS = {"as by default": [],
            "reward terms as the paper adds them": ["--no-normalize-terms", "--w-diversity", "0.1", "--w-identity",
                                                    "0.15"],
            "weights of the last iteration": ["--ema", "0"],
            "guided rollouts (CFG 3)": ["--guidance", "3"],
            "shared start": ["--share-start"],
            "half the pictures (G = 4)": ["--group", "4"], "half the resolution": ["--image-size", "64"]}
SHOWN = "clip_t", "drawn_vqa", "reader", "likeness", "diversity", "diversity_alike", "copies", "grid"


@dataclass
class Options:
    char: str = "coco"
    iterations: int = 25          # of every run
    seed: int = 0
    jobs: int = 2                 # runs at once, each on its share of the cores
    out: str = ""                 # folder; empty = runs/<char>/savings


def run(more: list[str], o: Options, here: Path) -> tuple[float, dict]:
    """-> seconds per iteration, and the stages of eval.json."""
    sft, seed = str(run_folder(o.char, "sft")), ["--seed", str(o.seed)]
    length = ["--iterations", str(o.iterations), "--eval-every", str(o.iterations)]
    complete("grpo", here, o.char, ["--model", sft, *seed, *length, *more], o.jobs)
    pictures = ["--no-unguided", "--items", "8"]             # the table shows nothing else, so few questions will do
    complete("eval", here, o.char, ["--sft", sft, "--grpo", str(here / "grpo"), *pictures], o.jobs)
    rows = map(json.loads, (here / "grpo" / "log.jsonl").read_text().splitlines())
    steps = [row["seconds"] for row in rows if "total" in row]
    return sum(steps) / len(steps), json.loads((here / "eval" / "eval.json").read_text())["stages"]


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    out = Path(o.out) if o.out else run_folder(o.char, "savings")
    with ThreadPoolExecutor(o.jobs) as pool:
        found = list(pool.map(lambda i, more: run(more, o, out / str(i)), range(len(VARIANTS)), VARIANTS.values()))
    begun = found[0][1]["SFT"]["figures"]
    shown = [key for key in SHOWN if begun.get(key)]
    rows = [("stage 1", "-", begun)]
    rows += [(name, f"{s:.1f}", stages["SFT + GRPO"]["figures"]) for name, (s, stages) in zip(VARIANTS, found)]
    text = markdown([["", "s per iteration", *map(label, shown)]] + [
        [name, s, *(cell(key, figures[key] and Figure(**figures[key])) for key in shown)] for name, s, figures in rows])
    write_beside(out / "savings.md", lambda path: path.write_text(text, "utf-8"))
    print(text)


if __name__ == "__main__":
    run_script(main)
