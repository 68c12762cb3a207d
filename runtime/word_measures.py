"""What can be measured about words without a model: is a fact said, whose words are these, could a guesser do it?

    said(reply, accepted)             does a reply hold one of the accepted wordings?
    own_words(hers, others)           the words and pairs of words that mark how one character talks
    variety(replies)                  how much of what is said is new
    guessing(items, pairs, seeds)     what is reached by somebody who understands nothing
"""
import math
import random
import re
import unicodedata
from collections import Counter

ARTICLES = {"a", "an", "the"}
NO_SPACES = ("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"                               # Thai, Lao, Burmese, Khmer
             "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")           # kana, Han


def words(text: str) -> list[str]:
    """Lower case, without punctuation; "I'm" stays one word. Letters that look alike become the same. In scripts without
    spaces each sign is a word."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return re.findall(rf"{NO_SPACES}|(?:(?!{NO_SPACES})[^\W_])+(?:'(?:(?!{NO_SPACES})[^\W_])+)*", text)


def grams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i:i + n]) for i in range(len(found) - n + 1)]


# ---- facts ----------------------------------------------------------------------------------------------------------

def said(reply: str, accepted: list[str]) -> bool:
    """Whether the words of one of the accepted wordings stand in the reply, side by side and in order. Case,
    punctuation and articles do not count: "the Blue  lamp!" says "a blue lamp", and "blue lamps" does not."""
    heard = [word for word in words(reply) if word not in ARTICLES]
    for wording in accepted:
        wanted = [word for word in words(wording) if word not in ARTICLES]
        starts = range(len(heard) - len(wanted) + 1)
        if wanted and any(heard[i:i + len(wanted)] == wanted for i in starts):
            return True
    return False


def by_accident(replies: list[str], accepted: list[list[str]]) -> float:
    """How often a reply to ANOTHER question says the fact: what facts said would be of somebody who says true things,
    but not those that were asked for."""
    pairs = [(reply, wordings) for i, reply in enumerate(replies) for j, wordings in enumerate(accepted) if i != j]
    return sum(said(*pair) for pair in pairs) / len(pairs) if pairs else 0.0


# ---- whose words are these? -----------------------------------------------------------------------------------------

RATIO = 5.0                 # said at least so many times as often by her as by others
CERTAIN = 10.83             # of a likelihood ratio test with one degree of freedom: p = .001


def marks(text: str) -> set[tuple[str, ...]]:
    """The single words and the pairs of neighbors of a text."""
    return {*grams(text, 1), *grams(text, 2)}


def log_likelihood(k: int, n: int) -> float:
    """Of k hits in n tries, under the best rate."""
    return sum(count * math.log(count / n) for count in (k, n - k) if count)


def own_words(hers: list[str], others: list[str]) -> set[tuple[str, ...]]:
    """The words and pairs of words that mark how one character talks: those that many of her replies have, and of the
    replies of others to such lines hardly any. Counted are replies, not occurrences.

    A mark has to pass two tests: its share of her replies is at least RATIO times that of the others' (of whose count
    1/2 is never missing, so that "never" is not infinitely rare), and a likelihood ratio test is CERTAIN of the
    difference, so that what she said once or twice is not a mark. A pair counts only where it tells more than its two
    words: if one of these is a mark by itself, the pair is not listed."""
    if not hers or not others:
        return set()
    mine, theirs = (Counter(mark for reply in replies for mark in marks(reply)) for replies in (hers, others))
    H, O = len(hers), len(others)
    found = set()
    for mark, k in mine.items():
        o = theirs[mark]
        rate = k / H
        likelihood = 2 * (log_likelihood(k, H) + log_likelihood(o, O) - log_likelihood(k + o, H + O))
        if rate >= RATIO * (o + 0.5) / (O + 1) and likelihood >= CERTAIN:
            found.add(mark)
    return {mark for mark in found if len(mark) == 1 or not any((word,) in found for word in mark)}


def unused(own: set[tuple[str, ...]], texts: list[str]) -> set[tuple[str, ...]]:
    """The marks that none of these texts has. What another character says too, "only" or "they", is plain English, even
    if the base hardly ever says it."""
    return own - {mark for text in texts for mark in marks(text)}


def uses(reply: str, own: set[tuple[str, ...]], prompt: str = "") -> list[tuple[str, ...]]:
    """The marks in a reply. What the prompt itself says is no sign: whoever is asked about a lamp may say "lamp"."""
    return sorted((marks(reply) & own) - marks(prompt))


# ---- variety, and guessing ------------------------------------------------------------------------------------------

def variety(replies: list[str]) -> dict[str, float]:
    """distinct-n: different n-grams / all n-grams of the whole set; repetition: 4-grams that have occurred before."""
    distinct = {}
    for n in (1, 2, 4):
        found = [gram for reply in replies for gram in grams(reply, n)]
        distinct[n] = len(set(found)) / len(found) if found else math.nan
    return {"distinct1": distinct[1], "distinct2": distinct[2], "repetition": 1 - distinct[4]}


def lookup(items: list[dict], pairs: list[tuple[str, str]]) -> list[str]:
    """The options that words alone would choose. For every option the trained pair of question and answer is sought
    that is most like it: the question like the question, the answer like the option; rare words weigh more."""
    read = [(set(words(question)), set(words(answer))) for question, answer in pairs]
    seen = Counter(word for question, answer in read for word in question | answer)

    def weight(some: set[str]) -> float:
        return sum(math.log((len(read) + 1) / (seen[word] + 0.5)) for word in some)

    def alike(some: set[str], other: set[str]) -> float:
        total = weight(some | other)
        return weight(some & other) / total if total > 0 else 0.0

    chosen = []
    for item in items:
        asked = set(words(item["question"]))
        fits = []
        for option in item["options"]:
            wanted = set(words(option))
            fits.append(max(alike(asked, question) + alike(wanted, answer) for question, answer in read))
        chosen.append(item["options"][fits.index(max(fits))])
    return chosen


def guessing(items: list[dict], pairs: list[tuple[str, str]], seeds: int = 3) -> dict[str, float]:
    """What is reached without understanding: by chance, by the longest option, by the most frequent place of the key
    (options shuffled, and as they stand in the file), and by looking up trained questions and answers."""
    def most_frequent(orders: list[list[str]]) -> float:
        places = Counter(order.index(item["answer"]) for order, item in zip(orders, items))
        return max(places.values()) / len(items)

    shuffled = []
    for seed in range(seeds):
        rng = random.Random(seed)
        shuffled.append(most_frequent([rng.sample(item["options"], len(item["options"])) for item in items]))
    longest = [max(item["options"], key=len) == item["answer"] for item in items]
    found = {"chance": sum(1 / len(item["options"]) for item in items) / len(items),
             "longest": sum(longest) / len(items),
             "key": sum(shuffled) / seeds,
             "key unshuffled": most_frequent([item["options"] for item in items])}
    if pairs:
        right = [option == item["answer"] for option, item in zip(lookup(items, pairs), items)]
        found["lookup"] = sum(right) / len(items)
    return found
