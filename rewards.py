"""Rewards: pictures, and what they were to show -> named numbers. This is what Character-GRPO climbs.

    r = 0.3 VQA + 0.45 CLIP-T + 0.1 diversity + 0.15 identity band            (the weights stand in RewardOptions)

    vqa        the frozen base looks at the picture and is asked the prompt's questions: how probable are the answers?
    clip_t     cosine of the picture and the text of the prompt under CLIP, times clip_scale
    diversity  mean perceptual distance of a picture to the other pictures of its group
    identity   0 while the likeness to the nearest reference lies inside a band, minus twice the overshoot outside:
               too close is a copy, too far is somebody else. It pulls nowhere inside, it only guards

Where it departs from the published code, and why:
1. There, diversity is one number for all pictures of a prompt on one device, so that the group mean cancels it exactly
   (and on several devices it is noise from how a group was scattered). Here each picture has its own: its distance to
   the others.
2. There, VQA is an exact match with a generated string, which an open answer never meets: all pictures get 0 and nothing
   is learned. Here it is the probability of the expected answer, which also tells wrong from very wrong.
3. There, a reference folder that cannot be read silently turns the identity term off. Here it is an error.
4. There, references are read and embedded anew at every call. Here once.

Two more numbers are only ever reported: `grid` (Rewards), what a hacked reward does to the picture, and the attribute
`Reader` (eval.py and the log of grpo.py), a judge that no reward has heard of. Training on either would blind it.

Shapes: P prompts, G pictures of each, B = P * G pictures with the group running fastest, E an embedding, n patches.
"""
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer, CLIPModel, ViTForImageClassification

from model import ModelError, UniModel, pick_device


@dataclass
class RewardOptions:
    w_vqa: float = 0.3
    w_clip_t: float = 0.45
    w_diversity: float = 0.1
    w_identity: float = 0.15
    per_term: bool = False              # give every term unit spread within its group before it is weighted
    vqa_mode: str = "likelihood"        # likelihood = probability; log = log of it, steeper where all is wrong; exact
    clip_scale: float = 100 / 30        # the paper's logits / 30: a cosine of 0.25 counts 0.83
    band_low: float = 0.0               # identity band; both 0 = calibrated from the references (calibrate_band);
    band_high: float = 0.0              # ... the paper's, for facebook/dinov2-base: 0.5 and 0.9
    clip_judge: str = "tiny/judge"      # a CLIPModel; the paper: openai/clip-vit-large-patch14
    identity_judge: str = "tiny/identity"   # its CLS token is the identity; the paper: facebook/dinov2-base
    judge_batch: int = 128              # questions that the VQA judge reads at once: lower it if memory is short


class RewardError(ModelError):
    """A judge or reference that cannot be used. Scripts print its one line as they do for any ModelError."""


# ---- judges: frozen networks from `transformers` --------------------------------------------------------------------

def locate(name: str) -> str:
    """A folder of this repository if there is one of that name, otherwise the name as it is: a path or a hub name."""
    here = Path(__file__).resolve().parent / name
    return str(here) if here.is_dir() else name


def pretrained(kind, name: str, **options):
    try:
        return kind.from_pretrained(locate(name), **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RewardError(f"{name}: no {kind.__name__} can be loaded from it ({why}); give a folder or a hub name") from None


class Judge:
    batch = 64                          # pictures at once

    def __init__(self, kind, name: str, device: str | torch.device = "auto"):
        model, report = pretrained(kind, name, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
        lost = sorted(key for key in report["missing_keys"] if "pooler" not in key)     # no judge here uses a pooler
        if lost:                        # transformers would judge with random numbers in their place
            raise RewardError(f"{name}: {len(lost)} tensors are missing, among them {lost[0]}; get the folder anew")
        self.device = pick_device(device) if isinstance(device, str) else device
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.processor = pretrained(AutoImageProcessor, name)

    def batches(self, images: list[Image.Image]):
        for at in range(0, len(images), self.batch):
            some = [image.convert("RGB") for image in images[at:at + self.batch]]
            yield self.processor(some, return_tensors="pt")["pixel_values"].to(self.device)


class ClipJudge(Judge):
    def __init__(self, name: str = RewardOptions.clip_judge, device: str | torch.device = "auto"):
        super().__init__(CLIPModel, name, device)
        self.tokenizer = pretrained(AutoTokenizer, name)

    @torch.no_grad()
    def look(self, images: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, E) of length 1, and patches (B, n C) such that a dot product is the mean cosine of patches."""
        embeddings, patches = [], []
        for pixels in self.batches(images):
            out = self.model.vision_model(pixel_values=pixels, output_hidden_states=True)
            embeddings.append(F.normalize(self.model.visual_projection(out.pooler_output), dim=-1))
            # The last layer's patches feed nothing that CLIP was trained on: only its CLS token is read out.
            seen = F.normalize(out.hidden_states[-2][:, 1:], dim=-1)                    # (b, n, C)
            patches.append(seen.flatten(1) / seen.shape[1] ** 0.5)
        return torch.cat(embeddings), torch.cat(patches)

    @torch.no_grad()
    def read(self, texts: list[str]) -> torch.Tensor:
        """(B, E), of length 1."""
        most = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt").to(self.device)
        out = self.model.text_model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
        return F.normalize(self.model.text_projection(out.pooler_output), dim=-1)


class IdentityJudge(Judge):
    def __init__(self, name: str = RewardOptions.identity_judge, device: str | torch.device = "auto"):
        super().__init__(AutoModel, name, device)

    @torch.no_grad()
    def look(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, E), of length 1."""
        return torch.cat([F.normalize(self.model(pixel_values=pixels).last_hidden_state[:, 0], dim=-1)
                          for pixels in self.batches(images)])


class Reader(Judge):
    """Names what is in a picture: one softmax per attribute. For reports alone, never for a reward."""
    def __init__(self, name: str = "tiny/reader", device: str | torch.device = "auto"):
        super().__init__(ViTForImageClassification, name, device)
        self.values: dict[str, list[str]] = {}          # category -> values, in the order of its softmax
        self.columns: dict[str, list[int]] = {}
        for column, label in self.model.config.id2label.items():
            category, found, value = label.partition("=")
            if not found:
                raise RewardError(f'{name}: its label "{label}" is not of the form "category=value"; take another reader')
            self.values.setdefault(category, []).append(value.lower())
            self.columns.setdefault(category, []).append(int(column))

    @torch.no_grad()
    def read(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Category -> probabilities (B, values of the category)."""
        logits = torch.cat([self.model(pixel_values=pixels).logits for pixels in self.batches(images)])
        return {category: logits[:, columns].softmax(-1) for category, columns in self.columns.items()}

    def score(self, images: list[Image.Image], prompts: list) -> tuple[torch.Tensor, torch.Tensor]:
        """Share (B,) of the questions it knows whose answer it sees, nan where it knows none; and their number (B,)."""
        right, known = torch.zeros(len(images)), torch.zeros(len(images))
        best = {category: p.argmax(-1).tolist() for category, p in self.read(images).items()}
        for b, prompt in enumerate(prompts):
            for question in prompt.questions:
                values, answer = self.values.get(question.category, []), question.answer.strip().lower()
                if answer in values:
                    known[b] += 1
                    right[b] += values[best[question.category][b]] == answer
        return right / known, known                     # 0 / 0 = nan


# ---- the four terms, and the picture's health -----------------------------------------------------------------------

@torch.no_grad()
def answer_log_p(model: UniModel, looks: list, asked: list[list[tuple[str, str]]], batch: int = 128) -> list[torch.Tensor]:
    """Mean log p per token, the end included, of every (question, answer) asked about each look (None = no picture).
    A picture is read once and its keys and values serve all its questions."""
    flat = iter([(i, question, answer) for i, pairs in enumerate(asked) for question, answer in pairs])
    scores = []
    while rows := list(islice(flat, batch)):
        first = rows[0][0]
        context = model.context([None] * (rows[-1][0] - first + 1), looks[first:rows[-1][0] + 1])
        context = context.rows(torch.tensor([i - first for i, _, _ in rows], device=model.device))
        examples = [model.prepare(SimpleNamespace(look=None, prompt=q, response=a, draw=None)) for _, q, a in rows]
        ids = pad_sequence([e.ids for e in examples], True).to(model.device)            # padding comes last: nobody sees it
        labels = pad_sequence([e.labels for e in examples], True, -100).to(model.device)
        nll, tokens = model.cross_entropy(model.extend(context, ids)[0], labels)
        scores.append(-nll / tokens)
    return list(torch.cat(scores).split([len(pairs) for pairs in asked])) if scores else [torch.zeros(0)] * len(asked)


def vqa_reward(judge: UniModel, images: list[Image.Image], prompts: list, mode: str = "likelihood",
               batch: int = 128) -> torch.Tensor:
    """(B,): weighted mean over the questions of a picture's prompt; 0 where there is no question."""
    asked = [[(q.question, q.answer) for q in prompt.questions] for prompt in prompts]
    if mode == "exact":
        rows = [(image, question, answer) for image, pairs in zip(images, asked) for question, answer in pairs]
        replies = [reply for at in range(0, len(rows), batch) for reply in judge.generate_text(
            [q for _, q, _ in rows[at:at + batch]], [i for i, _, _ in rows[at:at + batch]], max_tokens=24)]
        hits = torch.tensor([float(reply.strip().lower() == row[2].strip().lower()) for reply, row in zip(replies, rows)])
        values = hits.split([len(pairs) for pairs in asked])
    elif mode in ("likelihood", "log"):
        values = answer_log_p(judge, images, asked, batch)
        values = [v.exp() for v in values] if mode == "likelihood" else values
    else:
        raise RewardError(f"--vqa-mode {mode}: choose likelihood, log or exact")
    weights = [torch.tensor([q.weight for q in prompt.questions], device=v.device) for prompt, v in zip(prompts, values)]
    return torch.stack([(w * v).sum() / w.sum() if len(v) else torch.zeros((), device=v.device)
                        for w, v in zip(weights, values)])


def diversity(patches: torch.Tensor) -> torch.Tensor:
    """Patches (P, G, n C) -> (P, G): how far, on average, a picture is from the OTHERS of its group; 0 if it is alone."""
    G = patches.shape[1]
    distance = 1 - patches @ patches.transpose(1, 2)                                    # (P, G, G)
    return (distance.sum(-1) - distance.diagonal(dim1=1, dim2=2)) / max(1, G - 1)


def nearest(embeddings: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """(B, E), (R, E) -> (B,): largest cosine to any reference."""
    return (embeddings @ references.T).amax(-1)


def nearest_other(embeddings: torch.Tensor) -> torch.Tensor:
    """(R, E) -> (R,): largest cosine to any of the others; nan for one alone."""
    if len(embeddings) < 2:
        return torch.full((len(embeddings),), torch.nan)
    return (embeddings @ embeddings.T).fill_diagonal_(-torch.inf).amax(-1)


def identity_band(similarity: torch.Tensor, low: float, high: float) -> torch.Tensor:
    return -2 * (F.relu(low - similarity) + F.relu(similarity - high))


def calibrate_band(judge: IdentityJudge, references: list[Image.Image]) -> tuple[float, float]:
    """The band for a judge whose cosines mean something else than DINOv2's: the tiny one sees a small world, in which
    even strangers score above 0.5. The references tell what a new, real picture of this character scores: the
    similarity m of each one to its nearest other. low: the smallest m less one standard deviation, as a drawn picture
    is a little softer than a real one. high: half way from the largest m to 1, which is where an exact copy is."""
    m = nearest_other(judge.look(references))
    return float(m.min() - m.std()), float((m.max() + 1) / 2)


def grid_energy(images: list[Image.Image], stride: int) -> torch.Tensor:
    """(B,): edges that repeat with the latent grid, against edges that repeat nearly as often; about 1 in a sound picture.
    A hacked reward prints a border round each latent token. Taking absolute differences finds it whatever its sign,
    and neighbouring frequencies tell what the scene itself has there."""
    values = []
    for image in images:
        size = [side // stride * stride for side in image.size]
        gray = torch.from_numpy(np.asarray(image.convert("L").crop((0, 0, *size)), dtype=np.float32))
        grid, around = 0.0, 0.0
        for x in (gray, gray.T):
            edges = (x - x.roll(1, 1)).abs()[:, 1:].mean(0)                             # a profile along one axis
            power = torch.fft.rfft(F.pad(edges - edges.mean(), (1, 0))).abs()
            beat, top = len(x.T) // stride, len(power) - 3                              # cycles per picture
            for k in range(beat, top + 1, beat):                                        # the frequency and its harmonics
                grid += float(power[k])
                around += float(power[[k - 2, k - 1, k + 1, k + 2]].mean())
        values.append(grid / around if around else 1.0)
    return torch.tensor(values)


# ---- the whole ------------------------------------------------------------------------------------------------------

class Rewards:
    """Built once per run: `references` are the character's training pictures, `vqa_model` the frozen base."""
    def __init__(self, options: RewardOptions, references: list[Image.Image], vqa_model: UniModel):
        self.options, self.vqa_model = options, vqa_model
        if not references:
            raise RewardError("no reference pictures: the identity term needs the character's scenes with their images")
        self.clip = ClipJudge(options.clip_judge, vqa_model.device)
        self.identity = IdentityJudge(options.identity_judge, vqa_model.device)
        try:
            self.references = self.identity.look(references)
        except (OSError, AttributeError, ValueError) as error:
            raise RewardError(f"a reference picture cannot be read ({error}); put a whole PNG or JPEG in its place") from None
        self.band = self.choose_band(references)

    def choose_band(self, references: list[Image.Image]) -> tuple[float, float]:
        low, high = self.options.band_low, self.options.band_high
        if low == high == 0:
            if len(references) < 2:
                raise RewardError("one reference picture cannot calibrate the identity band; "
                                  "give --band-low and --band-high, or a second picture")
            return calibrate_band(self.identity, references)
        if not low < high:
            raise RewardError(f"--band-low {low} must be below --band-high {high}; both 0 calibrates them")
        return low, high

    def __call__(self, images: list[Image.Image], prompts: list) -> dict[str, torch.Tensor]:
        """B = P G pictures, group fastest, and P prompts -> named terms (P, G): before weighting, `total` after.
        `likeness` (what the band judges), `grid` and `unasked` (1 = the prompt had no question) are for the log."""
        o, P = self.options, len(prompts)
        G = len(images) // P
        each = [prompt for prompt in prompts for _ in range(G)]
        seen, patches = self.clip.look(images)
        texts = self.clip.read([prompt.text for prompt in prompts]).repeat_interleave(G, 0)
        likeness = nearest(self.identity.look(images), self.references)
        terms = {"vqa": vqa_reward(self.vqa_model, images, each, o.vqa_mode, o.judge_batch),
                 "clip_t": o.clip_scale * (seen * texts).sum(-1),
                 "diversity": diversity(patches.view(P, G, -1)),
                 "identity": identity_band(likeness, *self.band),
                 "likeness": likeness,
                 "grid": grid_energy(images, self.vqa_model.config.stride),
                 "unasked": torch.tensor([float(not prompt.questions) for prompt in each])}
        terms = {name: term.float().cpu().view(P, G) for name, term in terms.items()}
        t = {name: unit_spread(term) for name, term in terms.items()} if o.per_term else terms
        terms["total"] = (o.w_vqa * t["vqa"] + o.w_clip_t * t["clip_t"] + o.w_diversity * t["diversity"]
                          + o.w_identity * t["identity"])
        return terms


def unit_spread(term: torch.Tensor) -> torch.Tensor:
    """(P, G) -> mean 0 and standard deviation 1 in each group; a group without spread becomes 0."""
    centred = term - term.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-4)


def spread(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Standard deviation within a group, mean over the groups: a term that has none teaches nothing, whatever its weight."""
    return {name: float(term.std(1, unbiased=False).mean()) for name, term in terms.items()}
