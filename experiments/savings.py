"""What does each saving cost, and what is a departure from the paper worth? Character-GRPO from one and the same stage
1, changed in one thing at a time, side by side.

    python experiments/savings.py --char coco               after sft.py; a table, and runs/<char>/savings/savings.md

`python -m runtime.plan` says what resolution, guidance in rollouts and fewer pictures save at 7B. What they cost can be
measured only where one can train: here, small. All results are evaluated alike, by eval.py, at full resolution. Results
of other options or other code are refused, as in seeds.py.
"""
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there
from data import run_folder  # noqa: E402
from experiments.seeds import check, complete  # noqa: E402
from runtime.cli import parse_options, run_script  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from runtime.report import Figure, cell, label, markdown  # noqa: E402
from runtime.runs import read_rows  # noqa: E402

VARIANTS = {"as by default": [],
            "reward terms as the paper adds them": ["--no-normalize-terms", "--w-diversity", "0.1", "--w-identity",
                                                    "0.15"],
            "weights of the last iteration": ["--ema", "0"],
            "guided rollouts (CFG 3)": ["--guidance", "3"],
            "half the pictures (G = 4)": ["--group", "4"], "half the resolution": ["--image-size", "64"]}
SHOWN = "clip_t", "drawn_vqa", "reader", "likeness", "diversity", "diversity_alike", "copies", "grid"


@dataclass
class Options:
    char: str = "coco"
    iterations: int = 25          # of every run
    seed: int = 0
    jobs: int = 2                 # runs at once, each on its share of the cores
    out: str = ""                 # folder; empty = runs/<char>/savings
    fresh: bool = False           # make anew what other options or other code have made


def run(more: list[str], o: Options, here: Path) -> tuple[float, dict]:
    """-> seconds per iteration, and the stages of eval.json."""
    sft, grpo = str(run_folder(o.char, "sft")), str(here / "grpo")
    length = ["--iterations", str(o.iterations), "--eval-every", str(o.iterations)]
    complete("grpo", here, o.char, ["--model", sft, "--seed", str(o.seed), *length, *more], o.jobs, o.fresh)
    pictures_alone = ["--no-unguided", "--items", "8"]     # the table shows nothing else, so few questions will do
    complete("eval", here, o.char, ["--sft", sft, "--grpo", grpo, *pictures_alone], o.jobs, o.fresh)
    seconds = [row["seconds"] for row in read_rows(here / "grpo" / "log.jsonl") if "seconds" in row]
    return sum(seconds) / len(seconds), json.loads((here / "eval" / "eval.json").read_text("utf-8"))["stages"]


def table(found: list[tuple[float, dict]]) -> list[list[str]]:
    stage_one = found[0][1]["SFT"]["figures"]
    shown = [key for key in SHOWN if stage_one.get(key)]
    rows = [["", "s per iteration", *map(label, shown)]]
    results = [("stage 1", "-", stage_one)]
    for name, (seconds, stages) in zip(VARIANTS, found):
        results.append((name, f"{seconds:.1f}", stages["SFT + GRPO"]["figures"]))
    for name, seconds, figures in results:
        values = [Figure(**figures[key]) if figures.get(key) else None for key in shown]
        rows.append([name, seconds, *map(cell, shown, values)])
    return rows


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    check(o)
    out = Path(o.out) if o.out else run_folder(o.char, "savings")
    with ThreadPoolExecutor(o.jobs) as pool:
        found = list(pool.map(lambda i, more: run(more, o, out / str(i)), range(len(VARIANTS)), VARIANTS.values()))
    text = markdown(table(found))
    write_beside(out / "savings.md", lambda path: path.write_text(text, "utf-8"))
    print(text)


if __name__ == "__main__":
    run_script(main)
