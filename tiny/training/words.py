"""The understanding expert learns to read, to see and to talk. Nothing is drawn here.

The generation expert sees what the understanding expert has read, but never the other way round (model.py, the rule of
the mask). So this half of the model can be trained first, alone, and stay as it is while the other half learns to draw
(drawing.py): then a prompt is read once, without a gradient, for many noised pictures.

What a step holds:
    talk      invented personas, real English, plans, knowledge, stories, questions about a caption
    look      a picture and a description of it
    ask       a picture and many questions about it, each apart; the picture is read once
"""
import random
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from data import Sample, plan_text, reply_prompt, think_prompt
from model import UniModel, pad_rows
from tiny import language, world
from tiny.language import english
from tiny.training.pictures import Pictures
from tiny.training.sense import Sense
from tiny.training.trainer import Trainer, autocast, compile_layers

DESCRIBE = ("Describe this picture.", "What do you see?", "What is in the picture?", "Say what the picture shows.")
STORY = ("Tell me something.", "Tell me a story.", "Say something.")
AFTER_ME = ("Say after me:", "Repeat:", "Please repeat this:", "Say this again:", "Read this aloud:")
KNOWN = 96                             # people whose facts are learned by heart


@dataclass
class Text:
    """A prompt with its response. What of the prompt is real English is worth learning too: `prompt_weight` of a
    token's loss there, beside 1 in the response."""
    prompt: str
    response: str
    prompt_weight: float = 0.0
    line: str = ""                     # what the user says in it, if anything: see sense.py
    kind: str = ""                     # for the log


class Texts:
    """Texts of every kind, made on the spot."""

    def __init__(self, packages: Path):
        rng = random.Random(5)
        self.known = [language.random_persona(rng) for _ in range(KNOWN)]
        self.english = english.exchanges(packages)
        self.talks, self.nouns = english.conversations(packages), english.nouns(packages)
        # To find an answer in what was read is learned in short texts first: `after_me`, `among_several`, `open_book`.
        self.kinds = {self.stranger: 30, self.known_person: 7, self.real_exchange: 18, self.real_talk: 4, self.plan: 5,
                      self.knowledge: 5, self.open_book: 16, self.after_me: 10, self.among_several: 8, self.story: 2,
                      self.about_a_caption: 3}
        self.words = sorted({word for _, line, _ in self.english[:4000] for word in line.split() if word.isalpha()})

    def text(self, rng) -> Text:
        make, = rng.choices(list(self.kinds), list(self.kinds.values()))
        return replace(make(rng), kind=make.__name__)

    def held_out(self, before: str) -> bool:
        """One exchange in fifty is never trained on, chosen by its text."""
        return sum(map(ord, before)) % 50 == 0

    # -- personas --
    def someone(self, rng):
        """Three in five have facts that no list holds."""
        p = language.random_persona(rng)
        return language.unheard(p, self.nouns, rng) if rng.random() < 0.6 else p

    def stranger(self, rng) -> Text:
        """Everything that the reply rests on stands in the prompt."""
        p = self.someone(rng)
        return self.told(p, language.conversation(p, rng))

    def known_person(self, rng) -> Text:
        """The prompt says little, as that of a character who is trained on: the rest is known by heart."""
        p = rng.choice(self.known)
        return self.told(p, language.conversation(p, rng, known=True))

    def told(self, p, talk) -> Text:
        prompt = reply_prompt(p.name, talk.description, talk.opening, talk.user, talk.history)
        return Text(prompt, talk.reply, 0.05, talk.user)

    def plan(self, rng) -> Text:
        p = rng.choice(self.known) if rng.random() < 0.2 else language.random_persona(rng)
        moment = language.moment(p, rng)
        told = language.description(p, rng, moment.about)
        if rng.random() < 0.3:                             # the reply of a moment, without the plan
            return Text(reply_prompt(p.name, told, "", moment.user), moment.reply, 0.05, moment.user)
        return Text(think_prompt(p.name, told, moment.user, moment.reply),
                    plan_text(moment.thinking, moment.instruction))

    def knowledge(self, rng) -> Text:
        """Closed book, about people who are known."""
        p = rng.choice(self.known)
        return Text(*language.knowledge(p, rng.choice(language.kinds(p)), rng))

    def open_book(self, rng) -> Text:
        """About strangers: the answer stands in one sentence, or in a description."""
        p = self.someone(rng)
        kind = rng.choice(language.kinds(p))
        question, answer = language.knowledge(p, kind, rng)
        if rng.random() < 0.4:
            return Text(f"{language.statement(p, kind, rng)}\n{question}", answer, 0.05, question)
        needed = language.facts_behind(language.table("facts")[kind]["answer"])
        told = language.description(p, rng, {**needed, kind: needed.get(kind, set())}, rng.choice((30, 45, 60)))
        return Text(f"Description: {told}\n{question}", answer, 0.05, question)

    def after_me(self, rng) -> Text:
        """A line said again. Of words by chance there is no other way than to look back at each."""
        if rng.random() < 0.7:
            line = " ".join(rng.sample(self.words, rng.randint(3, 24)))
        else:
            p = language.random_persona(rng)
            line = language.statement(p, rng.choice(language.kinds(p)), rng)
        return Text(f"{rng.choice(AFTER_ME)} {line}", line, 0.02)

    def among_several(self, rng) -> Text:
        """The same fact of two to four people, and a question about one of them."""
        people = [self.someone(rng) for _ in range(rng.randint(2, 4))]
        kind = rng.choice([kind for kind in language.kinds(people[0]) if kind != "hat"])
        told = "\n".join(language.statement(p, kind, rng) for p in people)
        question, answer = language.knowledge(rng.choice(people), kind, rng)
        return Text(f"{told}\n{question}", answer, 0.02)

    # -- real English --
    def real_exchange(self, rng) -> Text:
        """What people said to each other, half of it under the name of an invented persona."""
        before, line, answer = rng.choice(self.english)
        if self.held_out(line):
            return self.real_exchange(rng)
        if rng.random() < 0.5:
            return Text(line if not before else f"{before}\n{line}", answer, 0.7, line)
        p = language.random_persona(rng)
        history = [(p.name, before)] if before and rng.random() < 0.5 else []
        told = language.description(p, rng, words=rng.choice((20, 40)))
        return Text(reply_prompt(p.name, told, "", line, history), answer, 0.1, line)

    def real_talk(self, rng) -> Text:
        """Several turns of a conversation: all of it is learned."""
        talk = rng.choice(self.talks)
        begin = rng.randrange(max(1, len(talk) - 4))
        lines = [line for line in talk[begin:begin + rng.randint(3, 6)] if line and not self.held_out(line)]
        text = "\n".join(lines)[:500]
        first, _, rest = text.partition("\n")
        return Text(first, rest, 0.99) if rest else self.real_exchange(rng)

    # -- plain English --
    def story(self, rng) -> Text:
        return Text(rng.choice(STORY), language.story(rng))

    def about_a_caption(self, rng) -> Text:
        """What belongs to which thing, from words alone: what is learned here serves drawing."""
        scene = world.random_scene(rng)
        question, answer, _ = rng.choice([row for row in world.questions(scene, rng) if row[1] not in ("yes", "no")])
        return Text(f"{world.caption(scene, rng)}\n{question}", answer, 0.3)


class Looking:
    """Pictures with what is said about them."""

    def __init__(self, pictures: Pictures):
        self.pictures = pictures

    def look(self, rng) -> Sample:
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject = persona.name if persona and rng.random() < 0.7 else None
        return Sample("vqa", rng.choice(DESCRIBE), world.caption(scene, rng, subject=subject),
                      image=self.pictures.image(i))

    def ask(self, rng, open_ones: int = 5, others: int = 5):
        """A picture, and questions about it: open ones, and those of yes or no."""
        i = self.pictures.mixed(rng)
        scene, persona, _ = self.pictures.item(i)
        subject = persona.name if persona and rng.random() < 0.7 else None
        asked = world.questions(scene, rng, subject=subject)
        closed = [row for row in asked if row[1] in ("yes", "no")]
        wide = [row for row in asked if row[1] not in ("yes", "no")]
        chosen = rng.sample(wide, min(len(wide), open_ones)) + rng.sample(closed, min(len(closed), others))
        return self.pictures.image(i), [Sample("vqa", question, answer) for question, answer, _ in chosen]


# ---- losses ---------------------------------------------------------------------------------------------------------

def text_loss(model: UniModel, texts: list[Text]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sum of weighted cross-entropies; and, for each text, sum and count of those in its response, (B,)."""
    ids, labels, weights = [], [], []
    for text in texts:
        row, target, weight = [], [], []
        for part, worth in ((text.prompt, text.prompt_weight), (text.response, 1.0)):
            chunk = [model.bos] + model.text_ids(part) + [model.eos]
            row += chunk
            target += chunk[1:] + [-100]
            weight += [worth] * len(chunk)
        ids.append(torch.tensor(row))
        labels.append(torch.tensor(target))
        weights.append(torch.tensor(weight))
    ids, labels, weights = pad_rows(ids), pad_rows(labels, -100), pad_rows(weights)
    position = torch.arange(ids.shape[1]).expand_as(ids)   # padding stands behind its row: causal attention hides it
    x = model.language_model.model.embed_tokens(ids)
    hidden, _, _ = model.language_model.model(x, x[:, :0], position)
    keep = (labels >= 0) & (weights > 0)
    nll = F.cross_entropy(model.language_model.lm_head(hidden[keep]).float(), labels[keep], reduction="none")
    response, row = (weights[keep] == 1).float(), keep.nonzero()[:, 0]
    sums = torch.zeros(2, len(texts)).index_add(1, row, torch.stack((nll.detach() * response, response)))
    return (nll * weights[keep]).sum(), *sums


def ask_loss(model: UniModel, rows: list) -> torch.Tensor:
    """Mean cross-entropy of the answers. A picture is read once and serves all its questions, each apart."""
    images, asked = zip(*rows)
    context = model.context([None] * len(images), list(images))
    owner = torch.tensor([i for i, samples in enumerate(asked) for _ in samples])
    examples = [model.prepare(sample) for samples in asked for sample in samples]
    ids, labels = pad_rows([e.ids for e in examples]), pad_rows([e.labels for e in examples], -100)
    nll, tokens = model.cross_entropy(model.extend(context.rows(owner), ids)[0], labels)
    return nll.sum() / tokens.sum()


# ---- how the weights begin -------------------------------------------------------------------------------------------

LOUD = 0.5                             # standard deviation of the embeddings at the beginning


def begin(model: UniModel):
    """To say again what was read, a model must tell which token it read. Two things decide whether it ever learns that.

    Reading and saying begin as one table, as in the small Qwen2.5: with two random tables there is no linear way from
    a token's embedding to its logit, and after 1,600 steps nothing was copied. And the embeddings begin loud. At the
    usual 0.02 the first layer's output drowns them: nothing above it can see which token stands where. The last norm
    begins as much quieter, so that the logits begin as usual."""
    decoder, head = model.language_model.model, model.language_model.lm_head
    torch.nn.init.normal_(decoder.embed_tokens.weight, std=LOUD)
    decoder.norm.weight.data.fill_(model.config.hidden_size ** -0.5 / LOUD)
    head.weight = decoder.embed_tokens.weight
    look_back(model)


@torch.no_grad()
def look_back(model: UniModel):
    """Begins with an induction circuit (arXiv 2209.11895), which otherwise takes most of the training to form: "what
    stood behind the same token before, stands here next". One head of the first layer attends to the token before,
    whatever it is, and writes what it was into a part of the stream that is free of the token itself. One head of the
    second layer looks for places where that is the present token. What follows from it is left to training."""
    first, second = (layer.self_attn for layer in model.language_model.model.layers[:2])
    D, C = first.head_dim, model.config.hidden_size
    head, kv = model.config.num_attention_heads - 2, model.config.num_key_value_heads - 1      # of one group
    q_rows, k_rows = slice(head * D, (head + 1) * D), slice(kv * D, (kv + 1) * D)
    basis = torch.linalg.qr(torch.randn(C, D))[0].T
    token, before = basis[:D // 2], basis[D // 2:]

    fast = torch.arange(3)                                 # the quickest rotations tell one place from the next
    turn = model.config.rope_theta ** (-2.0 * fast / D)
    first.q_proj.weight[q_rows] = 0                        # query and key are constants, in the biases alone,
    first.k_proj.weight[k_rows] = 0                        # turned so that they meet at a distance of one
    first.q_proj.bias[q_rows][fast] = 1
    first.k_proj.bias[k_rows][fast] = turn.cos()
    first.k_proj.bias[k_rows][fast + D // 2] = turn.sin()
    for norm in (first.q_norm, first.k_norm):
        norm.weight[fast] = 2.2
        norm.weight[fast + D // 2] = 2.2
    first.v_proj.weight[k_rows][:D // 2] = token
    first.o_proj.weight[:, q_rows][:, :D // 2] = LOUD * before.T

    slow = torch.cat((torch.arange(D // 4, D // 2), torch.arange(3 * D // 4, D)))      # these hardly see the distance
    second.q_proj.weight[q_rows] = 0
    second.k_proj.weight[k_rows] = 0
    second.q_proj.weight[q_rows][slow] = token
    second.k_proj.weight[k_rows][slow] = before


# ---- training -------------------------------------------------------------------------------------------------------

SENSE_WEIGHT = 2.0
TOKENS_A_STEP = 1000                   # about the response tokens of a step; a constant, so that steps weigh alike
TEXTS, LOOKS, ASKS = 48, 4, 16         # a step's texts, descriptions, and pictures to be asked about
MICRO = 12                             # texts of like length go through the model together
LEARNING_RATE, MUON_RATE = 2.5e-3, 3e-3
TABLE_RATE = 1e-2                      # of the embeddings, which begin loud and so need larger steps


def learns(name: str) -> bool:
    """Words, the understanding expert and the connector: neither the vision encoder, which was trained before, nor
    anything that draws."""
    drawing = "moe_gen" in name or name.startswith(("vae", "llm2vae", "time_embedder", "latent_pos", "vit_pos"))
    return not drawing and not name.startswith("vit_model")


def train_words(model: UniModel, work: Path, packages: Path, pictures: Pictures | None, steps: int, look=None):
    begin(model)
    for name, p in model.named_parameters():
        p.requires_grad_(learns(name))
    texts, looking = Texts(packages), Looking(pictures) if pictures else None
    said = [line for _, line, _ in texts.english if not texts.held_out(line)]
    lines = said + [part for line in said for part in english.sentences(line)]
    together = nn.ModuleDict({"model": model, "sense": Sense(model, packages, lines)})
    trainer = Trainer(work, "words", together, steps, LEARNING_RATE, MUON_RATE,
                      tables={"model.language_model.model.embed_tokens.weight": TABLE_RATE})
    sense = together["sense"]
    compile_layers(model)

    def loss_of(step, rng):
        rows = sorted((texts.text(rng) for _ in range(TEXTS)), key=lambda text: len(text.prompt) + len(text.response))
        said, tokens = defaultdict(float), defaultdict(float)
        for some in (rows[i:i + MICRO] for i in range(0, TEXTS, MICRO)):
            with autocast():
                loss, sums, counts = text_loss(model, some)
                heard = sense.of_texts(model, some)
            (loss / TOKENS_A_STEP + SENSE_WEIGHT * heard / (TEXTS // MICRO)).backward()
            for text, total, count in zip(some, sums.tolist(), counts.tolist()):
                said[text.kind] += total
                tokens[text.kind] += count
        seen = {"talk": sum(said.values()) / sum(tokens.values())}
        seen |= {f"talk/{kind}": said[kind] / tokens[kind] for kind in said}
        with autocast():
            line, word = sense.of_lines(model, rng), sense.of_words(model)
        (SENSE_WEIGHT * (line + word)).backward()
        seen |= {"sense/line": line.detach(), "sense/word": word.detach()}
        if looking and step % 2 == 0:                      # seeing was learned before: half as often is enough
            with autocast():
                ask = ask_loss(model, [looking.ask(rng) for _ in range(ASKS)])
                (0.5 * ask).backward()
                losses = model([model.prepare(looking.look(rng)) for _ in range(LOOKS)])
            described = losses.ce.sum() / losses.ce_tokens.sum()
            (0.15 * described).backward()
            seen |= {"ask": ask.detach(), "look": described.detach()}
        return seen

    trainer.run(loss_of, look, 500)
    head = model.language_model.lm_head                    # from here on, two tables, as in BAGEL
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
