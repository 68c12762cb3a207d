"""Talk with a character that sft.py or grpo.py has taught: it answers in words, then draws the moment.

    python chat.py                                        the newest run under runs/
    python chat.py --model runs/coco/sft                  a checkpoint of your choice
    python chat.py --once "hello" --out hello.png         one reply and one picture, for scripts

A turn is three calls of the one model: reply_prompt -> words, streamed; with /think on, think_prompt -> a plan;
draw_prompt -> a picture of the dialogue. The first section only paints in a terminal and may be skipped.
"""
import runtime  # noqa: F401     # first: before torch is loaded, see there
import base64
import contextlib
import io
import json
import os
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from backbone.folders import load
from data import (
    Character,
    draw_prompt,
    load_character,
    load_picture,
    newest_run,
    reply_prompt,
    think_prompt,
)
from model import UniModel
from runtime.cli import UserError, parse_options, run_script
from runtime.files import write_beside


@dataclass
class Options:
    model: str = ""             # checkpoint folder; empty: the newest run, of --char if that is given
    char: str = ""              # character, by name or folder; empty: the one that the checkpoint was taught
    once: str = ""              # say this, print one reply and one picture, and leave
    out: str = ""               # with --once: file for the picture
    pictures: bool = True       # draw after each reply
    think: bool = False         # plan each picture in words first (/think switches it)
    graphics: str = "auto"      # auto, blocks, kitty, iterm, sixel or none (save the picture, print its path)
    width: int = 0              # columns that a picture takes; 0: what the window has, up to 64
    weights: str = "auto"       # fp32, bf16 or int8; auto: bf16 from a billion numbers on
    device: str = "auto"        # auto, cpu, mps or cuda
    seed: int = 0               # of the words and of the first picture; each further picture adds one
    steps: int = 20             # denoising steps of a picture
    guidance: float = 0.0       # classifier-free guidance of a picture; 0: the model's own, 1: none
    temperature: float = 0.2    # of the replies (eval.py: 0.7, as published); plans and answers are always greedy
    max_tokens: int = 200       # longest reply
    memory: int = 4             # past turns that the prompt repeats: small models were taught on short prompts


HELP = """  /look FILE [question]   show it a picture (quote a name with spaces)
  /draw TEXT              draw what TEXT says, outside the dialogue
  /think                  plan pictures in words before drawing: on or off
  /save [FILE]            write the talk as JSON, its pictures beside it
  /reset                  forget the talk and begin again
  /quit                   leave (so does Ctrl-D); Ctrl-C stops a reply or a drawing"""
RANGES = dict(width=(0, 1000), seed=(0, 2 ** 62), steps=(1, 1000), guidance=(0, 100), temperature=(0, 100),
              max_tokens=(1, 100_000), memory=(0, 1000))
PLAN = re.compile(r"<think>(.*?)</think>\s*<gen>\s*(\S.*?)</gen>", re.DOTALL)
FILE_AND_REST = re.compile(r"""(?:"([^"]+)"|'([^']+)'|((?:\\ |\S)+))\s*(.*)""")      # a dropped file has '\ ' for ' '
CONTROL = dict.fromkeys([*range(9), *range(11, 32), *range(127, 160)])      # a model with byte tokens can utter ESC


# ---- painting in a terminal ------------------------------------------------------------------------------------------

def half_blocks(image: Image.Image, width: int) -> str:
    """Two pixels a cell: the glyph is the upper one, its background the lower one, and both are about square."""
    height = 2 * max(1, round(image.height * width / image.width / 2))
    pixels = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)).reshape(-1, 2, width, 3)
    cell = "\x1b[38;2;{};{};{};48;2;{};{};{}m▀"
    return "\n".join("".join(cell.format(*upper, *lower) for upper, lower in zip(*rows)) + "\x1b[0m" for rows in pixels)


def png(image: Image.Image) -> bytes:
    image.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


def kitty(image: Image.Image, columns: int = 0) -> str:
    """PNG in chunks of 4096 characters, the protocol's limit. q=2: an answer of the terminal would become our input."""
    text = base64.b64encode(png(image)).decode()
    chunks = [text[i:i + 4096] for i in range(0, len(text), 4096)]
    keys = ["a=T,f=100,q=2," + (f"c={columns}," if columns else "")] + ["q=2,"] * (len(chunks) - 1)
    return "".join(f"\x1b_G{key}m={int(i + 1 < len(chunks))};{chunks[i]}\x1b\\" for i, key in enumerate(keys))


def iterm(image: Image.Image, columns: int = 0) -> str:
    return f"\x1b]1337;File=inline=1;width={columns or 'auto'}:{base64.b64encode(png(image)).decode()}\x07"


def sixel(image: Image.Image, columns: int = 0) -> str:
    """Bands of six rows. In a band each colour paints its own pixels: one character a column, its six bits the rows."""
    if columns:                         # sixels count in pixels of the screen: take a cell to be eight wide
        image = image.resize((8 * columns, 8 * columns * image.height // image.width), Image.Resampling.LANCZOS)
    indexed = image.convert("RGB").quantize(256)
    pixels, palette = np.asarray(indexed), np.array(indexed.getpalette()).reshape(-1, 3)
    bands, percent = [], np.rint(palette / 2.55).astype(int)
    colours = "".join("#{};2;{};{};{}".format(i, *percent[i]) for i in np.unique(pixels))
    for top in range(0, image.height, 6):
        band, lines = pixels[top:top + 6], []
        for i in np.unique(band):
            bits = ((band == i) << np.arange(len(band))[:, None]).sum(0)
            cells = bytes(63 + bits.astype(np.uint8)).decode().rstrip("?")
            lines.append(f"#{i}" + re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", cells))
        bands.append("$".join(lines))                                   # $ goes back to the margin, - to the next band
    return f'\x1bPq"1;1;{image.width};{image.height}{colours}{"-".join(bands)}\x1b\\'


def choose_graphics(wanted: str, is_terminal: bool, env: dict[str, str]) -> str:
    if not is_terminal or wanted != "auto":
        return wanted if is_terminal else "none"        # a file or a pipe gets the picture's path, never escape codes
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    if "TMUX" in env or term.startswith(("screen", "tmux")):
        return "blocks"                 # tmux swallows graphics, though the outer terminal's variables leak into it
    if "KITTY_WINDOW_ID" in env or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    return "none" if term == "dumb" else "sixel" if term.startswith(("foot", "mlterm", "contour")) else "blocks"


PAINTERS = {"blocks": half_blocks, "kitty": kitty, "iterm": iterm, "sixel": sixel}


# ---- the talk --------------------------------------------------------------------------------------------------------

def write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, lambda draft: Path(draft).write_bytes(content))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


def clean(text: str, longest: int = 4000) -> str:
    """Half a character, from a terminal of another encoding, becomes '?': no tokenizer can read it."""
    if len(text) > longest:
        raise UserError(f"{len(text)} characters are too many at once; say it in {longest}")
    return text.translate(CONTROL).encode("utf-8", "replace").decode().strip()


class Chat:
    """One talk: the model, who it is, what was said. Every command is a method that takes the rest of the line."""
    def __init__(self, model: UniModel, character: Character, options: Options):
        self.model, self.character, self.options, self.think = model, character, options, options.think
        self.graphics = choose_graphics(options.graphics, sys.stdout.isatty(), os.environ)
        self.folder = Path("runs", character.folder.name, "chat")
        self.generator = torch.Generator().manual_seed(options.seed)
        self.turns: list[dict] = []

    def say(self, prompt: str, temperature: float, look: Image.Image | None, heard: list[str]) -> None:
        """Print the text as it comes; in the caller's list, what was seen survives a Ctrl-C."""
        def show(piece: str) -> None:
            piece = piece.translate(CONTROL)
            heard.append(piece if any(heard) else piece.lstrip())
            print(heard[-1], end="", flush=True)
        print("" if self.options.once else f"{self.character.name}: ", end="", flush=True)
        self.model.generate_text([prompt], images=[look], max_tokens=self.options.max_tokens, temperature=temperature,
                                 generator=self.generator, stream=show)
        print()

    def turn(self, user: str) -> None:
        who, heard = self.character, []
        # Only the dialogue is repeated: answers about pictures are curt, and a small model would copy their manner.
        spoken = [turn for turn in self.turns if turn.get("reply")]
        history = [line for turn in spoken[max(0, len(spoken) - self.options.memory):]
                   for line in (("User", turn["user"]), (who.name, turn["reply"]))]
        prompt = reply_prompt(who.name, who.description, who.opening, user, history)
        try:
            self.say(prompt, self.options.temperature, None, heard)
        finally:
            reply = "".join(heard).strip()
            self.turns.append({"user": user, "reply": reply})
        if self.options.pictures:
            plan = self.plan(think_prompt(who.name, who.description, user, reply)) if self.think else ()
            self.turns[-1] |= {"plan": plan} | self.picture(draw_prompt(who.name, who.description, user, reply, *plan))

    def plan(self, prompt: str) -> tuple[str, ...]:
        text = self.model.generate_text([prompt], max_tokens=self.options.max_tokens)[0].translate(CONTROL)
        match = PLAN.search(text)
        plan = tuple(part.strip() for part in match.groups()) if match else ()      # half a plan is not to be trusted
        print("  thinking: {}\n  picture: {}".format(*plan) if plan else f"  (no plan in: {text})", flush=True)
        return plan

    def picture(self, prompt: str) -> dict:
        seed, steps = self.options.seed + sum("seed" in turn for turn in self.turns), self.options.steps
        with tqdm(total=steps, desc="drawing", leave=False, disable=None, file=sys.stderr) as bar:
            image = self.model.sample_images([prompt], [seed], steps=steps, guidance=self.options.guidance,
                                             on_step=lambda *_: bar.update())[0]
        if self.options.out or self.graphics == "none":
            path = Path(self.options.out or self.folder / time.strftime(f"%Y%m%d-%H%M%S-{seed}.png"))
            write(path, png(image))
            print(path)
        if self.graphics != "none":
            window = shutil.get_terminal_size()     # a square picture is to be seen whole, without scrolling
            width = self.options.width or max(8, min(64, window.columns, 2 * window.lines - 6))
            print(PAINTERS[self.graphics](image, width), flush=True)
        return {"image": image, "seed": seed}

    def look(self, rest: str) -> None:
        double, single, bare, question = FILE_AND_REST.match(rest).groups()
        path = Path(os.path.expanduser(double or single or bare.replace("\\ ", " ")))
        question, heard = question or "What is in this picture?", []
        try:
            image = load_picture(path)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as why:
            raise UserError(f"{path}: cannot be looked at ({why}); give a PNG or JPEG of 16 pixels or more") from None
        self.say(question, 0.0, image, heard)
        self.turns.append({"look": str(path), "question": question, "answer": "".join(heard).strip(), "image": image})

    def draw(self, rest: str) -> None:
        self.turns.append({"draw": rest, **self.picture(rest)})

    def switch_thinking(self, rest: str) -> None:
        self.think = not self.think
        print(f"  planning pictures in words first: {'on' if self.think else 'off'}")

    def save(self, rest: str) -> None:
        path = Path(os.path.expanduser(rest) if rest else self.folder / time.strftime("%Y%m%d-%H%M%S.json"))
        images = path.parent / f"{path.stem}-pictures"
        if os.path.exists(path) or os.path.exists(images):
            raise UserError(f"{path} or {images}: exists; choose another name for /save")
        turns = [dict(turn) for turn in self.turns]
        for i, turn in enumerate(turns):
            if image := turn.pop("image", None):
                turn["picture"] = f"{images.name}/{i}.png"
                write(images / f"{i}.png", png(image))
        talk = {"character": self.character.name, "options": asdict(self.options), "turns": turns}
        write(path, json.dumps(talk, indent=1).encode())
        print(f"  {path}")

    def reset(self, rest: str) -> None:
        self.turns.clear()
        print("  forgotten")

    def handle(self, line: str) -> None:
        """One line of the user. An error or Ctrl-C ends the line, not the talk."""
        commands = {"/look": self.look, "/draw": self.draw, "/think": self.switch_thinking, "/save": self.save,
                    "/reset": self.reset, "/help": lambda rest: print(HELP)}
        try:
            line = clean(line)
            word, _, rest = line.partition(" ")
            if word.startswith("/") and word not in commands:
                print(f"  {word}: unknown; /help lists the commands")
            elif word in ("/look", "/draw") and not rest:
                print(f"  {word} what? /help shows how")
            elif word in commands:
                commands[word](rest.strip())
            elif word:
                self.turn(line)
        except UserError as error:
            print(f"  {error}")
        except KeyboardInterrupt:
            print("\n  (stopped)")


# ---- the command -----------------------------------------------------------------------------------------------------

def check(options: Options) -> None:
    """Before anything is loaded: a mistake should not cost the wait for a 7B model, nor the picture it was to save."""
    if options.graphics not in ("auto", *PAINTERS, "none"):
        raise UserError(f"--graphics {options.graphics}: choose one of auto, {', '.join(PAINTERS)}, none")
    for field, (least, most) in RANGES.items():
        if not least <= getattr(options, field) <= most:        # in this order, so that nan fails too
            raise UserError(f"--{field.replace('_', '-')} {getattr(options, field)}: must be from {least} to {most}")
    if options.out and (not options.once or os.path.isdir(options.out) or not options.out.lower().endswith(".png")):
        raise UserError(f"--out {options.out}: give a file that ends in .png, and the words with --once")


def main(argv: list[str] | None = None) -> None:
    options = parse_options(Options, __doc__.splitlines()[0], argv)
    check(options)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401               # gives input() line editing, where the platform has it
    folder = Path(options.model) if options.model else newest_run(char=options.char or None)
    model = load(folder, options.device, options.weights)
    chat = Chat(model, load_character(options.char or model.run.get("char", "")), options)
    if options.once:
        chat.turn(clean(options.once))
        return
    print(f"{chat.character.name}, from {folder}. /help lists the commands.\n{chat.character.opening}".strip())
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while (line := input("you: " if sys.stdin.isatty() else "")).strip() != "/quit":
            chat.handle(line)
    print("\nGoodbye.")


if __name__ == "__main__":
    for stream in (sys.stdin, sys.stdout):          # a stray byte, or a terminal without '▀', is no reason to stop
        stream.reconfigure(errors="replace")
    run_script(main)
