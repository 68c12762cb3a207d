"""The pen that draws the tiny world, and its colors.

All coordinates are in picture units (128 to a side), whatever the size of the canvas; the pen scales them.
"""

from __future__ import annotations

import math

from PIL import ImageDraw

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (212, 52, 58), "orange": (244, 138, 44), "yellow": (253, 220, 72), "green": (88, 168, 74),
    "blue": (64, 116, 214), "purple": (138, 86, 190), "pink": (247, 156, 194), "brown": (142, 94, 60),
    "white": (250, 248, 244), "gray": (146, 151, 160), "black": (60, 56, 68)}
GOLD: RGB = (250, 200, 60)
INK: RGB = (46, 36, 48)
WOOD: RGB = (160, 106, 66)
EDGE = 1.2                                    # outline width
WHITE: RGB = (255, 253, 248)


# ---- colors and pen --------------------------------------------------------------------------------------------------

def mix(a: RGB, b: RGB, share: float) -> RGB:
    return tuple(round(x + (y - x) * share) for x, y in zip(a, b))


def dark(color: RGB, share: float = 0.38) -> RGB:
    return mix(color, (48, 28, 52), share)          # toward plum, not black: shadows stay warm


def light(color: RGB, share: float = 0.4) -> RGB:
    return mix(color, (255, 253, 248), share)


class Pen:
    """ImageDraw with an origin, a scale, a mirror, and an outline in a darker tone of each fill."""

    def __init__(self, canvas: ImageDraw.ImageDraw, x: float, y: float, unit: float, flip: int = 1):
        self.canvas, self.x, self.y, self.unit, self.flip = canvas, x, y, unit, flip

    def at(self, x: float, y: float, zoom: float = 1.0, flip: int = 1) -> "Pen":
        px, py = self._point(x, y)
        return Pen(self.canvas, px, py, self.unit * zoom, self.flip * flip)

    def _point(self, x: float, y: float) -> tuple[float, float]:
        return self.x + x * self.unit * self.flip, self.y + y * self.unit

    def _points(self, points) -> list[tuple[float, float]]:
        return [self._point(x, y) for x, y in points]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB, edge: float = 0.0) -> None:
        px, py = self._point(x, y)
        if edge:
            self._disc(px, py, (rx + edge / 2) * self.unit, (ry + edge / 2) * self.unit, dark(fill))
        self._disc(px, py, (rx - edge / 2) * self.unit, (ry - edge / 2) * self.unit, fill)

    def _disc(self, px: float, py: float, rx: float, ry: float, fill: RGB) -> None:
        self.canvas.ellipse((px - rx, py - ry, px + rx, py + ry), fill=fill)

    def poly(self, points, fill: RGB, edge: float = 0.0) -> None:
        dots = self._points(points)
        self.canvas.polygon(dots, fill=fill)
        if edge:
            self.canvas.line(dots + dots[:2], fill=dark(fill), width=round(edge * self.unit), joint="curve")

    def line(self, points, color: RGB, width: float) -> None:
        dots, radius = self._points(points), width * self.unit / 2
        self.canvas.line(dots, fill=color, width=max(1, round(width * self.unit)), joint="curve")
        for px, py in (dots[0], dots[-1]):
            self._disc(px, py, radius, radius, color)

    def tube(self, points, fill: RGB, width: float, edge: float = 1.1) -> None:
        """A line with round ends and an outline: arms, legs, tails."""
        self.line(points, dark(fill), width + edge)
        self.line(points, fill, width - edge)

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, radius: float = 0.0,
            edge: float = 0.0) -> None:
        (ax, ay), (bx, by) = self._point(x0, y0), self._point(x1, y1)
        self.canvas.rounded_rectangle((min(ax, bx), ay, max(ax, bx), by), radius * self.unit, fill=fill,
                                      outline=dark(fill) if edge else None, width=round(edge * self.unit))

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, color: RGB, width: float) -> None:
        steps = 10 if end - start < 200 else 24
        angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
        self.line([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], color, width)

    def half(self, x: float, y: float, rx: float, ry: float, fill: RGB, edge: float = 0.0, up: bool = True) -> None:
        """Half an ellipse with its flat side at y."""
        sign = -1 if up else 1
        angles = [math.pi * i / 14 for i in range(15)]
        self.poly([(x + rx * math.cos(a), y + sign * ry * math.sin(a)) for a in angles], fill, edge)

    def star(self, x: float, y: float, r: float, fill: RGB, edge: float = 0.0, points: int = 5) -> None:
        spikes = [(x + (r if i % 2 == 0 else r * 0.48) * math.sin(math.pi * i / points),
                   y - (r if i % 2 == 0 else r * 0.48) * math.cos(math.pi * i / points)) for i in range(2 * points)]
        self.poly(spikes, fill, edge)
