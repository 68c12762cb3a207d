"""How near two lines are in meaning, by the letters and words that they are made of: by rarity, or as it was learned.

    features(line)   = three letters in a row, words, and pairs of words in a row
    v(line)          = the sum over its features f of w_f e_f, made of length one
    nearness(a, b)   = v(a) . v(b), a cosine

Both lines hold for `Rarity`; of `Learned`, v(line) is several such vectors side by side, so that nearness is the mean
of their cosines. `Rarity` learns nothing: every feature has a direction e_f of its own, and w_f says how rare it is
(TF-IDF). So "do you have any pets" is near "do you have any honey". `Learned` knows better, from character files alone:
there every line stands in several wordings, and whoever wrote them knew what means the same. Its directions and weights
are learned so that of all lines to one character the nearest is another wording of the same one (neighborhood
components analysis, Goldberger et al. 2004; here with one wording of each as in InfoNCE, arXiv 1807.03748):

    loss = - log softmax over all lines b (v(a) . v(b) / TEMPERATURE) at b = another wording of a

The lines to other characters are learned from, too: what they ask is not hers, but how one can ask is.
"""
import json
import math
import random
from collections import Counter
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from backbone.folders import AFTER_STAGE_1, locate
from runtime.cli import UserError, command
from runtime.files import NEARNESS, write_beside
from runtime.runs import read_checkpoint_record
from runtime.word_measures import words

TEMPERATURE = 0.05
WIDTH = 128                        # of the directions
MEMBERS = 3                        # so often all is learned, each time by other chance
RATE, KEPT = 0.01, 0.7             # of learning, at first; and the share of features that a step sees


def features(text: str) -> list[str]:
    """"Hi you" -> " hi", "hi ", "i y", ... and "^ hi", "hi you", ...: each once, and in order, for sums of floats depend
    on it. A text of signs alone is taken as it stands."""
    found = words(text) or text.split()
    line = " ".join(["", *found, ""])
    pairs = zip(["^", *found], [*found, "$"])
    return sorted({line[i:i + 3] for i in range(len(line) - 2)} | {f"={word}" for word in found}
                  | {f"{one}+{two}" for one, two in pairs})


def rarity(texts: list[str], least: int = 1) -> dict[str, float]:
    """How rare each feature is that `least` of the texts have, or more: log((N + 1) / (n + 1/2)) if n of N have it."""
    count = Counter(feature for text in texts for feature in features(text))
    return {feature: math.log((len(texts) + 1) / (n + 0.5)) for feature, n in count.items() if n >= least}


class Rarity:
    """TF-IDF, counted over N texts. Features that none of these has are left out, also of the length."""
    def __init__(self, texts: list[str]):
        rare = rarity(texts)
        self.place = {feature: i for i, feature in enumerate(rare)}
        self.weight = torch.tensor(list(rare.values()))

    def vectors(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """Of n texts, given the places of their features: (n, features), sparse, each row of length one or of zeros."""
        places, ends = side_by_side(rows)
        row = torch.repeat_interleave(torch.arange(len(rows)), ends.diff())
        length = torch.zeros(len(rows)).index_add(0, row, self.weight[places] ** 2).sqrt()
        return torch.sparse_coo_tensor(torch.stack((row, places)), self.weight[places] / length[row],
                                       (len(rows), len(self.place)), check_invariants=False)     # else torch warns


class Learned:
    """With directions that were learned, MEMBERS times by different chance: each w_f e_f, (features, MEMBERS, WIDTH).
    Nearness is the mean of their cosines, for what only one of them believes is mostly wrong."""
    def __init__(self, names: list[str], direction: torch.Tensor):
        self.place = {feature: i for i, feature in enumerate(names)}
        self.direction = direction

    def vectors(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """(n, MEMBERS WIDTH)"""
        places, ends = side_by_side(rows)
        members, width = self.direction.shape[1:]
        total = F.embedding_bag(places, self.direction.flatten(1), ends, mode="sum", include_last_offset=True)
        return F.normalize(total.unflatten(1, (members, width)), dim=2).flatten(1) / members ** 0.5

    def save(self, folder: Path) -> None:
        names = {"features": json.dumps(list(self.place), ensure_ascii=False)}
        write_beside(folder / NEARNESS, lambda file: save_file({"direction": self.direction.half()}, file, names))

    @classmethod
    def load(cls, folder: Path) -> "Learned | None":
        """None if there is none. Raises UserError if a run of an earlier version left another form."""
        if not (folder / NEARNESS).is_file():
            return None
        with safe_open(folder / NEARNESS, "pt") as file:
            names, direction = json.loads(file.metadata()["features"]), file.get_tensor("direction").float()
        if direction.ndim != 3:
            raise UserError(f"{folder / NEARNESS}: is of an earlier version; remove it, and rare letters and words take its "
                            f"place, or train anew: {command('sft.py', '--fresh')}")
        return cls(names, direction)

    @classmethod
    def of(cls, checkpoint: str | Path) -> "Learned | None":
        """What stage 1 of this checkpoint learned. A stage 2 names the folder that it began with; if that was moved, it is
        looked for beside this one."""
        folder = Path(locate(checkpoint))
        record = read_checkpoint_record(folder)
        if record.get("stage") in AFTER_STAGE_1:
            begun = Path(locate(record["model"]))
            folder = begun if begun.is_dir() else folder.parent / begun.name
        return cls.load(folder)


def places_in(texts: list[str], place: dict[str, int]) -> list[torch.Tensor]:
    """Of each text the places of its features, without those that have none."""
    return [torch.tensor([place[feature] for feature in features(text) if feature in place], dtype=torch.long)
            for text in texts]


def side_by_side(rows: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """-> all rows one behind the other, and where each begins and the last one ends (n + 1,)."""
    return torch.cat([torch.zeros(0, dtype=torch.long), *rows]), torch.tensor([0, *map(len, rows)]).cumsum(0)


# ---- learning --------------------------------------------------------------------------------------------------------

def learn(talks: list[list[tuple[str, str]]], steps: int = 200) -> Learned | None:
    """From the (line, reply) of one character or more: two lines mean the same if one character gives them the same reply.
    None if no line has two wordings."""
    texts, meanings = [], []                                # of each talk: the places of all wordings of each line
    for talk in talks:
        wordings: dict[str, list[int]] = {}
        for i, (line, reply) in enumerate(talk, len(texts)):
            wordings.setdefault(reply, []).append(i)
        meanings.append([lines for lines in wordings.values() if len(lines) > 1])
        texts += [line for line, _ in talk]
    if not any(meanings):
        return None
    rare = rarity(texts, least=2)
    rows = places_in(texts, {feature: i for i, feature in enumerate(rare)})
    weight = torch.tensor(list(rare.values()))
    with tqdm(total=steps * MEMBERS, desc="which lines mean the same", leave=False) as bar:
        learned = [learn_member(rows, weight, meanings, steps, seed, bar) for seed in range(MEMBERS)]
    return Learned(list(rare), torch.stack(learned, 1).half().float())                    # as it is kept


def learn_member(rows: list[torch.Tensor], weight: torch.Tensor, meanings: list[list[list[int]]], steps: int, seed: int,
                 bar: tqdm) -> torch.Tensor:
    """Weights (features,) to begin with -> w_f e_f (features, WIDTH). A step has two wordings, a and b, of half of the
    lines that each character hears in several, but of two lines at least: else there would be nothing to choose from.
    They are compared inside their character. Of features a share of KEPT is seen, so that none decides alone."""
    chance, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    log_w = weight.log().requires_grad_()
    # Of length one, about, and square to each other.
    direction = (torch.randn(len(weight), WIDTH, generator=generator) / WIDTH ** 0.5).requires_grad_()
    optimizer = torch.optim.AdamW([log_w, direction], weight_decay=0.0, foreach=True)
    for step in range(steps):
        drawn = [chance.sample(lines, min(len(lines), max(2, len(lines) // 2))) for lines in meanings]
        one, other = zip(*(chance.sample(lines, 2) for some in drawn for lines in some))
        places, ends = side_by_side([rows[i] for i in one + other])
        seen = torch.rand(len(places), generator=generator) < KEPT
        places, ends = places[seen], F.pad(seen.cumsum(0), (1, 0))[ends]
        v = F.embedding_bag(places, direction, ends, mode="sum", per_sample_weights=log_w[places].exp(),
                            include_last_offset=True)
        a, b = F.normalize(v, dim=1).chunk(2)
        loss = torch.zeros(())
        for x, y in zip(*(side.split([len(some) for some in drawn]) for side in (a, b))):
            loss = loss + F.cross_entropy(x @ y.T / TEMPERATURE, torch.arange(len(x)), reduction="sum") / len(a)
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        bar.update()
    return (log_w.exp()[:, None] * direction).detach()
