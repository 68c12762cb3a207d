"""Sample grids: rows of equal pictures in one file."""
from pathlib import Path

from PIL import Image

from runtime.files import write_beside
from runtime.report import picture_grid


def sample_grid(rows: list[list[Image.Image]], path: Path):
    page = picture_grid(rows)
    write_beside(path, lambda temporary: page.save(temporary, "PNG"))
