"""Evaluation: base, base with the profile in its prompt, SFT, SFT + GRPO side by side, on what was never trained on.

    python eval.py                        the newest run's character, every stage found under runs/<char>
    python eval.py --char coco --quick    four prompts, one seed: does everything work?

Words     knowledge: multiple choice; the answer is the option with the largest mean log p per token. The mean, because
          a sum falls with every further token and would choose the shortest option
          VQA: the same with a held-out picture; apart from it, as memory, with pictures of the training set
          replies to held-out lines: NLL per token of the true ones; distinct-1, -2 and repeated 4-grams of its own
Pictures  of held-out prompts, with the same noise for all stages. CLIP-T and VQA by the frozen base are rewards, so
          GRPO was taught to this test; the attribute reader is a judge that no reward has heard of
          likeness: largest identity cosine to a HELD-OUT picture; gap: share of the way from base to real pictures
          diversity: mean perceptual distance between the pictures of one prompt, its seeds
          near-copies: share of pictures nearer to a training picture than any real held-out one is
          leakage: likeness when the name is replaced by the class word ("a cat"); above base, everyone looks like them
          grid: edges at the latent grid's frequency, 1 = none: what a hacked reward does to pictures

Honest scales: beside every accuracy stand chance, "always the longest option" and the most frequent key, beside every
likeness that of real pictures. Options are scored one by one; shuffling them gives the key its true value (in published
data it is C half of the time). ± is one standard error: over seeds for what is generated, over items for the rest.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import itertools
import json
import random
import re
import sys
from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import transformers
from tqdm import tqdm

from backbone.folders import base_of, load, locate, put_adapter
from backbone.lora import drop_adapters, without_adapters
from backbone.vision import as_drawn
from data import (
    Character,
    Prompt,
    Question,
    class_word,
    load_character,
    newest_run,
    reply_prompt,
    run_folder,
    without_name,
)
from model import UniModel
from rewards import (
    AttributeReader,
    ClipJudge,
    IdentityJudge,
    RewardOptions,
    answer_log_p,
    calibrate_band,
    diversity,
    grid_energy,
    nearest,
    nearest_other,
    vqa_reward,
)
from runtime.cli import UserError, parse_options, run_script
from runtime.files import write_beside
from runtime.report import Figure, contact_sheet, figure, markdown, table


@dataclass
class Options:
    char: str = ""              # a name under characters/ or a folder; empty: the newest run's
    base: str = ""              # also the VQA judge; empty: the model that SFT began with, or else tiny/base
    sft: str = ""               # checkpoint folder; empty: runs/<char>/sft if it is there
    grpo: str = ""              # checkpoint folder; empty: runs/<char>/grpo if it is there
    out: str = ""               # folder for table.md, eval.json and contact.png; empty: runs/<char>/eval
    seeds: int = 3
    prompts: int = 24           # held-out prompts, at most
    images_per_prompt: int = 1  # and seed
    leak_prompts: int = 12      # how many of them again with the name replaced
    items: int = 100            # questions, replies or real pictures of one kind, at most
    steps: int = 15             # denoising steps of a picture
    guidance: float = 0.0       # classifier-free guidance of what the table shows; 0: the model's own
    unguided: bool = True       # draw everything without guidance too, for the JSON
    temperature: float = 0.7    # of the replies
    class_word: str = ""        # for leakage, such as "a cat"; empty: read from the description
    batch: int = 24             # pictures or replies at once
    quick: bool = False         # a look at everything in seconds: 4 prompts, 1 seed, 6 steps, 8 items
    precision: str = "bf16"     # of drawing: bf16 or fp32; whatever is scored is scored in float32
    image_size: int = 0         # of all pictures drawn; 0: as SFT drew, or the base's own
    weights: str = "auto"       # fp32, bf16 or int8; auto: bf16 from a billion numbers on
    device: str = "auto"        # auto, cpu, mps or cuda
    clip_judge: str = RewardOptions.clip_judge
    identity_judge: str = RewardOptions.identity_judge
    reader: str = RewardOptions.reader


CHOICES = ("knowledge", "vqa", "vqa_seen")


# ---- stages and their wording ---------------------------------------------------------------------------------------

@dataclass
class Stage:
    name: str
    folder: str
    about: str                  # the description that it is given when it has to reply
    opening: str = ""
    before: str = ""            # what stands before every question ...
    scene: str = ""             # ... and before every drawing instruction


def find_stages(o: Options, character: Character) -> list[Stage]:
    """The stages that exist; a missing default one is told and skipped."""
    about, opening = character.description, character.opening
    profile = " ".join((character.profile or about).split()[:200])              # small bases know no longer prompts,
    stages = [Stage("base", o.base, character.name),                    # and before a picture only short ones
              Stage("base + profile", o.base, profile, opening, f"{profile}\n", f"Description: {about}\n")]
    for name, given, usual in (("SFT", o.sft, "sft"), ("SFT + GRPO", o.grpo, "grpo")):
        folder = given or str(run_folder(o.char, usual))
        there = Path(folder, "config.json").exists()
        if given and not there:
            raise UserError(f"--{usual} {folder}: no checkpoint there; give a folder such as runs/coco/{usual}")
        if there:
            stages.append(Stage(name, folder, about, opening))
        else:
            print(f"{name}: nothing in {folder} yet, skipped", file=sys.stderr)
    return stages


def examination(character: Character, o: Options) -> dict:
    """What is asked of every stage. Without held-out prompts, the held-out pictures are asked for."""
    test = character.test
    talk = [(turn["user"], turn["reply"]) for turn in test["dialogues"] + test["scenes"] if turn["reply"]]
    prompts = test["prompts"] or [Prompt(scene["draw"], []) for scene in test["scenes"]]
    return {"name": character.name, "class": o.class_word or class_word(character.description), "talk": talk[:o.items],
            "prompts": prompts[:o.prompts], **{key: test[key][:o.items] for key in (*CHOICES, "scenes")}}


# ---- words ----------------------------------------------------------------------------------------------------------

def baselines(items: list[dict], seeds: int) -> dict[str, float]:
    """What a guesser reaches who does not read the question."""
    def key(shuffle) -> float:
        places = Counter(shuffle(item["options"]).index(item["answer"]) for item in items)
        return max(places.values()) / len(items)
    shuffled = [key(lambda options: rng.sample(options, len(options))) for rng in map(random.Random, range(seeds))]
    return {"chance": float(np.mean([1 / len(item["options"]) for item in items])),
            "longest": float(np.mean([max(item["options"], key=len) == item["answer"] for item in items])),
            "key": float(np.mean(shuffled)), "key unshuffled": key(list)}


def choose(model: UniModel, stage: Stage, items: list[dict]) -> Figure | None:
    asked = [[(stage.before + item["question"], option) for option in item["options"]] for item in items]
    scores = answer_log_p(model, [item.get("image") for item in items], asked)
    return figure([float(item["options"][int(s.argmax())] == item["answer"]) for item, s in zip(items, scores)])


def variety(replies: list[str]) -> dict[str, float]:
    """distinct-n: different n-grams / all n-grams of the whole set; repetition: 4-grams that have occurred before."""
    words, distinct = [re.findall(r"[\w']+", reply.lower()) for reply in replies], {}
    for n in (1, 2, 4):
        grams = [tuple(w[i:i + n]) for w in words for i in range(len(w) - n + 1)]
        distinct[n] = len(set(grams)) / len(grams) if grams else float("nan")
    return {"distinct1": distinct[1], "distinct2": distinct[2], "repetition": 1 - distinct[4]}


def text_figures(model: UniModel, stage: Stage, exam: dict, o: Options) -> tuple[dict, list[str]]:
    """Figures by key, and the replies of the first seed."""
    result = {key: choose(model, stage, exam[key]) for key in CHOICES}
    prompts = [reply_prompt(exam["name"], stage.about, stage.opening, user) for user, _ in exam["talk"]]
    asked = [[(prompt, reply)] for prompt, (_, reply) in zip(prompts, exam["talk"])]
    result["nll"] = figure([-score.item() for score in answer_log_p(model, [None] * len(asked), asked)])
    said = []
    for seed in range(o.seeds):
        generator = torch.Generator().manual_seed(seed)
        said.append([reply for at in range(0, len(prompts), o.batch) for reply in model.generate_text(
            prompts[at:at + o.batch], max_tokens=60, temperature=o.temperature, generator=generator)])
    each = [variety(replies) for replies in said]
    return result | {key: figure([v[key] for v in each]) for key in each[0]}, said[0]


# ---- pictures -------------------------------------------------------------------------------------------------------

class Judges:
    """All that looks at pictures, and what it has seen of the real character."""
    def __init__(self, character: Character, base: UniModel, o: Options):
        self.base, self.clip = base, ClipJudge(o.clip_judge, base.device)
        self.identity = IdentityJudge(o.identity_judge, base.device)
        self.reader = AttributeReader(o.reader, base.device) if o.reader else None
        self.fit = lambda image: as_drawn(image, base.config)
        held = {id(item["image"]): self.fit(item["image"]) for item in character.test["scenes"] + character.test["vqa"]}
        self.trained = self.identity.embed([self.fit(scene["image"]) for scene in character.scenes])
        self.held = self.identity.embed(list(held.values())) if held else self.trained[:0]
        self.band = calibrate_band(self.trained)
        self.copy = float((nearest(self.held, self.trained) if held else nearest_other(self.trained)).max())

    def likeness(self, seen: torch.Tensor) -> torch.Tensor:
        return nearest(seen, self.held) if len(self.held) else torch.full((len(seen),), torch.nan)

    def score(self, images: list, prompts: list[Prompt], groups: tuple | None = None) -> dict[str, torch.Tensor]:
        """Key -> one number per picture, nan where it does not apply. groups: (seeds, prompts, copies) of them."""
        (seen, patches), identity = self.clip.embed(images), self.identity.embed(images)
        with without_adapters(self.base) as judge:
            answered = vqa_reward(judge, images, prompts)
        asked = torch.tensor([bool(prompt.questions) for prompt in prompts])
        known = nearest(identity, self.trained)
        alike = known >= self.band[0]                       # shows the character, as the reward sees it by default
        scores = {"clip_t": (seen * self.clip.embed_text([prompt.text for prompt in prompts])).sum(-1),
                  "drawn_vqa": answered.where(asked, torch.nan),
                  "likeness": self.likeness(identity),
                  "copies": (known > self.copy).float(),
                  "grid": grid_energy(images, self.base.config.stride)}
        if self.reader:
            scores["reader"] = self.reader.score(images, prompts)
        if groups and groups[0] * groups[2] > 1:
            seeds, P, copies = groups

            def grouped(x):                                 # (B, ...) -> (P, seeds copies, ...)
                return x.view(seeds, P, copies, *x.shape[1:]).transpose(0, 1).flatten(1, 2)

            for key, among in (("diversity", None), ("diversity_alike", grouped(alike))):
                apart = diversity(grouped(patches), among)
                scores[key] = apart.view(P, seeds, copies).transpose(0, 1).flatten()
        return {key: value.cpu() for key, value in scores.items()}


def draw(model: UniModel, texts: list[str], o: Options, guidance: float, bar: tqdm, copies: int = 1) -> list:
    """Seeds slowest, copies fastest; every stage gets the same noise for the same prompt and seed."""
    order, images = list(itertools.product(range(o.seeds), range(len(texts)), range(copies))), []
    with torch.autocast(model.device.type, torch.bfloat16, enabled=o.precision == "bf16"):
        for some in (order[at:at + o.batch] for at in range(0, len(order), o.batch)):
            noise = [(seed * 10_000 + i) * 100 + j for seed, i, j in some]
            images += model.sample_images([texts[i] for _, i, _ in some], noise, o.steps, guidance)
            bar.update(len(some))
    return images


def by_seed(scores: dict[str, torch.Tensor], seeds: int) -> dict[str, Figure | None]:
    """One number per picture, seeds slowest -> the mean of each seed, then mean and error over the seeds."""
    return {key: figure(value.view(seeds, -1).nanmean(1).tolist()) for key, value in scores.items()}


def real_figures(judges: Judges, exam: dict) -> dict[str, Figure | None]:
    """The same figures of real held-out replies and pictures: the upper end of each scale."""
    result = {key: figure([value]) for key, value in variety([reply for _, reply in exam["talk"]]).items()}
    result["likeness"] = figure(nearest_other(judges.held).tolist())
    if scenes := exam["scenes"]:
        asked = [scene["vqa"] + [item for item in exam["vqa"] if item["image"] is scene["image"]] for scene in scenes]
        prompts = [Prompt(scene["draw"], [Question(item["question"], item["answer"]) for item in items])
                   for scene, items in zip(scenes, asked)]
        scores = judges.score([judges.fit(scene["image"]) for scene in scenes], prompts)
        shown = {"clip_t", "drawn_vqa", "reader", "grid"} & scores.keys()
        result |= {key: figure(scores[key].tolist()) for key in shown}
    return result


def evaluate(stage: Stage, model: UniModel, judges: Judges, exam: dict, o: Options, bar: tqdm) -> dict:
    figures, replies = text_figures(model, stage, exam, o)
    record = asdict(stage) | {"run": model.run, "replies": replies, "figures": figures, "pictures": []}
    if prompts := exam["prompts"]:
        copies, texts = o.images_per_prompt, [stage.scene + prompt.text for prompt in prompts]
        each = [prompt for prompt in prompts for _ in range(copies)] * o.seeds
        for where, guidance in (("figures", o.guidance), ("figures without guidance", 1.0))[:1 + o.unguided]:
            images = draw(model, texts, o, guidance, bar, copies)
            scores = judges.score(images, each, (o.seeds, len(prompts), copies))
            record[where] = record.get(where, {}) | by_seed(scores, o.seeds)
            record["pictures"] = record["pictures"] or images[:len(texts) * copies:copies]      # of the first seed
        if o.leak_prompts and not stage.before:             # the profile would tell the look without the name
            texts = [without_name(p.text, exam["name"], exam["class"]) for p in prompts[:o.leak_prompts]]
            seen = judges.identity.embed(draw(model, texts, o, o.guidance, bar))
            record["figures"] |= by_seed({"leakage": judges.likeness(seen).cpu()}, o.seeds)
    return record


def close_gap(figures: dict, base: Figure | None, real: Figure | None) -> None:
    """Adds the share of the way from base to real pictures, where there is such a way."""
    if base and real and real.mean > base.mean:
        way, mine = real.mean - base.mean, figures["likeness"]
        figures["gap"] = Figure((mine.mean - base.mean) / way, mine.error and mine.error / way, mine.n)


# ---- command ---------------------------------------------------------------------------------------------------------

def check(o: Options) -> Options:
    for name in ("seeds", "prompts", "images_per_prompt", "items", "steps", "batch"):
        if getattr(o, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} {getattr(o, name)}: must be 1 or more")
    if not o.char:
        file = Path(o.grpo or o.sft or newest_run()) / "config.json"
        try:
            o = replace(o, char=json.loads(file.read_text())["run"]["char"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file}: does not say whose run it is; give --char") from None
    sft = Path(o.sft) if o.sft else run_folder(o.char, "sft")
    if (sft / "config.json").exists():
        drawn = json.loads((sft / "config.json").read_text())["model"]["image_size"]
        o = replace(o, base=o.base or base_of(sft), image_size=o.image_size or drawn)
    o = replace(o, base=locate(o.base or "tiny/base"))
    return replace(o, seeds=1, prompts=4, leak_prompts=2, steps=6, items=8) if o.quick else o


def staged(folder: str, base: UniModel, o: Options) -> UniModel:
    """A stage's model: the base itself, wherever possible, perhaps under adapters; two of 7B would need two GPUs."""
    if Path(folder).resolve() == base.folder.resolve():
        return base
    if Path(folder, "adapter_config.json").exists() and Path(base_of(folder)).resolve() == base.folder.resolve():
        return put_adapter(base, Path(folder))
    return load(folder, o.device, o.weights, o.image_size)


def main(argv: list[str] | None = None) -> None:
    o = check(parse_options(Options, __doc__, argv))
    transformers.utils.logging.disable_progress_bar()
    character, out = load_character(o.char), Path(o.out) if o.out else run_folder(o.char, "eval")
    stages, exam, records = find_stages(o, character), examination(character, o), {}
    out.mkdir(parents=True, exist_ok=True)                  # now, not after minutes of work
    base, prompts = load(o.base, o.device, o.weights, o.image_size), exam["prompts"]
    judges = Judges(character, base, o)
    drawn, leaked = len(prompts) * o.images_per_prompt * (1 + o.unguided), len(prompts[:o.leak_prompts])
    with tqdm(total=o.seeds * sum(drawn + leaked * (not s.before) for s in stages), unit="picture") as bar:
        for stage in stages:
            bar.set_description(stage.name)
            records[stage.name] = evaluate(stage, staged(stage.folder, base, o), judges, exam, o, bar)
            drop_adapters(base)
    real, pictures = real_figures(judges, exam), {name: record.pop("pictures") for name, record in records.items()}
    for record in records.values():
        close_gap(record["figures"], records["base"]["figures"].get("likeness"), real["likeness"])
    guessing = {key: baselines(exam[key], o.seeds) for key in CHOICES if exam[key]}
    rows = table({name: record["figures"] for name, record in records.items()} | {"real": real}, guessing)
    width = [max(map(len, column)) for column in zip(*rows)]
    print("\n".join("  ".join(text.ljust(w) for text, w in zip(row, width)).rstrip() for row in rows))
    write_beside(out / "table.md", lambda file: file.write_text(markdown(rows), "utf-8"))
    if prompts:
        sheet = contact_sheet(pictures, [prompt.text for prompt in prompts[:8]], base.config.image_size)
        write_beside(out / "contact.png", lambda file: sheet.save(file, "PNG"))
    versions = {module.__name__: module.__version__ for module in (torch, transformers, np)} | {"python": sys.version}
    result = {"character": exam["name"], "class word": exam["class"], "options": asdict(o), "versions": versions,
              "copy above": judges.copy, "guessing": guessing, "real": real, "stages": records}
    write_beside(out / "eval.json", lambda file: file.write_text(json.dumps(result, indent=1, default=asdict), "utf-8"))
    print(f"written to {out}: table.md, eval.json" + (", contact.png" if prompts else ""))


if __name__ == "__main__":
    run_script(main)
