"""A language model as a judge: what it is asked, what it answered, and whether it is one. The rubrics stand in eval.py.

Requests can be judged here (runtime/endpoint.py), or written to a file, judged elsewhere and read back. eval.json keeps
their ids, which say whose item it is and what was judged: so scores are read without measuring anything again, and
those of other replies do not fit. A score that is missing stays missing: it is counted, never guessed, and in no mean.
"""
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from characters.files import read_json
from runtime.cli import UserError, option_name, say
from runtime.endpoint import Endpoint, data_url, integer, object_of, read_price, text
from runtime.files import write_beside
from runtime.report import METRICS, Figure, aligned, as_json, cell, difference, figure, label, markdown

SCORE = object_of(reasons=text(), score=integer(1, 7))


@dataclass
class Request:
    column: str                 # whose replies: a stage, or a control
    rubric: str
    number: int                 # of the item, the same in every column
    message: str
    images: tuple = ()

    @property
    def id(self) -> str:
        """Says what is judged, down to the last letter: a score of other words does not fit."""
        seen = [image.tobytes() for image in self.images]
        mark = hashlib.sha256(b"".join([self.message.encode(), *seen])).hexdigest()[:12]
        return f"{self.column}/{self.rubric}/{self.number}/{mark}"


def fenced(candidate: str) -> str:
    """The judged text between two lines of equal signs that are longer than any inside it, so that it cannot end its
    own fence and go on as if it were the judge."""
    longest = max(map(len, re.findall("=+", candidate)), default=0)
    fence = "=" * max(12, longest + 4)
    return f"{fence}\n{candidate}\n{fence}"


def as_talk(line: str, reply: str) -> str:
    return f"User: {line}\nAssistant: {reply}"


SET = 6                         # answers that the rubric of diversity reads at once
MOST_PICTURES = 8               # of one column and rubric


class Requests:
    """Collects what is asked. `about` tells who the character is, `rubrics` are texts with {candidate} in them."""
    def __init__(self, about: str, rubrics: dict[str, str]):
        self.about, self.rubrics, self.rows = about, rubrics, []

    def add(self, column: str, rubric: str, number: int, candidate: str = "", images: tuple = ()) -> None:
        message = self.about + self.rubrics[rubric].replace("{candidate}", fenced(candidate))
        self.rows.append(Request(column, rubric, number, message, images))

    def about_replies(self, column: str, lines: list[str], replies: list[str]) -> None:
        """Each exchange by itself; of diversity, SET of them together."""
        exchanges = list(map(as_talk, lines, replies))
        for number, exchange in enumerate(exchanges):
            self.add(column, "personality", number, exchange)
            self.add(column, "factual", number, exchange)
        for at in range(0, len(exchanges), SET):
            self.add(column, "diversity", at // SET, "\n\n".join(exchanges[at:at + SET]))

    def about_pictures(self, column: str, known: list, pictures: list) -> None:
        """known: true pictures of the character."""
        for number, picture in enumerate(pictures[:MOST_PICTURES]):
            self.add(column, "shows", number, "", (*known, picture))

    def about_talks(self, column: str, talks: list[tuple[str, str]], pictures: list) -> None:
        """talks: line and reply; pictures: what was sent with each reply."""
        for number, (talk, picture) in enumerate(zip(talks[:MOST_PICTURES], pictures)):
            self.add(column, "fits", number, as_talk(*talk), (picture,))


# ---- scores ---------------------------------------------------------------------------------------------------------

def ask_judge(endpoint: Endpoint, requests: list[Request], run: int = 0) -> dict[str, int | None]:
    """-> id: score, None where there is none. run: another number asks anew."""
    questions = [{"messages": request.message, "schema": SCORE, "images": request.images, "sample": run}
                 for request in requests]
    found = endpoint.ask_all(questions, "judging")
    return {request.id: answer["score"] if answer else None for request, answer in zip(requests, found)}


def write_requests(requests: list[Request], file: Path) -> None:
    """One JSON object a line, in the form of a chat completion: id, messages, and the schema of the answer."""
    lines = []
    for request in requests:
        wish = f"{request.message}\n\nEnd with one JSON object that fits this JSON schema: {json.dumps(SCORE)}"
        pictures = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in request.images]
        content = [{"type": "text", "text": wish}, *pictures] if pictures else wish
        row = {"id": request.id, "messages": [{"role": "user", "content": content}], "schema": SCORE}
        lines.append(json.dumps(row, ensure_ascii=False))
    write_beside(file, lambda path: path.write_text("\n".join(lines) + "\n", "utf-8"))


def write_scores(scores: dict[str, int | None], file: Path) -> None:
    """In the form of `read_scores`."""
    lines = [json.dumps({"id": name, "score": score}) + "\n" for name, score in scores.items()]
    write_beside(file, lambda path: path.write_text("".join(lines), "utf-8"))


def read_scores(file: Path, ids: list[str]) -> dict[str, int | None]:
    """Lines {"id": ..., "score": 1 to 7}, in any order. What is missing or null has no score; anything else but a
    whole number from 1 to 7 is a mistake of the file."""
    found = {}
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise UserError(f"--read-scores {file}: cannot be read ({error}); give the judge's JSONL file") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            name, score = row["id"], row["score"]
        except (ValueError, TypeError, KeyError):
            raise UserError(f'{file}: line {number}: write {{"id": ..., "score": ...}}, one object a line') from None
        if score is not None and (type(score) is not int or not 1 <= score <= 7):
            raise UserError(f"{file}: line {number}: score {score!r} is not a whole number from 1 to 7; mend it, or "
                            "write null for a missing one")
        found[name] = score
    if other := found.keys() - set(ids):
        say(f"{file}: {len(other)} of its {len(found)} scores are of other requests, and not used")
    return {name: found.get(name) for name in ids}


def kappa(first: list[int], second: list[int]) -> float:
    """Cohen's kappa with quadratic weights: the agreement of two lists of scores beyond what chance gives. 1 is agreement,
    0 is chance; nan where all scores are one and the same."""
    x, y = np.asarray(first, float), np.asarray(second, float)
    seen = ((x - y) ** 2).mean() if len(x) else np.nan
    by_chance = ((x[:, None] - y[None]) ** 2).mean() if len(x) else np.nan
    return float(1 - seen / by_chance) if by_chance else float("nan")


# ---- what came out --------------------------------------------------------------------------------------------------

CONTROLS = "true replies", "another's replies", "one reply for all"
WORSE = {"personality": "another's replies", "factual": "another's replies", "diversity": "one reply for all",
         "shows": "another's replies", "fits": "another's replies"}     # what each rubric has to tell from true replies


def values(scores: dict[str, int | None]) -> dict[str, dict[str, np.ndarray]]:
    """Scores by id -> column -> rubric -> scores by number of the item, nan where one is missing."""
    found: dict[str, dict] = {}
    for name, score in scores.items():
        column, rubric, number, _ = name.rsplit("/", 3)
        items = found.setdefault(column, {}).setdefault(rubric, {})
        items[int(number)] = np.nan if score is None else score
    return {column: {rubric: np.array([items[i] for i in sorted(items)], float) for rubric, items in some.items()}
            for column, some in found.items()}


def verdicts(found: dict[str, dict[str, np.ndarray]]) -> dict[str, dict]:
    """For each rubric: does the judge score true replies above the control that it has to tell from them? Only where
    the whole 95 % interval of the difference, item by item, lies above 0; two items show nothing."""
    told = {}
    true = found.get(CONTROLS[0], {})
    for rubric, control in WORSE.items():
        worse = found.get(control, {}).get(rubric)
        if rubric in true and worse is not None:
            n = min(len(true[rubric]), len(worse))
            apart = difference(true[rubric][:n], worse[:n])
            tells = bool(apart and apart.n > 2 and (apart.low or 0) > 0)
            told[rubric] = {"control": control, "difference": apart, "tells": tells}
    return told


def agreement(first: dict, second: dict) -> dict[str, float | None]:
    """Kappa by rubric, over the items that both have scored."""
    pairs: dict[str, list] = {}
    for name, score in first.items():
        both = pairs.setdefault(name.rsplit("/", 3)[1], [])
        if None not in (score, second[name]):
            both.append((score, second[name]))
    found = {rubric: kappa(*zip(*both)) if both else float("nan") for rubric, both in pairs.items()}
    return {rubric: None if np.isnan(value) else value for rubric, value in found.items()}


HEAD = "judge, 1 to 7"          # of its table, which is found by it in table.md


def rows(found: dict[str, dict[str, np.ndarray]], told: dict[str, dict], agreed: dict[str, float | None]
         ) -> tuple[list[list[str]], dict[str, dict[str, Figure | None]]]:
    """The judge's table, a rubric a row, stages and controls across, missing scores counted in every cell, then the
    verdict and, of two runs, kappa; and its figures by column."""
    figures = {column: {f"judge_{rubric}": figure(some, METRICS[f"judge_{rubric}"].over)
                        for rubric, some in rubrics.items()} for column, rubrics in found.items()}
    keys = dict.fromkeys(key for some in figures.values() for key in some)
    table = [[HEAD, *figures, f"{CONTROLS[0]} against", *(["kappa"] if agreed else [])]]
    for key in keys:
        row, rubric = [label(key)], key.removeprefix("judge_")
        for column, rubrics in found.items():
            scores = rubrics.get(rubric, np.zeros(0))
            missing = int(np.isnan(scores).sum())
            shown = cell(key, figures[column].get(key))
            row.append(f"{shown} ({missing} of {len(scores)} missing)" if len(scores) else "-")
        row.append(in_words(key, told.get(rubric)))
        if agreed:
            row.append("-" if agreed[rubric] is None else f"{agreed[rubric]:.2f}")
        table.append(row)
    return table, figures


def in_words(key: str, verdict: dict | None) -> str:
    if not verdict:
        return "no control"
    apart = f"{cell(key, verdict['difference'])} above" if verdict["tells"] else "not shown to tell them apart"
    return f"{verdict['control']}: {apart}"


def summary(runs: list[dict[str, int | None]]) -> dict:
    """Scores by id, of one judge, or of two runs or judges -> the table, figures by column, verdicts, and agreement.
    All but agreement are of the first."""
    found = values(runs[0])
    told, agreed = verdicts(found), agreement(*runs[:2]) if len(runs) > 1 else {}
    table, figures = rows(found, told, agreed)
    return {"table": table, "figures": figures, "verdicts": told, "kappa": agreed, "scores": runs}


# ---- what the options ask for ---------------------------------------------------------------------------------------

def check(o) -> None:
    """Raises UserError for what can be known to be missing before anything is measured."""
    for file in filter(None, o.read_scores.split(",")):
        if not Path(file).is_file():
            raise UserError(f"--read-scores {file}: no such file; give the judge's JSONL file")
    for other in ("judge", "dump_prompts"):
        if o.read_scores and getattr(o, other):
            raise UserError(f"--read-scores: measures nothing and asks nobody; leave out {option_name(other)}")
    if o.dump_prompts and not Path(o.dump_prompts).parent.is_dir():
        raise UserError(f"--dump-prompts {o.dump_prompts}: there is no folder {Path(o.dump_prompts).parent}; make it")
    if o.judge_price:
        read_price(o.judge_price)
    if "://" in o.judge:
        Endpoint.from_name(o.judge, model=o.judge_model, key_env=o.judge_key)           # lists its models, if none is named


def run(requests: list[Request], o, out: Path) -> None:
    """o.dump_prompts and o.judge: writes the requests to a file, and asks a judge o.judge_runs times. What came out
    goes to eval.json, table.md and scores.jsonl in the folder."""
    if o.dump_prompts:
        write_requests(requests, Path(o.dump_prompts))
        say(f"{len(requests)} requests for a judge: {o.dump_prompts}")
    found = {"asked": [request.id for request in requests]}
    if o.judge:
        endpoint = Endpoint.from_name(
            o.judge, model=o.judge_model, key_env=o.judge_key, device=o.device, price=o.judge_price,
            at_once=o.judge_at_once, timeout=o.judge_timeout, cache=Path(o.judge_cache or out / "judge.jsonl"),
            max_tokens=o.judge_tokens, temperature=0.0 if o.judge_runs == 1 else 0.7)
        seen = [request for request in requests if endpoint.sees or not request.images]
        runs = [ask_judge(endpoint, seen, number) for number in range(o.judge_runs)]
        for number, scores in enumerate(runs, 1):
            write_scores(scores, out / f"scores{number if number > 1 else ''}.jsonl")
        say(f"judge {endpoint.name}: {endpoint.usage}")
        found |= {"judge": endpoint.name, "usage": str(endpoint.usage), "missing because": dict(endpoint.problems)}
        found |= summary(runs)
    keep(found, out)


def read_again(o, out: Path) -> None:
    """o.read_scores: the judge's part of eval.json and table.md is written anew, from scores of what was asked then."""
    file = out / "eval.json"
    asked = file.exists() and read_json(file)["judge"].get("asked")
    if not asked:
        raise UserError(f"{file}: holds no requests that scores could be of; evaluate with --dump-prompts FILE first")
    runs = [read_scores(Path(scores), asked) for scores in o.read_scores.split(",") if scores]
    keep({"asked": asked, "judge": o.read_scores} | summary(runs), out)
    say(f"written to {out}: table.md, eval.json")


def keep(found: dict, out: Path) -> None:
    """Puts it into eval.json, whose stages get their figures of it, and its table behind the others of table.md."""
    result, table = read_json(out / "eval.json"), found.pop("table", [])
    result["judge"] = found
    for name, stage in result["stages"].items():
        stage["figures"] |= found.get("figures", {}).get(name, {})
    text = json.dumps(result, indent=1, default=as_json)
    write_beside(out / "eval.json", lambda file: file.write_text(text, "utf-8"))
    if table:
        for rubric, verdict in found["verdicts"].items():
            if not verdict["tells"]:
                say(f"{rubric}: this judge is not shown to score true replies above {verdict['control']}, so its "
                    "scores of it say nothing")
        say(aligned(table))
        others = (out / "table.md").read_text("utf-8").partition(f"\n| {HEAD} |")[0]
        write_beside(out / "table.md", lambda file: file.write_text(f"{others}\n{markdown(table)}", "utf-8"))
