"""Known replies: which one belongs to a line that the character was never told, and how it helps to answer.

    weight of a reply = the sum over its known lines of softmax(nearness(line, known line) / TEMPERATURE)
    nearness          = cosine of the two lines as bags of three letters in a row, each counted by how rare it is (TF-IDF)

Letters know nothing of meaning. Still the reply that they find answers half of 120 new lines, as often as the reply that
is found by the model's own middle layers, or by word vectors (docs/choices.md, "Known replies"). Stage 1 learns such
replies (`nearby_samples` in sft.py), and yet its weights say them too seldom. So chat.py mixes, as kNN-LM does (arXiv
1911.00172), the words of the model with those of the known replies:

    p(w | line, words so far) = (1 - SHARE) p_model(w | ...) + SHARE p_known(w | ...)
    p_known(w | ...)          = of the known replies that begin with these words, how many go on with w, by weight

kNN-LM looks up every place anew. Here the line alone is looked up, once: what she says shall be one reply, and not parts
of several. Where no known reply begins with the words so far, or no known line shares any letters with this one, the
model goes on alone.

What is drawn with a reply is looked up as well (`Recall.moment`): the sentence of the known reply that is spelled most like
what was said. Drawn from the talk itself, Coco had a tear in 13 of 20 pictures (docs/choices.md, "What is drawn with a reply").

The mixing and the pictures are not of the paper, and no training uses them. eval.py measures the weights alone, and
`chat.py --recall 0` lets them speak and draw alone. It is usual for the embedded base only: with others nobody has measured it.
"""
import math
from collections import Counter
from collections.abc import Callable

import torch

from data import Character
from model import UniModel
from runtime.word_measures import words

SHARE = 0.5                        # this and the temperature were chosen by 120 lines that stand in no document, and by
#                                    test facts of two characters
UNTRAINED_SHARE = 0.8              # of the small adapter, or the base: with half, the base breaks other characters' words
TEMPERATURE = 0.03


def known_exchanges(character: Character) -> list[tuple[str, str]]:
    """Lines of the dialogues in all their wordings, and of facts as users ask for them, each with its reply."""
    known = [(user, turn["reply"]) for turn in character.dialogues for user in (turn["user"], *turn["also"])]
    return known + [(user, item["reply"]) for item in character.knowledge if item["reply"] for user in item["also"]]


class Letters:
    """N texts, to which others can be near."""
    def __init__(self, texts: list[str]):
        count = Counter(three for text in texts for three in threes(text))
        self.place = {three: i for i, three in enumerate(count)}
        self.rarity = torch.tensor([math.log((len(texts) + 1) / (n + 0.5)) for n in count.values()])
        self.bags = self.bags_of(texts)

    def nearness(self, texts: list[str]) -> torch.Tensor:
        """(n, N): the cosines."""
        return torch.sparse.mm(self.bags, self.bags_of(texts).to_dense().T).T

    def bags_of(self, lines: list[str]) -> torch.Tensor:
        """(n, T): the rarity of each of T threes in each line; sparse, and each row of length one. Threes that none of
        the N texts has are left out, also of the length."""
        places = [(i, self.place[three]) for i, line in enumerate(lines) for three in threes(line) if three in self.place]
        row, column = torch.tensor(places, dtype=torch.long).view(-1, 2).T
        length = torch.zeros(len(lines)).index_add(0, row, self.rarity[column] ** 2).sqrt()
        return torch.sparse_coo_tensor(torch.stack((row, column)), self.rarity[column] / length[row],
                                       (len(lines), len(self.place)), check_invariants=False)     # else torch warns


class KnownReplies:
    """The R replies to the N known lines of a character; there must be one."""
    def __init__(self, character: Character):
        known = known_exchanges(character)
        self.lines = [line for line, _ in known]
        self.replies = list(dict.fromkeys(reply for _, reply in known))
        places = {reply: i for i, reply in enumerate(self.replies)}
        self.reply_of = torch.tensor([places[reply] for _, reply in known])                # (N,)
        self.letters = Letters(self.lines)

    def weights(self, lines: list[str]) -> torch.Tensor:
        """(n, R): each row's sum is 1, or 0 where no known line shares anything with this one."""
        found = [torch.zeros(0, len(self.replies))]        # no lines are no error
        for at in range(0, len(lines), 256):               # not all of (n, N) at once
            near = self.letters.nearness(lines[at:at + 256])                              # (n, N)
            weight = (near / TEMPERATURE).softmax(1) * (near > 0).any(1, keepdim=True)
            found.append(torch.zeros(len(near), len(self.replies)).index_add(1, self.reply_of, weight))
        return torch.cat(found)

    def best(self, lines: list[str]) -> list[str]:
        """The reply with the most weight, to each line."""
        return [self.replies[i] for i in self.weights(lines).argmax(1).tolist()]


class Recall:
    """The known replies of a character as tokens of the model that they are to help, and what to draw with them."""
    def __init__(self, model: UniModel, character: Character):
        self.known = KnownReplies(character)
        self.replies = [model.text_ids(reply) + [model.eos] for reply in self.known.replies]
        self.drawn = {turn["reply"]: turn["draw"] for turn in character.dialogues + character.knowledge if turn["draw"]}
        self.letters = Letters(list(self.drawn))

    def moment(self, reply: str) -> str:
        """The sentence to draw with the known reply that is spelled most like this one; "" if there is none."""
        if not self.drawn:
            return ""
        near = self.letters.nearness([reply])[0]                                          # (replies with a sentence,)
        return list(self.drawn.values())[near.argmax()] if near.any() else ""

    def of(self, lines: list[str], share: float) -> Callable:
        """For UniModel.generate_text, a line for each prompt: (row, tokens so far, log p (V,)) -> log p (V,)."""
        weights = self.known.weights(lines)                                               # (rows, R)

        def mixed(row: int, written: list[int], log_p: torch.Tensor) -> torch.Tensor:
            n = len(written)
            fitting = [i for i, reply in enumerate(self.replies) if reply[:n] == written]
            weight = weights[row][fitting]
            if not weight.sum() > 0:
                return log_p
            following = torch.tensor([self.replies[i][n] for i in fitting])
            p_known = torch.zeros(len(log_p)).index_add(0, following, weight / weight.sum())
            return ((1 - share) * log_p.exp() + share * p_known.to(log_p.device)).log()
        return mixed


def threes(line: str) -> list[str]:
    """"Hi!" -> [" hi", "hi "]: each once, and in order, for sums of floats depend on it. A line of signs alone is taken as
    it stands."""
    text = " ".join(["", *(words(line) or line.split()), ""])
    return sorted({text[i:i + 3] for i in range(len(text) - 2)})
