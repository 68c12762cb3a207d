"""What the base can do, measured on what it never saw: words here, and pictures by the attribute reader."""
import json
import math
import random
from pathlib import Path

import torch

from backbone.vision import to_images
from data import reply_prompt
from model import UniModel
from runtime.picture_measures import kernel_distance, sharpness
from tiny import language, world
from tiny.training.trainer import autocast

HERE = Path(__file__).resolve().parent.parent


# ---- words ----------------------------------------------------------------------------------------------------------

@torch.no_grad()
def bits_per_byte(model: UniModel, pairs: list[tuple[str, str]]) -> float:
    """Of the responses of (prompt, response); comparable between tokenizers. The end of a reply counts as a byte."""
    nll, size = 0.0, 0
    for i in range(0, len(pairs), 16):
        examples = model.readings([p for p, _ in pairs[i:i + 16]], None, [r for _, r in pairs[i:i + 16]])
        nll += float(model(examples).ce.sum())
        size += sum(len(r.encode()) + 1 for _, r in pairs[i:i + 16])
    return nll / math.log(2) / size


def replies_of(character: dict) -> list[tuple[str, str]]:
    """The held-out replies of a character.json, each with its prompt."""
    turns = character["test"].get("dialogues", []) + character["test"].get("scenes", [])
    rows = [(turn["user"], turn["reply"]) for turn in turns if turn.get("reply")]
    name, about, first = character["name"], character["description"], character.get("opening", "")
    return [(reply_prompt(name, about, first, user), reply) for user, reply in rows]


def strangers(n: int, seed: int = 2**33) -> list[tuple[str, str, str]]:
    """(prompt, the answer that must be in the reply, kind): a fact of an unknown persona, asked in a chat under a
    description that tells it, or asked about it in the third person."""
    rng, rows = random.Random(seed), []
    while len(rows) < n:
        p = language.random_persona(rng)
        kind = rng.choice([k for k in language.kinds(p) if k not in ("catchphrase", "manner", "nickname", "steps")])
        answer = language.facts(p)[kind]
        needed = language.facts_behind(language.table("facts")[kind]["answer"])
        told = language.description(p, rng, {**needed, kind: needed.get(kind, set())}, 45)
        if len(rows) % 2:
            question, _ = language.knowledge(p, kind, rng)
            rows.append((f"Description: {told}\n{question}", answer, kind))
        else:
            asked = language.chat(p, rng, kind)
            if answer.lower() in asked.reply.lower():      # some answers are said in other words
                rows.append((reply_prompt(p.name, told, "", asked.user), answer, kind))
    return rows


@torch.no_grad()
def open_book(model: UniModel, n: int = 192) -> dict[str, float]:
    """The share of greedy replies that hold the fact: in a chat, and asked about in the third person."""
    right: list[list[bool]] = [[], []]
    rows = strangers(n)
    for i in range(0, n, 32):
        some = rows[i:i + 32]
        with autocast():
            said = model.generate_text([prompt for prompt, _, _ in some], max_tokens=48)
        for k, (reply, (_, answer, _)) in enumerate(zip(said, some)):
            right[(i + k) % 2].append(answer.lower() in reply.lower())
    return {"chat": sum(right[0]) / len(right[0]), "asked about": sum(right[1]) / len(right[1])}


def words(model: UniModel, exchanges: list[tuple[str, str]]) -> dict[str, float]:
    """All figures about words. `exchanges` are held-out ones of people."""
    coco = json.loads((HERE.parent / "characters" / "coco" / "character.json").read_text())
    with autocast():
        found = {"bits_coco": bits_per_byte(model, replies_of(coco)), "bits_people": bits_per_byte(model, exchanges)}
    book = open_book(model)
    return {**{k: round(v, 3) for k, v in found.items()}, "open_chat": round(book["chat"], 3),
            "open_asked": round(book["asked about"], 3)}


# ---- pictures -------------------------------------------------------------------------------------------------------

def held_out_scenes(n: int = 192, seed: int = 13) -> tuple[list, list[str]]:
    """Scenes that nothing trained on, and captions that leave nothing out: what is not asked for cannot be wrong."""
    rng, scenes, captions = random.Random(seed), [], []
    while len(scenes) < n:
        scene = world.random_scene(rng)
        caption, told = world.tell(scene, rng)
        if told == scene:
            scenes.append(scene)
            captions.append(caption)
    return scenes, captions


def attributes(images: list, scenes: list, reader) -> dict[str, float]:
    """The share of pictures in which the reader finds what the scene says, for each attribute."""
    right = {}
    truth = [world.labels(scene) for scene in scenes]
    for name, p in reader.classify(images).items():
        values = list(reader.columns[name])
        found = [values[k] for k in p.argmax(-1).tolist()]
        right[name] = sum(value == row[name] for value, row in zip(found, truth)) / len(truth)
    right["all"] = sum(right.values()) / len(right)
    return right


@torch.no_grad()
def pictures(model: UniModel, reader, n: int = 192, steps: int = 15) -> dict:
    """What autoencoder and base do with scenes that they never saw, beside the true pictures of the same scenes."""
    scenes, captions = held_out_scenes(n)
    true = [world.draw(scene) for scene in scenes]
    drawn, rebuilt = [], []
    for i in range(0, n, 24):
        with autocast():
            drawn += model.sample_images(captions[i:i + 24], range(i, min(i + 24, n)), steps)
        rebuilt += to_images(model.vae.decode(model.latents(true[i:i + 24])[:, 0]))
    found = {"true": {"attributes": attributes(true, scenes, reader)}}
    for name, images in (("rebuilt", rebuilt), ("drawn", drawn)):
        found[name] = {"kernel_distance": kernel_distance(images, true), **sharpness(images, true),
                       "attributes": attributes(images, scenes, reader)}
    return found


# ---- a look at words, and questions about pictures ------------------------------------------------------------------

@torch.no_grad()
def vqa(model: UniModel, data, n: int = 200) -> float:
    """Share of questions on held-out pictures whose greedy answer is exactly the expected one."""
    rng, asked = random.Random(11), []
    for i in range(n):
        k = i % data.held_out
        question, answer, _ = rng.choice(world.questions(data.item(k)[0], rng))
        asked.append((question, answer, data.image(k)))
    with autocast():
        written = model.generate_text([q for q, _, _ in asked], [p for _, _, p in asked], max_tokens=12)
    return sum(w.lower() == a.lower() for w, (_, a, _) in zip(written, asked)) / n


LINES = ("My dog died yesterday.", "What's 2+2?", "Tell me a secret.", "Who are you?", "I got a new job!",
         "Do you like soup?", "what are you doing", "You are too bossy.")


@torch.no_grad()
def samples(model: UniModel) -> str:
    """What strangers say to ordinary lines, and to questions about what stands in their description."""
    rng, lines = random.Random(12), []
    for user in LINES:
        p = language.random_persona(rng)
        with autocast():
            prompt = reply_prompt(p.name, language.description(p, rng), "", user)
            lines.append(f"  {user} -> {p.name}, {p.manner}: {model.generate_text([prompt], max_tokens=50)[0]}")
    for prompt, answer, _ in strangers(6, 77):
        with autocast():
            said = model.generate_text([prompt], max_tokens=50)[0]
        asked = prompt.splitlines()[1].removeprefix("User: ")
        lines.append(f"  {asked} [{answer}] -> {said}")
    return "\n".join(lines)
