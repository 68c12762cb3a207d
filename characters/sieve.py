"""What may stay of what a writer wrote, and how a test is made of it. For build.py; skip this to learn the method."""
import random
import re
import unicodedata
from collections import Counter

from PIL import Image

from characters.schema import alike, wording

OUT_OF_ROLE = re.compile(r"\b(as an? (ai|assistant|language model)|language model|(i am|i'm) an ai|chatbot)\b", re.I)


def tidy(value, most: int = 3_900):
    """The same, in text that data.py takes: without control characters and invisible marks, not too long."""
    if isinstance(value, dict):
        return {key: tidy(inner, 40_000 if key == "profile" else most) for key, inner in value.items()}
    if isinstance(value, list):
        return [tidy(inner, most) for inner in value]
    if not isinstance(value, str):
        return value
    kept = [letter for letter in value if letter == "\n" or not unicodedata.category(letter).startswith("C")]
    return "".join(kept).strip()[:most]


def in_words(line: str) -> str:
    return " " + " ".join(re.findall(r"[^\W_]+", line.lower())) + " "


def holds(line: str, words: str) -> bool:
    """Whether a line holds these words, in their order. Yes and no give nothing away."""
    return in_words(words) in in_words(line) and in_words(words) not in (" yes ", " no ")


def distinct(items: list[dict], key: str, dropped: Counter, known=(), share: float = 0.8) -> list[dict]:
    """Items whose line says something else than the lines before it, and than the `known` ones."""
    lines, kept = list(known), []
    for item in items:
        if any(alike(item[key], line, share) for line in lines):
            dropped[f"{key}: nearly the same as another"] += 1
            continue
        lines.append(item[key])
        kept.append(item)
    return kept


def agreeing(items: list[dict], kind: str, dropped: Counter) -> list[dict]:
    """Items that no other one contradicts. Of two answers to one question both go: nobody can say which is right."""
    kept = []
    for item in items:
        rivals = [other for other in items if alike(item["question"], other["question"])]
        if all(alike(item["answer"], other["answer"], 0.5) for other in rivals):
            kept.append(item)
    dropped[f"{kind}: two answers to one question"] += len(items) - len(kept)
    return kept


def sound_facts(facts: list[dict], profile: str, dropped: Counter) -> list[dict]:
    """Facts that the profile says, whose question does not hold the answer, and that no other fact contradicts."""
    kept = []
    for fact in agreeing(facts, "knowledge", dropped):
        if in_words(fact["evidence"]) not in in_words(profile):
            dropped["knowledge: its evidence does not stand in the profile"] += 1
        elif holds(fact["question"], fact["answer"]):
            dropped["knowledge: the question holds its answer"] += 1
        else:
            kept.append(fact)
    return distinct(kept, "question", dropped)


def short_answers(questions: list[dict]) -> list[dict]:
    """Those that a judge can be asked: an answer of at most three words, which the question does not hold."""
    return [one for one in questions if len(one["answer"].split()) <= 3 and not holds(one["question"], one["answer"])]


def same_picture(one: Image.Image, other: Image.Image) -> bool:
    """A copy, a resized one, a JPEG: as thumbnails of 16 by 16 they differ by less than 3 of 255 levels on average."""
    small, others = (image.convert("L").resize((16, 16)).tobytes() for image in (one, other))
    return sum(abs(a - b) for a, b in zip(small, others)) / 256 < 3


# ---- tests -----------------------------------------------------------------------------------------------------------

def choice(question: str, answer: str, wrong: list[str]) -> dict:
    """The right option at a place that the question decides, so that no place is right more often than another."""
    options = random.Random(question).sample([answer, *wrong], 1 + len(wrong))
    return {"question": question, "options": options, "answer": answer}


def tests_of(facts: list[dict], trained: list[dict], name: str, dropped: Counter, most: int = 40) -> dict:
    """-> "knowledge", with answers to choose from, and "facts", for a talk: wordings that no trained line is like.

    A wrong option is the right answer to another question, of the same kind where three are. A choice that a guesser
    finds by the words alone becomes a question for a talk, where there is nothing to choose from."""
    lines = [line for item in trained for line in (item["question"], *item["also"])]
    tests = {"knowledge": [], "facts": []}
    for fact in facts:
        others = [other for other in facts if not alike(other["answer"], fact["answer"], 0.5)]
        others.sort(key=lambda other: (other["kind"] != fact["kind"], abs(len(other["answer"]) - len(fact["answer"]))))
        wrong = list(dict.fromkeys(other["answer"] for other in others))[:3]
        said = any(holds(fact["reply"], words) for words in fact["accepted"])
        asked = False
        for line in fact["others"][2:]:
            told = any(holds(line, words) for words in fact["accepted"])
            if told or any(alike(line, known, 0.6) for known in lines):
                dropped["test: the wording is trained on, or holds its answer"] += 1
                continue
            posed = choice(line, fact["answer"], wrong)
            if not asked and len(wrong) == 3 and look_up(posed, trained, name) != fact["answer"]:
                tests["knowledge"].append(posed)
                asked = True
            elif said:
                tests["facts"].append({"question": line, "accepted": fact["accepted"]})
            else:
                dropped["test: the character's own reply does not say it"] += 1
    return {key: items[::max(1, -(-len(items) // most))] for key, items in tests.items()}


def given_away(posed: dict, trained: list[dict], name: str) -> str:
    """Why this choice about a picture can be answered without the picture, or "". An option is the answer of a trained
    question in whatever way that is typed: "Red." and "red" are the same to a guesser."""
    if holds(posed["question"], posed["answer"]):
        return "the question holds its answer"
    options = {wording(option): option for option in posed["options"]}
    known = [{"question": pair["question"], "also": [], "answer": options.get(wording(pair["answer"]))}
             for pair in trained]
    found = look_up(posed, known, name) == posed["answer"]
    return "a guesser finds it in the trained questions about pictures" if found else ""


def look_up(posed: dict, trained: list[dict], name: str) -> str | None:
    """The option that a guesser takes who understands no word: the answer of the trained question that has most words
    of four letters or more in common with this one. None where two options are equally near."""
    asked = {word for word in wording(posed["question"]) - wording(name) if len(word) > 3}
    scores = Counter({option: 0 for option in posed["options"]})
    for item in trained:
        if item["answer"] in scores:
            shared = [len(asked & wording(line)) for line in (item["question"], *item["also"])]
            scores[item["answer"]] = max(scores[item["answer"]], *shared)
    (best, most), (_, second) = scores.most_common(2)
    return best if most > second else None
