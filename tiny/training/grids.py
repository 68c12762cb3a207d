"""Sample grids: rows of equal pictures in one file."""
from pathlib import Path

from PIL import Image

from runtime.files import write_beside


def sample_grid(rows: list[list[Image.Image]], path: Path):
    w, h = rows[0][0].size
    out = Image.new("RGB", (w * len(rows[0]), h * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            out.paste(image, (x * w, y * h))
    write_beside(path, lambda p: out.save(p, "PNG"))
