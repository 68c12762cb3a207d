"""Makes the embedded base from nothing but code: renders the world, then trains everything that tiny/ holds.

    python tiny/pretrain.py                  all stages, in order, four hours on two cores (not yet run whole)
    python tiny/pretrain.py --only ae        one stage; --steps-base 100 for a quick look

Stages: world (renders pictures) -> tokenizer -> ae (autoencoder) -> latents -> decoder (of the autoencoder, longer)
-> worn (pictures as the canvas gives them back) -> eye (the vision tower, alone) -> base (the unified model)
-> judge (CLIP, for rewards) -> identity (who is it, for rewards) -> reader (attributes, for reports alone)
-> export (half precision into tiny/) -> examine (what the base draws, as the reader sees it). pictures.py keeps what
all learn from, judges.py describes all that look.
Every stage saves as it goes and can be killed at any moment: the same command goes on where it was. Logs are JSON
lines, sample sheets PNG, all in --work. A reader of the method never needs this file.
"""
import argparse
import json
import math
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from backbone.folders import load, save  # noqa: E402
from backbone.vision import AutoEncoder, to_images  # noqa: E402
from data import Sample, draw_prompt, plan_text, reply_prompt, think_prompt  # noqa: E402
from model import SPECIAL, Config, UniModel, pad_rows, patchify, shift_time  # noqa: E402
from runtime import processes  # noqa: E402
from runtime.cli import keep_freed_memory  # noqa: E402
from runtime.files import write_beside  # noqa: E402
from tiny import language, world  # noqa: E402
from tiny.judges import HALF_COLORS, JUDGES, retold  # noqa: E402
from tiny.pictures import (  # noqa: E402
    World,
    autocast,
    finished_ae,
    generic_image,
    latents_shape,
    scaled_config,
    to_unit,
    write_text,
)

HERE = Path(__file__).resolve().parent
STAGES = ("world", "tokenizer", "ae", "latents", "decoder", "worn", "eye", "base", "judge", "identity", "reader",
          "export", "examine")
SHIFT = 5.0                                                # of t: where a prompt still changes something, t > 0.6
MUON_LR = 3e-3                                             # of the base's matrices inside layers; the rest has AdamW
DESCRIBE = ("Describe this picture.", "What do you see?", "What is in the picture?", "Say what the picture shows.")


# ---- bookkeeping shared by all stages -------------------------------------------------------------------------------

class Trainer:
    """A loop that saves and resumes: modules, optimizers, an average of the weights, a seed for every step.

    On several processes each makes its own share of a batch, gradients are averaged, and the first one writes. On a CPU
    one process a core drew 1.4 times as many pictures a second as one process with two threads: Python and the small
    operations between the products use one core only."""

    def __init__(self, work: Path, name: str, module, steps: int, lr: float, muon_lr=0.0, decay=0.01, ema=0.999):
        self.file, self.log_file = work / f"{name}.state", work / f"{name}.jsonl"
        self.module, self.steps, self.ema_rate, self.step = module, steps, ema, 0
        self.params = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.params.items()}
        # Muon makes the update of a weight matrix orthogonal. For matrices inside layers only; tables, heads, vectors
        # keep AdamW.
        inner = {n for n, p in self.params.items() if muon_lr and p.ndim == 2 and "layer" in n}
        rest = [p for n, p in self.params.items() if n not in inner]
        groups = [{"params": [p for p in rest if p.ndim > 1], "weight_decay": decay},
                  {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]
        self.optimizers = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]
        if inner:
            self.optimizers.append(torch.optim.Muon([self.params[n] for n in sorted(inner)], lr=muon_lr,
                                                    weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        self.peaks = [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.step, self.average = state["step"], state["average"]
            module.load_state_dict(state["weights"], strict=False)
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    def save(self):
        state = {"step": self.step, "average": self.average,
                 "weights": {n: p.detach() for n, p in self.params.items()},
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        write_beside(self.file, lambda path: torch.save(state, path))

    def log(self, row: dict):
        with open(self.log_file, "a") as f:
            f.write(json.dumps(row) + "\n")

    @torch.no_grad()
    def use_average(self):
        for n, p in self.params.items():
            p.copy_(self.average[n])

    @contextmanager
    def averaged(self):
        """For a look at the averaged weights in the middle of a run."""
        kept = {n: p.detach().clone() for n, p in self.params.items()}
        self.use_average()
        yield
        with torch.no_grad():
            for n, p in self.params.items():
                p.copy_(kept[n])

    def rate(self) -> float:
        """Share of the peak: warm-up, constant for a fifth of the way, then down in a line to one hundredth."""
        return min(1.0, (self.step + 1) / 100, 0.01 + 1.25 * max(0.0, 1 - self.step / self.steps))

    def average_gradients(self):
        """Over processes: the gradient of the mean of their losses."""
        if processes.world_size() == 1:
            return
        grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.params.values()]
        flat = torch.cat([g.flatten() for g in grads]) / processes.world_size()
        dist.all_reduce(flat)
        for p, part in zip(self.params.values(), flat.split([g.numel() for g in grads])):
            p.grad = part.view_as(p)

    def run(self, loss_of, sheet=None, sheet_every=500):
        """loss_of(step, rng) -> dict of numbers to log; it has sent its loss backwards already. Saves every 100
        steps."""
        start, first, seen, writes = time.time(), self.step, {}, processes.rank() == 0
        while self.step < self.steps:
            for optimizer, peak in zip(self.optimizers, self.peaks):
                for group in optimizer.param_groups:
                    group["lr"] = peak * self.rate()
            seed = self.step * processes.world_size() + processes.rank()
            torch.manual_seed(seed)
            with sdpa_kernel(SDPBackend.MATH):             # on a CPU the fused kernel's backward pass is slow
                losses = loss_of(self.step, random.Random(seed))
            for k, v in losses.items():
                seen.setdefault(k, []).append(float(v))
            self.average_gradients()
            torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.step += 1
            keep = min(self.ema_rate, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.params.values()], 1 - keep)
            if not writes:
                continue
            if self.step % 50 == 0:
                seconds = time.time() - start
                row = {"step": self.step, "seconds": round(seconds, 1),
                       "per_step": round(seconds / (self.step - first), 3),
                       **{k: round(sum(v) / len(v), 5) for k, v in seen.items()}}
                seen = {}
                self.log(row)
                print(self.file.stem, row, flush=True)
            if self.step % 100 == 0 or self.step == self.steps:
                self.save()
            if sheet and (self.step % sheet_every == 0 or self.step == self.steps):
                sheet(self.step)


def sheet_of(rows: list[list[Image.Image]], path: Path):
    """A contact sheet: a list of rows of equal pictures."""
    w, h = rows[0][0].size
    out = Image.new("RGB", (w * len(rows[0]), h * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            out.paste(image, (x * w, y * h))
    write_beside(path, lambda p: out.save(p, "PNG"))


# ---- tokenizer ------------------------------------------------------------------------------------------------------

def english() -> list[str]:
    """Ordinary English that every Python installation carries: the documentation of the standard library's modules."""
    import pkgutil
    import pydoc_data.topics as topics
    texts = list(topics.topics.values())
    root = Path(json.__file__).resolve().parent.parent
    for module in sorted(m.name for m in pkgutil.iter_modules([str(root)])):
        path = root / f"{module}.py"
        if path.exists():
            texts += path.read_text(errors="ignore").split('"""')[1::2]
    return texts


def paragraphs() -> list[str]:
    """Of that, what is prose: a table, an example or a list has too many other signs."""
    parts = [" ".join(part.split()) for text in english() for part in text.split("\n\n")]
    return [p for p in parts if len(p) > 150 and sum(c.isalpha() or c in " ,.'" for c in p) > 0.95 * len(p)]


def world_text(rng) -> str:
    p = language.random_persona(rng)
    user, reply = language.chat(p, rng)
    _, u, r, thinking, instruction, draw = language.moment(p, rng)
    scene = world.random_scene(rng)
    asked = [f"{q} {a}" for q, a, _ in world.questions(scene, rng)]
    know = [" ".join(language.knowledge(p, kind, rng)) for kind in language.facts(p)]
    told = reply_prompt(p.name, language.description(p, rng), language.opening(p, rng), user)
    return "\n".join([told, reply,
                      think_prompt(p.name, "", u, r), plan_text(thinking, instruction), draw, language.profile(p),
                      world.caption(scene, rng), *rng.sample(asked, min(4, len(asked))), *rng.sample(know, 4),
                      language.stories(rng)])


def make_tokenizer(work: Path):
    """Byte-level BPE: half its examples from the world's language, half ordinary English; nothing is unencodable."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast
    rng = random.Random(0)
    texts = english()
    ours, size = [], 0
    while size < sum(map(len, texts)) // 2:
        ours.append(world_text(rng))
        size += len(ours[-1])
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    bpe.train_from_iterator(texts + ours, trainers.BpeTrainer(
        vocab_size=Config.vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(SPECIAL), show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[1], pad_token=SPECIAL[1],
                                   additional_special_tokens=list(SPECIAL))
    fast.save_pretrained(work / "tokenizer")


# ---- autoencoder ----------------------------------------------------------------------------------------------------

class Crops:
    """64 x 64 pixels of 32 pictures, a fifth of them not of the world: the network is local, and many pictures per step
    teach more."""

    def __init__(self, pictures: World):
        self.pictures = pictures
        self.generic = np.stack([generic_image(np.random.default_rng(i)) for i in range(1500)])

    def batch(self, rng) -> torch.Tensor:
        crops = []
        for _ in range(32):
            own = rng.random() >= 0.2
            image = self.pictures.pixels[self.pictures.train(rng)] if own else rng.choice(self.generic)
            y, x = rng.randrange(65), rng.randrange(65)
            crops.append(np.asarray(image[y:y + 64, x:x + 64]))
        return to_unit(np.stack(crops))


def train_ae(work: Path, args, pictures: World):
    torch.manual_seed(0)
    ae = AutoEncoder(Config())
    trainer = Trainer(work, "ae", ae, args.steps_ae, 2e-3)
    crops, held_out = Crops(pictures), pictures.batch(range(64))

    def loss_of(step, rng):
        x = crops.batch(rng)
        with autocast():
            mean, std = ae.encode(x)
            y = ae.decode(mean + std * torch.randn_like(mean))
        mean, std, error = mean.float(), std.float(), y.float() - x
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.clamp(min=1e-6).log()).mean()
        # a strong KL: latents smooth enough for a small model to draw
        loss = error.abs().mean() + 2 * error.square().mean() + 0.02 * kl
        loss.backward()
        return {"loss": loss.detach(), "l1": error.detach().abs().mean(), "kl": kl.detach()}

    def sheet(step):
        canvas_sheet(ae, held_out, trainer, work / "ae.png")

    trainer.run(loss_of, sheet)
    trainer.use_average()
    with torch.no_grad():
        # The wide posterior has made the decoder patient; as a target of the flow it would be noise that no network
        # can predict, two fifths of the variance. A fifth of its width is left.
        ae.encoder.conv_out.bias[Config.z_channels:] -= 2 * math.log(5)
    sheet(trainer.step)
    with torch.no_grad():                                  # unit variance and zero mean for the flow
        index = range(0, pictures.count, pictures.count // 500)
        z = torch.cat([ae.encode(pictures.batch(index[k:k + 50]))[0] for k in range(0, len(index), 50)])
    write_text(work / "scale.json", json.dumps({"scale_factor": float(1 / z.std()), "shift_factor": float(z.mean())}))
    save_canvas(ae, work)


def save_canvas(ae: AutoEncoder, work: Path):
    weights = {k: v.contiguous() for k, v in ae.state_dict().items()}
    write_beside(work / "ae.safetensors", lambda p: save_file(weights, p))


@torch.no_grad()
def canvas_sheet(ae: AutoEncoder, held_out, trainer: Trainer, path: Path):
    """Pictures and what the canvas makes of them, and how near that is."""
    with autocast():
        y = ae.decode(ae.encode(held_out)[0]).float().clamp(-1, 1)
    psnr = float((-10 * ((y - held_out) / 2).square().mean((1, 2, 3)).log10()).mean())
    print(f"{path.stem} step {trainer.step}: {psnr:.2f} dB on 64 held-out pictures", flush=True)
    trainer.log({"step": trainer.step, "psnr": round(psnr, 2)})
    sheet_of([to_images(part) for part in (held_out[:8], y[:8], held_out[8:16], y[8:16])], path)


def train_decoder(work: Path, args, pictures: World):
    """The decoder alone, once the latents are fixed: longer, at edges too, and from latents a little off, since what a
    flow draws is never exact. The encoder and so the base know nothing of it."""
    ae = finished_ae(work)
    ae.decoder.requires_grad_(True)
    trainer = Trainer(work, "decoder", ae, args.steps_decoder, 1e-3)
    crops, held_out = Crops(pictures), pictures.batch(range(64))

    def loss_of(step, rng):
        x = crops.batch(rng)
        with torch.no_grad(), autocast():
            mean, std = ae.encode(x)
        off = 0.25 * torch.rand(32, 1, 1, 1) ** 2
        with autocast():
            y = ae.decode(mean + (std + off) * torch.randn_like(mean))
        error = y.float() - x
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        loss = error.abs().mean() + 2 * error.square().mean() + 0.5 * edges
        loss.backward()
        return {"loss": loss.detach(), "l1": error.detach().abs().mean()}

    def sheet(step):
        with trainer.averaged():
            canvas_sheet(ae, held_out, trainer, work / "decoder.png")
            if step == trainer.steps:
                save_canvas(ae, work)

    trainer.run(loss_of, sheet)


# ---- the base: drawing, looking and talking in one mixture ----------------------------------------------------------

class Mixture:
    """Samples of every task, made on the spot from item numbers; a micro-batch holds tasks of like length."""

    def __init__(self, pictures: World):
        self.pictures = pictures
        rng = random.Random(5)         # known people: what they like is learned by heart, and asked in many wordings
        self.known = [language.random_persona(rng) for _ in range(64)]
        self.prose = paragraphs()

    def t2i(self, rng) -> tuple[str, int]:
        """A prompt, and the number of the picture that it asks for."""
        i = self.pictures.mixed(rng)
        scene, persona, moment = self.pictures.item(i)
        keep = rng.choice((1.0, 1.0, 0.8, 0.5))
        if moment and rng.random() < 0.5:
            instruction, draw = moment[4:]
            return rng.choice((instruction, draw, f"{language.description(persona, rng)}\n{draw}")), i
        subject = None
        if moment or rng.random() < 0.3:
            name = persona.name if persona else rng.choice(self.known).name
            subject = rng.choice((name, f"{name} the {scene.fur} {scene.species}", f"{name}, a {scene.species},"))
        return world.caption(scene, rng, subject=subject, keep=keep), i

    def t2i_long(self, rng) -> tuple[str, int]:
        i = self.pictures.train(rng, moments=True)
        _, p, (_, user, reply, thinking, instruction, _) = self.pictures.item(i)
        plan = (thinking, instruction) if rng.random() < 0.5 else ()
        return draw_prompt(p.name, language.description(p, rng), user, reply, *plan), i

    def near_miss(self, rng) -> tuple[str, int, Image.Image]:
        """As `t2i`, and the same picture with up to three told things otherwise: mostly colors."""
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject, seed = persona.name if persona and rng.random() < 0.5 else None, rng.random()

        def caption(scene):
            return world.caption(scene, random.Random(seed), subject=subject)

        near = scene
        for _ in range(rng.randint(1, 3)):
            near, _ = retold(near, caption, rng, HALF_COLORS)
        return caption(scene), i, world.draw(near)

    def look(self, rng) -> Sample:
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject = persona.name if persona and rng.random() < 0.7 else None
        return Sample("vqa", rng.choice(DESCRIBE), world.caption(scene, rng, subject=subject),
                      image=self.pictures.image(i))

    def ask(self, rng, open_ones=7, others=3) -> tuple[Image.Image, list[Sample]]:
        """A picture, and questions about it: more open ones than of yes or no, which teach less."""
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject = persona.name if persona and rng.random() < 0.7 else None
        asked = world.questions(scene, rng, subject=subject)
        closed = [pair for pair in asked if pair[1] in ("yes", "no")]
        wide = [pair for pair in asked if pair[1] not in ("yes", "no")]
        chosen = rng.sample(wide, min(len(wide), open_ones)) + rng.sample(closed, min(len(closed), others))
        return self.pictures.image(i), [Sample("vqa", question, answer) for question, answer, _ in chosen]

    def text(self, rng) -> Sample:
        if rng.random() < 0.15:                            # plain English: go on where a paragraph was cut
            words = rng.choice(self.prose).split()
            begin = rng.randrange(max(1, len(words) - 50))
            cut = begin + rng.randint(3, 12)
            return Sample("reply", " ".join(words[begin:cut]), " ".join(words[cut:begin + 60]))
        p, kind = rng.choice(self.known) if rng.random() < 0.3 else language.random_persona(rng), rng.random()
        if kind < 0.4:
            user, reply = language.chat(p, rng)
            history = ()
            if rng.random() < 0.3:
                before = language.chat(p, rng)
                history = (("User", before[0]), (p.name, before[1]))
            description, opening = language.description(p, rng), language.opening(p, rng)
            return Sample("reply", reply_prompt(p.name, description, opening, user, history), reply)
        if kind < 0.55:
            _, user, reply, thinking, instruction, _ = language.moment(p, rng)
            asked = think_prompt(p.name, language.description(p, rng), user, reply)
            return Sample("think", asked, plan_text(thinking, instruction))
        if kind < 0.9:                                     # closed book about known people, open book about strangers
            known, fact = rng.random() < 0.7, rng.choice(list(language.facts(p)))
            p = rng.choice(self.known) if known else p
            question, answer = language.knowledge(p, fact, rng)
            asked = question if known else f"{language.statement(p, fact, rng)}\n{question}"
            return Sample("knowledge", asked, answer)
        asked = rng.choice(("Tell me something.", "Tell me a story.", "Say something."))
        return Sample("reply", asked, language.stories(rng))


def flow_loss(model: UniModel, rows: list[tuple[str, int]], latents, copies: int, drop=0.1):
    """Pictures and their prompts. Each prompt is read once and serves `copies` noised versions of its picture at
    different t: the text costs as much as the picture, and it is the t and the noise that the gradient varies with."""
    prompts = [prompt if keep else None for (prompt, _), keep in zip(rows, torch.rand(len(rows)) >= drop)]
    known = torch.from_numpy(np.stack([latents[i] for _, i in rows])).float()             # (n, 2, Z, 16, 16)
    mean, std = known.repeat_interleave(copies, 0).unbind(1)
    x0 = patchify(mean + std * torch.randn_like(mean), model.config.latent_patch_size)
    return velocity_loss(model, prompts, x0, x0, copies)


def velocity_loss(model: UniModel, prompts: list, x0, shown, copies: int, t_min=0.0):
    """Mean squared error of the velocity from `shown`, noised to t >= t_min, to x0: x_t - t v = x0. Where both are one,
    that is noise - x0. Latents (n copies, N, d)."""
    t, noise = shift_time(torch.sigmoid(torch.randn(len(x0))), SHIFT).clamp(min=t_min), torch.randn_like(x0)
    t_ = t[:, None, None]
    x_t = (1 - t_) * shown + t_ * noise
    v = model.velocity(x_t, t, model.context(prompts).repeat(copies))
    return (v - (x_t - x0) / t_).square().mean()


def mend_loss(model: UniModel, rows: list[tuple[str, int, Image.Image]], latents, copies: int):
    """The velocity that leads from a noised near miss to the picture that was asked for. All else is in sight, so what
    moves the weights is which words belong to which thing: from pictures alone a small model learns that red is
    somewhere, long before it learns where. And what a first step drew wrong, the next ones mend."""
    prompts, index, near = zip(*rows)
    with torch.no_grad():
        near = model.vae.encode(to_unit(np.stack(near)))[0].float().repeat_interleave(copies, 0)
    known = torch.from_numpy(np.stack([latents[i, 0] for i in index])).float().repeat_interleave(copies, 0)
    x0, miss = (patchify(z, model.config.latent_patch_size) for z in (known, near))
    return velocity_loss(model, list(prompts), x0, miss, copies, t_min=0.5)


def ask_loss(model: UniModel, rows: list[tuple[Image.Image, list[Sample]]]):
    """Mean cross-entropy of the answers. A picture is read once and serves all its questions, each apart."""
    images, asked = zip(*rows)
    context = model.context([None] * len(images), list(images))
    owner = torch.tensor([i for i, samples in enumerate(asked) for _ in samples])
    examples = [model.prepare(sample) for samples in asked for sample in samples]
    ids, labels = pad_rows([e.ids for e in examples]), pad_rows([e.labels for e in examples], -100)
    nll, tokens = model.cross_entropy(model.extend(context.rows(owner), ids)[0], labels)
    return nll.sum() / tokens.sum()


def tiny_model(work: Path, begin: Path | None) -> UniModel:
    """Fresh weights, or those of a base that was exported before; with the trained eye and canvas, which stay as they
    are. (An eye that learned on with the base at the base's rates forgot what it knew: of 12 species a linear probe
    then found 29 % in its features.)"""
    from transformers import AutoTokenizer
    torch.manual_seed(1)
    if begin:
        model = load(begin, "cpu").float()
    else:
        model = UniModel(scaled_config(work), AutoTokenizer.from_pretrained(work / "tokenizer"))
        model.init_weights()
    model.vae.load_state_dict(load_file(work / "ae.safetensors"))
    model.vit_model["vision_model"].load_state_dict(load_file(work / "eye.safetensors"))
    for fixed in (model.vae, model.vit_model, model.latent_pos_embed, model.vit_pos_embed):
        fixed.requires_grad_(False)
    return model


def train_base(work: Path, args, pictures: World):
    latents = np.memmap(work / "latents.f16", np.float16, "r", shape=latents_shape(pictures))
    model = tiny_model(work, args.base_from)
    mixture = Mixture(pictures)
    trainer = Trainer(work, "base", model, args.steps_base, 2.5e-3 * args.rate, MUON_LR * args.rate)
    W = processes.world_size()                                   # the numbers are of all processes together
    # name, maker, number, micro-batch, weight, and every so many steps: a long prompt costs as much as three short ones
    # Words weigh little: with losses weighted alike a fiftieth of what moves the und expert's MLPs came from drawing.
    flow = partial(flow_loss, model, latents=latents, copies=3)
    draws = (("t2i", mixture.t2i, flow, 24 // W, 12, 1.0, 1), ("long", mixture.t2i_long, flow, 4 // W, 4 // W, 0.4, 2),
             ("mend", mixture.near_miss, partial(mend_loss, model, latents=latents, copies=2), 16 // W, 8, 1.0, 1))
    words = (("look", mixture.look, 8 // W, 8, 0.02), ("text", mixture.text, 24 // W, 12, 0.05))

    def loss_of(step, rng):
        """A part's loss is a mean over its own tokens, times its weight; like lengths together, for little padding."""
        out = {}
        for name, make, drawing, n, size, w, every in draws:
            if step % every:
                continue
            rows, out[name] = sorted((make(rng) for _ in range(n)), key=lambda row: len(row[0])), 0.0
            for some in (rows[i:i + size] for i in range(0, n, size)):
                with autocast():
                    loss = drawing(some) * size / n
                (w * loss).backward()
                out[name] += loss.item()
        with autocast():
            loss = ask_loss(model, [mixture.ask(rng) for _ in range(24 // W)])
        (0.12 * loss).backward()
        out["ask"] = loss.item()
        for name, make, n, size, w in words:
            examples = sorted((model.prepare(make(rng)) for _ in range(n)), key=lambda e: len(e.ids))
            tokens, out[name] = sum(int((e.labels >= 0).sum()) for e in examples), 0.0
            for some in (examples[i:i + size] for i in range(0, n, size)):
                with autocast():
                    loss = model(some).ce.sum() / tokens
                (w * loss).backward()
                out[name] += loss.item()
        return out

    def sheet(step):
        scenes, truth = [pictures.item(i)[0] for i in range(16)], [pictures.image(i) for i in range(16)]
        with trainer.averaged():
            with autocast():
                drawn = model.sample_images([world.caption(s, random.Random(0)) for s in scenes], list(range(16)), 15)
            sheet_of([drawn[:8], truth[:8], drawn[8:], truth[8:]], work / "base.png")
            right = probe_vqa(model, pictures)
            print(f"base step {step}: vqa on held-out pictures {right:.3f}", flush=True)
            trainer.log({"step": step, "vqa_exact": right})
            print(probe_chat(model), flush=True)
            save(model, work / "base", {"stage": "pretrain", "step": step})

    trainer.run(loss_of, sheet)


def probe_vqa(model, pictures, n=200) -> float:
    """Share of open and yes/no questions on held-out pictures whose greedy answer is exactly the expected one."""
    rng, asked = random.Random(11), []
    for i in range(n):
        j = i % pictures.held_out
        question, answer, _ = rng.choice(world.questions(pictures.item(j)[0], rng))
        asked.append((question, answer, pictures.image(j)))
    with autocast():
        written = model.generate_text([q for q, _, _ in asked], [p for _, _, p in asked], max_tokens=12)
    return sum(w.lower() == a.lower() for w, (_, a, _) in zip(written, asked)) / n


def probe_chat(model) -> str:
    rng, lines = random.Random(12), []
    for _ in range(3):
        p = language.random_persona(rng)
        user, _ = language.chat(p, rng)
        with autocast():
            prompt = reply_prompt(p.name, language.description(p, rng), "", user)
            reply = model.generate_text([prompt], max_tokens=50)[0]
        lines.append(f"  {user} -> {p.name}: {reply}")
    return "\n".join(lines)


# ---- judges, export and command -------------------------------------------------------------------------------------

def train_judge(name: str, work: Path, args, pictures: World):
    judge = JUDGES[name](work, pictures)
    trainer = Trainer(work, name, judge.model, getattr(args, f"steps_{name}"), *judge.lr)
    trainer.run(judge.loss_of)
    trainer.use_average()
    right = judge.held_out()
    if right:
        print(f"{name} on held-out pictures:", right, flush=True)
        trainer.log({"held_out": right})
    judge.save(work / name)


def export(work: Path):
    """Half precision into tiny/: what the repository ships."""
    model = load(work / "base", "cpu")
    model.vae.load_state_dict(finished_ae(work).state_dict())      # its decoder may be newer
    save(model, HERE / "base", model.run, dtype=torch.float16)
    from transformers import (
        AutoImageProcessor,
        AutoModelForImageClassification,
        AutoTokenizer,
        CLIPModel,
        Dinov2Model,
    )
    for name, kind in (("judge", CLIPModel), ("identity", Dinov2Model), ("reader", AutoModelForImageClassification)):
        kind.from_pretrained(work / name).half().save_pretrained(HERE / name)
        AutoImageProcessor.from_pretrained(work / name).save_pretrained(HERE / name)
    AutoTokenizer.from_pretrained(work / "judge").save_pretrained(HERE / "judge")
    print(f"{sum(f.stat().st_size for f in HERE.rglob('*.safetensors')) / 1e6:.1f} MB of weights in {HERE}")


def examine(n=192):
    """What the exported base does with scenes that it never saw, as the reader sees it: the share of right attributes
    in pictures drawn from captions that leave little out. The reader errs too: beside them are the true pictures."""
    from rewards import AttributeReader
    model, reader, rng = load(HERE / "base", "cpu"), AttributeReader(str(HERE / "reader"), "cpu"), random.Random(13)
    scenes = [world.random_scene(rng) for _ in range(n)]
    captions, drawn = [world.caption(scene, rng) for scene in scenes], []
    with autocast():
        for i in range(0, n, 24):
            drawn += model.sample_images(captions[i:i + 24], range(i, min(i + 24, n)), 15)
    truth, rows = [world.labels(scene) for scene in scenes], {}
    for images in (drawn, [world.draw(scene) for scene in scenes]):
        for name, p in reader.classify(images).items():
            values = list(reader.columns[name])
            right = [values[k] == t[name] for k, t in zip(p.argmax(-1).tolist(), truth)]
            rows.setdefault(name, []).append(sum(right) / n)
    rows["all"] = [sum(column) / len(rows) for column in zip(*rows.values())]
    print(*(f"{name:14} drawn {100 * a:5.1f} %   true {100 * b:5.1f} %" for name, (a, b) in rows.items()), sep="\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE.parent / "runs" / "tiny")
    parser.add_argument("--only", choices=STAGES)
    parser.add_argument("--base-from", type=Path, help="an exported base to go on with, instead of fresh weights")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the base's learning rates, for going on")
    parser.add_argument("--scenes", type=int, default=60000, help="standalone pictures")
    parser.add_argument("--moments", type=int, default=20000, help="pictures with a persona and a dialogue")
    parser.add_argument("--triplets", type=int, default=4000, help="creatures that are seen three times each")
    parser.add_argument("--held-out", type=int, default=1000, help="scenes that nothing trains on")
    for name, steps in (("ae", 3000), ("decoder", 1500), ("eye", 3200), ("base", 3000), ("judge", 1500),
                        ("identity", 1200), ("reader", 3000)):
        parser.add_argument(f"--steps-{name}", type=int, default=steps)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    processes.start("cpu")
    keep_freed_memory()
    pictures = World(args.work, args)
    stages = {
        "world": pictures.render,
        "tokenizer": partial(make_tokenizer, args.work),
        "ae": partial(train_ae, args.work, args, pictures),
        "latents": pictures.encode,
        "decoder": partial(train_decoder, args.work, args, pictures),
        "worn": pictures.wear,
        "base": partial(train_base, args.work, args, pictures),
        **{name: partial(train_judge, name, args.work, args, pictures) for name in JUDGES},
        "export": partial(export, args.work),
        "examine": examine,
    }
    for name in [args.only] if args.only else STAGES:
        print(f"== {name}", flush=True)
        if name == "base" and processes.world_size() == 1:       # the long one: a process for each of two cores
            torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
            subprocess.run([*torchrun, __file__, *sys.argv[1:], "--only", "base"], check=True)
        else:
            stages[name]()


if __name__ == "__main__":
    main()
