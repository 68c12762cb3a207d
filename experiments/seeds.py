"""Is it luck? The whole customization with several seeds, and what stage 2 changed, in standard errors over the seeds.

    python experiments/seeds.py --char coco                 three seeds; a table, and runs/<char>/seeds/seeds.md

Each seed has its own stage 1, stage 2 and evaluation under runs/<char>/seeds/<seed>/. What is complete is not made
again. What other options, other code or another stage 1 have made is never mixed in: it is refused, and --fresh makes
it anew. The last two columns compare stage 2 with stage 1 of the SAME seed, so what a seed makes easy or hard for both
of them cancels.
"""
import ast
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import numpy as np  # noqa: E402

from data import find_character, run_folder  # noqa: E402
from runtime.cli import UserError, command, parse_options, run_script  # noqa: E402
from runtime.files import digest, write_beside  # noqa: E402
from runtime.report import METRICS, Figure, cell, figure, label, markdown  # noqa: E402

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
    fresh: bool = False           # make anew what other options or other code have made


# ---- one script, unless it was run before ----------------------------------------------------------------------------

def complete(script: str, here: Path, char: str, more: list[str], jobs: int, fresh: bool) -> None:
    """Runs a script into here/<script>, on one of `jobs` equal shares of the cores. Does nothing if the same was done
    before. Raises UserError if something else was, unless `fresh`, and if the script fails."""
    record = here / f"{script}.json"
    words = ["--char", char, *more]
    now = {"options": words, "code and weights": code_digest(script), "what it begins with": inputs_digest(char, more)}
    before = json.loads(record.read_text("utf-8")) if record.exists() else {"made by": now, "done": False}
    changed = [name for name in now if before["made by"].get(name) != now[name]]
    if changed and not fresh:
        raise UserError(f"{here / script}: was made with other {', other '.join(changed)}; --fresh makes it anew, or "
                        "give another --out")
    if before["done"] and not changed:
        return
    here.mkdir(parents=True, exist_ok=True)
    write_record(record, now, False)
    if changed and script != "eval":                       # eval.py begins anew by itself
        words = [*words, "--fresh"]
    run_apart(script, [*words, "--out", str(here / script)], here / f"{script}.txt", jobs)
    write_record(record, now, True)


def write_record(record: Path, made_by: dict, done: bool) -> None:
    text = json.dumps({"made by": made_by, "done": done}, indent=1)
    write_beside(record, lambda path: path.write_text(text, "utf-8"))


def run_apart(script: str, words: list[str], told: Path, jobs: int) -> None:
    """Runs a script in a process of its own; what it prints goes to the file `told`. Raises UserError if it fails."""
    print(f"{script}, see {told}", flush=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // jobs))}
    with open(told, "w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, str(ROOT / f"{script}.py"), *words], stdout=file, stderr=file,
                              env=environment)
    if done.returncode:
        raise UserError(f"{command(f'{script}.py', *words)}: failed; {told} tells why")


def code_digest(script: str) -> str:
    """Of all files of this repository that a script imports, and of the weights that are embedded here."""
    weights = sorted((ROOT / "tiny").rglob("*.safetensors"))
    return digest(*sorted(imported_files(ROOT / f"{script}.py")), *weights)


def imported_files(script: Path) -> set[Path]:
    found, to_read = set(), [script]
    while to_read:
        file = to_read.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            to_read += [(ROOT / name.replace(".", "/")).with_suffix(".py") for name in names]
    return found


def inputs_digest(char: str, words: list[str]) -> str:
    """Of the character's files, and of the models that the options name."""
    character = sorted(file for file in find_character(char).rglob("*") if file.is_file())
    models = [Path(word) for word in words if Path(word).is_dir()]
    return digest(*character, *models)


def split(options: str) -> list[str]:
    try:
        return shlex.split(options)
    except ValueError as error:
        raise UserError(f"{options}: cannot be split into options ({error})") from None


# ---- the seeds -------------------------------------------------------------------------------------------------------

def run(seed: int, o: Options, out: Path) -> dict:
    """-> eval.json of one seed, the stages made first if they are not there."""
    here, one = out / str(seed), ["--seed", str(seed)]
    sft, grpo = str(here / "sft"), str(here / "grpo")
    complete("sft", here, o.char, [*one, *split(o.sft)], o.jobs, o.fresh)
    complete("grpo", here, o.char, [*one, "--model", sft, *split(o.grpo)], o.jobs, o.fresh)
    complete("eval", here, o.char, ["--sft", sft, "--grpo", grpo, *split(o.eval)], o.jobs, o.fresh)
    return json.loads((here / "eval" / "eval.json").read_text("utf-8"))


def over_seeds(values: list[float]) -> Figure | None:
    """With one standard error, and without the interval of a few values, which would be wide."""
    found = figure(values)
    return replace(found, low=None, high=None) if found else None


def table(records: list[dict], where: str) -> list[list[str]]:
    """where: "figures" (guided) or "figures without guidance", as eval.py calls them."""
    rows = [["", "better", *STAGES, "GRPO - SFT", "in standard errors"]]
    for key, metric in METRICS.items():
        found = {}
        for stage in STAGES:
            values = [record["stages"][stage].get(where, {}).get(key) for record in records]
            found[stage] = [value["mean"] for value in values if value]
        if len(found["SFT + GRPO"]) < len(records) or len(found["SFT"]) < len(records):
            continue
        change = over_seeds(np.subtract(found["SFT + GRPO"], found["SFT"]).tolist())
        cells = [cell(key, value) for value in (*map(over_seeds, found.values()), change)]
        in_errors = f"{change.mean / change.error:+.1f}" if change.error else "-"
        rows.append([label(key), metric.better, *cells, in_errors])
    return rows


def check(o) -> None:
    for name in ("seeds", "jobs", "iterations"):
        if getattr(o, name, 1) < 1:
            raise UserError(f"--{name} {getattr(o, name)}: must be 1 or more")


def main(argv=None):
    o = parse_options(Options, __doc__, argv)
    check(o)
    out = Path(o.out) if o.out else run_folder(o.char, "seeds")
    with ThreadPoolExecutor(o.jobs) as pool:
        records = list(pool.map(lambda seed: run(seed, o, out), range(o.first, o.first + o.seeds)))
    parts = [f"{where}\n\n{markdown(table(records, where))}" for where in ("figures", "figures without guidance")]
    text = "\n".join(parts)
    write_beside(out / "seeds.md", lambda path: path.write_text(text, "utf-8"))
    print(text)


if __name__ == "__main__":
    run_script(main)
