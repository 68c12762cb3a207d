"""The judges of the embedded base: what each one is, what it learns from, and how wrong it was.

    judge      a CLIP: does a picture fit a text?               for rewards
    identity   a DINOv2: do two pictures show one creature?     for rewards
    reader     a ResNet: what does a picture show?              for reports alone: attributes.py
"""
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from model import SPECIAL, Config
from tiny import world
from tiny.language import LOOKS, table
from tiny.training.trainer import autocast
from tiny.world.changes import retold


class Judge:
    """A model with its loss; `beside` are the processors that are saved in its folder."""

    model: torch.nn.Module
    beside: list
    lr = 1e-3, 3e-3                                        # of AdamW; of Muon, for matrices inside layers

    def loss_of(self, step: int, rng: random.Random) -> dict:
        """Sends the loss of one batch backwards, and returns numbers to log."""
        raise NotImplementedError

    def held_out(self) -> dict:
        """What it gets right on pictures that it never saw; nothing, where only the rewards can tell."""
        return {}

    def save(self, folder: Path):
        for part in (self.model, *self.beside):
            part.save_pretrained(folder)


# ---- shared by the judges -------------------------------------------------------------------------------------------

def augment(x: torch.Tensor, rng: random.Random) -> torch.Tensor:
    """(N, 3, 128, 128) shifted, softened and soiled, so that a judge looks at shapes: a drawn picture is a little soft,
    and the cheapest way up a judge's opinion is a faint pattern on the latent grid. Here patterns mean nothing."""
    dx, dy = rng.randrange(-6, 7), rng.randrange(-6, 7)
    x = torch.roll(x, (dy, dx), (2, 3))
    if rng.random() < 0.3:
        small = rng.choice((64, 80, 96))
        x = F.interpolate(F.interpolate(x, size=(small, small), mode="area"), size=(128, 128), mode="bilinear")
    if rng.random() < 0.5:                                 # one tile all over the picture
        n = rng.choice((4, 8, 16))
        x = x + 0.2 * rng.random() * torch.randn(len(x), 3, n, n).repeat(1, 1, 128 // n, 128 // n)
    if rng.random() < 0.5:                                 # clouds
        cloud = torch.randn(len(x), 3, *[rng.choice((8, 16, 32))] * 2)
        x = x + 0.25 * rng.random() * F.interpolate(cloud, size=(128, 128), mode="bilinear")
    return x + 0.1 * rng.random() * torch.randn_like(x)


def contrast(logits: torch.Tensor) -> dict:
    """(N, N or more): row i belongs to column i, and the other way round; both directions count the same. Columns
    beyond N belong to no row."""
    target = torch.arange(N := len(logits))
    loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits[:, :N].T, target)) / 2
    loss.backward()
    return {"loss": loss.detach()}


def top1(logits: torch.Tensor) -> torch.Tensor:
    """(N, N): the share of rows whose own column is the largest."""
    return (logits.argmax(1) == torch.arange(len(logits))).float().mean()


def processor(kind, **sizes):
    """An image processor for pixels in [-1, 1]."""
    return kind(**sizes, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def cropping(kind):
    return processor(kind, size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128})


# ---- judge: does the picture fit the text? --------------------------------------------------------------------------

class Matcher(Judge):
    """A CLIP on the tokenizer of the base. Its vision tower begins as the base's: taught by texts alone, in the time
    that we have, it told places and colors, but no expression, pose or hand."""

    lr = 5e-4, 1e-3                                        # less than the others', for what it knows already

    def __init__(self, work: Path, pictures):
        from tokenizers.processors import TemplateProcessing
        from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel
        self.pictures, self.tokenizer = pictures, AutoTokenizer.from_pretrained(work / "tokenizer")
        bos, eos = self.tokenizer.convert_tokens_to_ids(list(SPECIAL[:2]))
        self.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{SPECIAL[0]} $A {SPECIAL[1]}", special_tokens=[(SPECIAL[0], bos), (SPECIAL[1], eos)])
        people = table("people")
        self.names = [start + end for start in people["starts"] for end in people["ends"]]
        torch.manual_seed(2)
        c = Config()
        vision = {"hidden_size": c.vit_hidden_size, "intermediate_size": c.vit_intermediate_size, "image_size": 128,
                  "num_hidden_layers": c.vit_num_hidden_layers, "num_attention_heads": c.vit_num_attention_heads,
                  "patch_size": c.vit_patch_size, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6}
        text = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4,
                "vocab_size": c.vocab_size, "max_position_embeddings": 77,
                "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos}
        self.model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))
        begin_with(self.model.vision_model, load_file(work / "vision.safetensors"), pictures.batch(list(range(16))))
        self.beside = [cropping(CLIPImageProcessor), self.tokenizer]

    def loss_of(self, step: int, rng: random.Random) -> dict:
        """A quarter of the pictures are of creatures in colors that have no word: the text says a name, and what they
        do. So the judge learns to overlook who it is where it is not told."""
        odd = range(self.pictures.described + 48, self.pictures.count)     # without the creatures that Identity spares
        index = [rng.choice(odd) if rng.random() < 0.25 else self.pictures.mixed(rng) for _ in range(96)]
        logits = self.logits(index, rng, partial(augment, rng=rng))
        return contrast(logits) | self.right(logits)

    def logits(self, index: list[int], rng: random.Random, prepare) -> torch.Tensor:
        """(N, 2 N): pictures against their texts, and against the same texts with one thing changed. Without these a
        judge need only know which things a picture shows, and not which of them is red (arXiv 2210.01936)."""
        told, wrong = zip(*(self.texts(i, rng) for i in index))
        tokens = self.tokenizer(told + wrong, padding=True, truncation=True, max_length=77, return_tensors="pt")
        with autocast():
            out = self.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask,
                             pixel_values=prepare(self.pictures.for_judges(index)))
        return out.logits_per_image.float()

    def texts(self, i: int, rng: random.Random) -> tuple[str, str]:
        scene, odd = self.pictures.item(i)[0], i >= self.pictures.described
        subject = rng.choice(self.names) if odd or rng.random() < 0.4 else None
        how, seed = rng.choice((1.0, 0.7, 0.4)), rng.random()

        def caption(scene):
            bare = dict.fromkeys(LOOKS[1:], "") if odd else {}           # all but the species, for which a name stands
            return world.caption(replace(scene, **bare), random.Random(seed), subject=subject, keep=how)

        return caption(scene), retold(scene, caption, rng)[1]

    def right(self, logits: torch.Tensor) -> dict:
        """top1: finds its text among all others. near: among two, of which one has one thing wrong."""
        N, own = len(logits), logits.diagonal()
        return {"top1": top1(logits[:, :N]), "near": (own > logits[:, N:].diagonal()).float().mean()}

    def held_out(self) -> dict:
        rng = random.Random(0)
        with torch.no_grad():
            rows = [self.right(self.logits(list(range(at, at + 96)), rng, lambda x: x)) for at in range(0, 768, 96)]
        return {key: round(float(sum(row[key] for row in rows) / len(rows)), 4) for key in rows[0]}


@torch.no_grad()
def begin_with(tower, ours: dict, pixels: torch.Tensor):
    """CLIP's vision tower from the weights of ours, which has no class token, no norm in front, and a bias in its patch
    embedding: that goes into the positions, and the norm is given the spread of embedded patches of some pictures,
    pixels (N, 3, H, W), so that it undoes itself, about."""
    weight, bias = ours.pop("embeddings.patch_embedding.weight"), ours.pop("embeddings.patch_embedding.bias")
    places, size = ours.pop("embeddings.position_embedding.weight"), tower.config.patch_size
    tower.embeddings.patch_embedding.weight.copy_(weight.unflatten(1, (size, size, 3)).permute(0, 3, 1, 2))
    tower.embeddings.position_embedding.weight[1:] = places + bias
    spread = (tower.embeddings.patch_embedding(pixels).flatten(2).mT + places + bias).std(-1).mean()
    tower.pre_layrnorm.weight.fill_(spread)
    missing, unknown = tower.load_state_dict(ours, strict=False)
    assert not unknown and all("embedding" in key or "pre_layrnorm" in key for key in missing)


# ---- identity: who is it? -------------------------------------------------------------------------------------------

class Identity(Judge):
    """A DINOv2-shaped encoder whose CLS token is near for pictures of one creature, whatever it does and wherever
    it is."""

    def __init__(self, work: Path, pictures):
        from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
        torch.manual_seed(4)
        self.model = Dinov2Model(Dinov2Config(hidden_size=128, mlp_ratio=3, num_hidden_layers=4, num_attention_heads=4,
                                              image_size=128, patch_size=16))
        self.pictures, self.groups = pictures, (pictures.count - pictures.described) // 3
        self.beside = [cropping(BitImageProcessor)]

    def loss_of(self, step: int, rng: random.Random) -> dict:
        chosen = rng.sample(range(16, self.groups), 40)    # the first 16 are held out
        pairs = [rng.sample(range(3), 2) for _ in chosen]
        index = [self.pictures.described + 3 * g + pair[k] for k in (0, 1) for g, pair in zip(chosen, pairs)]
        x = self.pictures.for_judges(index)
        with autocast():
            y = F.normalize(self.model(pixel_values=augment(x, rng)).last_hidden_state[:, 0].float(), dim=-1)
        logits = y[:40] @ y[40:].T / 0.07
        return contrast(logits) | {"top1": top1(logits)}
