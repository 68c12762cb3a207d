"""Is it luck? The whole customization with several seeds, and what stage 2 changed, in standard errors over the seeds.

    python experiments/seeds.py --char coco                 three seeds; a table, and runs/<char>/seeds.md

Each seed has its own stage 1, stage 2 and evaluation under runs/<char>/seeds/<seed>/, and a stage that is complete is
not repeated. The last two columns compare stage 2 with stage 1 of the SAME seed, so what a seed makes easy or hard for
both of them cancels.
"""
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import run_folder  # noqa: E402
from runtime.cli import UserError, parse_options, run_script  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from runtime.report import METRICS, cell, figure, label, markdown  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
STAGES = "base", "SFT", "SFT + GRPO"


@dataclass
class Options:
    char: str = "coco"
    seeds: int = 3                # how many
    first: int = 0                # the first of them
    jobs: int = 2                 # seeds at once, each on its share of the cores
    sft: str = ""                 # more options of every stage 1, in one string
    grpo: str = ""                # ... of every stage 2
    eval: str = ""                # ... of every evaluation
    out: str = ""                 # folder; empty = runs/<char>/seeds


def complete(script: str, here: Path, char: str, more: list[str], jobs: int = 1):
    """Runs a script into here/<script>, on one of `jobs` equal shares of the cores, unless that was done before."""
    done = here / f"{script}.done"
    command = [sys.executable, str(ROOT / f"{script}.py"), "--char", char, *more, "--out", str(here / script)]
    if done.exists():
        return
    here.mkdir(parents=True, exist_ok=True)
    print(f"{script}, see {here / script}.txt", flush=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    with open(here / f"{script}.txt", "w") as told:
        if subprocess.run(command, stdout=told, stderr=told, env=os.environ | threads).returncode:
            raise UserError(f"{' '.join(command[1:])} failed; {here / script}.txt tells why")
    done.touch()


def run(seed: int, o: Options, out: Path) -> dict:
    """-> eval.json of one seed, the stages made first if they are not there."""
    here, one = out / str(seed), ["--seed", str(seed)]
    sft, grpo = ["--sft", str(here / "sft")], ["--grpo", str(here / "grpo")]
    complete("sft", here, o.char, [*one, *o.sft.split()], o.jobs)
    complete("grpo", here, o.char, [*one, "--model", sft[1], *o.grpo.split()], o.jobs)
    complete("eval", here, o.char, [*sft, *grpo, *o.eval.split()], o.jobs)
    return json.loads((here / "eval" / "eval.json").read_text())


def table(records: list[dict], where: str) -> list[list[str]]:
    """where: "figures" (guided) or "figures without guidance", as eval.py calls them."""
    rows = [["", "better", *STAGES, "GRPO - SFT", "in standard errors"]]
    for key, (_, better, _) in METRICS.items():
        found = {stage: [record["stages"][stage].get(where, {}).get(key) for record in records] for stage in STAGES}
        found = {stage: [value["mean"] for value in values if value] for stage, values in found.items()}
        if len(found["SFT + GRPO"]) < len(records) or len(found["SFT"]) < len(records):
            continue
        change = figure(np.subtract(found["SFT + GRPO"], found["SFT"]).tolist())
        cells = [cell(key, value) for value in (*map(figure, found.values()), change)]
        rows.append([label(key), better, *cells, f"{change.mean / change.error:+.1f}" if change.error else "-"])
    return rows


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    out = Path(o.out) if o.out else run_folder(o.char, "seeds")
    with ThreadPoolExecutor(o.jobs) as pool:
        records = list(pool.map(lambda seed: run(seed, o, out), range(o.first, o.first + o.seeds)))
    text = "\n".join(f"{where}\n\n{markdown(table(records, where))}"
                     for where in ("figures", "figures without guidance"))
    write_beside(out / "seeds.md", lambda path: path.write_text(text, "utf-8"))
    print(text)


if __name__ == "__main__":
    run_script(main)
