"""What is known: which reply belongs to a line that the character was never told, and how it helps to answer.

    weight of a reply = the sum over its known lines of softmax(nearness(line, known line) / TEMPERATURE)

Nearness is learned in stage 1 (runtime/nearness.py). With it Coco answers three of four new lines in chat.py; before it is
learned, with rare letters and words, six of ten (docs/sixty-lines.md). Stage 1 learns such replies
(`nearby_samples` in sft.py), and yet its weights say them too seldom. So chat.py mixes, as kNN-LM does (arXiv
1911.00172), the words of the model with those of the known replies:

    p(w | line, words so far) = (1 - SHARE) p_model(w | ...) + SHARE p_known(w | ...)
    p_known(w | ...)          = of the known replies that begin with these words, how many go on with w, by weight

kNN-LM looks up every place anew. Here the line alone is looked up, once: what she says shall be one reply, and not parts
of several. Where no known reply begins with the words so far, or nothing of this line was ever heard, the model goes on alone.

In the same way a known reply helps to say what is to be drawn with a reply: the model writes a sentence (task `moment`,
data.py), and the sentences of known replies that have the same rare words are mixed into it.

The mixing is not of the paper, and no training uses it. eval.py measures the weights alone, but for "facts said in
chat.py", and `chat.py --recall 0` lets them speak and draw alone. It is usual for the embedded base only: with others
nobody has measured it.
"""
from collections.abc import Callable
from pathlib import Path

import torch

from data import Character
from model import UniModel
from runtime.nearness import Learned, Rarity, places_in
from runtime.runs import read_checkpoint_record

SHARE = 0.5                        # this and the temperature were chosen by 120 lines that stand in no document, and by
#                                    test facts of two characters, when nearness was not learned yet
UNTRAINED_SHARE = 0.8              # of the small adapter, or the base: with half, it breaks the words of some characters
TEMPERATURE = 0.03


def usual_share(base: Path, checkpoint: Path, trained: bool) -> float:
    """Of known replies: nothing with another base than the embedded one, for nobody has measured it there."""
    if read_checkpoint_record(base).get("stage") != "pretrain" or read_checkpoint_record(checkpoint).get("backbone"):
        return 0.0
    return SHARE if trained else UNTRAINED_SHARE


def known_exchanges(character: Character) -> list[tuple[str, str]]:
    """Lines of `dialogues` and `lookup` in all their wordings, and of facts as users ask for them, each with its reply."""
    return exchanges(character.dialogues + character.lookup, character.knowledge)


def taught_exchanges(character: Character) -> list[tuple[str, str]]:
    """Those of them whose replies stage 1 learns."""
    return exchanges(character.dialogues, character.knowledge)


def exchanges(dialogues: list[dict], knowledge: list[dict]) -> list[tuple[str, str]]:
    known = [(user, turn["reply"]) for turn in dialogues for user in (turn["user"], *turn["also"])]
    return known + [(user, item["reply"]) for item in knowledge if item["reply"] for user in item["also"]]


def known_moments(character: Character) -> list[tuple[str, str]]:
    """Replies, each with the sentence that says what to draw with it."""
    turns = character.scenes + character.dialogues + character.lookup + character.knowledge
    return [(turn["reply"], turn["draw"]) for turn in turns if turn["reply"] and turn["draw"]]


class Known:
    """N texts, each with one of R answers; there must be one. Finds which of the answers another text should have."""
    def __init__(self, pairs: list[tuple[str, str]], nearness: Rarity | Learned | None = None):
        self.texts = [text for text, _ in pairs]
        self.answers = list(dict.fromkeys(answer for _, answer in pairs))
        places = {answer: i for i, answer in enumerate(self.answers)}
        self.answer_of = torch.tensor([places[answer] for _, answer in pairs])            # (N,)
        self.nearness = nearness or Rarity(self.texts)
        self.vectors = self.vectors_of(self.texts)

    def weights(self, texts: list[str]) -> torch.Tensor:
        """(n, R): each row's sum is 1, or 0 where nothing of this text was ever heard."""
        found = [torch.zeros(0, len(self.answers))]        # no texts are no error
        for at in range(0, len(texts), 256):               # not all of (n, N) at once
            near = (self.vectors @ self.vectors_of(texts[at:at + 256]).to_dense().T).T             # (n, N): cosines
            weight = (near / TEMPERATURE).softmax(1) * (near > 0).any(1, keepdim=True)
            found.append(torch.zeros(len(near), len(self.answers)).index_add(1, self.answer_of, weight))
        return torch.cat(found)

    def vectors_of(self, texts: list[str]) -> torch.Tensor:
        return self.nearness.vectors(places_in(texts, self.nearness.place))

    def best(self, texts: list[str]) -> list[str]:
        """The answer with the most weight, to each text."""
        return [self.answers[i] for i in self.weights(texts).argmax(1).tolist()]


class Recall:
    """What is known as tokens of the model that it is to help."""
    def __init__(self, model: UniModel, pairs: list[tuple[str, str]], nearness: Rarity | Learned | None = None):
        self.known = Known(pairs, nearness)
        self.answers = [model.text_ids(answer) + [model.eos] for answer in self.known.answers]

    def of(self, texts: list[str], share: float) -> Callable:
        """For UniModel.generate_text, a text for each prompt: (row, tokens so far, log p (V,)) -> log p (V,)."""
        weights = self.known.weights(texts)                                               # (rows, R)

        def mixed(row: int, written: list[int], log_p: torch.Tensor) -> torch.Tensor:
            n = len(written)
            fitting = [i for i, answer in enumerate(self.answers) if answer[:n] == written]
            weight = weights[row][fitting]
            if not weight.sum() > 0:
                return log_p
            following = torch.tensor([self.answers[i][n] for i in fitting])
            p_known = torch.zeros(len(log_p)).index_add(0, following, weight / weight.sum())
            return ((1 - share) * log_p.exp() + share * p_known.to(log_p.device)).log()
        return mixed
