"""What does a picture show? Two networks learn to name all attributes of a scene, one softmax for each.

    VisionEncoder   the base's own vision encoder under a head that is thrown away: it learns to see before the decoder
                    learns to ask, as BAGEL's comes from SigLIP
    Reader          a ResNet for reports alone: nothing trains on its opinion. A small ViT with patches of 16 pixels
                    found 80 % of held things; convolutions find them all
"""
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from backbone.vision import VisionTower
from model import Config, patchify
from runtime.files import write_beside
from tiny import world
from tiny.training.judges import Judge, augment, processor
from tiny.training.pictures import Pictures
from tiny.training.trainer import autocast

HARD = {"held": 3.0, "expression": 3.0, "held_color": 2.0, "hand": 2.0, "position": 1.5, "pose": 1.5}   # others: 1


class Labels:
    """The labels of all pictures that come with words, as numbers: read once, then kept on disk."""

    def __init__(self, work: Path, pictures: Pictures):
        self.values = {name: sorted(values) for name, values in all_values().items()}
        self.names = [f"{name}={value}" for name, values in self.values.items() for value in values]
        sizes = [len(values) for values in self.values.values()]
        ends = np.cumsum(sizes)
        self.spans = {name: slice(int(end - size), int(end)) for name, size, end in zip(self.values, sizes, ends)}
        path = work / "labels.npy"
        if not path.exists():
            rows = [self.row(pictures.item(i)[0]) for i in range(pictures.described)]
            write_beside(path, lambda p: np.save(open(p, "wb"), np.array(rows, np.int16)))
        self.table = np.load(path)

    def row(self, scene) -> list[int]:
        return [self.values[name].index(value) for name, value in world.labels(scene).items()]

    def of(self, index) -> torch.Tensor:
        """(N, attributes)"""
        return torch.from_numpy(self.table[np.asarray(index)].astype(np.int64))


def all_values() -> dict[str, set]:
    """Attribute -> the values that scenes have, in the order of world.labels."""
    rng, found = random.Random(0), {}
    for _ in range(5000):
        for name, value in world.labels(world.random_scene(rng)).items():
            found.setdefault(name, set()).add(value)
    return found


class AttributeJudge(Judge):
    """A network that names attributes; `logits` (N, labels)."""

    def __init__(self, work: Path, pictures: Pictures):
        self.pictures, self.labels = pictures, Labels(work, pictures)
        self.model, self.beside = self.build()

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def losses(self, index, x: torch.Tensor) -> tuple[torch.Tensor, dict]:
        """-> (the weighted mean over the attributes, the share of right answers for each)"""
        with autocast():
            logits = self.logits(x)
        logits, total, right = logits.float(), 0.0, {}
        for target, (name, span) in zip(self.labels.of(index).T, self.labels.spans.items()):
            total = total + HARD.get(name, 1.0) * F.cross_entropy(logits[:, span], target, label_smoothing=0.02)
            right[name] = float((logits[:, span].argmax(1) == target).float().mean())
        return total / len(right), right

    def loss_of(self, step: int, rng: random.Random) -> dict:
        index = [self.pictures.mixed(rng) for _ in range(64)]
        loss, right = self.losses(index, augment(self.seen(index), rng))
        loss.backward()
        return {"loss": loss.detach(), "right": sum(right.values()) / len(right),
                **{name: right[name] for name in ("held", "expression", "hand")}}

    def seen(self, index) -> torch.Tensor:
        return self.pictures.for_judges(index)

    def held_out(self) -> dict:
        self.model.eval()
        rows = [self.losses(range(k, k + 128), self.pictures.batch(range(k, k + 128)))[1] for k in range(0, 512, 128)]
        self.model.train()
        return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}


class Reader(AttributeJudge):
    lr = 2e-3, 0.0

    def build(self):
        from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor
        torch.manual_seed(3)
        names = self.labels.names
        config = ResNetConfig(embedding_size=32, hidden_sizes=[32, 64, 128, 256], depths=[2, 2, 2, 2],
                              layer_type="basic", num_labels=len(names), id2label=dict(enumerate(names)),
                              label2id={name: k for k, name in enumerate(names)})
        model = ResNetForImageClassification(config).to(memory_format=torch.channels_last)
        return model, [processor(ViTImageProcessor, size={"height": 128, "width": 128})]

    def logits(self, x):
        return self.model(pixel_values=x.contiguous(memory_format=torch.channels_last)).logits


class VisionEncoder(AttributeJudge):
    def build(self):
        torch.manual_seed(6)
        c = Config()
        self.patch, self.place = c.vit_patch_size, torch.arange(c.vit_max_patches ** 2)[None]
        model = torch.nn.Module()
        model.tower, model.head = VisionTower(c), torch.nn.Linear(c.vit_hidden_size, len(self.labels.names))
        return model, []

    def logits(self, x):
        seen = self.model.tower(patchify(x, self.patch), self.place.expand(len(x), -1))
        return self.model.head(seen.mean(1))

    def seen(self, index):
        return self.pictures.batch(index)                  # worn pictures there are when the base can draw

    def save(self, folder: Path):
        weights = {k: v.contiguous() for k, v in self.model.tower.state_dict().items()}
        write_beside(folder.with_suffix(".safetensors"), lambda path: save_file(weights, path))
