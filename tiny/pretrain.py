"""Makes the embedded base from nothing but code: renders the world, then trains everything that tiny/ holds.

    python tiny/pretrain.py                  all stages, in order, about three hours on two CPU cores
    python tiny/pretrain.py --only ae        one stage; --steps-base 100 for a quick look

Stages: world (renders pictures) -> tokenizer -> ae (autoencoder) -> latents -> base (the unified model)
-> judge (CLIP, for rewards) -> identity (who is it, for rewards) -> reader (attributes, for reports alone) -> export (half precision into tiny/).
Every stage saves as it goes and can be killed at any moment: the same command goes on where it was. Logs are JSON
lines, sample sheets PNG, all in --work. A reader of the method never needs this file.
"""
import argparse
import json
import random
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from data import Sample, draw_prompt, keep_freed_memory, plan_text, reply_prompt, think_prompt   # noqa: E402
from model import SPECIAL, AutoEncoder, Config, UniModel, load, patchify, to_images, write_beside   # noqa: E402
from tiny import language, world                                                             # noqa: E402

HERE = Path(__file__).resolve().parent
STAGES = ("world", "tokenizer", "ae", "latents", "base", "judge", "identity", "reader", "export")
DESCRIBE = ("Describe this picture.", "What do you see?", "What is in the picture?", "Say what the picture shows.")


# ---- bookkeeping shared by all stages -------------------------------------------------------------------------------

class Trainer:
    """A loop that saves and resumes: modules, an AdamW, an average of the weights, a seed for every step."""

    def __init__(self, work: Path, name: str, module, steps: int, lr: float, decay=0.01, ema=0.999, muon=False):
        self.file, self.log_file = work / f"{name}.state", work / f"{name}.jsonl"
        self.module, self.steps, self.lr, self.ema_rate, self.step = module, steps, lr, ema, 0
        self.params = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.average = {n: p.detach().clone() for n, p in self.params.items()}
        # Muon makes the update of a weight matrix orthogonal: nearly twice the progress per picture of AdamW here, for a
        # sixth more time. For matrices inside layers only; tables, heads and vectors keep AdamW.
        inner = {n for n, p in self.params.items() if muon and p.ndim == 2 and "layers." in n}
        rest = [p for n, p in self.params.items() if n not in inner]
        groups = [{"params": [p for p in rest if p.ndim > 1], "weight_decay": decay}, {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0}]
        self.optimizers = [torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)]
        if inner:
            self.optimizers.append(torch.optim.Muon([self.params[n] for n in sorted(inner)], lr=lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw"))
        if self.file.exists():
            state = torch.load(self.file, weights_only=True)
            self.step, self.average = state["step"], state["average"]
            module.load_state_dict(state["weights"], strict=False)
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)

    def save(self):
        state = {"step": self.step, "average": self.average, "weights": {n: p.detach() for n, p in self.params.items()},
                 "optimizers": [optimizer.state_dict() for optimizer in self.optimizers]}
        write_beside(self.file, lambda path: torch.save(state, path))

    def use_average(self):
        with torch.no_grad():
            for n, p in self.params.items():
                p.copy_(self.average[n])

    def rate(self) -> float:
        """Linear warm-up, constant, then down to one hundredth over the last third: a run can be made longer on the way."""
        return self.lr * min(1.0, (self.step + 1) / 100, 0.01 + 3 * max(0.0, 1 - self.step / self.steps))

    def run(self, loss_of, sheet=None, sheet_every=500):
        """loss_of(step, rng) -> dict of numbers to log; it has sent its loss backwards already. Saves every 100 steps."""
        start, first, sums = time.time(), self.step, {}
        while self.step < self.steps:
            for group in (group for optimizer in self.optimizers for group in optimizer.param_groups):
                group["lr"] = self.rate()
            torch.manual_seed(self.step)
            for k, v in loss_of(self.step, random.Random(self.step)).items():
                sums[k] = sums.get(k, 0.0) + float(v)
            torch.nn.utils.clip_grad_norm_(self.params.values(), 1.0)
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            self.step += 1
            keep = min(self.ema_rate, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.values()), [p.detach() for p in self.params.values()], 1 - keep)
            if self.step % 50 == 0:
                row = {"step": self.step, "seconds": round(time.time() - start, 1), "per_step": round((time.time() - start) / (self.step - first), 3),
                       **{k: round(v / 50, 5) for k, v in sums.items()}}
                sums = {}
                with open(self.log_file, "a") as f:
                    f.write(json.dumps(row) + "\n")
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


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


# ---- world: pictures of random scenes, and of moments in the life of random personas --------------------------------

class World:
    """Item i is a pure function of i: a scene; then moments, with their persona and dialogue; then triplets, three scenes of
    one creature in colors of its own, for the identity judge alone."""

    def __init__(self, work: Path, args):
        self.scenes, self.talks, self.held_out = args.scenes, args.scenes + args.moments, args.held_out
        self.count = self.talks + 3 * args.triplets
        self.pixels = np.memmap(work / "pixels.u8", np.uint8, "r+" if (work / "pixels.u8").exists() else "w+", shape=(self.count, 128, 128, 3))
        self.done = work / "pixels.done"

    def item(self, i: int):
        """-> (scene, persona or None, moment or None)."""
        rng = random.Random(1_000_003 * 7 + i)
        if i < self.scenes:
            return world.random_scene(rng), None, None
        if i >= self.talks:
            return self.triplet(i)[0], None, None
        persona = language.random_persona(rng)
        moment = language.moment(persona, rng)
        return moment[0], persona, moment

    def triplet(self, i: int):
        """-> (scene, Look): who it is follows from the group of three, everything else from i."""
        who, rng = random.Random(f"creature {(i - self.talks) // 3}"), random.Random(f"scene {i}")
        keep = {k: v for k, v in asdict(world.random_scene(who, framing="full")).items() if k in ("species", "fur", "top", "top_color", "hat", "hat_color", "eyewear")}
        colors = {part: tuple(who.randrange(20, 250) for _ in range(3)) for part, chance in (("fur", 0.6), ("coat", 0.3), ("mask", 0.2), ("cheeks", 0.2)) if who.random() < chance}
        expressions = {"expression": rng.choice(("happy", "laughing", "sad", "angry"))} if keep["eyewear"] == "sunglasses" else {}
        return world.random_scene(rng, **keep, **expressions), world.Look(**colors)

    def render(self):
        start = int(self.done.read_text()) if self.done.exists() else 0
        for i in range(start, self.count):
            self.pixels[i] = np.asarray(world.draw(*(self.triplet(i) if i >= self.talks else self.item(i)[:1])))
            if (i + 1) % 1000 == 0 or i + 1 == self.count:
                self.pixels.flush()
                write_beside(self.done, lambda p: Path(p).write_text(str(i + 1)))
                print("world", i + 1, flush=True)

    def image(self, i: int) -> Image.Image:
        return Image.fromarray(np.asarray(self.pixels[i]))

    def train(self, rng, moments=False) -> int:
        """An index for training: the first `held_out` scenes are never drawn."""
        return rng.randrange(self.scenes, self.talks) if moments else rng.randrange(self.held_out, self.scenes)


def generic_image(rng: np.random.Generator, size=128) -> np.ndarray:
    """Not of the world: dead leaves, gradients, waves or noise, so that the autoencoder also carries real photographs."""
    y, x = np.mgrid[:size, :size] / size
    a, b = rng.integers(0, 256, (2, 3))
    ramp = np.clip(x * rng.normal() + y * rng.normal() + rng.random(), 0, 1)[..., None]
    out = (a * ramp + b * (1 - ramp)).astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:                                          # dead leaves: disks that cover each other, sizes as in nature
        for r in np.sort(2 + 40 * rng.random(70) ** 3)[::-1]:
            cx, cy = rng.random(2) * size
            inside = (x * size - cx) ** 2 + (y * size - cy) ** 2 < r * r
            out[inside] = rng.integers(0, 256, 3) + rng.normal(0, 8, (inside.sum(), 1))
    elif kind == 1:                                        # waves
        for _ in range(rng.integers(2, 7)):
            fx, fy = rng.normal(0, 12, 2)
            out += np.sin(2 * np.pi * (fx * x + fy * y) + 6 * rng.random())[..., None] * rng.normal(0, 25, 3)
    elif kind == 2:                                        # cloudy noise over several octaves
        for n in (4, 8, 16, 32, 64):
            grid = Image.fromarray(rng.integers(0, 256, (n, n, 3), dtype=np.uint8)).resize((size, size), Image.BICUBIC)
            out += (np.asarray(grid, np.float32) - 128) * rng.random() * 3 / n ** 0.5
    else:                                                  # boxes and fine grain
        for _ in range(rng.integers(5, 40)):
            x0, y0 = rng.integers(0, size, 2)
            w, h = rng.integers(2, 50, 2)
            out[y0:y0 + h, x0:x0 + w] = rng.integers(0, 256, 3)
        out += rng.normal(0, rng.random() * 8, out.shape)
    return np.clip(out, 0, 255).astype(np.uint8)


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


def world_text(rng) -> str:
    p = language.random_persona(rng)
    user, reply = language.chat(p, rng)
    _, u, r, thinking, instruction, draw = language.moment(p, rng)
    scene = world.random_scene(rng)
    asked = [f"{q} {a}" for q, a, _ in world.questions(scene, rng)]
    know = [" ".join(language.knowledge(p, kind, rng)) for kind in language.facts(p)]
    return "\n".join([reply_prompt(p.name, language.description(p, rng), language.opening(p, rng), user), reply,
                      think_prompt(p.name, "", u, r), plan_text(thinking, instruction), draw, language.profile(p),
                      world.caption(scene, rng), *rng.sample(asked, min(4, len(asked))), *rng.sample(know, 4), language.stories(rng)])


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
    bpe.train_from_iterator(texts + ours, trainers.BpeTrainer(vocab_size=Config.vocab_size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                              special_tokens=list(SPECIAL), show_progress=False))
    PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=SPECIAL[1], pad_token=SPECIAL[1], additional_special_tokens=list(SPECIAL)).save_pretrained(work / "tokenizer")


# ---- autoencoder ----------------------------------------------------------------------------------------------------

def train_ae(work: Path, args, pictures: World):
    torch.manual_seed(0)
    ae = AutoEncoder(Config())
    trainer = Trainer(work, "ae", ae, args.steps_ae, 2e-3)
    generic = np.stack([generic_image(np.random.default_rng(i)) for i in range(1500)])
    held_out = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in range(64)])).permute(0, 3, 1, 2).float() / 127.5 - 1

    def loss_of(step, rng):
        crops = []
        for _ in range(32):                                # 64 x 64 crops: the network is local, and many pictures per step teach more
            image = generic[rng.randrange(len(generic))] if rng.random() < 0.2 else pictures.pixels[pictures.train(rng)]
            y, x = rng.randrange(65), rng.randrange(65)
            crops.append(np.asarray(image[y:y + 64, x:x + 64]))
        x = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with autocast():
            mean, std = ae.encode(x)
            y = ae.decode(mean + std * torch.randn_like(mean))
        mean, std, error = mean.float(), std.float(), y.float() - x
        kl = 0.5 * (mean.square() + std.square() - 1 - 2 * std.clamp(min=1e-6).log()).mean()
        loss = error.abs().mean() + 2 * error.square().mean() + 0.02 * kl       # a strong KL: latents smooth enough for a small model to draw
        loss.backward()
        return {"loss": loss.detach(), "l1": error.detach().abs().mean(), "kl": kl.detach()}

    def sheet(step):
        with torch.no_grad(), autocast():
            y = ae.decode(ae.encode(held_out)[0]).float().clamp(-1, 1)
        psnr = float((-10 * ((y - held_out) / 2).square().mean((1, 2, 3)).log10()).mean())
        print(f"ae step {step}: {psnr:.2f} dB on 64 held-out pictures", flush=True)
        with open(trainer.log_file, "a") as f:
            f.write(json.dumps({"step": step, "psnr": round(psnr, 2)}) + "\n")
        sheet_of([to_images(held_out[:8]), to_images(y[:8]), to_images(held_out[8:16]), to_images(y[8:16])], work / "ae.png")

    trainer.run(loss_of, sheet)
    trainer.use_average()
    sheet(trainer.step)
    with torch.no_grad():                                  # unit variance and zero mean for the flow
        x = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in range(0, pictures.count, pictures.count // 500)]))
        z = torch.cat([ae.encode(part.permute(0, 3, 1, 2).float() / 127.5 - 1)[0] for part in x.split(50)])
    scale = {"scale_factor": float(1 / z.std()), "shift_factor": float(z.mean())}
    write_beside(work / "scale.json", lambda p: Path(p).write_text(json.dumps(scale)))
    write_beside(work / "ae.safetensors", lambda p: save_file({k: v.contiguous() for k, v in ae.state_dict().items()}, p))


def finished_ae(work: Path) -> AutoEncoder:
    ae = AutoEncoder(Config(**json.loads((work / "scale.json").read_text())))
    ae.load_state_dict(load_file(work / "ae.safetensors"))
    return ae.requires_grad_(False)


def encode_all(work: Path, pictures: World):
    """Latent means and deviations of all scenes and moments: (talks, 2, Z, 16, 16) in half precision."""
    ae, done = finished_ae(work), work / "latents.done"
    out = np.memmap(work / "latents.f16", np.float16, "r+" if (work / "latents.f16").exists() else "w+", shape=(pictures.talks, 2, 16, 16, 16))
    for i in range(int(done.read_text()) if done.exists() else 0, pictures.talks, 64):
        x = torch.from_numpy(np.asarray(pictures.pixels[i:min(i + 64, pictures.talks)])).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad(), autocast():
            out[i:i + 64] = torch.stack(ae.encode(x), 1).half().numpy()
        if i % 6400 == 0:
            out.flush()
            write_beside(done, lambda p: Path(p).write_text(str(i)))
            print("latents", i, flush=True)
    write_beside(done, lambda p: Path(p).write_text(str(pictures.talks)))


# ---- the base: drawing, looking and talking in one mixture ----------------------------------------------------------

class Mixture:
    """Samples of every task, made on the spot from item numbers; a micro-batch holds tasks of like length."""

    def __init__(self, pictures: World, latents, model: UniModel):
        self.pictures, self.latents, self.model = pictures, latents, model
        rng = random.Random(5)                             # known people: what they like is learned by heart, and asked in many wordings
        self.known = [language.random_persona(rng) for _ in range(300)]

    def t2i(self, rng) -> tuple[Sample, int]:
        i = self.pictures.train(rng, moments=rng.random() < 0.3)
        scene, persona, moment = self.pictures.item(i)
        keep = rng.choice((1.0, 1.0, 0.8, 0.5))
        if moment and rng.random() < 0.5:
            return Sample("t2i", rng.choice((moment[4], moment[5], f"{language.description(persona, rng)}\n{moment[5]}"))), i
        subject = None
        if moment or rng.random() < 0.3:
            name = persona.name if persona else rng.choice(self.known).name
            subject = rng.choice((name, f"{name} the {scene.fur} {scene.species}", f"{name}, a {scene.species},"))
        return Sample("t2i", world.caption(scene, rng, subject=subject, keep=keep)), i

    def t2i_long(self, rng) -> tuple[Sample, int]:
        i = self.pictures.train(rng, moments=True)
        _, p, (_, user, reply, thinking, instruction, _) = self.pictures.item(i)
        plan = (thinking, instruction) if rng.random() < 0.5 else ()
        return Sample("t2i_dialogue", draw_prompt(p.name, language.description(p, rng), user, reply, *plan)), i

    def look(self, rng) -> tuple[Sample, None]:
        i = self.pictures.train(rng, moments=rng.random() < 0.3)
        scene, persona, _ = self.pictures.item(i)
        image, subject, kind = self.pictures.image(i), persona.name if persona and rng.random() < 0.7 else None, rng.random()
        if kind < 0.3:
            return Sample("vqa", rng.choice(DESCRIBE), world.caption(scene, rng, subject=subject), look=image), None
        asked = world.questions(scene, rng, subject=subject)
        asked = rng.sample(asked, min(len(asked), 4 if kind < 0.65 else 1))     # four at once teach the eye four times as much
        return Sample("vqa", " ".join(q for q, _, _ in asked), ", ".join(a for _, a, _ in asked), look=image), None

    def text(self, rng) -> tuple[Sample, None]:
        p, kind = rng.choice(self.known) if rng.random() < 0.3 else language.random_persona(rng), rng.random()
        if kind < 0.4:
            user, reply = language.chat(p, rng)
            history = ()
            if rng.random() < 0.3:
                before = language.chat(p, rng)
                history = (("User", before[0]), (p.name, before[1]))
            return Sample("reply", reply_prompt(p.name, language.description(p, rng), language.opening(p, rng), user, history), reply), None
        if kind < 0.55:
            _, user, reply, thinking, instruction, _ = language.moment(p, rng)
            return Sample("think", think_prompt(p.name, language.description(p, rng), user, reply), plan_text(thinking, instruction)), None
        if kind < 0.9:                                     # closed book about known people, open book about strangers
            known, fact = rng.random() < 0.7, rng.choice(list(language.facts(p)))
            p = rng.choice(self.known) if known else p
            question, answer = language.knowledge(p, fact, rng)
            return Sample("knowledge", question if known else f"{language.statement(p, fact, rng)}\n{question}", answer), None
        return Sample("reply", rng.choice(("Tell me something.", "Tell me a story.", "Say something.")), language.stories(rng)), None

    def batch(self, make, n: int, rng, drop=0.1):
        examples = []
        for _ in range(n):
            sample, i = make(rng)
            if i is not None:
                sample.draw = self.pictures                # any non-None: the latent is known, the picture itself is not needed
                example = self.model.prepare(sample, torch.from_numpy(np.array(self.latents[i])).float())
                examples.append(example.bare if rng.random() < drop else example)
            else:
                examples.append(self.model.prepare(sample))
        return examples


def tiny_model(work: Path) -> UniModel:
    from transformers import AutoTokenizer
    torch.manual_seed(1)
    model = UniModel(Config(**json.loads((work / "scale.json").read_text())), AutoTokenizer.from_pretrained(work / "tokenizer"))
    model.init_weights()
    model.vae.load_state_dict(load_file(work / "ae.safetensors"))
    return model


def train_base(work: Path, args, pictures: World):
    latents = np.memmap(work / "latents.f16", np.float16, "r", shape=(pictures.talks, 2, 16, 16, 16))
    model = tiny_model(work)
    mixture = Mixture(pictures, latents, model)
    trainer = Trainer(work, "base", model, args.steps_base, 1.2e-3, muon=True)
    parts = (("t2i", mixture.t2i, 32, 1.0), ("long", mixture.t2i_long, 4, 0.25), ("look", mixture.look, 12, 0.3), ("text", mixture.text, 8, 0.25))

    def loss_of(step, rng):
        """Each part's loss is a mean over its own tokens, times its weight; micro-batches of like length, little padding."""
        out = {}
        for name, make, n, w in parts:
            examples = sorted(mixture.batch(make, n, rng), key=lambda e: len(e.ids))
            size, out[name] = min(16, max(4, n // 2)), 0.0
            tokens = sum(64 if e.latent is not None else int((e.labels >= 0).sum()) for e in examples)
            for some in (examples[i:i + size] for i in range(0, n, size)):
                with autocast():
                    losses = model(some)
                loss = (losses.ce.sum() + losses.mse.sum()) / tokens
                (w * loss).backward()
                out[name] += loss.item()
        return out

    def sheet(step):
        kept = {n: p.detach().clone() for n, p in trainer.params.items()}
        trainer.use_average()
        scenes = [pictures.item(i)[0] for i in range(16)]
        with autocast():
            drawn = model.sample_images([world.caption(s, random.Random(0)) for s in scenes], list(range(16)), steps=15)
        truth = [pictures.image(i) for i in range(16)]
        sheet_of([drawn[:8], truth[:8], drawn[8:], truth[8:]], work / "base.png")
        right = probe_vqa(model, pictures)
        print(f"base step {step}: vqa on held-out pictures {right:.3f}", flush=True)
        with open(trainer.log_file, "a") as f:
            f.write(json.dumps({"step": step, "vqa_exact": right}) + "\n")
        print(probe_chat(model), flush=True)
        model.save(work / "base", {"stage": "pretrain", "step": step})
        with torch.no_grad():
            for n, p in trainer.params.items():
                p.copy_(kept[n])

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
            reply = model.generate_text([reply_prompt(p.name, language.description(p, rng), "", user)], max_tokens=50)[0]
        lines.append(f"  {user} -> {p.name}: {reply}")
    return "\n".join(lines)


# ---- judges: a CLIP for the rewards, and an attribute reader that only eval.py sees ----------------------------------

def augment(x, rng):
    """Small shifts and noise, so that a judge looks at shapes, not at pixels (drawn pictures are a little soft)."""
    dx, dy = rng.randrange(-6, 7), rng.randrange(-6, 7)
    x = torch.roll(x, (dy, dx), (2, 3))
    if rng.random() < 0.5:
        small = rng.choice((64, 80, 96))
        x = F.interpolate(F.interpolate(x, size=(small, small), mode="area"), size=(128, 128), mode="bilinear")
    return x + 0.1 * rng.random() * torch.randn_like(x)


def train_judge(work: Path, args, pictures: World):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel
    tokenizer = AutoTokenizer.from_pretrained(work / "tokenizer")
    bos, eos = tokenizer.convert_tokens_to_ids(list(SPECIAL[:2]))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{SPECIAL[0]} $A {SPECIAL[1]}", special_tokens=[(SPECIAL[0], bos), (SPECIAL[1], eos)])
    torch.manual_seed(2)
    tower = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    clip = CLIPModel(CLIPConfig(text_config={**tower, "vocab_size": Config.vocab_size, "max_position_embeddings": 77, "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": eos},
                                vision_config={**tower, "image_size": 128, "patch_size": 16}, projection_dim=128))
    trainer = Trainer(work, "judge", clip, args.steps_judge, 1e-3)

    def loss_of(step, rng):
        index = [pictures.train(rng, moments=rng.random() < 0.3) for _ in range(96)]
        names = ("Pip", "Momo", "Tess", "Bruno", "Lulu", "Otto")
        texts = [world.caption(pictures.item(i)[0], rng, subject=rng.choice((None, None, rng.choice(names))), keep=rng.choice((1.0, 0.7, 0.4))) for i in index]
        x = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in index])).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        with autocast():
            out = clip(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, pixel_values=augment(x, rng))
        logits, target = out.logits_per_image.float(), torch.arange(len(index))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss.backward()
        return {"loss": loss.detach(), "top1": (logits.argmax(1) == target).float().mean()}

    trainer.run(loss_of)
    trainer.use_average()
    clip.save_pretrained(work / "judge")
    CLIPImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(work / "judge")
    tokenizer.save_pretrained(work / "judge")


def train_identity(work: Path, args, pictures: World):
    """A DINOv2-shaped encoder whose CLS token is near for pictures of one creature, whatever it does and wherever it is."""
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model
    torch.manual_seed(4)
    encoder = Dinov2Model(Dinov2Config(hidden_size=128, mlp_ratio=3, num_hidden_layers=4, num_attention_heads=4, image_size=128, patch_size=16))
    trainer, groups = Trainer(work, "identity", encoder, args.steps_identity, 1e-3), (pictures.count - pictures.talks) // 3

    def loss_of(step, rng):
        chosen = rng.sample(range(16, groups), 40)         # the first 16 are held out
        pairs = [rng.sample(range(3), 2) for _ in chosen]
        index = [pictures.talks + 3 * g + pair[k] for k in (0, 1) for g, pair in zip(chosen, pairs)]
        x = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in index])).permute(0, 3, 1, 2).float() / 127.5 - 1
        with autocast():
            y = F.normalize(encoder(pixel_values=augment(x, rng)).last_hidden_state[:, 0].float(), dim=-1)
        logits, target = y[:40] @ y[40:].T / 0.07, torch.arange(40)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        loss.backward()
        return {"loss": loss.detach(), "top1": (logits.argmax(1) == target).float().mean()}

    trainer.run(loss_of)
    trainer.use_average()
    encoder.save_pretrained(work / "identity")
    BitImageProcessor(size={"shortest_edge": 128}, crop_size={"height": 128, "width": 128}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(work / "identity")


def train_reader(work: Path, args, pictures: World):
    """One vision transformer with a softmax per attribute: its labels are "category=value"."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor
    values: dict[str, set] = {}
    for i in range(3000):
        for category, value in world.labels(pictures.item(i)[0]).items():
            values.setdefault(category, set()).add(value)
    names = [f"{category}={value}" for category in sorted(values) for value in sorted(values[category])]
    where = {n: k for k, n in enumerate(names)}
    spans = {c: [where[f"{c}={v}"] for v in sorted(values[c])] for c in sorted(values)}
    torch.manual_seed(3)
    reader = ViTForImageClassification(ViTConfig(hidden_size=144, intermediate_size=432, num_hidden_layers=5, num_attention_heads=4, image_size=128, patch_size=8 * 2,
                                                 num_labels=len(names), id2label=dict(enumerate(names)), label2id=where))
    trainer = Trainer(work, "reader", reader, args.steps_reader, 1e-3)

    def losses(index, x):
        with autocast():
            logits = reader(pixel_values=x).logits
        logits, loss, right = logits.float(), 0.0, {}
        labels = [world.labels(pictures.item(i)[0]) for i in index]
        for c, span in spans.items():
            target = torch.tensor([span.index(where[f"{c}={row[c]}"]) if f"{c}={row[c]}" in where else -100 for row in labels])
            loss = loss + F.cross_entropy(logits[:, span], target)
            right[c] = (logits[:, span].argmax(1) == target).float().mean()
        return loss / len(spans), right

    def loss_of(step, rng):
        index = [pictures.train(rng, moments=rng.random() < 0.3) for _ in range(64)]
        x = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in index])).permute(0, 3, 1, 2).float() / 127.5 - 1
        loss, right = losses(index, augment(x, rng))
        loss.backward()
        return {"loss": loss.detach(), "right": sum(right.values()) / len(right)}

    trainer.run(loss_of)
    trainer.use_average()
    index = range(min(512, pictures.held_out))
    x = torch.from_numpy(np.stack([np.asarray(pictures.pixels[i]) for i in index])).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        right = {c: round(float(r), 4) for c, r in losses(index, x)[1].items()}
    print("reader on held-out pictures:", right, flush=True)
    with open(trainer.log_file, "a") as f:
        f.write(json.dumps({"held_out": right}) + "\n")
    reader.save_pretrained(work / "reader")
    ViTImageProcessor(size={"height": 128, "width": 128}, image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(work / "reader")


# ---- export and command ---------------------------------------------------------------------------------------------

def export(work: Path):
    """Half precision into tiny/: what the repository ships."""
    model = load(work / "base", "cpu")
    model.save(HERE / "base", model.run, dtype=torch.float16)
    from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel, Dinov2Model, ViTForImageClassification
    for name, kind in (("judge", CLIPModel), ("identity", Dinov2Model), ("reader", ViTForImageClassification)):
        kind.from_pretrained(work / name).half().save_pretrained(HERE / name)
        AutoImageProcessor.from_pretrained(work / name).save_pretrained(HERE / name)
    AutoTokenizer.from_pretrained(work / "judge").save_pretrained(HERE / "judge")
    print(f"{sum(f.stat().st_size for f in HERE.rglob('*.safetensors')) / 1e6:.1f} MB of weights in {HERE}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=HERE.parent / "runs" / "tiny")
    parser.add_argument("--only", choices=STAGES)
    parser.add_argument("--scenes", type=int, default=30000, help="standalone pictures")
    parser.add_argument("--moments", type=int, default=14000, help="pictures with a persona and a dialogue")
    parser.add_argument("--triplets", type=int, default=4000, help="creatures that are seen three times each")
    parser.add_argument("--held-out", type=int, default=1000, help="scenes that nothing trains on")
    for name, steps in (("ae", 4000), ("base", 5000), ("judge", 1500), ("identity", 1200), ("reader", 2000)):
        parser.add_argument(f"--steps-{name}", type=int, default=steps)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    pictures = World(args.work, args)
    stages = {"world": pictures.render, "tokenizer": lambda: make_tokenizer(args.work), "ae": lambda: train_ae(args.work, args, pictures),
              "latents": lambda: encode_all(args.work, pictures), "base": lambda: train_base(args.work, args, pictures),
              "judge": lambda: train_judge(args.work, args, pictures), "identity": lambda: train_identity(args.work, args, pictures), "reader": lambda: train_reader(args.work, args, pictures), "export": lambda: export(args.work)}
    for name in [args.only] if args.only else STAGES:
        print(f"== {name}", flush=True)
        stages[name]()


if __name__ == "__main__":
    main()
