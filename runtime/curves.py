"""A picture of a run's log: curves.png, written beside log.jsonl at every save. Pillow alone.

One panel stands for each group of values that share a scale: losses by task, losses by noise level, reward terms,
held-out scores. Fine lines are the values, strong lines their moving average.
"""
import math
from pathlib import Path

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 460, 260                                   # of a panel, in pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 110, 26, 34                 # its margins; the names stand at the right
COLUMNS = 2
COLORS = ["#1f6fb4", "#d9541e", "#2e8b57", "#8e44ad", "#b8860b", "#c0392b", "#16a085", "#5d6d7e", "#d63384", "#556b2f",
          "#00a8cc", "#7a4a1e"]
NOT_DRAWN = "step", "seconds", "window", "skipped", "stage"

# Groups, in order: title, and which names belong to it. The first that fits takes a name.
GROUPS = [("cross-entropy per token, by task", lambda name: name.startswith("ce/")),
          ("flow loss by noise level, t0 = clearest", lambda name: name.startswith("mse/t") and name[5:].isdigit()),
          ("flow loss per latent token, by task", lambda name: name.startswith("mse/")),
          ("bits per byte of held-out replies", lambda name: name == "held_out_bits"),
          ("held-out scores", lambda name: name.startswith("held_out/")),
          ("spread of the reward inside groups", lambda name: name.startswith("spread/")),
          ("gradient norm before clipping", lambda name: name == "grad_norm"),
          ("how far the policy moved", lambda name: name in ("max_ratio_change", "clip_fraction", "from_old")),
          ("loss", lambda name: name == "loss"),
          ("reward by term", lambda name: True)]


def draw_curves(rows: list[dict], path: Path) -> None:
    """rows: as in log.jsonl, each with its "step". Values that are no numbers are left out."""
    panels = [(title, lines) for title, lines in grouped(rows).items() if lines]
    columns = min(COLUMNS, max(1, len(panels)))
    height = HEIGHT * max(1, math.ceil(len(panels) / columns))
    page = Image.new("RGB", (WIDTH * columns, height), "white")
    for i, (title, lines) in enumerate(panels):
        row, column = divmod(i, columns)
        page.paste(draw_panel(title, lines), (column * WIDTH, row * HEIGHT))
    page.save(path, "PNG")


def grouped(rows: list[dict]) -> dict[str, dict[str, list]]:
    """Title of a panel -> name of a line -> its points (step, value)."""
    panels = {title: {} for title, _ in GROUPS}
    for row in rows:
        for name, value in row.items():
            if name in NOT_DRAWN or not isinstance(value, (int, float)) or not math.isfinite(value):
                continue
            title = next(title for title, belongs in GROUPS if belongs(name))
            panels[title].setdefault(name, []).append((row["step"], value))
    return panels


def draw_panel(title: str, lines: dict[str, list]) -> Image.Image:
    panel = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(panel)
    points = [point for line in lines.values() for point in line]
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low, high = min(value for _, value in points), max(value for _, value in points)
    if low == high:
        low, high = low - 0.5, high + 0.5
    last = max(last, first + 1)

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return x, y

    draw_axes(pen, title, (first, last), (low, high), place)
    for i, (name, line) in enumerate(lines.items()):
        color = COLORS[i % len(COLORS)]
        draw_line(pen, [place(*point) for point in line], lighter(color), 1)
        draw_line(pen, [place(*point) for point in smoothed(line)], color, 2)
        shown = name.split("/")[-1]
        pen.text((WIDTH - RIGHT + 8, TOP + 15 * i), f"{shown} {line[-1][1]:.3g}", fill=color)
    return panel


def draw_axes(pen, title: str, steps: tuple, values: tuple, place) -> None:
    """A frame, round numbers on both axes, and what they mean."""
    left, bottom = place(steps[0], values[0])
    right, top = place(steps[1], values[1])
    pen.text((LEFT, 6), title, fill="black")
    pen.text(((left + right) / 2 - 12, HEIGHT - 14), "step", fill="black")
    for value in round_numbers(*values):
        _, y = place(steps[0], value)
        pen.line((left, y, right, y), fill="#e4e4e4")
        pen.text((4, y - 6), f"{value:.4g}", fill="black")
    for step in round_numbers(*steps):
        if step == int(step):
            x, _ = place(step, values[0])
            pen.line((x, bottom, x, bottom + 3), fill="black")
            pen.text((x - 8, bottom + 4), f"{step:.0f}", fill="black")
    pen.rectangle((left, top, right, bottom), outline="black")


def draw_line(pen, points: list, color: str, width: int) -> None:
    if len(points) == 1:
        x, y = points[0]
        pen.ellipse((x - 2, y - 2, x + 2, y + 2), fill=color)
    else:
        pen.line(points, fill=color, width=width)


def smoothed(line: list[tuple]) -> list[tuple]:
    """Each value averaged with its neighbours, a twentieth of the line to each side."""
    reach = len(line) // 20
    result = []
    for i, (step, _) in enumerate(line):
        near = line[max(0, i - reach):i + reach + 1]
        result.append((step, sum(value for _, value in near) / len(near)))
    return result


def round_numbers(low: float, high: float, most: int = 5) -> list[float]:
    """At most about `most` round numbers between low and high: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    count = int((high - math.ceil(low / step) * step) / step) + 1
    return [(math.ceil(low / step) + i) * step for i in range(count)]


def lighter(color: str) -> str:
    """The color mixed with three parts of white."""
    channels = [int(color[i:i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{(channel + 3 * 255) // 4:02x}" for channel in channels)
