"""How figures are shown: their names and units, tables, and the contact sheet. For eval.py, and for tiny/, which
compares what eval.py found.
"""
import textwrap
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

METRICS = {                     # key -> what the table calls it, which way is better, whether it is a percentage
    "knowledge": ("knowledge", "up", True), "vqa": ("VQA", "up", True),
    "vqa_seen": ("VQA, training pictures", "up", True), "nll": ("NLL of replies", "down", False),
    "distinct1": ("distinct-1", "up", False), "distinct2": ("distinct-2", "up", False),
    "repetition": ("repeated 4-grams", "down", True), "clip_t": ("CLIP-T", "up", False),
    "drawn_vqa": ("VQA of drawn", "up", False), "reader": ("attribute reader", "up", True),
    "likeness": ("likeness", "up", False), "gap": ("gap closed", "up", True), "diversity": ("diversity", "up", False),
    "diversity_alike": ("diversity, likenesses", "up", False), "copies": ("near-copies", "down", True),
    "leakage": ("leakage", "as base", False), "grid": ("grid", "down", False)}


@dataclass
class Figure:
    mean: float
    error: float | None         # one standard error; a single value has none
    n: int                      # values: seeds or items


def figure(values: list[float]) -> Figure | None:
    """Mean and standard error of the values that are not nan; of nothing there is no figure."""
    x = np.array([value for value in values if not np.isnan(value)])
    error = x.std(ddof=1).item() / len(x) ** 0.5 if len(x) > 1 else None
    return Figure(x.mean().item(), error, len(x)) if len(x) else None


def cell(key: str, value: Figure | None) -> str:
    """"0.5 ± 0.1", in percent where METRICS says so."""
    if value is None:
        return "-"
    scale, digits = (100, 1) if METRICS[key][2] else (1, 3)
    error = "" if value.error is None else f" ± {scale * value.error:.{digits}f}"
    return f"{scale * value.mean:.{digits}f}{error}"


def label(key: str) -> str:
    name, _, percent = METRICS[key]
    return name + (", %" if percent else "")


def table(columns: dict[str, dict], guessing: dict[str, dict]) -> list[list[str]]:
    """Rows of cells: a metric a row, the stages across, at the end what guessing reaches; no row that nobody has."""
    rows = [["", "better", *columns, "guessing"]]
    for key, (_, better, _) in METRICS.items():
        if any(figures.get(key) for figures in columns.values()):
            guess = ", ".join(f"{name} {100 * share:.0f}" for name, share in guessing.get(key, {}).items())
            rows.append([label(key), better, *(cell(key, figures.get(key)) for figures in columns.values()), guess])
    return rows


def markdown(rows: list[list[str]]) -> str:
    """The first row is the head."""
    return "".join(f"| {' | '.join(row)} |\n" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def contact_sheet(columns: dict[str, list], texts: list[str], side: int, margin=150, top=22) -> Image.Image:
    """Same prompt and noise along a row, the stages across."""
    sheet = Image.new("RGB", (margin + side * len(columns), top + side * len(texts)), "white")
    pen = ImageDraw.Draw(sheet)                             # its font is Pillow's own: no file to find
    for y, text in enumerate(texts):
        pen.multiline_text((5, top + y * side + 5), textwrap.fill(textwrap.shorten(text, 180), 24), "black")
    for x, (name, images) in enumerate(columns.items()):
        pen.text((margin + x * side + 4, 5), name, "black")
        for y, image in enumerate(images[:len(texts)]):
            sheet.paste(image.resize((side, side)), (margin + x * side, top + y * side))
    return sheet
