"""Rewards: pictures, and what they were to show -> named numbers. This is what Character-GRPO climbs.

    r = 0.3 VQA + 0.45 CLIP-T + 0.2 diversity + 0.6 identity band             (the weights stand in RewardOptions)

Each term is first scaled to unit spread in its group, if that is asked for (Rewards.total):

    vqa        the frozen base sees the picture and is asked the prompt's questions: exp(mean log p per token) of the
               expected answers
    clip_t     cosine of the picture and the text of the prompt under CLIP, times clip_scale
    diversity  mean perceptual distance of a picture to the other pictures of its group
    identity   0 while the likeness to the nearest reference lies inside a band, minus twice the overshoot outside.
               Too close is a copy, too far is somebody else. Inside the band it pulls nowhere: it is a guard. Where a
               prompt names somebody else, it punishes more likeness to the character than stage 1 gave them

Where it departs from the published code, numbered as in grpo.py (which tells of 6 and 8) and marked [n] at the line:
1. There, diversity is one number for all pictures of a prompt on a device, so the group mean cancels it. (On several
   devices it is noise from how a group was scattered.) Here each picture has its own: its distance to the others.
3. There, VQA is an exact match with a generated string, never met by an open answer: all get 0 and nothing is learned.
   Here it is exp(mean log p per token, the end included) of the expected answer: its length does not count, and wrong
   is told from very wrong.
4. There, references that cannot be read silently turn the identity term off. Here they are an error.
5. There, references are read and embedded anew at every call. Here once.

Two more judges are reported and never rewarded: `grid`, which shows what a hacked reward does to a picture, and the
attribute reader, of which no reward has heard. To train on either would blind it.

Shapes: P prompts, G pictures of each, B = P * G pictures with the group running fastest, E an embedding, n patches.
"""
import io
import re
import sys
from collections import Counter
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from safetensors import SafetensorError
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoTokenizer, CLIPModel

from backbone.folders import locate, pick_device
from backbone.lora import without_adapters
from backbone.vision import as_drawn
from model import UniModel, pad_rows
from runtime.cli import UserError, say


@dataclass
class RewardOptions:
    w_vqa: float = 0.3                      # weight of the questions' answers
    w_clip_t: float = 0.45                  # weight of the likeness of picture and prompt
    w_diversity: float = 0.2                # weight of the distance to the group (paper: 0.1, terms not normalized)
    w_identity: float = 0.6                 # weight of the identity band (paper: 0.15)
    diversity_per_picture: bool = True      # no: one number for all pictures of a prompt, as published [1]
    vqa: str = "likelihood"                 # exp(mean log p per token); or log, that mean itself: steeper where all are
    #                                         wrong; or exact, as published
    clip_scale: float = 100 / 30            # the paper's logits / 30: a cosine of 0.25 counts 0.83
    band_low: float = 0.0                   # lower end of the identity band (paper: 0.5 of facebook/dinov2-base);
    #                                         both ends 0: calibrated from the references (calibrate_band)
    band_high: float = 0.0                  # upper end of the identity band (paper: 0.9)
    base: str = ""                          # the VQA judge: a UniModel folder; empty = the base of stage 1
    clip_judge: str = "tiny/judge"          # a CLIPModel; the paper: openai/clip-vit-large-patch14
    identity_judge: str = "tiny/identity"   # its CLS token is the identity; the paper: facebook/dinov2-base
    reader: str = "tiny/reader"             # the judge that is only reported; empty = none
    vqa_batch: int = 128                    # questions that the VQA judge reads at once: lower it if memory is short


# ---- judges: frozen networks from `transformers` --------------------------------------------------------------------

def pretrained(kind, name: str, **options):
    try:
        return kind.from_pretrained(locate(name), **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{name}: holds no {kind.__name__} ({why}); give a folder or a hub name") from None


class Judge:
    batch = 64                              # pictures at once

    def __init__(self, kind, name: str, device: str | torch.device = "auto"):
        model, report = pretrained(kind, name, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
        lost = sorted(key for key in report["missing_keys"] if "pooler" not in key)     # no judge here uses a pooler
        if lost:                            # transformers would put random numbers in their place, and judge with them
            raise UserError(f"{name}: {len(lost)} tensors are missing, among them {lost[0]}; get the folder anew")
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
        self.told: set[str] = set()         # texts whose length was looked at

    @torch.no_grad()
    def embed(self, images: list[Image.Image]) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings (B, E) of length 1; and patches (B, n C), scaled so that the dot product of two pictures is the
        mean cosine of their patches."""
        embeddings, patches = [], []
        for pixels in self.batches(images):
            out = self.model.vision_model(pixel_values=pixels, output_hidden_states=True)
            embeddings.append(F.normalize(self.model.visual_projection(out.pooler_output), dim=-1))
            # Not the last layer: only its CLS token is read out, so what it does to the patches was never trained.
            hidden = F.normalize(out.hidden_states[-2][:, 1:], dim=-1)                  # (b, n, C)
            patches.append(hidden.flatten(1) / hidden.shape[1] ** 0.5)
        return torch.cat(embeddings), torch.cat(patches)

    @torch.no_grad()
    def embed_text(self, texts: list[str]) -> torch.Tensor:
        """(B, E), of length 1."""
        most = self.model.config.text_config.max_position_embeddings
        self.tell_long(texts, most)
        words = self.tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt")
        words = {key: words[key].to(self.device) for key in ("input_ids", "attention_mask")}
        out = self.model.text_model(**words)
        return F.normalize(self.model.text_projection(out.pooler_output), dim=-1)

    def tell_long(self, texts: list[str], most: int) -> None:
        """Names once each text that is cut: what stands behind the cut is not judged."""
        for text in sorted(set(texts) - self.told):
            self.told.add(text)
            tokens = len(self.tokenizer(text)["input_ids"])
            if tokens > most:
                say(f'warning: CLIP reads {most} of the {tokens} tokens of "{text}"', sys.stderr)


class IdentityJudge(Judge):
    def __init__(self, name: str = RewardOptions.identity_judge, device: str | torch.device = "auto"):
        super().__init__(AutoModel, name, device)

    @torch.no_grad()
    def embed(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, E), of length 1: the CLS token."""
        tokens = [self.model(pixel_values=pixels).last_hidden_state[:, 0] for pixels in self.batches(images)]
        return F.normalize(torch.cat(tokens), dim=-1)


class AttributeReader(Judge):
    """Names what is in a picture: one softmax for each attribute. For reports alone, never for a reward."""
    def __init__(self, name: str = RewardOptions.reader, device: str | torch.device = "auto"):
        super().__init__(AutoModelForImageClassification, name, device)
        self.columns: dict[str, dict[str, int]] = {}        # category -> value -> column of the logits
        for column, label in self.model.config.id2label.items():
            category, equals, value = label.partition("=")
            if not equals:
                raise UserError(f'{name}: label "{label}" is not of the form "category=value"; take another reader')
            self.columns.setdefault(category, {})[value.lower()] = int(column)

    @torch.no_grad()
    def classify(self, images: list[Image.Image]) -> dict[str, torch.Tensor]:
        """Category -> probabilities (B, values), in the order of self.columns[category]."""
        logits = torch.cat([self.model(pixel_values=pixels).logits for pixels in self.batches(images)])
        return {category: logits[:, list(values.values())].softmax(-1) for category, values in self.columns.items()}

    @torch.no_grad()
    def parts(self, images: list[Image.Image]) -> torch.Tensor:
        """(B, n, C), of length 1: what it sees at n places, one layer before the last."""
        seen = [self.model(pixel_values=pixels, output_hidden_states=True).hidden_states[-2]
                for pixels in self.batches(images)]
        seen = torch.cat([layer.flatten(2).mT if layer.ndim == 4 else layer for layer in seen])
        return F.normalize(seen, dim=-1)

    def known(self, prompt) -> list[tuple[str, str]]:
        """(category, answer) of the questions that it can judge: not those of yes, no or a number."""
        pairs = [(question.category, question.answer.strip().lower()) for question in prompt.questions]
        return [(category, answer) for category, answer in pairs if answer in self.columns.get(category, {})]

    def named(self, sentence: str) -> list[tuple[str, str]]:
        """(category, value) of each value that the sentence has as whole words; but no word that several categories
        have, such as "red"."""
        uses = Counter(value for values in self.columns.values() for value in values)
        return [(category, value) for category, values in self.columns.items() for value in values
                if uses[value] == 1 and re.search(rf"\b{re.escape(value)}\b", sentence.lower())]

    def score(self, images: list[Image.Image], prompts: list) -> torch.Tensor:
        """(B,): the share of a prompt's known questions that the picture answers right; nan where it knows none."""
        found = {category: p.argmax(-1).tolist() for category, p in self.classify(images).items()}
        names = {category: list(values) for category, values in self.columns.items()}
        shares = []
        for b, prompt in enumerate(prompts):
            right = [names[category][found[category][b]] == answer for category, answer in self.known(prompt)]
            shares.append(sum(right) / len(right) if right else torch.nan)
        return torch.tensor(shares)


# ---- the four terms, and the picture's health -----------------------------------------------------------------------

@torch.no_grad()
def answer_log_p(model: UniModel, images: list, asked: list[list[tuple[str, str]]], batch=128) -> list[torch.Tensor]:
    """Mean log p per token, the end included, of every (question, answer) asked about each picture (None: about none).
    -> a tensor (questions,) for each picture. The questions of a batch share their picture, which is read once."""
    rows = [(i, question, answer) for i, pairs in enumerate(asked) for question, answer in pairs]
    scores = [torch.zeros(0, device=model.device)]
    for at in range(0, len(rows), batch):
        some = rows[at:at + batch]
        first, last = some[0][0], some[-1][0]
        context = model.context([None] * (last - first + 1), images[first:last + 1])
        context = context.rows(torch.tensor([i - first for i, _, _ in some], device=model.device))
        examples = model.readings([question for _, question, _ in some], None, [answer for _, _, answer in some])
        ids = pad_rows([e.ids for e in examples]).to(model.device)            # padding is last, so nobody sees it
        labels = pad_rows([e.labels for e in examples], -100).to(model.device)
        hidden, _ = model.extend(context, ids)
        nll, tokens = model.cross_entropy(hidden, labels)
        scores.append(-nll / tokens)
    return list(torch.cat(scores).split([len(pairs) for pairs in asked]))


def exact_answers(judge: UniModel, images: list, asked: list, batch: int) -> list[torch.Tensor]:
    """1 where the generated answer is the expected one to the letter, as published; -> as `answer_log_p`."""
    rows = [(question, image, answer) for image, pairs in zip(images, asked) for question, answer in pairs]
    said = []
    for at in range(0, len(rows), batch):
        some = rows[at:at + batch]
        questions, pictures = [row[0] for row in some], [row[1] for row in some]
        said += judge.generate_text(questions, pictures, max_tokens=24)
    hits = [float(text.strip().lower() == answer.strip().lower()) for text, (_, _, answer) in zip(said, rows)]
    return list(torch.tensor(hits).split([len(pairs) for pairs in asked]))


def vqa_reward(judge: UniModel, images: list, prompts: list, mode="likelihood", batch=128) -> torch.Tensor:
    """(B,): weighted mean over the questions of a picture's prompt; 0 where there is no question. [3]"""
    asked = [[(question.question, question.answer) for question in prompt.questions] for prompt in prompts]
    if mode == "exact":
        values = exact_answers(judge, images, asked, batch)
    elif mode == "log":
        values = answer_log_p(judge, images, asked, batch)
    elif mode == "likelihood":
        values = [log_p.exp() for log_p in answer_log_p(judge, images, asked, batch)]
    else:
        raise UserError(f"--vqa {mode}: choose likelihood, log or exact")
    means = []
    for prompt, value in zip(prompts, values):
        weights = torch.tensor([question.weight for question in prompt.questions])
        means.append((weights * value.cpu()).sum() / weights.sum() if len(weights) else torch.zeros(()))
    return torch.stack(means)


def diversity(patches: torch.Tensor, among: torch.Tensor | None = None) -> torch.Tensor:
    """Patches (P, G, n C) -> (P, G): mean distance of a picture to the OTHERS of its group; 0 for one alone. [1]
    With `among` (P, G), only pictures that it marks are compared; nan for the rest and for one alone."""
    distance = 1 - patches @ patches.transpose(1, 2)                                    # (P, G, G)
    pairs = ~torch.eye(patches.shape[1], dtype=torch.bool, device=patches.device)
    if among is not None:
        pairs = pairs & among[:, None] & among[:, :, None]
    mean = (distance * pairs).sum(-1) / pairs.sum(-1).clamp(min=1)
    return mean if among is None else mean.where(pairs.any(-1), torch.nan)


def nearest(embeddings: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """(B, E), (R, E) -> (B,): largest cosine to any reference."""
    return (embeddings @ references.T).amax(-1)


def nearest_other(embeddings: torch.Tensor) -> torch.Tensor:
    """(R, E) -> (R,): largest cosine to any of the others; nan for one alone."""
    if len(embeddings) < 2:
        return torch.full((len(embeddings),), torch.nan)
    return (embeddings @ embeddings.T).fill_diagonal_(-torch.inf).amax(-1)


def identity_band(likeness: torch.Tensor, low: float, high: float | torch.Tensor) -> torch.Tensor:
    """0 inside the band, minus twice the overshoot outside; any shape."""
    return -2 * (F.relu(low - likeness) + F.relu(likeness - high))


def calibrate_band(references: torch.Tensor) -> tuple[float, float]:
    """References (R, E) -> the identity band (low, high), for a judge whose cosines mean something else than DINOv2's.
    The tiny one knows a small world, in which even strangers are alike.

    The likeness m of each reference to its nearest other tells what a new, real picture of this character scores.
    low: the median of m less one and a half times the median distance from it, as what is drawn is a little softer than
    what is real. (One odd reference hardly moves either. The smallest m it would be, and a standard deviation it would widen until
    strangers pass: docs/choices.md.) high: half way from the largest m to 1, an exact copy's."""
    m = nearest_other(references)
    middle = m.quantile(0.5)
    return float(middle - 1.5 * (m - middle).abs().quantile(0.5)), float((m.max() + 1) / 2)


def oddness(parts: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """Parts (B, n, C) of pictures and (R, n, C) of true ones -> (B,): mean distance of a part to the most like part of
    any true picture (as PatchCore, arXiv 2106.08265). A smeared face has parts that no true picture has."""
    return 1 - (parts @ true.flatten(0, 1).T).amax(-1).mean(-1)


def grid_energy(images: list[Image.Image], stride: int) -> torch.Tensor:
    """(B,): the energy of edges that repeat with the latent grid, against that of edges that repeat nearly as often; 1
    in a sound picture. A hacked reward prints a border round each latent token. Absolute differences find it whatever
    its sign, and the neighbouring frequencies tell how much the scene itself has there."""
    return torch.tensor([grid_energy_of(image, stride) for image in images])


def grid_energy_of(image: Image.Image, stride: int) -> float:
    width, height = (side // stride * stride for side in image.size)
    gray = torch.from_numpy(np.asarray(image.convert("L").crop((0, 0, width, height)), dtype=np.float32))
    grid = around = 0.0
    for x in (gray, gray.T):
        edges = x.diff(dim=1, prepend=x[:, :1]).abs().mean(0)                 # a profile along one axis
        power = torch.fft.rfft(edges).abs()
        beat = x.shape[1] // stride                                           # the grid's cycles per picture
        for k in range(beat, len(power) - 2, beat):                           # that frequency and its harmonics
            grid += float(power[k])
            around += float(power[[k - 2, k - 1, k + 1, k + 2]].mean())
    return grid / around if around else 1.0


# ---- the whole ------------------------------------------------------------------------------------------------------

class Rewards:
    """Made once per run. `references`: the character's training pictures; `vqa_model`: the frozen base."""
    def __init__(self, options: RewardOptions, references: list[Image.Image], vqa_model: UniModel):
        if not references:
            raise UserError("no reference pictures: the identity term needs the character's scenes with their images")
        device = vqa_model.device
        self.options, self.vqa_model = options, vqa_model
        self.weights = {field.name.removeprefix("w_"): getattr(options, field.name) for field in fields(RewardOptions)
                        if field.name.startswith("w_")}                       # of the terms that are climbed
        self.clip = ClipJudge(options.clip_judge, device)
        self.identity = IdentityJudge(options.identity_judge, device)
        self.reader = AttributeReader(options.reader, device) if options.reader else None
        try:                                                                  # [4]
            fitted = [as_drawn(image, vqa_model.config) for image in references]
        except (OSError, AttributeError, ValueError) as error:
            raise UserError(f"a reference picture cannot be read ({error}); put a whole PNG or JPEG there") from None
        self.references = self.identity.embed(fitted)                         # [5]
        self.band = options.band_low, options.band_high
        if self.band == (0, 0):
            self.band = calibrate_band(self.references)
        if not self.band[1] - self.band[0] > 1e-4:                            # nan too: from a single reference
            raise UserError(f"identity band {self.band}: give two pictures or more that differ, or a band_low "
                            "below band_high")
        self.noise = {}                                                       # of each term: see measure_noise

    def measure_noise(self, images: list[Image.Image], prompts: list) -> dict[str, float]:
        """How far a term moves between pictures that nobody could tell apart: its judge's own noise. It becomes the
        floor of `unit_spread`. Without a floor a term that hardly varies in a group is blown up to full weight, and the
        policy climbs noise (the "illusory advantage" of Pref-GRPO, arXiv 2508.20751).
        -> term: median over up to six images of the standard deviation over their variants."""
        P = min(6, len(images), len(prompts))
        fitted = [as_drawn(image, self.vqa_model.config) for image in images[:P]]
        twins = [twin for image in fitted for twin in indistinguishable(image)]
        terms = self(twins, prompts[:P])
        patches = self.clip.embed(twins)[1].unflatten(0, (P, -1))
        terms["diversity"] = distance_to_firsts(patches).cpu()                # twins are compared with other pictures
        self.noise = {name: float(terms[name].std(1, correction=0).median()) for name in self.weights}
        return self.noise

    def likeness(self, images: list[Image.Image]) -> torch.Tensor:
        """(B,): largest cosine to any reference."""
        return nearest(self.identity.embed(images), self.references)

    def total(self, terms: dict[str, torch.Tensor], normalize: bool) -> torch.Tensor:
        """The weighted sum, (P, G). `normalize` first gives every term unit spread in its group, so that a weight says
        how much its term counts, and none drowns the others with larger numbers (GDPO, arXiv 2601.05242). [6]"""
        total = 0.0
        for name, weight in self.weights.items():
            term = unit_spread(terms[name], self.noise.get(name, 0.0)) if normalize else terms[name]
            total = total + weight * term
        return total

    def __call__(self, images: list[Image.Image], prompts: list) -> dict[str, torch.Tensor]:
        """B = P G pictures, group fastest, and P prompts -> terms (P, G): each before weighting, and their `total`
        (as they come, not normalized). For the log alone: `likeness`, which the band judges; `grid`; `unasked`, 1 where
        a prompt has no question."""
        P, G, o = len(prompts), len(images) // len(prompts), self.options
        prompt_of_each = [prompt for prompt in prompts for _ in range(G)]
        seen, patches = self.clip.embed(images)
        texts = self.clip.embed_text([prompt.text for prompt in prompts]).repeat_interleave(G, 0)
        likeness = self.likeness(images)
        stranger = torch.tensor([prompt.stranger for prompt in prompt_of_each], device=likeness.device)
        ceiling = torch.tensor([prompt.ceiling for prompt in prompt_of_each], device=likeness.device)
        hers, theirs = identity_band(likeness, *self.band), identity_band(likeness, -1.0, ceiling)
        with without_adapters(self.vqa_model) as judge:
            vqa = vqa_reward(judge, images, prompt_of_each, o.vqa, o.vqa_batch)
        distances = diversity(patches.view(P, G, -1))
        if not o.diversity_per_picture:
            distances = distances.mean(1, keepdim=True).expand(P, G)
        terms = {
            "vqa": vqa,
            "clip_t": o.clip_scale * (seen * texts).sum(-1),
            "diversity": distances,
            "identity": torch.where(stranger, theirs, hers),                                               # [8]
            "likeness": likeness,
            "grid": grid_energy(images, self.vqa_model.config.stride),
            "unasked": torch.tensor([float(not prompt.questions) for prompt in prompt_of_each])}
        terms = {name: term.float().cpu().view(P, G) for name, term in terms.items()}
        return terms | {"total": self.total(terms, normalize=False)}


def unit_spread(term: torch.Tensor, noise: float = 0.0) -> torch.Tensor:
    """(P, G) -> mean 0 in each group, and standard deviation 1 where it is above the judge's own `noise`; below that,
    in proportion less [6]. A group without any spread becomes 0."""
    centred = term - term.mean(1, keepdim=True)
    std = term.std(1, keepdim=True, correction=0)
    return centred / std.clamp(min=max(noise, 1e-4))


def indistinguishable(image: Image.Image) -> list[Image.Image]:
    """A picture and seven twins of it: shifted by one pixel, a little darker and lighter, and through a JPEG."""
    twins = [image]
    for x, y in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        moved = image.copy()                                                  # its own edge stays behind the shift
        moved.paste(image, (x, y))
        twins.append(moved)
    twins += [ImageEnhance.Brightness(image).enhance(factor) for factor in (0.97, 1.03)]
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return [*twins, Image.open(buffer).convert("RGB")]


def distance_to_firsts(patches: torch.Tensor) -> torch.Tensor:
    """Patches (P, G, n C) -> (P, G): mean distance of each picture to the first picture of the OTHER groups."""
    P = len(patches)
    distance = 1 - patches @ patches[:, 0].T                                              # (P, G, P)
    others = ~torch.eye(P, dtype=torch.bool, device=patches.device)[:, None]
    return (distance * others).sum(-1) / max(1, P - 1)


def spread(terms: dict[str, torch.Tensor]) -> dict[str, float]:
    """Standard deviation in a group, mean over groups: a term that has none teaches nothing, whatever its weight."""
    return {name: float(term.std(1, correction=0).mean()) for name, term in terms.items()}
