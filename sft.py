"""Stage 1, Unified-SFT: one model learns to talk as the character and to draw it, in one loop and one loss.

    python sft.py --char coco                  about sixteen minutes on two CPU cores -> runs/coco/sft
    python sft.py --char path/to/folder        your own character, or a folder of RoleScape-20 as published

Every step takes Samples of all tasks (data.py) and minimizes

    loss = w_ce CE(text) + w_mse MSE(velocity)

What the paper does (arXiv 2605.08129 and its code), and where this file differs:

1. The mixture is counted per step (--mix). The published packing gives practically one text sample per pack of
   pictures, and with a small decoder the voice then hardly learns.
2. CE and MSE are means over ALL tokens of a step, however it is cut into micro-batches. So --micro-batch only saves
   memory.
3. Order, dropped texts, noise levels and noise follow from the seed and the step alone; each Sample has a generator of
   its own. So with one thread a run that was killed and resumed is, down to the bits, the run that was never stopped.
   (The published resume reads a folder that is never written.) With two threads, two runs of one command on the
   embedded base parted at step 13, by roundings. Neither micro-batches nor the number of GPUs change what is learned.
4. The loss before the first step is checked. A base that was not really loaded shows as ln(vocabulary), and is refused.
5. Prior preservation (DreamBooth, arXiv 2208.12242), on both sides. Beside the character's pictures stand some that
   the base itself drew, before it learned anything, of the same scenes with somebody else in them. Beside the
   character's replies stand the base's own, said by other personas, and questions about these. Beside the questions
   about the character's pictures stand the same questions about pictures of others, answered by the base. Without the
   first, every creature in a prompt becomes the character; without the second, everybody talks like the character;
   without the third, it sees itself in every picture: asked who is there, it answered without looking.
   In a talk, some strangers are asked for a fact of their own description. If the base's reply is wrong, the words of
   the description are learned instead (`prior_samples`). Outside of a talk these words are always learned
   (`prior_knowledge`). Wrong replies would teach not to read: of 192 in talks the embedded base had 68 right, and of
   160 outside 15. Of replies there must be many: 300, said by 36 personas, were soon known by heart, and others then
   answered 9 of 32 questions out of their own description; with 2,000, said by strangers made up anew, 17 (the base
   20; Hester, texts alone). --mix without the four prior tasks does as the paper.
6. The vision encoder stays as it is. At the rates that a small decoder needs, ten pictures could teach it little and
   make it forget much. --train-vision-encoder does as the paper.
7. What neither draws nor learns by Muon [10] learns at und_rate times the gen expert's rate: hundreds of lines are to
   be learned by heart, while ten pictures are soon learned too well. --und-rate 1 --muon 0 does as the paper.
8. The learning rate goes down to nothing: at a constant rate the last weights are one jump among many. On Coco's texts
   alone the same run came to 1.82 bits a byte with a constant rate and to 1.69 with a falling one, and kept 12 instead
   of 5 of 32 answers that stand in somebody else's description.
9. Labels are smoothed (arXiv 1512.00567). Hundreds of replies are soon known by heart, and without smoothing the model
   then becomes sure of the next word everywhere, also where it is wrong: 1.73 bits a byte, and 1.58 with it (two runs
   that differ a little in their texts, too).
10. The matrices of the und expert learn by Muon (backbone/muon.py), in many small steps. With AdamW, in fewer and
   larger steps, the model knew every reply by heart, and yet gave the right one to only 3 of 160 lines of the training
   itself: which reply belongs to which line is learned last. --muon 0 does as the paper. A step of Muon has the same
   length whatever the gradient; so w_ce and w_mse only decide how much pictures have to say about its direction: twice
   as much as in the paper.
11. The lower third of the und expert stays as it is: what is known there about lines in general (tiny/training/sense.py)
   five hundred lines cannot improve. It also saves time. --frozen 0 does as the paper.
12. What nobody asked in the dialogues is answered as the nearest line in them, and that is learned too: beside the
    dialogues stands what users say to the other shipped characters, each line with the reply to the known lines that are
    nearest in meaning (`nearby_samples`; runtime/recall.py). What is near is learned first, from the wordings in which
    every line stands (runtime/nearness.py). Two blind readers called 70 and 69 of 80 such pairs right; by rare letters
    alone 50 and 49. No reply is new, and no line of the character's test is taken for such a pair.
13. Of seven replies in ten only the first eight tokens are learned. There it is decided which reply a line gets, and
   that is learned last; how a reply goes on is soon known by heart. So a step holds more lines. Facts often come later
   in a reply: examples of the task `fact` are learned whole.
14. To draw what belongs to a talk, it learns to write a short sentence first (task `moment`), and draws from that. The
   paper draws from the talk, with a plan or without. Of such prompts there are only as many as pictures, ten; to a new
   line Coco then drew one of these, mostly with a tear, whatever was said. --mix without `moment` trains as the
   paper does; `chat.py --think` draws as it does.
15. Each picture stands in many wordings (`also` of a scene), and so do the strangers that the base draws. In one wording,
   ten pictures are ten sentences known by heart, and another sentence finds less of the character: of 70 prompts of
   others, likeness .78, and .86 with five wordings more (Coco, pictures alone, one seed).

What a fine-tune on ten pictures destroys is prompt-following. So watch the held-out sample grids in runs/<char>/sft,
not the loss. What it forgets of talk shows in `held_out_bits`: the loss may fall while these rise.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import calendar
import functools
import json
import math
import random
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from backbone.folders import load, locate
from backbone.lora import FitOptions, compile_layers, to_train
from backbone.muon import MuonAdamW
from backbone.wrap import wrap
from characters.schema import alike, names_in
from data import (
    DESCRIBE, SHIPPED, Sample, class_word, load_character, name_alone, read_character, recognition, reply_prompt,
    run_folder, training_samples, without_name)
from model import Example
from runtime.batching import Row, blank_row, kind, micro_batches
from runtime.cli import UserError, parse_options, run_script
from runtime.nearness import Learned, Rarity, learn
from runtime.processes import deal, gather, gradient_norm, is_main, shard, start, sum_over_processes
from runtime.recall import Known, exchanges, known_exchanges, taught_exchanges
from runtime.runs import Means, Run
from runtime.word_measures import said


@dataclass
class Options(FitOptions):        # sizes, precision and adapters (backbone/lora.py) are options of this command too
    char: str = "coco"            # a name under characters/, or a folder
    model: str = "tiny/base"      # the base: a checkpoint folder, or BAGEL-7B-MoT's as published
    backbone: str = ""            # a Qwen2-family language model to wrap; --model lends vision encoder and autoencoder
    out: str = ""                 # the run's folder; empty = runs/<char>/sft
    steps: int = 500              # optimizer steps (paper: 501)
    mix: str = ("t2i=5,t2i_dialogue=1,t2i_plan=1,prior=6,reply=28,fact=12,nearby=18,moment=4,think=1,knowledge=4,"
                "vqa=4,prior_reply=8,prior_knowledge=4,prior_vqa=8")    # Samples per step
    micro_batch: int = 16         # Samples per backward pass, fewer where texts are long: lower it if memory is short
    lr: float = 3e-4              # AdamW (paper: 2e-5 on 7B)
    und_rate: float = 2.5         # times lr: the rate of what neither draws nor learns by Muon (paper: 1)
    frozen: float = 0.34          # share of the und expert's layers, from below, that stay as they are (paper: 0)
    muon: float = 3e-3            # rate of the und expert's matrices, by Muon (backbone/muon.py); 0: AdamW (paper)
    warmup: int = 20              # steps of linear warm-up; then the rate goes down in a line (paper: constant)
    clip: float = 1.0             # largest gradient norm
    smoothing: float = 0.1        # of the labels of text: so much of the target is spread over the vocabulary (paper: 0)
    w_ce: float = 0.25            # weight of cross-entropy (paper: 0.25)
    w_mse: float = 2.0            # weight of the flow-matching error (paper: 1)
    truncate: float = 0.7         # share of the replies of which only the first eight tokens are learned (paper: none)
    drop_text: float = 0.1        # share of Samples with a picture to draw that lose their text: guidance needs these
    train_vision_encoder: bool = False    # train it too (paper: yes, at 2e-5)
    scenes: int = 0               # train on the first so many of the character's pictures alone; 0: all
    prior_pictures: int = 320     # how many the base draws of somebody else, before training
    prior_replies: int = 2000     # as how many strangers it is spoken to; and as many questions about strangers
    seed: int = 0                 # of the order of Samples, of noise levels and noise
    save_every: int = 50          # steps between saves
    sample_every: int = 100       # steps between sample grids
    fresh: bool = False           # forget a run that is already there


# ---- the mixture ----------------------------------------------------------------------------------------------------

def parse_mix(text: str, present: set[str]) -> dict[str, int]:
    """"t2i=6,reply=5" -> Samples per step, of the tasks that the character has examples for. Raises UserError."""
    try:
        pairs = [part.split("=") for part in text.split(",")]
        mix = {task.strip(): int(count) for task, count in pairs}
    except ValueError:
        raise UserError(f"--mix {text}: write task=count,task=count with whole numbers") from None
    usual = {part.split("=")[0] for part in Options.mix.split(",")}
    unknown = sorted(mix.keys() - usual)
    if unknown:
        raise UserError(f"--mix: no task is called {', '.join(unknown)}; take those of the default")
    return {task: count for task, count in mix.items() if task in present and count > 0}


def prepare_examples(model, samples: list[Sample]) -> dict[str, list[Example]]:
    """Task -> its Samples as tensors. Made once: a step then costs no tokenizing and no autoencoder."""
    examples = defaultdict(list)
    for sample in tqdm(samples, "preparing", leave=False):
        examples[sample.task].append(model.prepare(sample))
    return dict(examples)


def next_batch(examples: dict[str, list], mix: dict[str, int], seed: int, step: int, drop_text: float,
               truncate: float = 0.0) -> list[Row]:
    """The rows of a step. Each task walks through its own shuffled list, epoch after epoch, so that in few steps
    nothing is left out. Where it stands follows from the step alone, so a resumed run needs no state for it [3]."""
    chosen, rng = [], random.Random(f"{seed} drop {step}")
    for task, count in mix.items():
        for example in walk(examples[task], count, f"{seed} {task}", step):
            if example.bare and rng.random() < drop_text:
                example = example.bare
            if task in ("reply", "nearby") and rng.random() < truncate:
                example = beginning(example)
            chosen.append((task, example))
    chosen.sort(key=lambda pair: (kind(*pair), len(pair[1].ids)))      # alike beside alike: see micro_batches
    first_seed = (seed * 1_000_003 + step) * 1000
    return [Row(task, example, first_seed + i) for i, (task, example) in enumerate(chosen)]


BEGINNING = 8                     # tokens


def beginning(example: Example) -> Example:
    """Without what follows the first tokens of the response [13]."""
    n = int((example.labels >= 0).nonzero()[0]) + BEGINNING
    return replace(example, ids=example.ids[:n], labels=example.labels[:n], position=example.position[:n])


def walk(items: list, count: int, seed: str, step: int) -> list:
    """The `count` items of a step on an endless walk through a list that is shuffled anew in every epoch."""
    chosen, orders = [], {}
    for at in range(step * count, (step + 1) * count):
        epoch, i = divmod(at, len(items))
        if epoch not in orders:
            orders[epoch] = random.Random(f"{seed} {epoch}").sample(range(len(items)), len(items))
        chosen.append(items[orders[epoch][i]])
    return chosen


# ---- prior preservation: nobody else becomes the character [5] -------------------------------------------------------

PRIOR_TASKS = {"prior", "prior_reply", "prior_knowledge", "prior_vqa"}
NEIGHBOURS = json.loads((Path(__file__).parent / "characters" / "neighbours.json").read_text("utf-8"))


def subjects(count: int, rng: random.Random) -> list[str]:
    """Other people, animals and names, with a description or without: "a gray cat", "Juno", "Otto the green frog"."""
    chosen = []
    for _ in range(count):
        animal = f"{rng.choice(NEIGHBOURS['colors'])} {rng.choice(NEIGHBOURS['species'])}"
        person, name = rng.choice(NEIGHBOURS["people"]), rng.choice(NEIGHBOURS["names"])
        article = "an" if animal[0] in "aeiou" else "a"
        forms = f"{article} {animal}", person, name, f"{name} the {animal}", f"{name}, {person},"
        chosen += rng.choices(forms, (35, 20, 20, 15, 10))
    return chosen


def prior_texts(character, options: Options) -> list[str]:
    """Drawing sentences with somebody else in them. Most are the character's own sentences with a random subject; of
    every four of these one tells the subject alone. One in eight has the class word ("a sea otter cub"). They are the
    very same sentences, so that nothing but the name tells who is meant: of other sentences the decoder would learn that
    THEY show somebody else."""
    rng = random.Random(f"{character.name} prior")
    scenes = [scene["draw"] for scene in character.scenes]
    sentences = [text for scene in character.scenes for text in (scene["draw"], *scene["also"])]
    sentences += [prompt.text for prompt in character.prompts]
    sentences += [name_alone(character.name)] * max(1, len(sentences) // 3)
    word, texts = class_word(character.description), []
    for i, subject in enumerate(subjects(options.prior_pictures, rng)):
        if i % 8 == 0:
            texts.append(without_name(scenes[i // 8 % len(scenes)], character.name, word))
        else:
            texts.append(without_name(rng.choice(sentences), character.name, subject))
    return texts


def stranger(rng: random.Random) -> tuple[str, str, list[tuple[str, list[str]]]]:
    """Somebody else for a talk: name, description, and questions that it answers, each with what a right answer says (one
    of these wordings). One of the personas under another name, with half of the sentences taken from others, and with new
    names for those whom it names: of a few that return, the model would learn by heart that THEY are not meant, and their
    answers without reading."""
    persona, name = rng.choice(NEIGHBOURS["personas"]), rng.choice(NEIGHBOURS["names"])
    she, personas = is_she(persona), NEIGHBOURS["personas"]
    same_pronoun = [other for other in personas if is_she(other) == she and other is not persona]
    sentences, taken, questions = [], set(), {}
    for i in range(4):
        owner = persona if i < 1 or rng.random() < 0.5 else rng.choice(same_pronoun)
        own = re.split(r"(?<=\.) ", owner["description"])
        sentence = own[i] if i < len(own) else rng.choice(own[1:])
        answered = {as_named(item["question"], owner["name"], name): item["accepted"] for item in owner["questions"]
                    if stands(item["accepted"][0], sentence)}
        if sentence not in taken and not answered.keys() & questions.keys():        # nobody collects two things
            taken.add(sentence)
            sentence = as_named(sentence, owner["name"], name)
            for question, accepted in answered.items():
                sentence, answered[question] = with_new_name(sentence, accepted, rng)
            sentences.append(sentence)
            questions |= answered
    description = " ".join(sentences)
    # A new name may stand where another answer had been: only what the description still answers is asked.
    questions = [(asked, accepted) for asked, accepted in questions.items() if stands(accepted[0], description)]
    return (name, description, questions) if questions else stranger(rng)


def stands(words: str, text: str) -> re.Match | None:
    return re.search(rf"\b{re.escape(words)}\b", text, re.IGNORECASE)


NOT_NAMES = {*calendar.day_name, *calendar.month_name}


def with_new_name(sentence: str, accepted: list[str], rng: random.Random) -> tuple[str, list[str]]:
    """("Her parrot is called Captain Puff.", ["captain puff", ...]) -> ("Her parrot is called Captain Zolbin.", ["captain
    zolbin"]). What is no name stays as it is."""
    found = stands(accepted[0], sentence)
    if not found or not found.start() or found[0][0].islower() or found[0].removesuffix("s") in NOT_NAMES:
        return sentence, accepted
    start = found.end() - len(found[0].split()[-1])
    parts = rng.choices(("b", "d", "f", "gr", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z", "pl", "tr"), k=2)
    name = "".join(part + rng.choice("aeiou") + rng.choice(("", "l", "n", "r", "m")) for part in parts).capitalize()
    sentence = sentence[:start] + name + sentence[found.end():]
    return sentence, [sentence[found.start():start + len(name)].lower()]


def is_she(persona: dict) -> bool:
    return bool(re.search(r"\bshe\b", persona["description"], re.IGNORECASE))


def as_named(text: str, old: str, new: str) -> str:
    return re.sub(rf"(?<!\w){re.escape(old)}(?!\w)", new, text)


def in_talk(question: str, name: str) -> str:
    """"What is the name of the dog of Edda?" -> "What is the name of your dog?"."""
    asked = re.sub(rf"\bthe ((?:(?!\bthe\b)[\w ])+) of {name}\b", r"your \1", question)
    for verb, yours in ("does", "do"), ("is", "are"), ("was", "were"), ("has", "have"):
        asked = re.sub(rf"\b{verb} {name}\b", f"{yours} you", asked)
    asked = re.sub(rf"\b{name}\b", "you", asked)           # "Who taught Edda to swim?"
    return re.sub(r"\b(?:his|her)\b", "your", asked)       # "Where does Falko keep his spoons?"


def prior_talks(character, options: Options) -> list[tuple[str, list[str]]]:
    """Prompts in which somebody else is spoken to, each with what a right reply says (one of these wordings); [] where any
    reply will do, to lines that the character's own users say, questions for facts among them. Of five strangers two are
    asked for what stands in their description, two questions each."""
    rng = random.Random(f"{character.name} prior")
    lines = [turn["user"] for turn in character.dialogues]
    lines += [line for fact in character.knowledge for line in fact["also"]]
    lines = lines or ["Hello!", "How are you?", "What do you like?"]
    talks = []
    for i in range(options.prior_replies):
        name, description, questions = stranger(rng)
        said_to_it = [(rng.choice(lines), [])]
        if i % 5 < 2:
            asked = rng.sample(questions, min(2, len(questions)))
            said_to_it = [(in_talk(question, name), accepted) for question, accepted in asked]
        talks += [(reply_prompt(name, description, "", line), accepted) for line, accepted in said_to_it]
    return talks


def prior_knowledge(character, options: Options) -> list[Sample]:
    """A question about each stranger, outside of a talk, with the words of its description that answer it."""
    rng, samples = random.Random(f"{character.name} prior knowledge"), []
    for _ in range(options.prior_replies):
        _, description, questions = stranger(rng)
        question, accepted = rng.choice(questions)
        samples.append(Sample("prior_knowledge", f"{description}\n{question}", as_written(description, accepted)))
    return samples


def as_written(description: str, accepted: list[str]) -> str:
    """The words of a description that answer a question, as they stand there."""
    answer = stands(accepted[0], description)[0]
    return answer[0].upper() + answer[1:]


def drawn_prior(model, texts: list[str], options) -> list[Sample]:
    """What the base draws for these texts. Also of experiments/dreambooth.py."""
    samples = []
    for at in tqdm(range(0, len(texts), 8), "drawing the prior", leave=False):
        some = texts[at:at + 8]
        with model.autocast(options.precision):
            images = model.sample_images(some, range(at, at + len(some)))
        samples += [Sample("prior", text, target=image) for text, image in zip(some, images)]
    return samples


def seen_prior(model, character, drawn: list[Sample], options) -> list[Sample]:
    """What the base answers to the character's own questions about these pictures of others. Of the questions that name
    the character, only whether this is it is asked: the others would be about nobody."""
    rng, samples = random.Random(f"{character.name} prior seen"), []
    asked = [pair["question"] for scene in character.scenes for pair in scene["vqa"]
             if not names_in(pair["question"], character.name)]
    always = [DESCRIBE, recognition(character.name)]
    rows = [(sample.target, question) for sample in drawn
            for question in rng.sample(asked, min(3, len(asked))) + always]
    for at in tqdm(range(0, len(rows), 32), "showing the prior", leave=False):
        images, questions = zip(*rows[at:at + 32])
        with model.autocast(options.precision):
            answers = model.generate_text(questions, list(images), max_tokens=60)
        samples += [Sample("prior_vqa", question, answer, image=image)
                    for image, question, answer in zip(images, questions, answers) if answer]
    return samples


def prior_samples(model, character, options) -> list[Sample]:
    """What the base itself draws, sees and says, before it learns anything; and what strangers' descriptions answer."""
    if options.backbone:                                   # a fresh image head has nothing to preserve
        return []
    wanted, samples = parse_mix(options.mix, PRIOR_TASKS), []
    if wanted.keys() & {"prior", "prior_vqa"}:
        drawn = drawn_prior(model, prior_texts(character, options), options)
        samples += drawn if "prior" in wanted else []
        samples += seen_prior(model, character, drawn, options) if "prior_vqa" in wanted else []
    if "prior_knowledge" in wanted:
        samples += prior_knowledge(character, options)
    talks = prior_talks(character, options) if "prior_reply" in wanted else []
    for at in tqdm(range(0, len(talks), 96), "asking the prior", leave=False):
        some = talks[at:at + 96]
        with model.autocast(options.precision):
            replies = model.generate_text([prompt for prompt, _ in some], max_tokens=60)
        for (prompt, accepted), reply in zip(some, replies):
            if accepted and not said(reply, accepted):
                reply = f"{as_written(prompt, accepted)}."
            samples += [Sample("prior_reply", prompt, reply)] if reply else []
    return samples


# ---- lines that the character was never told [12] --------------------------------------------------------------------

def hears_others(character, options) -> bool:
    """Whether stage 1 learns such lines."""
    return bool(not options.backbone and taught_exchanges(character) and parse_mix(options.mix, {"nearby"}))


def learn_nearness(character, options) -> Learned | None:
    """Which lines mean the same, from all that is said to this character and to the shipped ones (runtime/nearness.py),
    but for lines of its test. None where nothing would use it, or where the character itself has no line in two wordings:
    then rare letters and words say more."""
    own = known_exchanges(character)
    if not hears_others(character, options) or len({reply for _, reply in own}) == len(own):
        return None
    said_to_others = [exchanges(other["dialogues"] + other["lookup"], other["knowledge"])
                      for other in shipped_others(character.name)]
    untested = set(without_tested({line for pairs in said_to_others for line, _ in pairs}, character))
    return learn([own, *([pair for pair in pairs if pair[0] in untested] for pairs in said_to_others)])


def without_tested(lines: set[str], character) -> list[str]:
    """The lines, in order, that are not nearly a line or a question of the character's test."""
    test = character.test
    tested = [turn["user"] for turn in test["dialogues"] + test["scenes"]] + test["memorization"] + test["personality"]
    tested += [item["question"] for item in test["facts"] + test["knowledge"]]
    return [line for line in sorted(lines) if not any(alike(line, text) for text in tested)]


def nearby_samples(character, options, nearness: Rarity | Learned | None) -> list[Sample]:
    """What people say to others, each line with the known reply that has the most weight (runtime/recall.py): the surer
    half of all such lines, and no more than there are known ones: a few replies would else answer most lines."""
    if not hears_others(character, options):
        return []
    known = Known(taught_exchanges(character), nearness)
    lines = lines_to_others(character.name) - {line for line, _ in known_exchanges(character)}
    lines = without_tested(lines, character)
    weight, best = known.weights(lines).max(1)                                                         # (lines,)
    surer = weight.argsort(descending=True, stable=True)[:min(len(lines) // 2, len(known.texts))].tolist()
    return [Sample("nearby", reply_prompt(character.name, character.description, character.opening, lines[i]),
                   known.answers[best[i]]) for i in surer]


def lines_to_others(name: str) -> set[str]:
    """What users say to the shipped characters of other names; who is called by name is called by this name instead."""
    return {as_named(line, other["name"], name) for other in shipped_others(name)
            for turn in other["dialogues"] + other["lookup"] for line in (turn["user"], *turn["also"])}


def shipped_others(name: str) -> list[dict]:
    """The shipped characters of other names."""
    return [other for other in characters_in(SHIPPED) if other["name"] != name]


@functools.cache                                            # to look at all pictures takes more than a second
def characters_in(folder: Path) -> list[dict]:
    return [read_character(file.parent) for file in sorted(folder.glob("*/character.json"))]


# ---- one step -------------------------------------------------------------------------------------------------------

def accumulate(model, batch: list[Row], options: Options, means: Means) -> float:
    """Forward and backward over all micro-batches -> the loss of the step; `means` gets its parts for the log.

    The counts are those of the whole batch, so how it is cut changes nothing [2]. Several processes deal the
    micro-batches out among themselves (`deal`, runtime/processes.py)."""
    n_ce = max(1, sum(int((row.example.labels >= 0).sum()) for row in batch))
    n_mse = max(1, sum(latent_tokens(row.example, model.config) for row in batch))
    loss_of_step = 0.0
    for part, weight in deal(micro_batches(batch, options.micro_batch), blank_row(model.config)):
        with model.autocast(options.precision):
            losses = model([row.example for row in part], [row.seed for row in part], smoothing=options.smoothing)
        real = torch.tensor([float(row.task != "") for row in part], device=losses.mse.device)
        ce = losses.ce.sum() / n_ce
        mse = (losses.mse * real).sum() / n_mse
        loss = options.w_ce * ce + options.w_mse * mse
        record(part, losses, means)
        if loss.requires_grad:
            (loss * weight).backward()
        loss_of_step += loss.item()
    return sum_over_processes(loss_of_step)


def latent_tokens(example: Example, c) -> int:
    if example.latent is None:
        return 0
    return example.latent[0, 0].numel() // c.latent_patch_size ** 2


def record(part: list[Row], losses, means: Means):
    """Each loss under its task, and the flow loss under its noise level too: t0 ... t3, quarters of t."""
    columns = (x.tolist() for x in (losses.ce, losses.ce_tokens, losses.mse, losses.mse_tokens, losses.t))
    for row, ce, words, mse, tokens, t in zip(part, *columns):
        if words:
            means(f"ce/{row.task}", ce / words, words)
        if tokens and row.task:
            means(f"mse/{row.task}", mse / tokens, tokens)
            means(f"mse/t{int(min(t, 0.999) * 4)}", mse / tokens, tokens)


# ---- what learns ----------------------------------------------------------------------------------------------------

def is_generation_weight(name: str) -> bool:
    """The parameters of the gen expert and of the image head: all that learns in stage 2."""
    return "moe_gen" in name or name.startswith(("vae2llm", "llm2vae", "time_embedder"))


def learns_in_sft(name: str, options: Options, config) -> bool:
    """All but the autoencoder, two tables that are computed, the vision encoder [6], and the lower layers of the und
    expert with the embeddings [11]. A wrapped language model has embeddings that are new, so all of it learns."""
    if name.startswith(("vae.", "latent_pos_embed.", "vit_pos_embed.")):
        return False
    if name.startswith("vit_model."):
        return options.train_vision_encoder
    lower = 0 if options.backbone else int(options.frozen * config.num_hidden_layers)
    if not lower or is_generation_weight(name):
        return True
    layer = re.match(r"language_model\.model\.layers\.(\d+)\.", name)
    return int(layer[1]) >= lower if layer else not name.startswith("language_model.model.embed_tokens.")


def trainable_parameters(model, options: FitOptions, learns) -> dict[str, torch.nn.Parameter]:
    """Chooses by `learns(name)` what is trained, and freezes the rest -> the trained parameters by name, in float32.
    With --lora these are adapters on the chosen projections. Raises UserError if options disagree. Also of grpo.py."""
    model.language_model.model.gradient_checkpointing = options.checkpointing
    torch.manual_seed(options.seed)                        # new adapters begin alike on every process
    to_train(model, options, learns)
    shard(model, options.precision == "bf16" and model.device.type == "cuda")
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def make_optimizer(trained: dict, options: Options) -> MuonAdamW:
    """What draws learns at `lr`, the rest at `lr` times `und_rate` [7], and the matrices of the und expert by Muon [10]."""
    def part(name: str) -> str:
        if is_generation_weight(name):
            return "gen"
        und_layer = name.startswith("language_model.model.layers.")
        matrix = trained[name].ndim == 2
        return "muon" if options.muon and und_layer and matrix else "und"
    rates = {"gen": options.lr, "und": options.lr * options.und_rate, "muon": options.muon}
    groups = [{"params": [p for name, p in trained.items() if part(name) == which], "peak": rate,
               "muon": which == "muon"} for which, rate in rates.items()]
    groups = [group for group in groups if group["params"]]
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    return MuonAdamW(groups, dtype, lr=options.lr, betas=(0.9, 0.95), eps=1e-15, weight_decay=0.0, fused=True)


def set_learning_rate(optimizer, step: int, options: Options):
    """Linear warm-up and linear decay, whichever is lower [8]. The last step still has 1 / steps of the peak rate."""
    share = min((step + 1) / options.warmup, 1 - step / options.steps)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share


# ---- the loop -------------------------------------------------------------------------------------------------------

def chosen_character(options: Options):
    """The character, with the first --scenes of its pictures."""
    character = load_character(options.char)
    if options.scenes < 0:
        raise UserError(f"--scenes {options.scenes}: must be 0, for all, or more")
    character.scenes = character.scenes[:options.scenes or None]
    return character


def load_base(options: Options):
    if options.backbone:
        return wrap(options.backbone, options.model, options.device, options.image_size)
    return load(options.model, options.device, options.weights, options.image_size)


def main(argv=None):
    options = parse_options(Options, __doc__, argv)
    options.precision = start(options.device, options.precision)
    character = chosen_character(options)
    own_samples = training_samples(character)
    begins_with = {"model": Path(locate(options.model)), "char": own_samples}
    if options.backbone:
        begins_with["backbone"] = Path(options.backbone)
    folder = Path(options.out) if options.out else run_folder(options.char, "sft")
    run = Run(folder, "sft", options, options.steps, character, begins_with)

    model = load_base(options).train()
    trained = trainable_parameters(model, options, lambda name: learns_in_sft(name, options, model.config))
    if options.compile:
        compile_layers(model)
    nearness = Learned.load(folder) if run.record else None          # of a run that goes on
    nearness = nearness or gather(learn_nearness(character, options) if is_main() else None)[0]
    made = prior_samples(model, character, options) + nearby_samples(character, options, nearness)
    examples = prepare_examples(model, own_samples + made)
    mix = parse_mix(options.mix, set(examples))
    if not mix:
        raise UserError(f"--mix {options.mix}: leaves nothing to learn; there are examples of {', '.join(sorted(examples))}")
    run.say(about_mixture(character.name, examples, mix))
    if unused := sorted(set(examples) - set(mix)):
        run.say(f"not learned, for --mix gives them no count: {', '.join(unused)}")
    optimizer = make_optimizer(trained, options)
    run.restore(model, trained, optimizer)
    if nearness:
        nearness.save(folder)                               # chat.py asks it, too
    shown = grid_prompts(character)
    if run.step == 0:
        run.sample_grid(shown)

    for step in run.steps():
        means = Means(step)
        set_learning_rate(optimizer, step, options)
        batch = next_batch(examples, mix, options.seed, step, options.drop_text, options.truncate)
        means("loss", accumulate(model, batch, options, means))
        means("grad_norm", gradient_norm(trained.values(), options.clip))
        if run.due(options.sample_every) and (bits := held_out_bits(model, character, options.precision)):
            means("held_out_bits", bits)
        if step == 0:
            check_base(means.result(), model, options.model, character.description)        # [4]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        run.log(means.result())
        if run.due(options.sample_every):
            run.sample_grid(shown)

    if mix.keys() >= {"t2i", "prior"}:
        run.say(about_pictures(run.rows("mse/t2i"), run.rows("mse/prior"), options.steps))
    run.finish("grpo.py", "--char", options.char, *(["--model", options.out] if options.out else []))


def grid_prompts(character) -> list[str]:
    """What a sample grid shows: six held-out prompts, and two of them with somebody else, who must not become the
    character. Also of grpo.py."""
    texts = [prompt.text for prompt in character.test["prompts"]] or [scene["draw"] for scene in character.scenes]
    others = subjects(2, random.Random(f"{character.name} grid"))
    return texts[:6] + [without_name(text, character.name, other) for text, other in zip(texts, others)]


@torch.no_grad()
def held_out_bits(model, character, precision: str) -> float | None:
    """Bits per byte of the true replies to held-out lines, by the weights alone, as eval.py has them. None without any."""
    test, prompt_of = character.test, partial(reply_prompt, character.name, character.description, character.opening)
    talk = [turn for turn in test["dialogues"] + test["scenes"] if turn["reply"]]
    if not talk:
        return None
    examples = [model.prepare(Sample("reply", prompt_of(turn["user"]), turn["reply"])) for turn in talk]
    with model.autocast(precision):
        losses = model(examples, seeds=range(len(examples)))
    return losses.ce.sum().item() / math.log(2) / sum(len(turn["reply"].encode()) for turn in talk)


def about_mixture(name: str, examples: dict[str, list], mix: dict[str, int]) -> str:
    counts = [f"{task} {len(examples[task])} ({count} a step)" for task, count in mix.items()]
    return f"{name}: {', '.join(counts)}"


def about_pictures(own: list[float], prior: list[float], steps: int) -> str:
    """Whether the character's pictures were shown often enough, from the flow losses of a run. The measure is what the
    base itself drew. Coco, whose pictures are of the base's world, ended at .43 and at .51 of it in two runs; so
    below 0.6 no advice is given. Photographs of a cat, on an earlier base, took six times her steps to come to half."""
    if not own or not prior:                               # its log was lost
        return "flow loss at the end: not in the log"
    own, prior = (sum(losses[-50:]) / len(losses[-50:]) for losses in (own, prior))
    found = f"flow loss at the end: {own:.2f} of the character's pictures, {prior:.2f} of what the base drew"
    if own < 0.6 * prior:
        return found
    return f"{found}. They are not learned yet: the same command with --steps {2 * steps} goes on"


@torch.no_grad()
def check_base(losses: dict, model, path: str, text: str):
    """Refuses an untrained base [4]. Its cross-entropy is about ln V, and so is the entropy of its next token behind
    any `text`. A trained base may know a stranger's texts as badly, but it is sure of something: refuse only if
    both are high. Raises UserError."""
    told = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
    tqdm.write(f"loss before the first step: {told}")
    uniform = math.log(model.config.vocab_size)
    ce = [value for name, value in losses.items() if name.startswith("ce/")]
    if not ce or sum(ce) / len(ce) <= 0.95 * uniform:
        return
    bos = torch.tensor([[model.bos]], device=model.device)
    hidden, _ = model.extend(model.context([text]), bos)
    log_p = model.language_model.lm_head(hidden[0, -1]).float().log_softmax(-1)
    entropy = -(log_p.exp() * log_p).sum().item()
    if entropy > 0.85 * uniform:
        raise UserError(f"{path}: its cross-entropy is that of random weights ({sum(ce) / len(ce):.2f}, and of its "
                        f"next word {entropy:.2f}, of ln V = {uniform:.2f}); give a trained base")


if __name__ == "__main__":
    run_script(main)
