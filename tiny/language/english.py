"""Real English: conversations of people, and how packages are read. From two packages that only a rebuild of the base needs.

    pip download --no-deps -d PACKAGES chitchat-dataset chatterbot-corpus

The first holds 7,000 conversations between strangers (MIT licence), the second some questions with answers (BSD). They
are read out of the downloaded wheels. Nothing of either stands in this repository but what the weights learned.
"""
import json
import re
import zipfile
from collections import Counter
from functools import cache
from pathlib import Path

from tiny.language.personas import RESERVED

# People type fast. What is written here on the left becomes what is on the right, so that the base learns to spell.
SPELLINGS = {
    "i": "I", "im": "I'm", "ive": "I've", "ill": "I'll", "id": "I'd", "dont": "don't", "cant": "can't",
    "wont": "won't", "didnt": "didn't", "doesnt": "doesn't", "isnt": "isn't", "wasnt": "wasn't", "arent": "aren't",
    "havent": "haven't", "couldnt": "couldn't", "wouldnt": "wouldn't", "shouldnt": "shouldn't", "thats": "that's",
    "whats": "what's", "hows": "how's", "theres": "there's", "youre": "you're", "theyre": "they're", "u": "you",
    "ur": "your", "r": "are", "ya": "you", "yea": "yeah", "ye": "yes", "ok": "okay", "k": "okay", "thx": "thanks",
    "pls": "please", "cuz": "because", "bc": "because", "tho": "though", "gonna": "going to", "wanna": "want to",
    "gotta": "have to", "kinda": "kind of", "lots": "lots", "alot": "a lot", "idk": "I don't know", "hey": "hey",
    "haha": "haha", "hahaha": "haha", "hahah": "haha", "lol": "haha", "lets": "let's", "shes": "she's", "hes": "he's",
    "its": "its", "monday": "Monday", "friday": "Friday", "saturday": "Saturday", "sunday": "Sunday",
    "christmas": "Christmas", "english": "English", "american": "American", "utah": "Utah"}
LEFT_OUT = re.compile(rf"\b({'|'.join(sorted(RESERVED))})\b", re.I)
TECHNICAL = ("ai.yml", "botprofile.yml", "coding.yml", "computers.yml", "tech_support.yml")
MACHINE = re.compile(r"\b(software|robot|computer|program|bot|chat ?bot|electric|ai|a\.i|i am not human)", re.I)


def tidy(text: str) -> str:
    """A line as a careful writer would have typed it; "" for what is no plain English."""
    text = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"')
    text = re.sub(r"\s+", " ", text).strip()
    if not text or LEFT_OUT.search(text) or re.search(r"[^\x20-\x7e]|https?:|www\.|[<>{}|\\_@#*=]", text):
        return ""
    words = [re.sub(r"^\W*(\w+)\W*$", r"\1", word).lower() for word in text.split()]
    spelled = [word.lower().replace(key, SPELLINGS[key], 1) if key in SPELLINGS else word
               for key, word in zip(words, text.split())]
    text = " ".join(spelled)
    text = re.sub(r"([!?.])\1+", r"\1", text)
    text = re.sub(r"(^|[.!?] )([a-z])", lambda match: match[1] + match[2].upper(), text)
    return text if text[-1] in ".!?" else text + "."


def message(lines: list[dict]) -> str:
    """What one person said before the other answered."""
    return " ".join(filter(None, (tidy(line["text"]) for line in lines)))


def sentences(line: str) -> list[str]:
    """The sentences of a line that has several, those of at least three words."""
    parts = re.split(r"(?<=[.!?]) ", line)
    return [part for part in parts if len(part.split()) > 2] if len(parts) > 1 else []


def wheel(packages: Path, name: str) -> zipfile.ZipFile:
    found = sorted(packages.glob(f"{name.replace('-', '_')}-*.whl"))
    if not found:
        raise FileNotFoundError(f"{packages}: no wheel of {name}; run: pip download --no-deps -d {packages} {name}")
    return zipfile.ZipFile(found[-1])


@cache
def conversations(packages: Path) -> list[list[str]]:
    """Lists of messages, of two people in turn."""
    with wheel(packages, "chitchat-dataset") as archive:
        data = json.loads(archive.read("chitchat_dataset/dataset.json"))
    found = [[message(turn) for turn in talk["messages"]] for talk in data.values()]
    return [talk for talk in found if len(talk) > 1]


@cache
def exchanges(packages: Path) -> list[tuple[str, str, str]]:
    """(what was said before, a line, the answer), the last two of 2 to 30 words. The first may be ""."""
    rows = []
    for talk in conversations(packages):
        for before, line, answer in zip(["", *talk], talk, talk[1:]):
            if 2 <= len(line.split()) <= 30 and 2 <= len(answer.split()) <= 30:
                rows.append((before if len(before.split()) <= 30 else "", line, answer))
    return rows + [("", question, answer) for question, answer in questions(packages)]


@cache
def questions(packages: Path) -> list[tuple[str, str]]:
    """Questions with their answers, but not those in which a machine speaks of itself."""
    rows = []
    with wheel(packages, "chatterbot-corpus") as archive:
        files = [name for name in archive.namelist()
                 if "/english/" in name and name.endswith(".yml") and not name.endswith(TECHNICAL)]
        for text in (archive.read(name).decode() for name in files):
            for block in re.split(r"\n- - ", text)[1:]:
                lines = [tidy(line.strip(" '\"")) for line in re.split(r"\n  - ", block.strip())]
                question, answers = lines[0], [line for line in lines[1:] if line and not MACHINE.search(line)]
                rows += [(question, answer) for answer in answers if question and len(answer.split()) <= 30]
    return rows


@cache
def nouns(packages: Path) -> list[str]:
    """Words that people put behind an article and before the end of a phrase at least three times: mostly nouns."""
    found = Counter()
    for _, line, answer in exchanges(packages):
        for text in (line, answer):
            found.update(re.findall(r"\b(?:a|an|the|my|your) ([a-z]{3,12})(?=[.,?!]| is | was | and | in | with )", text))
    return sorted(word for word, count in found.items() if count >= 3)
