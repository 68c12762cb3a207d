"""Which method is best, and what does each part contribute? The main table and the ablations: a study of many rows.

    python experiments/study.py plan                        all rows, their commands, and what is left to be done
    python experiments/study.py run --jobs 2                makes what is missing
    python experiments/study.py run --only "stage 2,1 picture"      of a group or a row, and what they begin with
    python experiments/study.py table                       runs/study/study.md, of what is there

The rows are data: experiments/study.json, or another file of that form. A row is a name and the commands that make its
checkpoint. Every command gets --char, --seed and --out; an evaluation of the last checkpoint follows. In a command
{SFT}/sft stands for what sft.py made in the row SFT, which stands above, for the same character and seed. So many rows
can begin with one run. {here} is the row itself, {made} its last checkpoint.

A study can be interrupted or killed at any moment, and goes on with the same command. A row that fails is told, kept in
the table with its reason, tried again by the next `run`, and disturbs no other row. A result remembers the options, the
code that its script imports, the character, the weights, and the results that it began with. When one of these changes
the result is stale: that is told, and only --again makes it anew.
"""
import functools
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

import numpy as np  # noqa: E402

from characters.files import read_json  # noqa: E402
from data import SHIPPED, find_character, short_name  # noqa: E402
from runtime.cli import UserError, parse_options, run_script, say  # noqa: E402
from runtime.files import code_digest, digest, lock, write_beside  # noqa: E402
from runtime.report import METRICS, Figure, cell, figure, label, markdown  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
NAMED = re.compile(r"\{([^{}]+)\}/(\w+)")                   # {SFT}/sft: what sft.py made in the row SFT
OF_A_ROW = {"name", "commands", "eval", "minutes", "seeds", "stages"}
NEED_STAGE_1 = {"grpo.py", "experiments/forward_rl.py"}


@dataclass
class Options:
    rows: str = ""                # the study, a JSON file; empty: experiments/study.json
    only: str = ""                # groups or rows, commas between; empty: all
    char: str = ""                # characters, commas between; empty: those of the study
    seeds: int = 0                # how many, at most; 0: as many as the study has
    jobs: int = 2                 # commands at once, each on its share of the cores
    again: bool = False           # make anew what is stale
    out: str = "runs/study"       # folder of all results


# ---- what a study consists of ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Row:
    name: str
    group: str
    commands: tuple[str, ...]     # the last is the evaluation
    minutes: tuple[float, ...]    # of each command, as long as none was measured
    seeds: int
    stages: tuple[str, ...]       # of its eval.json: those that the table shows; empty: the last

    @property
    def trains(self) -> tuple[str, ...]:
        """The commands that tell rows apart: without the evaluation, if there is another."""
        return self.commands[:-1] or self.commands

    @property
    def stems(self) -> list[str]:
        """"experiments/dreambooth.py --steps 9" -> "dreambooth": the name of the folder that a command fills."""
        return [Path(words.split()[0]).stem for words in self.commands]


@dataclass(frozen=True)
class Result:
    """What one command of a row makes for one character and one seed."""
    row: Row
    char: str
    seed: int
    index: int                    # of the command in the row

    @property
    def command(self) -> str:
        return self.row.commands[self.index]

    @property
    def is_evaluation(self) -> bool:
        return self.index == len(self.row.commands) - 1

    def __str__(self):
        return f"{self.row.name}, {short_name(self.char)}, seed {self.seed}, {self.row.stems[self.index]}"


class Study:
    """The rows of a file, and their results on disk. Raises UserError if the file is not one of rows."""
    def __init__(self, o: Options):
        self.o, self.out, self.rows = o, Path(o.out), {}
        file = Path(o.rows or ROOT / "experiments" / "study.json")
        record, where = read_json(file), ""
        try:
            self.groups, self.evaluation = record["groups"], record["eval"]
            for name, group in self.groups.items():
                group["characters"] = [char for char in o.char.split(",") if char] or group["characters"] or shipped()
                for row in group["rows"]:
                    where = f", in the row {json.dumps(row)[:60]}"
                    self.add(row, name, record)
                    where = ""
                group["reference"] = self.rows[group["reference"]]
                if unknown := [key for key in group["shown"] if key not in METRICS]:
                    raise UserError(f"{file}: shown: {', '.join(unknown)}: no such measure; runtime/report.py has METRICS")
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise UserError(f"{file}{where}: {type(error).__name__} {error}; write it as experiments/study.json, of "
                            "which yours may be a copy") from None

    def add(self, row: dict, group: str, record: dict):
        faults = faults_of_row(row)
        if faults:
            raise UserError(f'row "{row.get("name", "")}": {"; ".join(faults)}')
        commands = list(row["commands"])
        made = "{here}/" + Path(commands[-1].split()[0]).stem if commands else ""
        commands.append(row.get("eval", self.evaluation).replace("{made}", made))
        minutes, own = [record["minutes"].get(words.split()[0], 5) for words in commands], row.get("minutes", [])
        most = self.groups[group]["seeds"]
        seeds = min(row.get("seeds", most), self.o.seeds or most)
        new = Row(row["name"], group, tuple(commands), (*own, *minutes[len(own):]), seeds, tuple(row.get("stages", [])))
        known = {"here": new.stems} | {other.name: other.stems for other in self.rows.values()}
        named = NAMED.findall(" ".join(commands))
        unknown = [f"{{{name}}}/{stem}" for name, stem in named if stem not in known.get(name, [])]
        if slug(new.name) in map(slug, self.rows):
            faults.append("has the name of another row")
        if unknown:
            faults.append(f"{', '.join(unknown)}: no such row above it with that script")
        if len(set(new.stems)) < len(commands):
            faults.append("a script stands twice in it")
        for words in commands:
            faults += faults_of(words)
        if faults:
            raise UserError(f'row "{new.name}": {"; ".join(faults)}')
        self.rows[new.name] = new

    def results(self) -> list[Result]:
        """Those of the chosen rows and all that they begin with, each behind what it begins with."""
        only = {name for name in self.o.only.split(",") if name}
        if only - self.rows.keys() - self.groups.keys():
            raise UserError(f"--only {self.o.only}: no such row or group; see the names with: plan")
        found = {}
        for row in self.rows.values():
            if not only or only & {row.name, row.group}:
                for result in self.of_row(row, self.groups[row.group]["characters"]):
                    self.collect(result, found)
        return list(found)

    def of_row(self, row: Row, chars: list[str]) -> list[Result]:
        return [Result(row, char, seed, index) for char in chars for seed in range(row.seeds)
                for index in range(len(row.commands))]

    def collect(self, result: Result, found: dict):
        for source in self.begins_with(result):
            self.collect(source, found)
        found[result] = True

    def begins_with(self, result: Result) -> list[Result]:
        """The results that its command names."""
        return [self.named(result, *names) for names in NAMED.findall(result.command)]

    def named(self, result: Result, name: str, stem: str) -> Result:
        """What {name}/stem means in a command. A row with fewer seeds lends its last."""
        row = result.row if name == "here" else self.rows[name]
        return Result(row, result.char, min(result.seed, row.seeds - 1), row.stems.index(stem))

    def folder(self, result: Result) -> Path:
        """What a command fills. Beside it stand <folder>.json, its record, and <folder>.txt, what it printed."""
        row, stem = slug(result.row.name), result.row.stems[result.index]
        return self.out / short_name(result.char) / row / str(result.seed) / stem

    def words(self, result: Result) -> list[str]:
        """The command line, whole: script and options."""
        script, *options = shlex.split(result.command)
        options = [NAMED.sub(lambda found: str(self.folder(self.named(result, *found.groups()))), word)
                   for word in options]
        seed = [] if result.is_evaluation else ["--seed", str(result.seed)]
        return [str(ROOT / script), "--char", result.char, *seed, *options, "--out", str(self.folder(result))]

    def stamp(self, result: Result) -> dict[str, str]:
        """All that a result depends on."""
        script, *options = shlex.split(result.command)
        models = [word for word in options if Path(word).is_dir()]
        return {"options": result.command, "code": code_digest(ROOT / script),
                "character": character_digest(result.char), "weights": weights_digest(*models),
                "what it begins with": digest([self.stamp(source) for source in self.begins_with(result)])}

    def record(self, result: Result) -> dict:
        file = self.folder(result).with_suffix(".json")
        return json.loads(file.read_text("utf-8")) if file.exists() else {}

    def write_record(self, result: Result, record: dict):
        text = json.dumps(record, indent=1)
        write_beside(self.folder(result).with_suffix(".json"), lambda file: file.write_text(text, "utf-8"))

    def state(self, result: Result) -> str:
        """"done", "missing", "failed: why" or "stale: other what"."""
        record, folder = self.record(result), self.folder(result)
        if record.get("failed"):
            return f"failed: {record['failed']}"
        made = folder / "eval.json" if result.is_evaluation else folder
        if not record.get("done") or not made.exists():
            return "missing"
        changed = [name for name, value in self.stamp(result).items() if record["made by"].get(name) != value]
        return f"stale: other {', '.join(changed)}" if changed else "done"

    def is_there(self, result: Result) -> bool:
        """Stale or not."""
        return self.state(result).startswith(("done", "stale"))

    def to_be_made(self, result: Result) -> bool:
        state = self.state(result)
        return self.o.again if state.startswith("stale") else state != "done"


def faults_of_row(row: dict) -> list[str]:
    """What a row of the file must be, and is not."""
    name, commands, minutes = row.get("name"), row.get("commands"), row.get("minutes", [])
    seeds = row.get("seeds", 1)
    faults = [f"{other} is no option of a row" for other in sorted(row.keys() - OF_A_ROW)]
    if not isinstance(name, str) or not slug(name) or "," in name:
        faults.append("name must be words without a comma, since --only puts commas between names")
    if not isinstance(commands, list) or not all(isinstance(words, str) and words.strip() for words in commands):
        faults.append('commands must be a list of texts, such as ["sft.py --steps 9"]')
    if not isinstance(minutes, list) or not all(isinstance(value, (int, float)) for value in minutes):
        faults.append("minutes must be a list of numbers, one for each command")
    if not isinstance(seeds, int) or seeds < 1:
        faults.append("seeds must be a whole number from 1 on")
    return faults


def faults_of(command: str) -> list[str]:
    """What would fail, or not be what it seems, hours later."""
    script, *options = shlex.split(command)
    if not (ROOT / script).is_file():
        return [f"{script}: no such script; write it as sft.py --steps 9"]
    if not Path(script).is_absolute():                      # ours: it has Options
        try:
            module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
            parse_options(module.Options, "", options, quiet=True)
        except UserError as error:
            return [f"{script}: {error}"]
    given = {option.split("=")[0] for option in options}
    faults = [f"{option} is the study's to give" for option in sorted(given & {"--char", "--seed", "--out"})]
    if script in NEED_STAGE_1 and "--model" not in given:
        faults.append(f"{script} needs --model, such as {{SFT}}/sft: without it, it takes what lies in runs/")
    return faults


def shipped() -> list[str]:
    return sorted(file.parent.name for file in SHIPPED.glob("*/character.json"))


def slug(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-")


@functools.cache
def character_digest(char: str) -> str:
    """Of a character's files, and of those that tell who else there is, what they are told and how they look."""
    source = find_character(char)
    files = [file for file in (source, *source.rglob("*")) if file.is_file()]
    others = [file for pattern in ("*.json", "*/character.json", "*/train/*") for file in SHIPPED.glob(pattern)]
    return digest(*sorted(files), *sorted(others))


@functools.cache
def weights_digest(*models: str) -> str:
    """Of the weights that are embedded here, and of the models that a command names."""
    return digest(*sorted((ROOT / "tiny").rglob("*.safetensors")), *map(Path, models))


# ---- run ------------------------------------------------------------------------------------------------------------

def run(study: Study):
    """Always the first commands that can be started: what they begin with is there, or will never be."""
    study.out.mkdir(parents=True, exist_ok=True)
    lock(study.out)
    results, running = study.results(), {}
    waiting = [result for result in results if study.to_be_made(result)]
    say(f"{len(results)} results, {len(waiting)} to be made")
    # A polite kill and a closed window are as Ctrl-C; what nohup ignores stays ignored.
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    usual = {number: signal.signal(number, signal.default_int_handler) for number in numbers
             if signal.getsignal(number) != signal.SIG_IGN}
    try:
        while waiting or running:
            unfinished = {*waiting, *running}
            ready = [result for result in waiting if not unfinished & set(study.begins_with(result))]
            for result in ready[:study.o.jobs - len(running)]:
                waiting.remove(result)
                start(study, result, running)
            time.sleep(0.1)
            for result in [result for result in running if running[result].poll() is not None]:
                end(study, result, running.pop(result).returncode)
    finally:
        stop(study, running)
        for number, handler in usual.items():
            signal.signal(number, handler)
    states = Counter(study.state(result).partition(":")[0] for result in results)
    say(", ".join(f"{count} {state}" for state, count in states.items()))
    if states["stale"]:
        say("what is stale is made anew with --again; see: plan")


def start(study: Study, result: Result, running: dict[Result, subprocess.Popen]):
    """Starts a command in a process of its own, or notes why it cannot be. What an earlier start of the same command
    left goes on; what another one left is removed."""
    folder, record = study.folder(result), study.record(result)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if record.get("done") or record.get("made by") != study.stamp(result):
        shutil.rmtree(folder, ignore_errors=True)
        record = {"made by": study.stamp(result), "minutes": 0.0}
    lacking = [source for source in study.begins_with(result) if study.state(source) != "done"]
    failed = f"needs {lacking[0]}, which is {study.state(lacking[0])}" if lacking else ""
    study.write_record(result, record | {"done": False, "failed": failed, "began": time.time()})
    told = folder.with_suffix(".txt")
    say(f"{result}: {failed or f'see {told}'}")
    if not lacking:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, cores // study.o.jobs))}
        with open(told, "a", encoding="utf-8") as file:     # a session of its own: Ctrl-C is for us alone
            running[result] = subprocess.Popen([sys.executable, *study.words(result)], stdout=file, stderr=file,
                                               env=environment, start_new_session=True)


def end(study: Study, result: Result, code: int, stopped: bool = False):
    """Notes how a command ended."""
    record = study.record(result)
    record["minutes"] += (time.time() - record.pop("began")) / 60
    told = study.folder(result).with_suffix(".txt").read_text("utf-8", "replace")
    last = ["it printed nothing", *(line for line in re.split(r"\s*[\r\n]\s*", told) if line)][-1]
    finished = code == 2 and "finished at step" in last     # before a kill that came before this note
    record["done"] = code == 0 or finished
    if not record["done"] and not stopped:
        record["failed"] = last.removeprefix("error: ")[:200]
    study.write_record(result, record)
    outcome = "stopped" if stopped and not record["done"] else study.state(result)
    say(f"{result}: {outcome}, {record['minutes']:.1f} min")


def stop(study: Study, running: dict[Result, subprocess.Popen]):
    """After Ctrl-C: asks what is running to end, which both stages do after saving, and waits for that."""
    for process in running.values():
        if os.name != "nt":                                 # there, the console tells everybody
            process.terminate()                             # not SIGINT: what a shell starts with & ignores that
    for result, process in running.items():
        end(study, result, process.wait(), stopped=True)


# ---- plan -----------------------------------------------------------------------------------------------------------

def plan(study: Study):
    """Minutes of one core: measured, where the same command of a row is done for any character and seed; else
    estimated, and scaled by how far the estimates for the same script were off."""
    results, measured, ratios = study.results(), defaultdict(list), defaultdict(list)
    for result in results:
        record = study.record(result)
        if record.get("done"):
            measured[result.row, result.index].append(record["minutes"])
            estimate = result.row.minutes[result.index]
            ratios[result.row.stems[result.index]].append(record["minutes"] / estimate)
    left, of_group = 0.0, Counter()
    for row in dict.fromkeys(result.row for result in results):
        minutes = []
        for index, estimate in enumerate(row.minutes):
            scaled = estimate * statistics.median(ratios[row.stems[index]] or [1.0])
            minutes.append(statistics.median(measured[row, index] or [scaled]))
        mine = [result for result in results if result.row == row]
        of_group[row.group] += sum(minutes[result.index] for result in mine)
        left += sum(minutes[result.index] for result in mine if study.to_be_made(result))
        states = Counter(study.state(result) for result in mine)
        told = ", ".join(f"{count} {state}" for state, count in states.items())
        say(f"{row.group} / {row.name}: {told}; {sum(minutes):.1f} min each run")
        for words in row.trains:
            say(f"    python {words}")
    jobs, whole = study.o.jobs, sum(of_group.values())
    told = ", ".join(f"{group} {minutes / 60:.1f}" for group, minutes in of_group.items())
    say(f"hours of one core: {told}")
    say(f"each is evaluated: python {study.evaluation}")
    say(f"in all {whole / 60 / jobs:.1f} hours with --jobs {jobs}; {left / 60 / jobs:.1f} hours are left")


# ---- table ----------------------------------------------------------------------------------------------------------

def values_of(study: Study, row: Row, stage: str, chars: list[str], shown: list[str], seeds: int) -> np.ndarray:
    """(metrics, characters, seeds) from the rows' eval.json, nan where there is none."""
    values = np.full((len(shown), len(chars), seeds), np.nan)
    for i, char in enumerate(chars):
        for seed in range(seeds):
            figures = evaluated(study, row, stage, char, seed).get("figures", {})
            values[:, i, seed] = [figures[key]["mean"] if figures.get(key) else np.nan for key in shown]
    return values


def evaluated(study: Study, row: Row, stage: str, char: str, seed: int) -> dict:
    """A stage of a row's eval.json, the last one if none is named; {} if there is none. A row of fewer seeds lends its
    last."""
    result = Result(row, char, min(seed, row.seeds - 1), len(row.commands) - 1)
    if not study.is_there(result):
        return {}
    stages = read_json(study.folder(result) / "eval.json")["stages"]
    return stages[stage or list(stages)[-1]]


def item_by_item(pairs: list[list[tuple[dict, dict]]], key: str) -> Figure | None:
    """pairs: (characters, seeds) of the values of a row and of the reference. The mean difference over all items, such as
    prompts, of all characters; of an item first the mean over seeds. What is of a whole set, such as the gap, has none."""
    apart = []
    for seeds in pairs:
        found = [np.array(mine[key], float) - np.array(other[key], float) for mine, other in seeds
                 if mine.get(key) and len(mine[key]) == len(other.get(key, []))]
        if found:
            apart.append(np.nanmean(found, axis=0))        # nan: where an item has none in any seed
    return figure(np.concatenate(apart)) if apart else None


def over_runs(values: np.ndarray) -> Figure | None:
    """(characters, seeds) -> of one character, mean and 95 % interval over seeds; of several, over characters, each the
    mean of its seeds."""
    if len(values) == 1:
        return figure(values)
    return figure([np.nanmean(some) for some in values if not np.isnan(some).all()])


def with_stages(rows) -> list[tuple[Row, str]]:
    """Every row with each of its stages that the table shows; "" is the last."""
    return [(row, stage) for row in rows for stage in row.stages or [""]]


def seeds_of_both(row: Row, than: Row) -> int:
    """A row of one seed is compared with each of the other's."""
    return min((n for n in (row.seeds, than.seeds) if n > 1), default=1)


def table_of(study: Study, group: dict, rows: list[Row], chars: list[str], compared: bool) -> list[list[str]]:
    """A line for every row; or, `compared`, what changes against the reference, in pairs of one character and seed."""
    shown, seeds = group["shown"], max(row.seeds for row in rows)
    than = values_of(study, group["reference"], "", chars, shown, seeds)
    lines = [["", *map(label, shown), "minutes", "runs"]]
    for row, stage in with_stages(rows):
        values, count = values_of(study, row, stage, chars, shown, seeds), row.seeds
        if compared and row == group["reference"]:
            continue
        if compared:
            values, count = values - than, seeds_of_both(row, group["reference"])
        values = values[:, :, :count]
        cells = [cell(key, over_runs(some)) for key, some in zip(shown, values)]
        lines.append([stage or row.name, *cells, *about_runs(study, row, chars)])
    return lines


def item_table(study: Study, group: dict, rows: list[Row], chars: list[str]) -> list[list[str]]:
    """A line for every row but the reference; a column for every metric that has items."""
    than, lines = group["reference"], {}
    for row, stage in with_stages(row for row in rows if row != than):
        pairs = [[tuple(evaluated(study, *one, char, seed).get("values", {}) for one in ((row, stage), (than, "")))
                  for seed in range(seeds_of_both(row, than))] for char in chars]
        lines[stage or row.name] = [item_by_item(pairs, key) for key in group["shown"]]
    columns = [(i, key) for i, key in enumerate(group["shown"]) if any(line[i] for line in lines.values())]
    return [["", *(label(key) for _, key in columns)],
            *([name, *(cell(key, line[i]) for i, key in columns)] for name, line in lines.items())]


def about_runs(study: Study, row: Row, chars: list[str]) -> list[str]:
    """Minutes of training for a run; how many runs are there, and what is wrong with the others."""
    results = study.of_row(row, chars)
    last = [result for result in results if result.is_evaluation]
    records = [study.record(result) for result in results if not result.is_evaluation]
    minutes = [record["minutes"] for record in records if record.get("done")]
    each = f"{np.mean(minutes) * (len(row.commands) - 1):.1f}" if minutes else "-"
    states = sorted({study.state(result) for result in results})
    wrong = [state for state in states if state.startswith(("stale", "failed")) and f": needs {row.name}," not in state]
    runs = f"{sum(map(study.is_there, last))} of {len(last)}"
    return [each, "; ".join([runs, *wrong]).replace("|", "/")]


def table(study: Study):
    """Writes study.md."""
    text = ""
    for name in dict.fromkeys(result.row.group for result in study.results()):
        group = study.groups[name]
        rows = [row for row in study.rows.values() if row.group == name]
        rows = rows if group["reference"] in rows else [group["reference"], *rows]
        every = group["characters"]
        for chars in ([every] if len(every) > 1 else []) + [[char] for char in every]:
            over = "seeds" if len(chars) == 1 else "characters, each the mean of its seeds"
            items = "questions, replies or prompts" + (" of all characters" if len(chars) > 1 else "")
            text += f"## {name}: {', '.join(map(short_name, chars))}\n\nIn brackets the 95 % interval over {over}.\n\n"
            text += markdown(table_of(study, group, rows, chars, False))
            text += f"\nWhat changes against {group['reference'].name}, in pairs of one character and seed:\n\n"
            text += markdown(table_of(study, group, rows, chars, True))
            text += f"\nThe same item by item, with the 95 % interval over {items}:\n\n"
            text += markdown(item_table(study, group, rows, chars)) + "\n"
        for row in rows:
            text += f"- {row.name}: " + ", ".join(f"`python {words}`" for words in row.trains) + "\n"
        text += f"\nEach is evaluated: `python {study.evaluation}`\n\n"
    study.out.mkdir(parents=True, exist_ok=True)
    write_beside(study.out / "study.md", lambda file: file.write_text(text, "utf-8"))
    say(text)


COMMANDS = {"plan": plan, "run": run, "table": table}


def main(argv: list[str] | None = None):
    words = sys.argv[1:] if argv is None else list(argv)
    given = words[:1] and words[0] in COMMANDS
    wrong = words[:1] and not given and not words[0].startswith("-")
    o = parse_options(Options, __doc__, words[1:] if given or wrong else words)
    if not given or o.jobs < 1 or o.seeds < 0:
        raise UserError("give plan, run or table first, and --jobs 1 or more: python experiments/study.py plan")
    COMMANDS[words[0]](Study(o))


if __name__ == "__main__":
    run_script(main)
