"""A character from about ten pictures and a few sentences: a vision-language model writes character.json, in the steps
of the paper's pipeline. Skip this to learn the method.

    python -m characters.build new Mira                 a folder to fill in: pictures, and who she is
    python -m characters.build check Mira               what is missing, and the pictures as the model will see them
    python -m characters.build Mira --endpoint http://localhost:8000/v1 --dry-run       the calls, and their price
    python -m characters.build Mira --endpoint http://localhost:8000/v1

The endpoint is an OpenAI-compatible server, or a folder, a .gguf file or a hub name of a transformers chat model. If
it sees no pictures, a sentence about each picture stands beside it: 0.txt beside 0.png. A character card in the folder
does as well as a profile. Every answer is kept in build/answers.jsonl: a run that was stopped goes on where it was.
What the model is asked stands in writing.md.

In four ways this is stricter than the published data: (1) all is checked against the schema; (2) near-copies go, facts
without a sentence of the profile that says them, answers that contradict each other, lines that fall out of the role;
(3) a test has new wordings, its wrong options are true of something else, and word overlap does not find the answer;
(4) a question of stage 2 stays only if the VQA judge can use it on the pictures that are there.
"""
import json
import math
import random
import re
import shutil
import sys
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))     # for `python characters/build.py`
import runtime  # noqa: E402, F401     # first: before torch is loaded, see there

from PIL import Image  # noqa: E402

from characters.cards import MOST, first_sentences, read_card, to_record  # noqa: E402
from characters.files import load_picture  # noqa: E402
from characters.schema import (  # noqa: E402
    CHARACTER, Validator, alike, check_meaning, check_name, names_in, tests_that_are_trained)
from characters.sieve import (  # noqa: E402
    OUT_OF_ROLE, agreeing, choice, distinct, given_away, holds, same_picture, short_answers, sound_facts, tests_of,
    tidy)
from data import class_word, load_character, show_pictures  # noqa: E402
from runtime.cli import UserError, command, parse_options, run_script, say  # noqa: E402
from runtime.endpoint import Endpoint, integer, list_of, object_of, one_of, text  # noqa: E402
from runtime.files import lock, write_beside  # noqa: E402
from tiny.world import scene as world, vqa  # noqa: E402


@dataclass
class Options:
    endpoint: str = ""              # http(s)://host/v1, or a folder, .gguf file or hub name of a chat model
    model: str = ""                 # its name at the server; empty: the first that the server lists
    key_env: str = "OPENAI_API_KEY"     # the environment variable that holds the key
    price: str = ""                 # dollars for a million tokens in and out, such as 0.15/0.60
    name: str = ""                  # of the character; empty: as the profile, the card or the folder says
    about: str = ""                 # who it is, in a few sentences, where the folder has no profile
    judge: str = "tiny/base"        # tries the questions of stage 2: the base that will be its VQA judge. The embedded
    #                                 one hardly reads photographs, so of those it may keep no question, and the writer
    #                                 is told the little that it can draw; endpoint: the writer tries its own questions,
    #                                 which shows what is true, not what the VQA judge can read
    pictures: bool = True           # show the pictures to the model; if not, only the sentences beside them
    dialogues: int = 200            # a tenth of them held out
    wordings: int = 8               # more of every line and fact: what is asked otherwise is found by these. 0: none
    prompts: int = 40               # pictures to draw in stage 2, a fifth of them held out
    at_once: int = 8                # requests
    timeout: float = 180.0          # seconds for an answer
    max_tokens: int = 6000          # of an answer; twice that after one that was cut off
    temperature: float = 0.7        # of the writer
    again: int = 0                  # ask so many times more for answers that are still missing
    dry_run: bool = False           # count calls and tokens, ask nothing
    replace: bool = False           # write character.json anew; the old one is kept as character.json.old


# ---- what the user gives ---------------------------------------------------------------------------------------------

PICTURES = ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"
BLANK = """# {name}

Who is {name}? Three sentences are enough. A page is better: what is not told here will be invented.

## Looks

## Home and history

## Family and friends

## Likes, dislikes, habits

## Voice
How does {name} speak? Favorite words? Two or three lines, word for word.
"""


@dataclass
class Source:
    folder: Path
    name: str
    profile: str
    card: dict                          # a character card in the schema of character.json, or {}
    pictures: dict[str, Image.Image]    # by their path inside the folder
    captions: dict[str, str]            # the sentence beside a picture, or ""
    held_out: list[str]


def read_source(folder: Path, o: Options) -> Source:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; begin with: {command('characters.build', 'new', folder)}")
    card, told = {}, []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in (".json", ".png") and file.name != "character.json" and (fields := read_card(file)):
            card = to_record(fields, None)
        if file.suffix.lower() in (".md", ".txt") and not any(file.with_suffix(kind).exists() for kind in PICTURES):
            told.append(file.read_text("utf-8-sig", "replace").strip())
    profile = filled_in("\n\n".join(told)) or card.get("profile", "")
    heading = re.match(r"#\s+(.+)", profile)
    name = o.name or card.get("name") or (heading[1].strip() if heading else as_name(folder))
    pictures = read_pictures(folder)
    captions = {where: beside(folder / where) for where in pictures}
    held_out = [where for where in pictures if where.startswith("test/")]
    if not held_out and len(pictures) >= 4:             # of ten pictures two, of twelve three
        held_out = list(pictures)[3::4]
    return Source(folder, name, f"{profile}\n\n{o.about}".strip(), card, pictures, captions, held_out)


def as_name(folder: Path) -> str:
    name = folder.resolve().name
    return name[:1].upper() + name[1:]


def filled_in(profile: str) -> str:
    """Without what `new` has written there to be replaced; "" where only headings are left."""
    for line in BLANK.split("\n"):
        if line and not line.startswith("#"):
            profile = re.sub(re.escape(line).replace(r"\{name\}", ".*"), "", profile)
    return profile.strip() if re.sub(r"^#.*$", "", profile, flags=re.MULTILINE).strip() else ""


def read_pictures(folder: Path) -> dict[str, Image.Image]:
    """From train/, test/ and pictures/, or else from the folder itself; of two that are the same, the first."""
    pictures = {}
    places = [folder / part for part in ("train", "test", "pictures") if (folder / part).is_dir()] or [folder]
    for file in [file for place in places for file in sorted(place.iterdir(), key=natural)]:
        if file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix.lower() not in PICTURES:
            if file.parent != folder and file.suffix.lower() not in (".txt", ".md", ".json"):
                say(f"{file.relative_to(folder)}: no picture of a kind that is read; save it as PNG or JPEG")
            continue
        try:
            image = load_picture(file)
        except Exception as error:                      # decoders raise nearly anything at a broken file
            raise UserError(f"{file}: cannot be used ({error}); replace it or take it away") from None
        where = file.relative_to(folder).as_posix()
        twin = next((other for other, known in pictures.items() if same_picture(image, known)), None)
        if twin:
            say(f"{where} shows the same as {twin}; one of them is enough")
        else:
            pictures[where] = image
    return pictures


def natural(file: Path) -> list:
    """2.png before 10.png."""
    return [part.zfill(9) for part in re.split(r"(\d+)", file.name.lower())]


def beside(picture: Path) -> str:
    caption = picture.with_suffix(".txt")
    return caption.read_text("utf-8-sig", "replace").strip() if caption.is_file() else ""


# ---- what is asked for -----------------------------------------------------------------------------------------------

ASPECTS = ("background", "personality", "abilities", "relationships", "preferences", "appearance", "history", "quotes",
           "goals", "miscellaneous")
TOPICS = ("greetings, first meetings and goodbyes", "small talk about the day, the weather, food and sleep",
          "the visitor is sad, afraid, angry, proud or in love", "the life, home and habits of {name}",
          "the family, friends and enemies of {name}", "invitations, plans and games, here and now",
          "ordinary things that {name}'s world does not have: telephones, football, school, money",
          "teasing, disagreement, jokes and silly questions", "advice, help and small favors",
          "lines of one to four words, as people type them, and questions that {name} cannot answer")
WORLD_THEMES = ("places", "weather", "faces", "poses", "things in a hand", "things that stand beside", "hats and glasses",
                "face, pose, thing and place at once")
THEMES = ("places", "weather and time of day", "things held", "moods and faces", "actions", "seasons and feasts",
          "food and drink", "company: one animal or one friend")
VISUAL = "appearance", "action or pose", "expression", "surroundings", "a small detail or a number of things"

PAIR = object_of(question=text(), answer=text())
MOMENT = object_of(draw=text(), also=list_of(text(), 4, 6), user=text(), reply=text(), thinking=text(), instruction=text())
PAIRS = object_of(objective=list_of(PAIR, 12, 18), subjective=list_of(PAIR, 4, 6))
POSED = object_of(aspect=one_of(*VISUAL), difficulty=one_of("easy", "medium", "hard"), question=text(), answer=text(),
                  wrong=list_of(text(), 3, 3))
TALK = object_of(user=text(), reply=text(), draw=text(), also=list_of(text(), 0, 5))
FACT = object_of(question=text(), answer=text(), level=one_of("easy", "medium", "hard"), evidence=text(),
                 kind=one_of("person", "animal", "place", "thing", "number or time", "quality", "action", "reason", "saying"),
                 accepted=list_of(text(), 1, 4), reply=text(), others=list_of(text(), 4, 4))
ASKED = object_of(question=text(), answer=text(), subject=one_of("character", "scene"), weight=integer(1, 10),
                  category=one_of("looks", "thing", "color", "number", "place", "weather", "light", "pose", "face"))
WORDING = dict(re.findall(r"^## ([^\n]+)\n(.*?)\s*(?=^## |\Z)",
                          Path(__file__).with_name("writing.md").read_text("utf-8"), re.MULTILINE | re.DOTALL))


class Writer:
    """Fills in the wording of writing.md, asks for many things at once, and counts what has to go."""

    def __init__(self, endpoint: Endpoint, source: Source, o: Options):
        self.endpoint, self.source, self.o = endpoint, source, o
        self.sees = o.pictures and endpoint.sees
        self.tiny = o.judge == Options.judge                # what will draw is the embedded base
        self.dropped = Counter()
        self.notes = []                                     # for the report

    def ask(self, kind: str, schema: dict, places: list[dict], check=lambda answer: "") -> list[dict | None]:
        """One call for each place, which says what is filled in. A `picture` is shown. `n` asks for a list of about so
        many. A `schema` in a place goes before the other. `check` says what is wrong with an answer, or ""."""
        calls = [self.call(kind, place.get("schema", schema), place, check) for place in places]
        answers = self.endpoint.ask_all(calls, kind)
        for sample in range(1, self.o.again + 1):
            missing = [i for i, answer in enumerate(answers) if answer is None]
            more = self.endpoint.ask_all([calls[i] | {"sample": sample} for i in missing], f"{kind}, again")
            for i, answer in zip(missing, more):
                answers[i] = answer
        return tidy(answers)

    def call(self, kind: str, schema: dict, place: dict, check) -> dict:
        told = {"name": self.source.name, "profile": self.source.profile, "visual": ", ".join(VISUAL),
                "aspects": ", ".join(ASPECTS), "seen": "", "world": "", "forms": ""} | place
        if self.tiny:
            told["world"] = WORDING["world"].format(words=words_of_world(), **told)
            told["forms"] = WORDING["forms"].format(questions=questions_of_world(self.source.name), **told)
        told["head"] = WORDING["head"].format(**told)
        images = []
        shown = place.get("pictures") or [place[key] for key in ["picture"] if key in place]
        if shown and self.sees:
            told["seen"] = "The picture is attached." if len(shown) == 1 else "Pictures are attached."
            images += [self.source.pictures[where] for where in shown]
        elif shown:
            captions = [self.source.captions[where] for where in shown]
            told["seen"] = "\n".join(f"The picture: {caption}" for caption in captions if caption)
        if "n" in place:
            schema = object_of(items=list_of(schema, -(-4 * place["n"] // 5), 6 * place["n"] // 5))

        def fault(answer: dict) -> str:
            found = OUT_OF_ROLE.search(json.dumps(answer))
            return f'"{found[0]}" is nothing that {self.source.name} would say' if found else check(answer)
        return {"messages": WORDING[kind].format(**told), "schema": schema, "images": images, "check": fault}

    def reread(self, groups: list[list[dict]], *keys: str) -> list[dict]:
        """All items of the groups but those that a second reading finds wrong."""
        lines = [[" / ".join(item[key] for key in keys) for item in group] for group in groups]
        most = max(map(len, groups), default=1)
        found = self.ask("second reading", object_of(wrong=list_of(integer(1, most))),
                         [{"lines": numbered(some)} for some in lines])
        kept = []
        for group, answer in zip(groups, found):
            wrong = set(answer["wrong"]) if answer else set()
            kept += [item for i, item in enumerate(group, 1) if i not in wrong]
        self.dropped["contradicts the profile, says the second reading"] += sum(map(len, groups)) - len(kept)
        return kept


def words_of_world() -> str:
    """All that the embedded base has ever drawn."""
    def listed(names) -> str:
        return ", ".join(filter(None, names))
    colors = listed(dict.fromkeys(color for some in (*world.HELD.values(), *world.GROUND.values()) for color in some))
    return (f"places: {listed(world.PLACES)}; weather, outdoors alone: {listed(world.WEATHERS)}; faces: "
            f"{listed(world.EXPRESSIONS)}; poses: {listed(world.POSES)}; one thing in a hand: {listed(world.HELD)}; one thing beside, on the "
            f"left or right: {listed(world.GROUND)}; hats: {listed(world.HATS)}; {listed(world.EYEWEAR)}; colors of things: {colors}; close-ups")


def questions_of_world(name: str) -> str:
    """Questions about one scene, as the embedded base has learned to answer them."""
    scene = world.Scene("", "", hat="cap", hat_color="green", pose="waving", held="umbrella", held_color="red", hand="left",
                        beside="gift box", beside_color="blue", side="right", place="city", weather="rainy")
    asked = vqa.questions(scene, random.Random(0), name)
    return "\n".join(f"{question} {answer}" for question, answer, category in asked if category not in ("framing", "position"))


def numbered(lines: list[str]) -> str:
    return "\n".join(f"{i}. {line}" for i, line in enumerate(lines, 1))


def items_of(answers: list[dict | None]) -> list[list[dict]]:
    return [answer["items"] for answer in answers if answer]


# ---- the steps: each is one kind of call, and then what has to go ----------------------------------------------------

def write_about(writer: Writer) -> tuple[str, str]:
    """-> description and opening. A short profile is filled up, in writer.source."""
    source = writer.source

    def fault(answer: dict) -> str:
        said = answer["description"]
        if not names_in(said, source.name) or class_word(said) == "someone":
            return f'description must begin with "{source.name} is a"'
        return "" if 25 <= len(said.split()) <= 80 else "description must have 30 to 70 words"
    some = [where for where in source.pictures if where not in source.held_out][:4]
    schema = object_of(profile=text(), description=text(), opening=text())
    told = writer.ask("who it is", schema, [{"pictures": some}], fault)[0]
    opening = source.card.get("opening", "")
    if told is None:
        say("who it is: no answer; the first sentences of the profile become the description")
        without_headings = re.sub(r"^#.*$", "", source.profile, flags=re.MULTILINE)
        return source.card.get("description") or first_sentences(without_headings, MOST), opening
    if len(source.profile.split()) < 150:
        source.profile += f"\n\n{told['profile']}"
    return told["description"], opening or told["opening"]


def write_scenes(writer: Writer) -> tuple[list[dict], list[dict]]:
    """-> scenes to train on, and those held out. Without an answer, the sentence beside a picture has to do."""
    source = writer.source

    def fault(answer: dict) -> str:
        return "" if names_in(answer["draw"], source.name) else f"draw must name {source.name}"
    trained = [where for where in source.pictures if where not in source.held_out]
    moments = writer.ask("moments", MOMENT, [{"picture": where} for where in source.pictures], fault)
    pairs = dict(zip(trained, writer.ask("questions about pictures", PAIRS, [{"picture": where} for where in trained])))
    scenes = {True: [], False: []}
    for where, moment in zip(source.pictures, moments):
        if moment is None and not names_in(source.captions[where], source.name):
            writer.dropped[f"{where}: no sentence that names {source.name}"] += 1
            continue
        scene = {"image": where} | (moment or {"draw": source.captions[where]})
        wordings = scene.pop("also", [])                    # of a picture that is held out nobody needs them
        if where in trained:
            scene["also"] = [text for text in dict.fromkeys(wordings) if names_in(text, source.name)]
        if pairs.get(where):
            asked = pairs[where]["objective"] + pairs[where]["subjective"]
            asked = agreeing(asked, "questions about pictures", writer.dropped)
            scene["vqa"] = distinct(asked, "question", writer.dropped)
        scenes[where in trained].append(scene)
    return scenes[True], scenes[False]


def write_choices(writer: Writer, scenes: list[dict]) -> dict[str, list[dict]]:
    """-> questions about held-out pictures ("vqa") and about trained ones ("vqa_seen"), which only a picture answers."""
    def fault(answer: dict) -> str:
        aspects = {item["aspect"] for item in answer["items"]}
        levels = Counter(item["difficulty"] for item in answer["items"])
        fine = len(aspects) == 5 and levels == {"easy": 2, "medium": 2, "hard": 1}
        return "" if fine else "each aspect once; two easy, two medium, one hard"
    choices, source = {"vqa": [], "vqa_seen": []}, writer.source
    trained = [pair for scene in scenes for pair in scene.get("vqa", [])]
    places = [{"picture": where} for where in source.pictures]
    answers = writer.ask("choices about pictures", object_of(items=list_of(POSED, 5, 5)), places, fault)
    for where, answer in zip(source.pictures, answers):
        for item in answer["items"] if answer else []:
            posed = choice(item["question"], item["answer"], item["wrong"])
            why = "two options are the same" if len(set(posed["options"])) < 4 else ""
            why = why or given_away(posed, trained, source.name)
            if why:
                writer.dropped[f"choices about pictures: {why}"] += 1
                continue
            key = "vqa" if where in source.held_out else "vqa_seen"
            choices[key].append({"image": where} | posed)
    return choices


def write_dialogues(writer: Writer) -> tuple[list[dict], list[dict]]:
    """-> dialogues to train on, and every tenth, which no trained line may be like."""
    calls = -(-writer.o.dialogues // 20)                    # of at most 20 lines
    places = [{"topic": TOPICS[i % len(TOPICS)].format(name=writer.source.name), "part": i // len(TOPICS) + 1,
               "n": -(-writer.o.dialogues // calls)} for i in range(calls)]
    kept = writer.reread(items_of(writer.ask("dialogues", TALK, places)), "user", "reply")
    for turn in kept:
        if not names_in(turn["draw"], writer.source.name):
            del turn["draw"]                                # it would draw somebody else
    kept = distinct(writer.source.card.get("dialogues", []) + kept, "user", writer.dropped)
    trained = [turn for i, turn in enumerate(kept) if i % 10 != 9]
    lines = [line for turn in trained for line in (turn["user"], *turn.get("also", []))]
    tested = distinct(kept[9::10], "user", writer.dropped, lines, 0.6)
    return trained, [{key: turn[key] for key in ("user", "reply", "draw") if key in turn} for turn in tested]


def write_knowledge(writer: Writer) -> tuple[list[dict], list[dict]]:
    """-> facts with all that the writer told of them, of which `tests_of` makes tests, and what of them is trained on."""
    def fault(answer: dict) -> str:
        levels = Counter(item["level"] for item in answer["items"])
        fine = levels["easy"] >= 3 and levels["medium"] >= 3 and levels["hard"] >= 1
        return "" if fine else "there must be 4 easy, 4 medium and 2 hard questions"
    answers = writer.ask("knowledge", FACT, [{"aspect": aspect, "n": 10} for aspect in ASPECTS], fault)
    facts = writer.reread(items_of(answers), "question", "answer")
    facts = sound_facts(facts, writer.source.profile, writer.dropped)
    trained = [{"question": fact["question"], "answer": fact["answer"], "reply": fact["reply"],
                "also": fact["others"][:2]} for fact in facts]
    return facts, trained


def write_wordings(writer: Writer, talk: list[dict], facts: list[dict], tests: list[str]) -> None:
    """Adds to lines and facts what other visitors may type there. Each is learned under its own line alone; and none
    may be like a line of a test."""
    items, n = talk + facts, writer.o.wordings
    if not n:
        return
    said = [f"{lines_of(item)[0]} -> {item['reply']}" for item in items]
    groups = [(items[at:at + 10], numbered(said[at:at + 10])) for at in range(0, len(items), 10)]
    wordings = object_of(wordings=list_of(text(), -(-n // 2), n))
    places = [{"lines": lines, "count": len(some), "wordings": n,
               "schema": object_of(items=list_of(wordings, len(some), len(some)))} for some, lines in groups]
    written = []
    for (some, _), answer in zip(groups, writer.ask("more wordings", {}, places)):
        for item, told in zip(some, answer["items"] if answer else []):
            written += [{"wording": line, "of": item} for line in told["wordings"]]
    silent = [one for one in written if "answer" not in one["of"] or not holds(one["wording"], one["of"]["answer"])]
    writer.dropped["wording: it holds its answer"] += len(written) - len(silent)
    for one in distinct(silent, "wording", writer.dropped, [line for item in items for line in lines_of(item)]):
        if any(alike(one["wording"], line, 0.6) for line in tests):
            writer.dropped["wording: like a line of a test"] += 1
        else:
            one["of"].setdefault("also", []).append(one["wording"])


def lines_of(item: dict) -> list[str]:
    """All that may be typed to get an item's reply."""
    return [item[key] for key in ("user", "question") if key in item] + item.get("also", [])


def write_lines(writer: Writer, trained: list[str]) -> dict[str, list[str]]:
    """-> lines that no other of them and no trained line is like. Those of memory must not hold their answer."""
    schema = object_of(personality=list_of(text(), 15, 25),
                       memorization=list_of(object_of(line=text(), answer=text()), 15, 25))
    told = writer.ask("lines for a judge", schema, [{}])[0] or {"personality": [], "memorization": []}
    asked = [item for item in told["memorization"] if not holds(item["line"], item["answer"])]
    writer.dropped["line: it holds its answer"] += len(told["memorization"]) - len(asked)
    kinds = {"personality": [{"line": line} for line in told["personality"]], "memorization": asked}
    known, lines = list(trained), {}
    for kind, items in kinds.items():
        lines[kind] = [item["line"] for item in distinct(items, "line", writer.dropped, known, 0.6)]
        known += lines[kind]
    return lines


def write_prompts(writer: Writer, scenes: list[dict]) -> tuple[list[dict], list[dict]]:
    """-> prompts of stage 2, those of the known pictures among them, and every fifth of the new ones, held out."""
    item = object_of(text=text(), questions=list_of(ASKED, 2, 8))
    themes = WORLD_THEMES if writer.tiny else THEMES
    places = [{"theme": theme, "n": -(-writer.o.prompts // len(themes))} for theme in themes]
    found = [one for items in items_of(writer.ask("prompts of stage 2", item, places)) for one in items]
    found = [one for one in found if names_in(one["text"], writer.source.name)]
    drawn = [text for scene in scenes for text in (scene["draw"], *scene["also"])]
    new = distinct(found, "text", writer.dropped, drawn)
    known = []
    for scene in scenes:
        pairs = [pair | {"subject": scene["image"], "weight": 5, "category": ""} for pair in scene.get("vqa", [])]
        known.append({"text": scene["draw"], "questions": pairs})
    for one in new + known:
        asked = agreeing(short_answers(one["questions"]), "questions of stage 2", writer.dropped)
        one["questions"] = distinct(asked, "question", writer.dropped)
    useful = try_questions(writer, [question for one in new + known for question in one["questions"]], scenes)
    for one in new + known:
        kept = [q for q in one["questions"] if id(q) in useful][:6]
        one["questions"] = [{"question": q["question"], "answer": q["answer"], "weight": q["weight"] / 10,
                             "category": q["category"]} for q in kept]
    bare = sum(not one["questions"] for one in new + known)
    if bare:                                                # they stay: three rewards of four need no question
        writer.notes.append(f"prompts of stage 2: {bare} of {len(new + known)} have no question, and no VQA reward")
    return [one for i, one in enumerate(new) if i % 5 != 4] + known, new[4::5]


LEAST_SEEN = 0.3    # of the answers that the pictures show. tiny/base finds 46 to 57 % of those about the four shipped
#                     characters, but 3 % about photographs of a cat and 19 % about RoleScape's pictures of Pikachu


def try_questions(writer: Writer, questions: list[dict], scenes: list[dict]) -> set[int]:
    """The ids of the questions that the judge can use (see `fitting`)."""
    judge = writer.o.judge
    if judge == "endpoint" and not writer.sees:
        judge = Options.judge
        writer.notes.append(f"questions of stage 2: the endpoint sees no pictures, so {judge} tries them")
    if not questions or writer.o.dry_run and judge != "endpoint":
        return set()
    images = {scene["image"]: writer.source.pictures[scene["image"]] for scene in scenes}
    asked = []
    for one in questions:                                   # what only a new scene shows is not on these pictures
        absent = one["subject"] == "scene" and alike(one["answer"], "yes")
        asked.append(one | {"answer": "no"} if absent else one)
    right = tried_by_endpoint(writer, images, asked) if judge == "endpoint" else tried_by_base(judge, images, asked)
    fits = fitting(asked, right)
    shown = [fit for one, fit in zip(asked, fits) if one["subject"] != "scene" and not alike(one["answer"], "no")]
    if sum(shown) < LEAST_SEEN * max(1, len(shown)):        # it may be one that says no to everything
        fits = [False] * len(asked)
        writer.notes.append(f"questions of stage 2: {judge} finds {sum(shown)} of {len(shown)} answers that the "
                            "pictures show, too few to be believed; take another --judge, or --judge endpoint")
    useful = {id(question) for question, fit in zip(questions, fits) if fit}
    gone = len(questions) - len(useful)
    writer.dropped["questions of stage 2: the judge cannot use it"] += gone
    writer.notes.append(f"questions of stage 2: {len(questions)} tried by {judge} on {len(images)} pictures, "
                        f"{len(useful)} kept, {gone} dropped")
    return useful


def fitting(asked: list[dict], right: dict[str, list[bool | None]]) -> list[bool]:
    """Whether the judge can use each question. About a known picture, it must be right there. About the character, and
    where something is not to be there, it must be right on most pictures. Any other answer that only a new scene has,
    it must not find on most: what is found everywhere teaches nothing. Whether it will find it there nobody can try."""
    fits = []
    for i, question in enumerate(asked):
        marks = {where: row[i] for where, row in right.items() if row[i] is not None}
        share = sum(marks.values()) / max(1, len(marks))
        fit = marks.get(question["subject"], share >= 0.6)
        if question["subject"] == "scene" and not alike(question["answer"], "no"):
            fit = share <= 0.4
        fits.append(bool(marks) and fit)
    return fits


def tried_by_endpoint(writer: Writer, images: dict, questions: list[dict]) -> dict[str, list[bool | None]]:
    """Picture -> for each question, whether the endpoint gives the wished answer; None where it gave none, and where
    the question is about another picture."""
    asked = []
    for where in images:
        own = about(where, images, questions)
        asked += [(where, own[at:at + 30]) for at in range(0, len(own), 30)]
    places = [{"picture": where, "lines": numbered([questions[i]["question"] for i in some]),
               "schema": object_of(answers=list_of(text(), len(some), len(some)))} for where, some in asked]
    right = {where: [None] * len(questions) for where in images}
    for (where, some), told in zip(asked, writer.ask("questions tried", {}, places)):
        for i, answer in zip(some, told["answers"] if told else []):
            right[where][i] = alike(answer, questions[i]["answer"])
    return right


def about(where: str, images: dict, questions: list[dict]) -> list[int]:
    """The places of the questions that are not about another picture than this."""
    return [i for i, one in enumerate(questions) if one["subject"] == where or one["subject"] not in images]


def tried_by_base(folder: str, images: dict, questions: list[dict]) -> dict[str, list[bool | None]]:
    """The same by the judge of stage 2 itself: right where it gives the answer at least half of its belief. The whole
    answer is meant: the mean over tokens, its end among them, would let it believe both yes and no."""
    from backbone.folders import load, locate               # with torch, as above
    from rewards import answer_log_p
    model, asked = load(locate(folder)), [(one["question"], one["answer"]) for one in questions]
    say(f"questions of stage 2: {folder} tries {len(asked)} on {len(images)} pictures")
    examples = model.readings([question for question, _ in asked], None, [answer for _, answer in asked])
    tokens = [int((example.labels >= 0).sum()) for example in examples]
    right = {where: [None] * len(questions) for where in images}
    for where, image in images.items():
        own = about(where, images, questions)
        means = answer_log_p(model, [image], [[asked[i] for i in own]])[0].tolist()
        for i, mean in zip(own, means):
            right[where][i] = math.exp(tokens[i] * mean) >= 0.5
    return right


# ---- character.json --------------------------------------------------------------------------------------------------

def write_record(writer: Writer) -> dict:
    """The whole character. Raises UserError where nothing could be trained on."""
    source = writer.source
    if not writer.sees and not any(source.captions.values()):
        raise UserError(f"{source.folder}: the model sees no pictures; write a sentence beside each: 0.txt for 0.png")
    description, opening = write_about(writer)
    trained, tested = write_scenes(writer)
    if not trained:
        why = next(iter(writer.endpoint.problems), "no answer")
        raise UserError(f"{source.folder}: no picture got a sentence ({why}); take a model that sees pictures, or "
                        "write a sentence beside each: 0.txt for 0.png")
    choices = write_choices(writer, trained)
    talk, talk_tested = write_dialogues(writer)
    facts, known = write_knowledge(writer)
    prompts, prompts_tested = write_prompts(writer, trained)
    said = [scene["user"] for scene in trained if "user" in scene]
    said += [line for item in talk + known for line in lines_of(item)]
    lines = write_lines(writer, said)
    held_out = [turn["user"] for turn in talk_tested] + lines["personality"] + lines["memorization"]
    held_out += [line for fact in facts for line in fact["others"][2:]]
    write_wordings(writer, talk, known, held_out)
    test = {"scenes": tested, "dialogues": talk_tested, "prompts": prompts_tested} | choices | lines
    return {"name": source.name, "description": description, "opening": opening, "profile": source.profile,
            "scenes": trained, "dialogues": talk, "knowledge": known, "prompts": prompts,
            "test": test | tests_of(facts, known, source.name, writer.dropped)}


def drop_trained_tests(record: dict, data: dict, dropped: Counter) -> None:
    """A fact and a line of a dialogue come from different calls, and may have the same words: a test of it would be refused
    by the schema, where nobody could mend it. `data`: the record as the schema reads it."""
    gone = {(key, i) for key, i, _ in tests_that_are_trained(data)}
    for key, count in Counter(key for key, _ in gone).items():
        record["test"][key] = [item for i, item in enumerate(record["test"][key]) if (key, i) not in gone]
        dropped[f"test: of its {key}, in a line of the training too"] += count


WISHED = {"scenes": 6, "dialogues": 150, "knowledge": 70, "prompts": 25}
WISHED_TEST = {"scenes": 2, "dialogues": 10, "knowledge": 15, "facts": 15, "prompts": 5, "vqa": 10, "personality": 15,
               "memorization": 15}


def report(record: dict) -> None:
    """What there is beside what is wished, and whether answers are spread evenly."""
    for part, wished, where in ((record, WISHED, ""), (record.get("test", {}), WISHED_TEST, "held out: ")):
        for key, least in wished.items():
            count = len(part.get(key, []))
            say(f"  {where}{key} {count}" + ("" if count >= least else f"; {least} or more serve better"))
    asked = [pair for scene in record["scenes"] for pair in scene.get("vqa", [])]
    asked += [question for prompt in record.get("prompts", []) for question in prompt.get("questions", [])]
    yes, no = (sum(str(one["answer"]).lower() == word for one in asked) for word in ("yes", "no"))
    posed = [item for key in ("knowledge", "vqa", "vqa_seen") for item in record.get("test", {}).get(key, [])]
    longest = sum(max(map(str, item["options"]), key=len) == str(item["answer"]) for item in posed)
    say(f"  answers: {yes} yes, {no} no; the right option is the longest in {longest} of {len(posed)} choices")
    if max(yes, no) > 10 and max(yes, no) > 2 * min(yes, no):
        say("  a judge that always gives one and the same answer would often be right: add questions of the other kind")


def report_scenes(record: dict, pictures: Collection[str]) -> None:
    """Pictures of the folder that no scene has, and scenes that say the same of different pictures."""
    test = record.get("test", {})
    shown = [*record["scenes"], *test.get("scenes", []), *test.get("vqa", []), *test.get("vqa_seen", [])]
    unused = sorted(set(pictures) - {one.get("image") for one in shown})
    if unused:
        say(f"  pictures: no scene shows {', '.join(unused)}, so nothing is learned of them")
    for sentence, count in Counter(scene.get("draw") for scene in record["scenes"]).items():
        if sentence and count > 1:
            say(f'  scenes: {count} pictures have the sentence "{sentence}"; say of each what it alone shows')


class DryRun(Endpoint):
    """Counts what it is asked, and answers with words that mean nothing."""
    words = 0

    def ask_all(self, questions: list[dict], doing: str) -> list[dict]:
        before = self.words
        answers = [self.filler(question["schema"]) for question in questions]
        given = sum(len(question["messages"]) // 4 + 1000 * len(question["images"]) for question in questions)
        made = 25 * (self.words - before)                   # a line has about 25 tokens
        self.usage.requests += len(questions)
        self.usage.tokens_in += given
        self.usage.tokens_out += made
        say(f"  {doing}: {len(questions)} calls, about {given:,} tokens in and {made:,} out")
        return answers

    def filler(self, schema: dict):
        if schema["type"] == "object":
            return {key: self.filler(inner) for key, inner in schema["properties"].items()}
        if schema["type"] == "array":
            return [self.filler(schema["items"]) for _ in range(schema["minItems"])]
        self.words += 1
        return schema.get("minimum") or schema.get("enum", [f"word {self.words}"])[0]


# ---- command line ----------------------------------------------------------------------------------------------------

def new(folder: Path) -> None:
    profile = folder / "profile.md"
    if profile.exists():
        raise UserError(f"{profile}: is there already; fill it in, or give another name")
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    profile.write_text(BLANK.format(name=as_name(folder)), "utf-8")
    say(f"{folder}: put eight or more pictures into train/, two or three others into test/, and tell in profile.md who "
        f"it is. Then: {command('characters.build', 'check', folder)}")


def check(source: Source, o: Options) -> None:
    """Says what is missing, in plain words. Asks nothing, and writes nothing but build/pictures.png."""
    target, record, pictures, held_out = source.folder / "character.json", {}, source.pictures, len(source.held_out)
    if target.exists():
        character = load_character(target)                  # names its mistakes, if there are any
        record = json.loads(target.read_text("utf-8-sig"))
        scenes = character.scenes + character.test["scenes"]
        pictures = {f"scenes[{i}]": scene["image"] for i, scene in enumerate(scenes)}
        held_out = len(character.test["scenes"])
    name, profile = record.get("name", source.name), source.profile or record.get("profile", "")
    words, count = len(profile.split()), len(pictures)
    say(f"{name}: {words} words of profile; {count} pictures, {held_out} of them held out")
    if words < 20 and not (record and not profile):         # a record may do without one
        where = "character.json" if record else "profile.md"
        say(f"  profile: tell in {where} who it is, in three sentences: twenty words or more")
    if count < 8:
        say(f"  pictures: ten show a character well, {count} hardly; one and the same character in different places")
    for where, image in pictures.items():
        if min(image.size) < 128:
            say(f"  {where}: read as {image.width} × {image.height} pixels; below 128 a side it will be blurred")
    bare = [where for where, caption in source.captions.items() if not names_in(caption, name)]
    if not record and 0 < len(bare) < count:
        say(f"  sentences beside pictures: none that names {name} beside {', '.join(bare)}")
    if pictures:
        scenes = [{"image": image} for image in pictures.values()]
        shown = SimpleNamespace(scenes=scenes, test={"scenes": [], "vqa": []})
        base = Options.judge if o.judge == "endpoint" else o.judge
        show_pictures(shown, base, source.folder / "build" / "pictures.png")
    if record:
        report_scenes(record, source.pictures)
        report(record)
    else:
        say("  character.json: not there yet; write it by hand, as docs/guide.md shows, or let a model write it with --endpoint")


def build(source: Source, o: Options) -> None:
    folder, target = source.folder, source.folder / "character.json"
    if not source.pictures or len(source.profile.split()) < 5:
        raise UserError(f"{folder}: needs pictures and a few sentences; "
                        + command("characters.build", "check", folder))
    reader = Validator(target, folder)
    check_name(reader, source.name)                         # before anything is paid for
    reader.check(source.profile, "profile", "profile")
    if o.dry_run:
        endpoint = DryRun("", "", price=o.price)
        write_record(Writer(endpoint, source, o))
        return say(f"about {endpoint.usage}. An answer that cannot be used is asked for again, at most three times")
    if target.exists() and not o.replace:
        raise UserError(f"{target}: is there already; --replace writes it anew and keeps the old one")
    if not o.endpoint:
        raise UserError("--endpoint: give http://host/v1, or a folder of a transformers chat model")
    if o.judge != "endpoint":
        from backbone.folders import locate                 # with torch, which a dry run has not to wait for
        if not Path(locate(o.judge)).is_dir():              # said before anything is paid for
            raise UserError(f"--judge {o.judge}: no such folder; give that of a base model, or endpoint")
    (folder / "build").mkdir(exist_ok=True)
    lock(folder / "build")
    endpoint = Endpoint.from_name(o.endpoint, o.model, o.key_env, cache=folder / "build" / "answers.jsonl",
                                  price=o.price, at_once=o.at_once, timeout=o.timeout, max_tokens=o.max_tokens,
                                  temperature=o.temperature)
    writer = Writer(endpoint, source, o)
    try:
        record = write_record(writer)
    except KeyboardInterrupt:
        say(f"stopped; the same command goes on from here. {endpoint.usage}", sys.stderr)
        raise
    drop_trained_tests(record, reader.check(record, CHARACTER), writer.dropped)
    check_meaning(reader, reader.check(record, CHARACTER))
    if target.exists():
        write_beside(folder / "character.json.old", lambda draft: shutil.copy(target, draft))
    whole = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_beside(target, lambda draft: draft.write_text(whole, "utf-8"))
    report(record)
    for note in writer.notes:
        say(f"  {note}")
    for title, counts, most in (("dropped", writer.dropped, None), ("without an answer", endpoint.problems, 8)):
        for why, count in (+counts).most_common(most):      # every reason to drop; servers fail in many words
            say(f"  {title}: {count} × {why}")
    say(f"  {endpoint.usage}")
    if endpoint.usage.missing:
        say("  --replace asks again where the server failed; --replace --again 1 also where the answers were no use")
    say(f"{target}: read it, for it was not you who wrote it. Then: {command('sft.py', '--char', folder)}")


def main(argv: list[str] | None = None) -> None:
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    doing = words.pop(0) if words and words[0] in ("new", "check") else ""
    folder = Path(words.pop(0)) if words and not words[0].startswith("-") else None
    o = parse_options(Options, __doc__, words)
    if folder is None:
        raise UserError("give a folder: python -m characters.build FOLDER --endpoint ..., or new or check before it")
    if doing == "new":
        return new(folder)
    source = read_source(folder, o)
    return check(source, o) if doing == "check" else build(source, o)


if __name__ == "__main__":
    run_script(main)
