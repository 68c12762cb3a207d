"""What server.py answers to page.html: who the character is, what was learned, and turns of the talk."""
import base64
import io
import math
import re
from pathlib import Path

import numpy as np
from PIL import Image

from data import load_picture
from runtime.cli import UserError
from runtime.curves import grouped
from runtime.runs import read_rows
from runtime.talks import LABELS, first_lines
from runtime.terminal import png
from sft import grid_prompts
from web.labels import CHARTS, CURVES, HEADINGS, STAGES
from web.line import Refused, Stopped

RGB_TO_LMS = np.array([[0.4122, 0.2119, 0.0883], [0.5363, 0.6807, 0.2817], [0.0514, 0.1074, 0.6300]])
LMS_TO_AB = np.array([[1.9780, 0.0259], [-2.4286, 0.7828], [0.4506, -0.8087]])


def get_routes(server) -> dict:
    """The only files that are served are sample grids: each has its route, and a request can only name a route."""
    grids = {f"/api/grid/{stage}/{step}": lambda handler, file=file: handler.send(file.read_bytes(), "image/png")
             for stage, folder in server.stages.folders.items() for step, file in sample_grids(folder).items()}
    return {"/": page, "/api/character": character, "/api/learned": learned} | grids


def page(handler) -> None:
    handler.send(handler.server.page, "text/html; charset=utf-8")


def character(handler) -> None:
    stages = handler.server.stages
    who = stages.character
    pictures = [scene["image"] for scene in who.scenes]
    handler.send_json({"name": who.name, "description": who.description, "opening": who.opening,
                       "portrait": data_url(pictures[0]) if pictures else "", "hues": hues(pictures),
                       "introduction": stages.introduction(), "trained": stages.trained,
                       "lines": first_lines(who), "default": stages.default, "stages": {
                           stage: (STAGES.get(stage, stage), LABELS.get(stage, "")) for stage in stages.folders}})


def hues(images: list[Image.Image]) -> list[int]:
    """The two hues, in degrees, that a character's pictures share: a fur or a coat is in all of them, a sky is not. The
    cooler one comes first. In OKLab, whose hues look evenly apart: https://bottosson.github.io/posts/oklab
    Without pictures a blue and an orange."""
    if not images:
        return [245, 65]
    logs = []
    for image in images:
        rgb = np.asarray(image.convert("RGB").resize((48, 48))).reshape(-1, 3) / 255
        lms = np.cbrt(rgb ** 2.2 @ RGB_TO_LMS)
        a, b = (lms @ LMS_TO_AB).T
        share = np.histogram(np.degrees(np.arctan2(b, a)) % 360, 36, (0, 360), weights=np.hypot(a, b))[0]
        logs.append(np.log(share / (share.sum() + 1e-9) + 0.005))
    order = np.argsort(-np.mean(logs, 0)).tolist()              # by the geometric mean
    apart = [i for i in order if min((i - order[0]) % 36, (order[0] - i) % 36) > 5]
    pair = [10 * order[0] + 5, 10 * apart[0] + 5]
    return sorted(pair, key=lambda hue: not 120 <= hue <= 310)


def learned(handler) -> None:
    """The curves of every stage that has a log, the steps at which it left sample grids, and what these show."""
    stages, runs = handler.server.stages, []
    for stage, folder in stages.folders.items():
        charts = [{"title": title.removesuffix(", t0 = clearest"), "about": CHARTS.get(title, ""),
                   "curves": named(curves)}
                  for title, curves in grouped(read_rows(folder / "log.jsonl")).items() if curves]
        if charts:
            grids = sorted(sample_grids(folder))
            runs.append({"stage": stage, "label": HEADINGS.get(stage, stage), "charts": charts, "grids": grids,
                         "prompts": grid_prompts(stages.character) if grids else []})
    handler.send_json(runs)


def named(curves: dict) -> list:
    """(label, points) of every curve, in the order of the names in the log."""
    short = {name: name.split("/")[-1] for name in sorted(curves)}
    return [(CURVES.get(short[name], short[name]), thinned(curves[name])) for name in short]


def thinned(curve: list, points: int = 60) -> list:
    """Means of neighbours: losses of single steps jump too much to be read."""
    share = max(1, math.ceil(len(curve) / points))
    parts = [curve[i:i + share] for i in range(0, len(curve), share)]
    return [[sum(step for step, _ in part) / len(part), sum(value for _, value in part) / len(part)] for part in parts]


def sample_grids(folder: Path) -> dict[int, Path]:
    """Step -> the file with the sample grid of that step."""
    named = {file: re.fullmatch(r"step_(\d+)\.png", file.name) for file in folder.glob("step_*.png")}
    return {int(match[1]): file for file, match in named.items() if match}


def answer(handler) -> None:
    """{kind: say, draw or show, text, talk, stages, think, pictures, image} -> JSON lines, one for every event."""
    body, stages = handler.body(), handler.server.stages
    kind, text, chosen = body.get("kind", "say"), body.get("text", ""), body.get("stages") or [stages.default]
    if kind not in ("say", "draw", "show") or not isinstance(text, str) or not isinstance(chosen, list):
        raise Refused(400, "kind must be say, draw or show; text a text; stages a list")
    for stage in chosen:
        stages.check(str(stage))
    if not text.strip() and kind != "show":
        raise Refused(400, "say something first")
    picture = read_picture(body.get("image")) if kind == "show" else None
    key, talk = handler.server.talk(str(body.get("talk")))

    def work(emit) -> None:
        talk.options.think, talk.options.pictures = bool(body.get("think")), bool(body.get("pictures", True))
        if kind == "show":
            talk.show(picture, text, emit, chosen)
        elif kind == "draw":
            talk.draw(text, emit, chosen)
        else:
            talk.say(text, emit, chosen)
    handler.send_head(200, "application/x-ndjson")
    handler.send_line({"kind": "talk", "talk": key})
    try:
        for event in handler.events(work, lambda place: handler.send_line({"kind": "place", "place": place})):
            handler.send_line(as_json(event))
        handler.send_line({"kind": "done"})
    except (UserError, Stopped, Refused) as error:
        handler.send_line({"kind": "error", "text": str(error.args[-1])})


def as_json(event) -> dict:
    """A chat.Event for the page, which need not know where the picture is kept."""
    return {"kind": event.kind, "stage": event.stage, "plan": event.plan, "step": event.step, "steps": event.steps,
            "text": "" if event.kind == "picture" else event.text, "shows": event.shows,
            "image": data_url(event.image) if event.image else None}


def data_url(image: Image.Image) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def read_picture(url: object) -> Image.Image:
    """The picture in a data: URL; nothing is fetched from anywhere."""
    match = re.match(r"data:image/[a-z+.-]+;base64,", url) if isinstance(url, str) else None
    if not match:
        raise Refused(400, "give the picture as a data: URL of a PNG, JPEG or WebP")
    try:
        return load_picture(io.BytesIO(base64.b64decode(url[match.end():], validate=True)))
    except Exception:                               # decoders raise nearly anything at a broken file
        raise Refused(400, "the picture cannot be read; give a PNG, JPEG or WebP of 16 pixels or more") from None


POST = {"/api/answer": answer}
