"""What a line means, from a teacher that has read far more than the base can.

The base reads some ten million words: too few to find out that "what are you scared of" and "does anything frighten
you" ask the same. A character who is asked in words that no training held then answers at random. Tables of word
vectors know such things, and are small: that of the package `wordllama` (MIT licence) has 16 MB, and the mean over a
line's words is a good measure of what it asks. So a line's vector becomes a target: where a reply begins, half-way
through the layers, the hidden state should tell what was said. It is REPA (arXiv 2410.06940; drawing.py has it for
pictures) for words. The head that reads the vector is thrown away.

    pip download --no-deps -d PACKAGES wordllama

The wheel is only read, never run, and nothing of it stands in this repository but what the weights learned.
"""
import random
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from safetensors.torch import load
from tokenizers import Tokenizer

from data import reply_prompt
from model import Example, UniModel
from tiny import language
from tiny.language import english
from tiny.training.trainer import autocast

LAYER = 3                              # half-way: the upper half makes a reply of it
LINES = 96                             # lines a step that are heard and not answered: by each of PERSONAS, and by nobody
PERSONAS = 2


class Teacher:
    """Lines -> their vectors (n, 256), of length one. What all lines have in common is taken away first."""

    def __init__(self, packages: Path, lines: list[str]):
        with english.wheel(packages, "wordllama") as archive:
            self.vectors, = load(archive.read("wordllama/weights/l2_supercat_256.safetensors")).values()
            words = archive.read("wordllama/tokenizers/l2_supercat_tokenizer_config.json")
        self.tokenizer = Tokenizer.from_str(words.decode())
        self.common = torch.zeros(self.vectors.shape[1])
        self.common = self(lines).mean(0)

    def __call__(self, lines: list[str]) -> torch.Tensor:
        rows = [self.tokenizer.encode(line, add_special_tokens=False).ids or [0] for line in lines]
        means = torch.stack([self.vectors[row].float().mean(0) for row in rows])
        return F.normalize(F.normalize(means, dim=-1) - self.common, dim=-1)


class Sense(nn.Module):
    """Two heads that read the teacher's vector: of a line, where the reply to it begins; of a word, in its embedding."""

    def __init__(self, model: UniModel, packages: Path, lines: list[str]):
        super().__init__()
        C = model.config.hidden_size
        self.lines = lines
        self.teacher = Teacher(packages, self.lines[:4000])
        width = self.teacher.vectors.shape[1]
        self.line = nn.Sequential(nn.Linear(C, C), nn.SiLU(), nn.Linear(C, width))
        self.word = nn.Linear(C, width)
        self.names = {i: name for i in range(model.config.vocab_size)
                      if (name := model.tokenizer.decode([i]).strip()).isalpha()}
        self.of_names = self.teacher(list(self.names.values()))
        self.hidden = None
        model.language_model.model.layers[LAYER - 1].register_forward_hook(self.keep)

    def keep(self, module, inputs, output):
        self.hidden = output[0]

    def of_texts(self, model: UniModel, texts: list) -> torch.Tensor:
        """Mean error for the texts that have a line, and that the model has just been given."""
        rows = [i for i, text in enumerate(texts) if text.line]
        if not rows:
            return torch.zeros(())
        starts = [len(model.text_ids(texts[i].prompt)) + 2 for i in rows]
        return self.error(self.line, self.hidden[rows, starts], self.teacher([texts[i].line for i in rows]))

    def of_lines(self, model: UniModel, rng: random.Random) -> torch.Tensor:
        """Of lines that are heard and not answered: by the lower half alone, so that a step holds hundreds."""
        total = torch.zeros(())
        for k in range(PERSONAS + 1):
            p = language.random_persona(rng)
            told = language.description(p, rng, words=20)
            lines = sorted((self.a_line(rng) for _ in range(LINES)), key=len)
            prompts = [reply_prompt(p.name, told, "", line) if k else line for line in lines]
            total = total + self.error(self.line, self.heard(model, prompts), self.teacher(lines))
        return total / (PERSONAS + 1)

    def heard(self, model: UniModel, prompts: list[str]) -> torch.Tensor:
        """(n, C): the hidden state half-way, where the reply to each prompt begins. What prompts share is read once."""
        examples = []
        for prompt in prompts:
            ids = torch.tensor([model.bos] + model.text_ids(prompt) + [model.eos, model.bos])
            examples.append(Example(ids, torch.full_like(ids, -100), torch.arange(len(ids))))
        decoder = model.language_model.model
        whole, decoder.layers = decoder.layers, decoder.layers[:LAYER]
        context, examples = model.read_shared_beginning(examples)
        und, position = model.embed_und(examples)
        decoder(und, und[:, :0], position, context)
        decoder.layers = whole
        return self.hidden[range(len(examples)), [len(e.ids) - 1 for e in examples]]

    def a_line(self, rng) -> str:
        """What a person, or a user of the invented world, said."""
        if rng.random() < 0.6:
            return rng.choice(self.lines)
        return language.conversation(language.random_persona(rng), rng).user

    def of_words(self, model: UniModel) -> torch.Tensor:
        """Of the embeddings of all words in the vocabulary."""
        embeddings = model.language_model.model.embed_tokens.weight[list(self.names)]
        return self.error(self.word, embeddings, self.of_names)

    def error(self, head, hidden, target) -> torch.Tensor:
        """1 - cosine, mean over rows (n, C) and targets (n, 256)."""
        with autocast():
            told = head(hidden)
        return (1 - F.cosine_similarity(told.float(), target, dim=-1)).mean()
