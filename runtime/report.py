"""How figures are shown: names and units, errors, and tables. For eval.py, and for experiments/, which compare what
eval.py found.

An error says what another sample of the same kind would give: other questions, other prompts, other subjects. What it
is over stands beside it. It does not tell what another training run would give; experiments/study.py does.
"""
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from runtime.cli import say
from runtime.files import write_beside
from runtime.grids import picture_grid


class Metric(NamedTuple):
    name: str                   # what a table calls it
    better: str                 # up, down, or what it is to be like
    percent: bool               # a share, shown in percent
    over: str = "prompts"       # what it is a mean of


METRICS = {
    "knowledge": Metric("knowledge", "up", True, "questions"),
    "facts_said": Metric("facts said", "up", True, "questions"),
    "facts_helped": Metric("facts said in chat.py", "up", True, "questions"),
    "vqa": Metric("VQA", "up", True, "questions"),
    "identity_vqa": Metric("VQA, who it is", "up", True, "questions"),
    "recognized": Metric("VQA, knows her from others", "up", True, "questions"),
    "vqa_seen": Metric("VQA, training pictures", "up", True, "questions"),
    "bits_per_byte": Metric("bits per byte of replies", "down", False, "replies"),
    "nll": Metric("NLL of replies", "down", False, "replies"),
    "distinct1": Metric("distinct-1", "up", False, "seeds"),
    "distinct2": Metric("distinct-2", "up", False, "seeds"),
    "repetition": Metric("repeated 4-grams", "down", True, "seeds"),
    "judge_personality": Metric("judge: personality, 1 to 7", "up", False, "replies"),
    "judge_factual": Metric("judge: factual correctness, 1 to 7", "up", False, "replies"),
    "judge_diversity": Metric("judge: diversity, 1 to 7", "up", False, "sets"),
    "judge_shows": Metric("judge: the picture shows them, 1 to 7", "up", False, "pictures"),
    "judge_fits": Metric("judge: the picture fits the talk, 1 to 7", "up", False, "pictures"),
    "word_leakage_free": Metric("others without these words", "up", True, "replies"),
    "open_book": Metric("others, open book", "as base", True, "questions"),
    "clip_t": Metric("CLIP-T", "up", False),
    "clip_i": Metric("CLIP-I", "up", False),
    "drawn_vqa": Metric("VQA of drawn", "up", False),
    "reader": Metric("attribute reader", "up", True),
    "talk_reader": Metric("drawn from a talk, reader", "up", True, "talks"),
    "plan_reader": Metric("... with a plan", "up", True, "talks"),
    "moment_reader": Metric("... by way of a sentence", "up", True, "talks"),
    "talk_clip_i": Metric("... CLIP-I of these", "up", False, "talks"),
    "likeness": Metric("likeness", "up", False),
    "gap": Metric("gap closed", "up", True),
    "diversity": Metric("diversity", "up", False),
    "diversity_alike": Metric("diversity, likenesses", "up", False),
    "copies": Metric("near-copies", "down", True),
    "sharpness": Metric("sharpness, gradient", "up", True),
    "sharpness_fine": Metric("sharpness, Laplacian", "up", True),
    "oddness": Metric("oddness", "down", False),
    "grid": Metric("grid", "down", False),
    "likeness_others": Metric("likeness of others", "as base", False, "subjects"),
    "leakage": Metric("leakage: others above base, mean", "down", False, "subjects"),
    "leakage_max": Metric("leakage: the most of one subject", "down", False),
    "leakage_class": Metric("leakage: the class word", "down", False)}


def metric_of(key: str) -> Metric:
    """A measure that METRICS does not know yet is shown all the same, under its key."""
    return METRICS.get(key, Metric(key, "", False))


# ---- figures and their errors ---------------------------------------------------------------------------------------

@dataclass
class Figure:
    mean: float
    error: float | None = None          # one standard error; a single value has none
    n: int = 1                          # values that it is the mean of
    over: str = ""                      # of what: questions, replies, prompts, subjects ...
    low: float | None = None            # the 95 % interval
    high: float | None = None


RESAMPLES = 1000
STUDENT = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36}      # 97.5 % quantile, by number of values


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n. Of 40 right of 40 it is 91 to 100 %, where mean and error would say 100 ± 0
    (Wilson 1927)."""
    z = 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(statistic: Callable[..., float], *samples: np.ndarray, over: str = "", axes: int = 1) -> Figure:
    """statistic(*samples) with its standard error and 95 % interval. Each sample is drawn anew, with replacement, along
    its first axis; what belongs together, such as two stages on one prompt, stands in one array. axes=2 draws the
    second axis anew too: subjects and prompts, say. Of few items this would give an interval that holds the truth half
    of the time (two) to 87 % (eight); there the error is widened, and the interval is Student's."""
    mean, n = float(statistic(*samples)), len(samples[0])
    if n == 1:
        return Figure(mean, over=over)
    rng, values = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        drawn = [x[rng.integers(len(x), size=len(x))] for x in samples]
        if axes == 2:
            drawn = [x[:, rng.integers(x.shape[1], size=x.shape[1])] for x in drawn]
        values.append(statistic(*drawn))
    error, few = float(np.nanstd(values)), min(size for x in samples for size in x.shape[:axes] if size > 1)
    if few in STUDENT:
        error *= (few / (few - 1)) ** 0.5
        return Figure(mean, error, n, over, mean - STUDENT[few] * error, mean + STUDENT[few] * error)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return Figure(mean, error, n, over, float(low), float(high))


def numbers(values) -> np.ndarray:
    """Without those that are nan: what does not apply."""
    x = np.asarray(values, float).reshape(-1)
    return x[~np.isnan(x)]


def figure(values, over: str = "", share: bool = False) -> Figure | None:
    """The mean of the values that are not nan, with its error; of nothing there is no figure. The interval is Wilson's
    for a `share` of rights and wrongs, Student's for few values, the bootstrap's for others."""
    x = numbers(values)
    n = len(x)
    if n == 0:
        return None
    if n > 1 and share and set(x.tolist()) <= {0.0, 1.0}:
        low, high = wilson(x.mean().item(), n)
        return Figure(x.mean().item(), (high - low) / (2 * 1.96), n, over, low, high)
    return mean_of(x, over)


def mean_of(x: np.ndarray, over: str) -> Figure:
    n = len(x)                                              # of few values there is no need to draw
    if n not in STUDENT:
        return bootstrap(np.mean, x, over=over)
    mean, error = x.mean().item(), x.std(ddof=1).item() / n ** 0.5
    return Figure(mean, error, n, over, mean - STUDENT[n] * error, mean + STUDENT[n] * error)


def ratio(parts, wholes, over: str = "") -> Figure | None:
    """Sum of the parts over the sum of the wholes, such as bits over bytes."""
    if not len(parts) or not sum(wholes):
        return None
    return bootstrap(lambda x: x[:, 0].sum() / x[:, 1].sum(), np.column_stack([parts, wholes]), over=over)


def difference(mine, other, over: str = "") -> Figure | None:
    """Mean of mine - other, item by item: what a question or a prompt makes easy for both cancels."""
    apart = numbers(np.asarray(mine, float) - np.asarray(other, float))
    return mean_of(apart, over) if len(apart) else None


def share_of_way(mine, base, real, over: str = "") -> Figure | None:
    """Which share of the way from base to real has mine gone? Mine and base are of the same prompts and drawn anew in
    pairs, real is a sample of its own; so the error has all three. None where there is no such way."""
    pairs = np.column_stack([mine, base])
    pairs, real = pairs[~np.isnan(pairs).any(1)], numbers(real)
    if not len(pairs) or not len(real) or real.mean() <= pairs[:, 1].mean():
        return None

    def share(p, r):
        way = r.mean() - p[:, 1].mean()
        return (p[:, 0].mean() - p[:, 1].mean()) / way if way > 0 else np.nan
    if len(real) == 1:                                      # how far real ones scatter is not known
        return Figure(share(pairs, real), n=len(pairs), over=over)
    return bootstrap(share, pairs, real, over=over)


# ---- from values to figures ----------------------------------------------------------------------------------------

# Values by key are arrays with one number per question, reply or prompt, nan where it does not apply. Two of them are
# not figures themselves: "bits" and "bytes" of the true replies, and "subjects", likeness to the character (subjects,
# prompts) of pictures of others, whose last row is the character's own kind.
RAW = {"bits", "bytes", "subjects"}


def figures_of(values: dict, base: dict, real: dict, subjects: list[str]) -> dict[str, Figure | None]:
    """Figures by key, from the values of a stage, of the base and of real pictures."""
    figures = {key: figure(some, metric_of(key).over, metric_of(key).percent)
               for key, some in values.items() if key not in RAW}
    if "bits" in values:
        figures["bits_per_byte"] = ratio(values["bits"], values["bytes"], "replies")
    if values is not base and "likeness" in values:
        figures["gap"] = share_of_way(values["likeness"], base["likeness"], real["likeness"], "prompts")
    if "subjects" in values and not np.isnan(values["subjects"]).any():
        others, above = values["subjects"][:-1], values["subjects"] - base["subjects"]
        figures["leakage_class"] = figure(above[-1], "prompts")
        if len(others):
            most = above[:-1].mean(1).argmax()
            figures["likeness_others"] = bootstrap(np.mean, others, over="subjects", axes=2)
            figures["leakage"] = bootstrap(np.mean, above[:-1], over="subjects", axes=2)
            figures["leakage_max"] = figure(above[most], f"prompts, {subjects[most]}")
        if values is base:                                  # nothing is above itself
            figures |= {key: Figure(0.0) for key in ("leakage", "leakage_max", "leakage_class") if key in figures}
    return figures


def compared(values: dict[str, dict]) -> dict[str, dict]:
    """Values by stage -> "SFT - base" and so on -> the figures of the differences, item by item."""
    found = {}
    for i, (first, mine) in enumerate(values.items()):
        for second, other in list(values.items())[:i]:
            both = [key for key in mine if key in other and len(mine[key]) == len(other[key])]
            apart = {key: difference(mine[key], other[key], metric_of(key).over) for key in both if key not in RAW}
            if "bits" in both:
                apart["bits_per_byte"] = ratio(mine["bits"] - other["bits"], mine["bytes"], "replies")
            if "subjects" in both:
                apart |= leakage_apart(mine["subjects"], other["subjects"])
            found[f"{first} - {second}"] = apart
    return found


def leakage_apart(mine: np.ndarray, other: np.ndarray) -> dict[str, Figure | None]:
    """Likenesses of others (subjects, prompts) of two stages -> how much more the first one's leak. The base, which both
    are measured from, cancels."""
    apart = mine - other
    found = {"leakage_class": figure(apart[-1], "prompts")}
    if len(apart) > 1 and not np.isnan(apart[:-1]).any():
        found["leakage"] = bootstrap(np.mean, apart[:-1], over="subjects", axes=2)
    return found


# ---- tables ---------------------------------------------------------------------------------------------------------

def cell(key: str, value: Figure | None) -> str:
    """"0.5 [0.4, 0.6]", with the 95 % interval where there is one; in percent where METRICS says so."""
    if value is None:
        return "-"
    percent = metric_of(key).percent
    scale, digits = (100, 1) if percent else (1, 3)
    mean = f"{scale * value.mean:.{digits}f}"
    if value.low is not None:
        digits -= percent                                   # of percents whole ones are enough
        return f"{mean} [{scale * value.low:.{digits}f}, {scale * value.high:.{digits}f}]"
    return mean


def label(key: str) -> str:
    metric = metric_of(key)
    return metric.name + (", %" if metric.percent else "")


def table(columns: dict[str, dict], guesses: dict[str, dict] | None = None) -> list[list[str]]:
    """Rows of cells: a metric a row, the stages across, then what the interval is over, and what guessing reaches. A
    row that nobody has is left out."""
    rows = [["", "better", *columns, "over", *(["guessing"] if guesses else [])]]
    for key in dict.fromkeys([*METRICS, *(key for figures in columns.values() for key in figures)]):
        found = [figures.get(key) for figures in columns.values()]
        known = [value for value in found if value]
        if not known:
            continue
        row = [label(key), metric_of(key).better, *(cell(key, value) for value in found)]
        ours = [figures[key] for name, figures in columns.items() if figures.get(key) and name != "real"]
        most = max(value.n for value in ours or known)
        overs = dict.fromkeys(value.over for value in ours or known if value.n == most)    # each has its own worst subject
        row.append(f"{most if most > 1 else ''} {'; '.join(overs)}".strip())
        if guesses:
            reached = guesses.get(key, {}).items()
            row.append(", ".join(f"{name} {100 * share:.0f}" for name, share in reached))
        rows.append(row)
    return rows


def markdown(rows: list[list[str]]) -> str:
    """The first row is the head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def aligned(rows: list[list[str]]) -> str:
    """For a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def as_json(value):
    """For json.dumps(default=...): figures, and arrays to four digits."""
    if isinstance(value, np.ndarray):
        return [None if np.isnan(x) else round(float(x), 4) for x in value.ravel()]
    return asdict(value)


# ---- what an evaluation writes --------------------------------------------------------------------------------------

def write_pictures(records: dict[str, dict], texts: list[str], subjects: list[str], told: list[str], side: int,
                   out: Path) -> list[str]:
    """contact.png: the same prompt and noise along a row, the stages across. every.png: all prompts and all seeds, to
    count by eye what is broken. others.png: other subjects, and last the character's own kind, in the first three
    prompts. talk.png: what is drawn with a reply, from the talk and by way of a sentence. -> the names of those that there
    are."""
    sheets, drawn = {}, {name: record["pictures"] for name, record in records.items() if record["pictures"]}
    if drawn:
        rows = [[some[i] for some in drawn.values()] for i in range(min(8, len(texts)))]
        sheets["contact.png"] = picture_grid(rows, texts[:8], list(drawn), side)
        rows = [[picture for some in drawn.values() for picture in some[i::len(texts)]] for i in range(len(texts))]
        columns = [name for name, some in drawn.items() for _ in some[::len(texts)]]
        sheets["every.png"] = picture_grid(rows, texts, columns, side)
    leaked = {name: record["leaked"] for name, record in records.items() if record["leaked"]}
    if leaked:
        times = min(3, len(next(iter(leaked.values()))[0]))
        rows = [[some[i][prompt] for prompt in range(times) for some in leaked.values()] for i in range(len(subjects))]
        sheets["others.png"] = picture_grid(rows, subjects, list(leaked) * times, side)
    talks = {name: record["talk_pictures"] for name, record in records.items() if record["talk_pictures"]}
    if talks:
        columns = [f"{name}{how}" for name in talks for how in (": talk", ": sentence")]
        rows = [[some[i] for pair in talks.values() for some in pair] for i in range(min(8, len(told)))]
        sheets["talk.png"] = picture_grid(rows, told, columns, side)
    for name, page in sheets.items():
        write_beside(out / name, lambda file: page.save(file, "PNG"))
    return list(sheets)


def write_tables(records: dict[str, dict], real: dict, subjects: list[str], guesses: dict, out: Path) -> dict:
    """Gives each record its figures, prints the table, and writes table.md with it and with what changed from stage to
    stage -> what eval.json has more."""
    base = records["base"]
    for record in records.values():
        for where, name in (("values", "figures"), ("unguided values", "figures without guidance")):
            if record[where]:
                record[name] = figures_of(record[where], base[where], real, subjects)
    columns = {name: record["figures"] for name, record in records.items()}
    columns["real"] = figures_of(real, real, real, [])
    differences = compared({name: record["values"] for name, record in records.items() if not record["before"]})
    tables = [table(columns, guesses), table(differences)]
    tables = [rows for rows in tables if len(rows) > 1]
    for rows in tables[:1]:
        say(aligned(rows))
    write_beside(out / "table.md", lambda file: file.write_text("\n".join(map(markdown, tables)), "utf-8"))
    return {"guessing": guesses, "real": columns["real"], "differences": differences}
