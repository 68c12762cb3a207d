"""What was said to lines like this one: a part of each word comes from the replies to the nearest known lines.

Half-way through its layers a model hears well which known line lies nearest to a new one. Its upper layers have learned
to say so only in part (docs/results.md, "Which reply belongs to which line"). So chat.py mixes, as kNN-LM does (arXiv
1911.00172), the words of the model with those of the character's own dialogues:

    p(w | line, words so far) = (1 - share) p_model(w | ...) + share p_known(w | ...)
    p_known(w | ...)          = of the known replies that begin with these words, how many go on with w, by weight
    weight of a reply         = the sum over its known lines of softmax(cosine(line, known line) / TEMPERATURE)

kNN-LM looks up every place anew. Here the line alone is looked up, once: what she says shall be one reply, and not
parts of several. Where no known reply begins with the words so far, the model goes on alone.

This is not of the paper, and no training uses it. eval.py measures the weights alone, and `chat.py --recall 0` lets them
speak alone. It is usual for the embedded base only, which has learned what lines mean (tiny/training/sense.py).
"""
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from data import Character, reply_prompt
from model import UniModel
from runtime.cli import say
from runtime.files import digest, write_beside
from sft import known_exchanges, line_vectors

SHARE = 0.3                        # with more, Coco and Hester say fewer facts: their weights know these better
UNTRAINED_SHARE = 0.5              # of the small adapter, or the base. How all three were chosen: docs/results.md
TEMPERATURE = 0.03
QUICK = 2                          # wordings of each reply that are heard where nobody should wait


class Recall:
    """The known lines of a character as `ear` hears them, and the replies as tokens of `speaker`, both UniModels of one
    base. `home`: a file that keeps what was heard, for a run; without one only the first wordings are heard."""
    def __init__(self, ear: UniModel, speaker: UniModel, character: Character, home: Path | None = None):
        self.ear, self.who = ear, character
        known = known_exchanges(character, None if home else QUICK)
        places = {reply: i for i, reply in enumerate(dict.fromkeys(reply for _, reply in known))}
        self.replies = [speaker.text_ids(reply) + [speaker.eos] for reply in places]
        self.reply_of = torch.tensor([places[reply] for _, reply in known], dtype=torch.long)
        vectors = self.kept([line for line, _ in known], home)                            # (N, C)
        self.common = vectors.mean(0)                      # what all lines have in common tells nothing
        self.known = F.normalize(vectors - self.common, dim=1)

    def hear(self, lines: list[str]) -> torch.Tensor:
        prompts = [reply_prompt(self.who.name, self.who.description, self.who.opening, line) for line in lines]
        return line_vectors(self.ear, prompts, "fp32").float().cpu()

    def kept(self, lines: list[str], home: Path | None) -> torch.Tensor:
        """From the file if these weights hear these lines so. Both stages do: stage 2 trains what draws alone. A file that
        is not there, or cut off, is made anew. A full or read-only disk is no reason to be silent."""
        if home is None:
            return self.hear(lines)
        made_of, few = digest(lines, self.who.description, self.who.opening), self.hear(lines[:16])
        with suppress(OSError, SafetensorError), safe_open(home, "pt") as file:
            vectors = file.get_tensor("vectors").float()
            same = file.metadata() == {"of": made_of} and vectors.shape == (len(lines), few.shape[1])
            if same and (vectors[:16] - few).norm() < 0.01 * few.norm():
                return vectors
        vectors = self.hear(lines).half()
        try:
            home.parent.mkdir(parents=True, exist_ok=True)
            write_beside(home, lambda file: save_file({"vectors": vectors}, file, {"of": made_of}))
        except OSError as error:
            say(f"{home}: {error.strerror}; all known lines will be heard again next time", sys.stderr)
        return vectors.float()                             # as from the file: the first talk is like all others

    def weights(self, line: str) -> torch.Tensor:
        """(R,), of every reply."""
        heard = F.normalize(self.hear([line])[0] - self.common, dim=0)
        near = (self.known @ heard / TEMPERATURE).softmax(0)                              # (N,)
        return torch.zeros(len(self.replies)).index_add(0, self.reply_of, near)

    def of(self, lines: list[str], share: float) -> Callable:
        """For UniModel.generate_text, a line for each prompt: (row, tokens so far, log p (V,)) -> log p (V,)."""
        weights = [self.weights(line) for line in lines]

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
