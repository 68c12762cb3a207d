"""How the rows of a step are cut into micro-batches, for memory and speed. What is learned does not depend on it.

A step holds examples that are not alike: short replies, long plans, pictures to draw, pictures to see. Computed
together, the short ones would carry padding and the texts would carry empty latents. So alike stands beside alike.
"""
from typing import NamedTuple

import torch

from model import Example

LONG = 240                        # tokens. Of longer texts a micro-batch takes fewer: memory grows with length squared


class Row(NamedTuple):
    """One example of a step, with the seed of its noise level, its noise and its latents."""
    task: str
    example: Example
    seed: int


def kind(task: str, example: Example) -> tuple:
    """What is computed together. Text-only examples stand apart, so that they carry no padding latents. Each of their
    tasks stands apart too: replies begin alike, and the model reads that beginning once."""
    if example.latent is not None:
        return False, example.patches is None, ""
    return True, example.patches is None, "reply" if task in ("fact", "nearby") else task


def micro_batches(batch: list[Row], size: int) -> list[list[Row]]:
    """Cuts a batch, sorted by kind and length, into parts of at most `size` rows, fewer where texts are long. Short
    and long texts stand apart, or much would be padding."""
    parts = []
    for row in batch:
        if not parts or not fits(row, parts[-1], size):
            parts.append([])
        parts[-1].append(row)
    return parts


def fits(row: Row, part: list[Row], size: int) -> bool:
    first, count, length = part[0], len(part) + 1, len(row.example.ids)
    alike = kind(row.task, row.example) == kind(first.task, first.example)
    near = length <= 2 * max(24, len(first.example.ids))
    return alike and near and count <= size and count * length ** 2 <= size * LONG ** 2


def blank_row(c) -> Row:
    """A patch to see, no word to write, a latent token to draw: the least that reaches every part of a model."""
    ids = torch.zeros(6, dtype=torch.long)
    position = torch.tensor([0, 0, 0, 1, 2, 2])
    patches, places = torch.zeros(1, 3 * c.vit_patch_size ** 2), torch.zeros(1, dtype=torch.long)
    latent = torch.zeros(2, c.z_channels, c.latent_patch_size, c.latent_patch_size)
    example = Example(ids, torch.full_like(ids, -100), position, patches, places, latent)
    return Row("", example, 0)
