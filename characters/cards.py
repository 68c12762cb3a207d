"""Character cards, as SillyTavern and others exchange them, in our schema. Skip this to learn the method.

    python -m characters.cards card.png FOLDER      writes FOLDER/character.json, and the card's picture, to go on with

A card is JSON of version 1, 2 or 3, or a PNG that carries this JSON in base64, in a text chunk `chara` or `ccv3`. It
holds words, and as a PNG one picture. Training needs about ten.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import base64
import json
import re
import shutil
import sys
from pathlib import Path

from characters.files import is_png, parse_json, png_chunks, read_json
from characters.schema import names_in
from runtime.cli import UserError, printable, run_script, say

FEWEST, MOST = 30, 70                       # words of a description: it stands in every prompt


def read_card(file: Path) -> dict | None:
    """The fields of a card; None if the file is something else. Raises UserError for a broken card."""
    card = read_json(file) if file.suffix.lower() == ".json" else from_png(file)
    fields = card.get("data", card) if isinstance(card, dict) else None
    known = isinstance(fields, dict) and {type(fields.get(key)) for key in ("name", "description", "first_mes")}
    return fields if known == {str} else None


def from_png(file: Path) -> object:
    texts = {}
    for kind, content, _ in png_chunks(file.read_bytes()) if is_png(file) else ():
        if kind == b"tEXt":
            keyword, _, text = content.partition(b"\0")
            texts[keyword.lower()] = text
    text = texts.get(b"ccv3") or texts.get(b"chara")        # version 3 repeats itself as version 2 for older programs
    if text is None:
        return None
    try:
        return parse_json(base64.b64decode(text).decode(), file)
    except ValueError as error:
        raise UserError(printable(f"{file}: a damaged card ({error}); export it again")) from None


def to_record(card: dict, picture: str | None) -> dict:
    """The card in the schema of character.json. `picture` is the path of its one picture, if it has one."""
    name = re.sub(r"[/\\:\n\t]+", " ", str(card["name"])).strip()[:60]

    def told(field: str, user: str = "the user", fields: dict = card) -> str:
        return fill_in(str(fields.get(field) or ""), name, user)

    about = [told(field) for field in ("description", "personality", "scenario")]
    book = card.get("character_book")
    entries = book.get("entries") if isinstance(book, dict) else None
    notes = entries if isinstance(entries, list) else []
    about += [told("content", fields=note) for note in notes if isinstance(note, dict)]
    scenes = [{"image": picture, "draw": f"A picture of {name}."}] if picture else []
    return {"name": name, "description": first_sentences(as_prose(" ".join(about[:2]), name)),
            "opening": first_sentences(told("first_mes", "friend")),
            "profile": "\n\n".join(filter(None, about))[:50_000],
            "scenes": scenes, "dialogues": dialogues(told("mes_example", "{{user}}"), name)}


def fill_in(text: str, name: str, user: str) -> str:
    """Puts names in the place of {{char}}, <BOT>, {{user}} and <USER>, and drops every other macro."""
    text = re.sub(r"\{\{char\}\}|<(?:bot|char)>", lambda _: name, text, flags=re.IGNORECASE)
    text = re.sub(r"\{\{user\}\}|<user>", "\0", text, flags=re.IGNORECASE)
    return re.sub(r"\{\{[^{}]*\}\}", "", text).replace("\0", user).replace("\r\n", "\n").strip()


def as_prose(text: str, name: str) -> str:
    """Sentences, from prose or from lists such as [Personality("kind" + "shy")] or "- Hair: red"."""
    text = re.sub(r'"\s*\+\s*"', ", ", text)
    text = re.sub(r'(\w[\w ]*)\(\s*"(.*?)"\s*\)', r"\1: \2.", text)
    text = re.sub(r"^[\s#>*-]+|[\[\]{}*_`|]+", " ", text, flags=re.MULTILINE).strip()
    text = re.sub(r"\s+", " ", re.sub(r"(?<![.!?,;:])\n+", ". ", text))
    return text if names_in(text[:200], name) else f"{name}: {text}"


def first_sentences(text: str, most: int = MOST) -> str:
    """As many whole sentences as `most` words allow; if these are fewer than FEWEST words, part of the next one too."""
    kept: list[str] = []
    for sentence in re.split(r"(?<=[.!?。！？])\s+", text):
        words = sentence.split()
        if len(kept) + len(words) > most:
            return " ".join(kept if len(kept) >= FEWEST else (kept + words)[:most])
        kept += words
    return " ".join(kept)


def dialogues(example: str, name: str) -> list[dict]:
    """Each line of the user with the character's reply, from blocks that begin with <START>."""
    found = []
    for block in re.split(r"<START>", example, flags=re.IGNORECASE):
        turns = re.split(rf"^\s*({re.escape(name)}|\{{\{{user\}}\}}|user|you)\s*:", block, flags=re.M | re.I)
        spoken = [(who.lower() == name.lower(), said.strip()) for who, said in zip(turns[1::2], turns[2::2])]
        for (by_character, user), (answered, reply) in zip(spoken, spoken[1:]):
            if user and reply and answered and not by_character:
                found.append({"user": user.replace("{{user}}", "me"), "reply": reply.replace("{{user}}", "friend")})
    return found


def main(argv: list[str] | None = None) -> None:
    paths = [Path(name) for name in (sys.argv[1:] if argv is None else argv)]
    if len(paths) != 2:
        raise UserError("give a card and a folder: python -m characters.cards card.png FOLDER")
    file, folder = paths
    card, target = read_card(file), folder / "character.json"
    if card is None:
        raise UserError(f"{file}: no character card of version 1 to 3, in JSON or PNG; export it again")
    if target.exists():
        raise UserError(f"{target}: is there already; give a new folder")
    record = to_record(card, "train/0.png" if is_png(file) else None)
    (folder / "train").mkdir(parents=True, exist_ok=True)
    if record["scenes"]:
        shutil.copyfile(file, folder / "train" / "0.png")
    from runtime.files import write_beside          # imports torch, for which data.py need not wait
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    write_beside(target, lambda path: path.write_text(text, "utf-8"))
    say(f"{folder}: {record['name']}, {len(record['dialogues'])} dialogues, {len(record['scenes'])} picture(s). Next: "
        f"put about ten pictures into {folder / 'train'}, and for each a scene with image and draw into {target}")


if __name__ == "__main__":
    run_script(main)
