"""A train/ folder of the RoleScape-20 dataset, as published, in the schema of character.json. Skip this to learn the
method.

What is odd in the published files is mended here: invented picture numbers in the extension dialogues, numbered and
quoted test lines, GRPO questions that nearly all stand twice, names with and without underscores, sentences without the
name, absent test profiles.
"""
import re
from pathlib import Path

from characters.files import belongs, read_json
from characters.schema import names_in
from runtime.cli import UserError, printable


class Published:
    """Reads the files of one character; `file` is the one that is being read, for the message if it is damaged."""

    def __init__(self, folder: Path):
        self.folder, self.file = folder, folder / "annotation.json"
        self.label = folder.name                            # the short name in all file names, if they have another
        for file in visible(folder, "*_with_image.json"):
            self.label = file.name.removesuffix("_with_image.json")
        self.name = self.label.replace("_", " ")
        self.root = folder.parent.parent if folder.parent.name == "train" else folder
        self.test = f"../../test/{folder.name}/"            # as seen from the folder

    def rows(self, tail: str, key: str, home: str = "") -> list:
        """The list under `key` in the file of that ending. What belongs to the test set may be absent."""
        self.file = self.folder / home / f"{self.label}_{tail}.json"
        if (home or tail.endswith("_test")) and not self.file.exists():
            return []
        return read_json(self.file)[key]

    def scenes(self, home: str = "") -> tuple[list[dict], list[dict]]:
        """The scenes of the folder `home`, and the multiple-choice questions about their pictures."""
        rows = self.rows("t2i_instruction", "t2i_instructions", home)
        drawn = {row["image_id"]: row["t2i_instruction"] for row in rows}
        scenes, asked = [], []
        for user, machine in self.rows("with_image", "scenes", home):
            image = f"{home}{machine['image']}.png"
            scenes.append({"image": image, "draw": self.named(drawn[machine["image"]]), **talk(user, machine),
                           "thinking": machine["thinking_process"], "instruction": machine["generation_instruction"],
                           "vqa": machine.get("qa_pairs", [])})
            asked += [choice(item) | {"image": image} for item in machine.get("mcq_items", [])]
        return scenes, asked

    def named(self, text: str) -> str:
        """A sentence that names the character, as the schema wants it; with the name before it where it does not."""
        text = text.replace(self.label.replace(" ", "_"), self.label)
        return text if names_in(text, self.name) else f"{self.name}: {text}"

    def lines(self, kind: str) -> list[str]:
        """Test lines without the numbers and quotes that some of them stand in."""
        rows = self.rows(f"{kind}_test", "test_questions")
        return [re.sub(r'^["“]?\d+[.)]\s*', "", line).strip('"“” ') for line in rows]

    def profile(self) -> str:
        texts = []
        for file in visible(self.folder, "*_full_profile.txt"):
            if belongs(file, self.folder):
                texts.append(file.read_text("utf-8", "replace"))
        return "".join(texts)

    def prompts(self) -> list[dict]:
        """The prompts of stage 2. The list has nearly all of them twice. A question with two answers is left out, and
        so is a yes/no question whose answer is "unknown"."""
        files = []
        for base in (self.root, *self.root.parents[:2]):
            for place in ("grpo", "flow_grpo/dataset/personalized_t2i"):
                for name in {self.label, self.label.replace(" ", "_")}:
                    files += visible(base / place / name, "*_pure_t2i*.jsonl")
        if not files:
            return []
        self.file = max(files)                              # of two files the one with questions, ..._with_vqa
        prompts = {}
        for row in read_json(self.file):
            prompts[self.named(row["text"])] = self.questions(row.get("vqa_questions", []))
        return [{"text": text, "questions": questions} for text, questions in prompts.items()]

    def questions(self, items: list[dict]) -> list[dict]:
        answers: dict[str, dict] = {}                       # question -> answer -> item
        for item in items:
            answer = item["answer"].lower()
            if item["type"] != "yes_no" or answer in ("yes", "no"):
                question = item["question"].replace(self.label.replace(" ", "_"), self.label)
                answers.setdefault(question, {})[answer] = item | {"question": question}
        return [item for found in answers.values() if len(found) == 1 for item in found.values()]


def visible(folder: Path, pattern: str) -> list[Path]:
    """Files without those that begin with a dot: macOS lays a ._file beside every file on other systems' disks."""
    return sorted(file for file in folder.glob(pattern) if not file.name.startswith("."))


def talk(user: dict, machine: dict) -> dict:
    """`image` is left out: in the extension files its numbers are invented."""
    return {"user": user["text"], "reply": machine["text"]}


def choice(item: dict) -> dict:
    options = item["options"]
    return {"question": item["question"], "options": list(options.values()), "answer": options[item["answer_key"]]}


def load_rolescape(folder: Path) -> tuple[dict, Path]:
    """-> the character in our schema, and the folder that its pictures must lie in. Its test folder and its prompts of
    stage 2 are taken where they lie beside train/. Raises UserError with the file's name."""
    source = Published(folder)
    try:
        return read_all(source), source.root
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(printable(f"{source.file}: not as published ({reason}); copy it anew")) from None


def read_all(source: Published) -> dict:
    """vqa_seen stands apart from vqa because all published questions about pictures are about those trained on. One
    prompt in five is held out: the dataset itself has no held-out prompts with questions."""
    known, asked = source.scenes()
    held_out, _ = source.scenes(source.test)
    told = [talk(*turns) for turns in source.rows("with_image", "scenes")]      # the extension tells these again
    extension = [talk(*turns) for turns in source.rows("dialogue_text_extension_train", "scenes")]
    prompts = source.prompts()
    test = {"scenes": held_out, "vqa_seen": asked, "prompts": prompts[4::5],
            "dialogues": [talk(*turns) for turns in source.rows("dialogue_text_extension_test", "scenes")],
            "knowledge": [choice(item) for item in source.rows("knowledge_qa_test", "mcq_items")],
            "personality": source.lines("personality"), "memorization": source.lines("memorization")}
    knowledge = source.rows("knowledge_qa", "qa_items")
    return {"name": source.name, "description": source.rows("with_image", "description"),
            "opening": source.rows("with_image", "opening"), "profile": source.profile(),
            "scenes": known, "dialogues": [turn for turn in extension if turn not in told], "knowledge": knowledge,
            "prompts": [prompt for i, prompt in enumerate(prompts) if i % 5 < 4], "test": test}
