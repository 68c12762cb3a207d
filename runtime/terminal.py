"""What a terminal can do for chat.py: show pictures, replace a picture while it is drawn, and take pasted text whole.

    half blocks     two pixels a cell in 24-bit colour: every modern terminal, also over ssh and in tmux
    kitty           kitty, Ghostty                          https://sw.kovidgoyal.net/kitty/graphics-protocol
    iterm           iTerm2, WezTerm, mintty                 https://iterm2.com/documentation-images.html
    sixel           foot, mlterm, contour, xterm -ti 340    https://vt100.net/docs/vt3xx-gp/chapter14.html
"""
import base64
import contextlib
import io
import itertools
import os
import re
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from characters.files import existing, load_picture
from runtime.cli import UserError
from runtime.files import write_beside

PASTE_BEGIN, PASTE_END = "\x1b[200~", "\x1b[201~"           # a terminal puts these around what is pasted
MARK_PASTES, DO_NOT_MARK = "\x1b[?2004h", "\x1b[?2004l"     # ... if it was asked to ("bracketed paste")
SAVE, BACK = "\x1b7", "\x1b8\x1b7"                         # the cursor's place; going back, some forget it
AT_ONCE = "\x1b[?2026h", "\x1b[?2026l"                     # what stands between them is shown at once, without flicker
image_ids = itertools.count(os.getpid() % 10_000 * 1000 + 1)                # kitty keeps pictures by number


# ---- painting: every painter takes a picture, columns and rows -------------------------------------------------------

def half_blocks(image: Image.Image, columns: int, rows: int) -> str:
    """The glyph is the upper pixel of a cell, its background is the lower one."""
    small = image.convert("RGB").resize((columns, 2 * rows), Image.Resampling.LANCZOS)
    cell = "\x1b[38;2;{};{};{};48;2;{};{};{}m▀"
    lines = []
    for upper, lower in np.asarray(small).reshape(rows, 2, columns, 3):
        cells = [cell.format(*above, *below) for above, below in zip(upper, lower)]
        lines.append("".join(cells) + "\x1b[0m")
    return "\n".join(lines)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def kitty(image: Image.Image, columns: int, rows: int, number: int = 0) -> str:
    """PNG in chunks of 4096 characters, the limit of the protocol. A picture with the number of an earlier one replaces
    it. q=2: an answer of the terminal would become our input; C=1: the cursor stays."""
    text = base64.b64encode(png(image)).decode()
    chunks = [text[i:i + 4096] for i in range(0, len(text), 4096)]
    parts = []
    for i, chunk in enumerate(chunks):
        keys = f"a=T,f=100,C=1,i={number or next(image_ids)},c={columns},r={rows},q=2" if i == 0 else "q=2"
        more = int(i + 1 < len(chunks))
        parts.append(f"\x1b_G{keys},m={more};{chunk}\x1b\\")
    return "".join(parts)


def iterm(image: Image.Image, columns: int, rows: int) -> str:
    data = png(image)
    return (f"\x1b]1337;File=inline=1;size={len(data)};width={columns};height={rows}:"
            f"{base64.b64encode(data).decode()}\x07")


def sixel(image: Image.Image, columns: int, rows: int) -> str:
    """Sixels count in pixels of the screen, so the picture is first made as large as its cells."""
    width, height = cell_size()
    return sixels(image.resize((columns * width, rows * height), Image.Resampling.LANCZOS))


def sixels(image: Image.Image) -> str:
    """Bands of six rows. In a band each colour paints its own pixels: one character a column, its six bits the rows."""
    indexed = image.convert("RGB").quantize(256)
    pixels = np.asarray(indexed)
    percent = np.rint(np.array(indexed.getpalette()).reshape(-1, 3) / 2.55).astype(int)
    colours = "".join("#{};2;{};{};{}".format(i, *percent[i]) for i in np.unique(pixels))
    bands = []
    for top in range(0, image.height, 6):
        band, lines = pixels[top:top + 6], []
        for i in np.unique(band):
            bits = ((band == i) << np.arange(len(band))[:, None]).sum(0)
            cells = bytes(63 + bits.astype(np.uint8)).decode().rstrip("?")
            lines.append(f"#{i}" + re.sub(r"(.)\1{3,}", lambda run: f"!{len(run[0])}{run[1]}", cells))
        bands.append("$".join(lines))                       # $ goes back to the margin, - to the next band
    return f'\x1bPq"1;1;{image.width};{image.height}{colours}{"-".join(bands)}\x1b\\'


def cell_size() -> tuple[int, int]:
    """Width and height of a character cell in pixels, if the terminal tells; ssh hands that on."""
    with contextlib.suppress(ImportError, OSError, AttributeError, ValueError):
        import fcntl
        import termios
        answer = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
        lines, columns, width, height = struct.unpack("4H", answer)
        if min(lines, columns, width, height) > 0:
            return max(1, width // columns), max(1, height // lines)
    return 8, 16


PAINTERS = {"blocks": half_blocks, "kitty": kitty, "iterm": iterm, "sixel": sixel}


def choose_graphics(wanted: str, is_terminal: bool, env: dict[str, str]) -> str:
    """A painter's name, or "none": a file, a pipe and a dumb terminal get the picture's path, never escape codes."""
    if not is_terminal:
        return "none"
    if wanted != "auto":
        return wanted
    term, program = env.get("TERM", ""), env.get("TERM_PROGRAM", "")
    blocks = "none" if env.get("NO_COLOR") or term == "dumb" else "blocks"      # https://no-color.org
    if "TMUX" in env or term.startswith(("screen", "tmux")):
        return blocks                   # tmux swallows graphics, though the outer terminal's variables leak into it
    if "KITTY_WINDOW_ID" in env or term in ("xterm-kitty", "xterm-ghostty"):
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty") or env.get("LC_TERMINAL") == "iTerm2":
        return "iterm"
    if term.startswith(("foot", "mlterm", "contour")):
        return "sixel"
    return blocks


class Frame:
    """A place in the terminal where one picture replaces another: the previews, then the finished one."""
    def __init__(self, graphics: str, columns: int = 0):
        window = shutil.get_terminal_size()
        self.graphics, self.number, self.rows = graphics, next(image_ids), 0
        # A square picture is to be seen whole, without scrolling, with what stands below it and the line that was said.
        self.columns = columns or max(8, min(64, window.columns, 2 * window.lines - 10))

    def show(self, image: Image.Image, caption: str = "") -> None:
        if not self.rows:               # room for it is made first, so that painting never scrolls the saved place away
            self.rows = max(1, round(image.height * self.columns / image.width / 2))
            print("\n" * (self.rows + 1) + f"\x1b[{self.rows + 1}A\r{SAVE}", end="")
        more = {"number": self.number} if self.graphics == "kitty" else {}
        painted = PAINTERS[self.graphics](image, self.columns, self.rows, **more)
        below = f"{BACK}\x1b[{self.rows}B\r{caption}\x1b[K"
        print(f"{AT_ONCE[0]}{BACK}{painted}{below}{AT_ONCE[1]}", end="", flush=True)

    def close(self) -> None:
        """Puts the cursor below the picture; an unfinished one stays."""
        if self.rows:
            print(f"{BACK}\x1b[{self.rows}B\r\x1b[K", end="", flush=True)


class Display:
    """Prints an answer, event by event: text as it comes, then a bar or previews, then the picture or its path."""
    def __init__(self, name: str, graphics: str, columns: int = 0, out: str = ""):
        self.name, self.graphics, self.columns, self.out = name, graphics, columns, out
        self.stage = ""                 # whose answers need no label
        self.speaker, self.frame, self.bar = "", None, None
        self.column, self.word = 0, ""  # where the next word begins; a word that is not whole yet
        self.wraps = sys.stdout.isatty()

    def show(self, event) -> None:
        """`event` is one of chat.Event."""
        if event.kind == "text":
            if self.speaker != event.stage:
                self.begin_text(event.stage)
            self.write(event.text)
            return
        self.end_text()
        if event.kind == "plan" and event.plan:
            print("  thinking: {}\n  picture: {}".format(*event.plan), flush=True)
        elif event.kind == "plan":
            print(f"  (no plan in: {event.text})", flush=True)
        elif event.kind == "preview":
            self.preview(event)
        else:
            self.picture(event.image, event.text, event.shows)

    def preview(self, event) -> None:
        if self.graphics == "none":
            self.bar = self.bar or tqdm(total=event.steps, desc="drawing", leave=False,
                                        disable=os.environ.get("TERM") == "dumb" or None)     # None: if no terminal
            self.bar.update(event.step - self.bar.n)
        elif event.image:
            self.frame = self.frame or Frame(self.graphics, self.columns)
            self.frame.show(event.image, f"  drawing, step {event.step} of {event.steps}")

    def picture(self, image: Image.Image, file: str, shows: str) -> None:
        if self.graphics != "none":
            self.frame = self.frame or Frame(self.graphics, self.columns)
            self.frame.show(image)
        self.end()
        if self.out:
            file = save_picture(Path(self.out), image)
        plain = self.out or self.graphics == "none"
        if plain:
            file = file or "(the picture could not be kept)"
        for line in filter(None, ("" if self.out else shows, file)):       # a script that gives --out wants the file
            print(line if plain else f"\x1b[2m  {line}\x1b[0m", flush=True)     # dim

    def begin_text(self, stage: str) -> None:
        self.end_text()
        self.speaker = stage
        if self.name:
            self.write(f"{self.name}: " if stage == self.stage else f"{self.name} ({stage}): ")

    def write(self, piece: str) -> None:
        """Words as they become whole; a terminal's lines end between words."""
        *words, self.word = re.split(r"(?<=\s)", self.word + piece) if self.wraps else (piece, "")
        for word in words:
            self.put(word)

    def put(self, word: str) -> None:
        if self.wraps and self.column and self.column + len(word.rstrip()) > shutil.get_terminal_size().columns:
            print()
            self.column = 0
        print(word, end="", flush=True)
        self.column = 0 if word.endswith("\n") else self.column + len(word)

    def end_text(self) -> None:
        self.put(self.word)                                 # the last has no space behind it
        self.word = ""
        if self.speaker:
            print()
        self.speaker, self.column = "", 0

    def end(self) -> None:
        """Closes whatever is open, also after an answer that was stopped."""
        self.end_text()
        for part in (self.bar, self.frame):
            if part:
                part.close()
        self.bar, self.frame = None, None


def write_picture(path: Path, image: Image.Image) -> str:
    write_beside(path, lambda draft: Path(draft).write_bytes(png(image)))
    return str(path)


def save_picture(path: Path, image: Image.Image) -> str:
    """Where the user wants it. Raises UserError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_picture(path, image)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another file") from None


# ---- typed and pasted lines ------------------------------------------------------------------------------------------

HELP = """  /show FILE [question]   show it a picture (quote a name with spaces)
  /draw TEXT              draw what TEXT says, outside the dialogue
  /stage [NAME]           who answers: base, sft or grpo
  /compare TEXT           all stages answer the same line with the same noise
  /think                  plan pictures in words before drawing: on or off
  /history                what was said so far, and where it is kept
  /reset                  forget the talk and begin again
  /quit                   leave (so does Ctrl-D)
Pasted lines are one message. Ctrl-C stops an answer; twice, it leaves."""
FILE_AND_REST = re.compile(r"""(?:"([^"]+)"|'([^']+)'|((?:\\ |\S)+))\s*(.*)""", re.DOTALL)    # dropped: '\ ' for ' '


def picture_and_question(typed: str) -> tuple[Image.Image, str]:
    """Of "FILE question": the file as it was typed, or dropped on the window. Raises UserError."""
    double, single, bare, question = FILE_AND_REST.match(typed).groups()
    name = double or single or bare
    try:
        return load_picture(existing(name) or Path(name)), question
    except Exception as error:                              # decoders raise nearly anything at a broken file
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be shown ({reason}); give a PNG or JPEG") from None


class Keyboard:
    """Reads messages. Pasted lines are one message; arrows bring back earlier ones, also those of earlier talks."""
    def __init__(self, history_file):
        self.file, self.readline, self.is_terminal = history_file, None, sys.stdin.isatty()
        if self.is_terminal:
            with contextlib.suppress(ImportError):              # Windows has none
                import readline
                self.readline = readline
        if self.readline:
            marked = "off" if os.environ.get("TERM") == "dumb" else "on"
            self.readline.parse_and_bind(f"set enable-bracketed-paste {marked}")      # Python switches it off
            with contextlib.suppress(OSError):
                self.readline.read_history_file(self.file)
        elif self.is_terminal and os.environ.get("TERM") != "dumb":
            print(MARK_PASTES, end="")

    def read(self, prompt: str) -> str:
        """One message. Raises EOFError at the end of the input."""
        text = input(prompt if self.is_terminal else "")
        while PASTE_BEGIN in text and PASTE_END not in text:        # readline takes the marks away itself
            text += "\n" + input()
        return text.replace(PASTE_BEGIN, "").replace(PASTE_END, "")

    def typed(self) -> str:
        """What stands in the line that Ctrl-C has ended, if that is known."""
        return self.readline.get_line_buffer() if self.readline else ""

    def close(self) -> None:
        if self.readline:
            with contextlib.suppress(OSError):
                self.readline.set_history_length(1000)
                self.file.parent.mkdir(parents=True, exist_ok=True)
                self.readline.write_history_file(self.file)
        elif self.is_terminal and os.environ.get("TERM") != "dumb":
            print(DO_NOT_MARK, end="")
