"""A train/ folder of the RoleScape-20 dataset, as published, in the schema of data.py. Skip this to learn the method.

What is odd in the published files and mended here: invented picture numbers in the extension dialogues, numbered and
quoted test lines, GRPO questions that nearly all stand twice, names with and without underscores, absent test profiles.
"""
import re
from collections.abc import Callable
from pathlib import Path


def load_rolescape(folder: Path, read_json: Callable[[Path], object]) -> tuple[dict, Path]:
    """-> the character in our schema, and the folder that its picture paths start from. Its test folder and its GRPO
    prompts are taken where they lie beside train/. Raises ValueError with the file's name. vqa_seen is apart
    from vqa because all published questions about pictures are about those trained on."""
    label = next((file.name[:-len("_with_image.json")] for file in folder.glob("*_with_image.json")), folder.name)
    root, beside = folder.parent.parent if folder.parent.name == "train" else folder, f"../../test/{folder.name}/"
    trail = []                          # of files: an error is in the last

    def read(tail: str, key: str, home: str = "") -> list:
        trail.append(folder / home / f"{label}_{tail}.json")
        return [] if (home or tail.endswith("_test")) and not trail[-1].exists() else read_json(trail[-1])[key]

    def talk(turns: list) -> list[dict]:        # `image` is left out: in the extension files its numbers are invented
        return [{"user": user["text"], "reply": machine["text"]} for user, machine in turns]

    def choices(items: list, **more: str) -> list[dict]:
        return [{"question": item["question"], "options": list(item["options"].values()),
                 "answer": item["options"][item["answer_key"]], **more} for item in items]

    def scenes(home: str) -> tuple[list[dict], list[dict]]:
        drawn = {i["image_id"]: i["t2i_instruction"] for i in read("t2i_instruction", "t2i_instructions", home)}
        turns = read("with_image", "scenes", home)
        result, asked = talk(turns), []
        for scene, (_, machine) in zip(result, turns):
            scene |= {"image": f"{home}{machine['image']}.png", "draw": drawn[machine["image"]],
                      "thinking": machine["thinking_process"], "instruction": machine["generation_instruction"],
                      "vqa": machine.get("qa_pairs", [])}
            asked += choices(machine.get("mcq_items", []), image=scene["image"])
        return result, asked

    try:
        (known, asked), (held_out, _) = scenes(""), scenes(beside)
        told = talk(read("with_image", "scenes"))       # and the extension tells it again
        data = {"name": label.replace("_", " "), "scenes": known, "knowledge": read("knowledge_qa", "qa_items")}
        data["dialogues"] = [t for t in talk(read("dialogue_text_extension_train", "scenes")) if t not in told]
        data["test"] = {"scenes": held_out, "dialogues": talk(read("dialogue_text_extension_test", "scenes")),
                        "knowledge": choices(read("knowledge_qa_test", "mcq_items")), "vqa_seen": asked}
        for kind in ("personality", "memorization"):    # some lines are numbered, some stand in quotes
            data["test"][kind] = [re.sub(r'^["“]?\d+[.)]\s*', "", line).strip('"“” ')
                                  for line in read(f"{kind}_test", "test_questions")]
        data |= {key: read("with_image", key) for key in ("description", "opening")}
        data["profile"] = "".join(path.read_text("utf-8", "replace") for path in folder.glob("*_full_profile.txt"))
        prompts = published_prompts(root, label, trail, read_json)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{trail[-1]}: not as published ({type(error).__name__}: {error}); copy it anew") from None
    # One in five is held out: the dataset itself has no held-out prompts with questions.
    data["prompts"], data["test"]["prompts"] = [prompt for i, prompt in enumerate(prompts) if i % 5 < 4], prompts[4::5]
    return data, root


def published_prompts(root: Path, label: str, trail: list[Path], read_json: Callable) -> list[dict]:
    """The lists hold nearly all twice, some questions with two answers, some yes/no questions with "unknown"."""
    under, result = label.replace(" ", "_"), {}
    files = sorted(file for base in (root, *root.parents[:2]) for sub in ("grpo", "flow_grpo/dataset/personalized_t2i")
                   for name in {label, under} for file in base.glob(f"{sub}/{name}/*_pure_t2i*.jsonl"))
    trail += files[-1:]                 # sorted, ..._with_vqa is the last
    for row in read_json(files[-1]) if files else []:
        answers = {}
        for ask, item in ((item["question"].replace(under, label), item) for item in row.get("vqa_questions", [])):
            if item["type"] != "yes_no" or item["answer"].lower() in ("yes", "no"):
                answers.setdefault(ask, {})[item["answer"].lower()] = item | {"question": ask}
        result[row["text"]] = [one for either in answers.values() if len(either) == 1 for one in either.values()]
    return [{"text": text.replace(under, label), "questions": questions} for text, questions in result.items()]
