"""Reading files as people really have them: JSON in any encoding, pictures of any kind, links of a download cache.

A character may come from a stranger. So a picture must lie in the character's folder, nothing is ever run, sizes are
limited, and every complaint is one line that names the file and the remedy. Skip this to learn the method.
"""
import io
import json
import os
import re
import struct
import sys
import unicodedata
import urllib.parse
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from runtime.cli import UserError, printable, say

FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "GIF"]            # told apart by content: a file's name may lie
LARGEST_FILE = 200_000_000                                 # bytes
LARGEST_PICTURE = 50_000_000                               # pixels
SMALLEST_SIDE = 16                                         # pixels
WORKING_SIDE = 1024                                        # pixels: no model here uses more
SRGB = ImageCms.createProfile("sRGB")


def plain(text: str) -> str:
    """The one form (NFC) of letters that can be written in two: é is one character, not e and an accent."""
    return unicodedata.normalize("NFC", text)


# ---- JSON ------------------------------------------------------------------------------------------------------------

def read_json(file: Path) -> object:
    """What a JSON file holds, or the list of the rows of a .jsonl file. Takes UTF-8, UTF-16 and UTF-32, with or without
    a byte order mark. Raises UserError with file and line."""
    try:
        raw = read_bytes(file)
        text = raw.decode(json.detect_encoding(raw)).removeprefix("\ufeff")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{printable(str(file))}: {reason}; put sound JSON in UTF-8 there") from None
    if file.suffix == ".jsonl":         # made one list; the numbers of the lines stay, blank ones included
        text = "[" + re.sub(r"}(\s*\n\s*){", r"},\1{", text) + "]"
    return parse_json(text, file)


def read_bytes(file: Path) -> bytes:
    """Raises OSError, or ValueError for what is no ordinary file: a pipe or a device would never end."""
    if file.exists() and not file.is_file():
        raise ValueError("not an ordinary file")
    if file.stat().st_size > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE // 10**6} MB")
    return file.read_bytes()


def parse_json(text: str, file: Path) -> object:
    try:
        return json.loads(text, object_pairs_hook=without_repetition)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}: not JSON ({likely_mistake(text, error)}); mend it there or just before"
    except RecursionError:
        reason = "nested too deeply to be a character; put sound JSON in UTF-8 there"
    except ValueError as error:
        reason = f"{error}; put sound JSON in UTF-8 there"
    raise UserError(printable(f"{file}: {reason}")) from None


def without_repetition(pairs: list[tuple]) -> dict:
    """Python itself would quietly keep the last of two values."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise ValueError(f"{key}: stands twice in one object")
    return dict(pairs)


def likely_mistake(text: str, error: json.JSONDecodeError) -> str:
    before, here = text[:error.pos].rstrip(), text[error.pos:].lstrip()
    if before.endswith(",") and here[:1] in ("}", "]") or here.startswith(",") and here[1:].lstrip()[:1] in ("}", "]"):
        return "a comma too many"
    if here[:1] in ("“", "”", "'", "‘", "’"):
        return 'take straight double quotes, "'
    if here[:2] in ("//", "/*") or here[:1] == "#":
        return "JSON has no comments"
    if error.msg.startswith("Invalid control character"):
        return "a closing quote is missing"
    return error.msg


# ---- where a file is -------------------------------------------------------------------------------------------------

def existing(name: str, home: Path = Path()) -> Path | None:
    """The path that somebody meant: as written; or as a file:// address, with %20 or \\-escaped signs, in quotes, with
    ~, with a Windows separator, with its letters in the other normal form, or with other capitals in the file's name.
    None if nothing is there."""
    name = name.strip()
    if name.startswith("file:"):
        name = urllib.parse.unquote(urllib.parse.urlparse(name).path)
    bare = name.strip("'\"")
    for text in (name, bare, urllib.parse.unquote(bare), re.sub(r"\\(.)", r"\1", bare), bare.replace("\\", "/")):
        for form in ("NFC", "NFD"):
            path = home / os.path.expanduser(unicodedata.normalize(form, text))
            if text and "\0" not in text and os.path.lexists(path):
                return path
    last = home / bare
    beside = sorted(last.parent.iterdir()) if bare and os.access(last.parent, os.R_OK | os.X_OK) else []
    return next((path for path in beside if plain(path.name).lower() == plain(last.name).lower()), None)


def belongs(path: Path, folder: Path) -> bool:
    """Whether a file belongs to a character's folder. Somebody else's character must not reach for our own files: a
    private picture would be trained on and drawn again. So neither `..` nor a link may lead out of the folder, except
    to the place where the Hugging Face cache keeps the files of this download: snapshots/<revision>/... -> blobs/..."""
    real = Path(os.path.realpath(path))
    if real.is_relative_to(os.path.realpath(folder)):
        return True
    inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))
    caches = [parent.parent for parent in Path(os.path.realpath(folder)).parents if parent.name == "snapshots"]
    return inside and any(real.parent == cache / "blobs" for cache in caches)


# ---- pictures --------------------------------------------------------------------------------------------------------

def load_picture(file: Path | io.BytesIO) -> Image.Image:
    """A picture as RGB in sRGB colors: upright, on white where it is transparent, its sides at most WORKING_SIDE.

    Raises ValueError, OSError, or whatever a decoder raises at a broken file."""
    raw = file.read() if hasattr(file, "read") else read_bytes(file)
    if kind := foreign_kind(raw):
        raise ValueError(f"it is {kind}")
    image = opened(without_texts(raw))
    if min(image.size) < SMALLEST_SIDE or image.width * image.height > LARGEST_PICTURE:
        raise ValueError(f"{image.width} × {image.height} pixels; it needs {SMALLEST_SIDE} a side, and may have "
                         f"{LARGEST_PICTURE // 10 ** 6} million")
    if getattr(image, "is_animated", False) and image.format != "MPO":      # MPO: a phone's JPEG with a small second one
        say(f"{getattr(file, 'name', 'the picture')}: an animation; its first picture is taken", sys.stderr)
    image = as_srgb(ImageOps.exif_transpose(image))
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
    white = Image.new("RGB", image.size, "white")       # dropping alpha would uncover whatever colour lies beneath
    white.paste(image, mask=image)
    return white


def opened(raw: bytes) -> Image.Image:
    """Nothing is decoded yet; a warning of too many pixels is not needed, as load_picture counts them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            return Image.open(io.BytesIO(raw), formats=FORMATS)
        except UnidentifiedImageError:
            raise ValueError(f"it is none of {', '.join(FORMATS)}") from None


def as_srgb(image: Image.Image) -> Image.Image:
    """RGBA with 8 bits in sRGB. Pillow alone would turn 16 bits of gray white, and ignore that a phone's red (Display
    P3) is a stronger red than sRGB's."""
    profile = image.info.get("icc_profile")
    if image.mode.startswith("I"):                      # gray of 16 bits, whatever Pillow calls it
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    alpha = image.convert("RGBA").getchannel("A")
    if image.mode not in ("RGB", "L", "CMYK"):
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                image = ImageCms.profileToProfile(image, source, SRGB, outputMode="RGB")
        except (ImageCms.PyCMSError, OSError):          # a broken profile, or one of other channels: as if it had none
            pass
    image = image.convert("RGB")
    image.putalpha(alpha)
    return image


def padded(image: Image.Image) -> Image.Image:
    """The whole picture in the middle of a white square."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def foreign_kind(raw: bytes) -> str | None:
    """What a file is that we do not read, and the remedy."""
    brand = raw[8:12] if raw[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis"):
        return "an AVIF picture: save it as PNG or JPEG"
    if brand in (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"):
        return "a HEIC photo, as iPhones take them: save it as JPEG"
    if brand:
        return "a film: save one picture of it as PNG"
    for start, kind in FOREIGN.items():
        if raw.startswith(start):
            return kind
    text = raw[:1000].lstrip().lower()
    if text.startswith((b"<svg", b"<?xml")):
        return "an SVG drawing: save it as PNG"
    if text.startswith((b"<html", b"<!doctype")):
        return "a web page, not the picture on it: download the picture itself"
    return None if raw else "empty: copy or download it again"


FOREIGN = {b"\x00\x05\x16\x07": "a side file of macOS (its name begins with ._): name the picture beside it",
           b"version https://git-lfs": "only a pointer of Git LFS: run git lfs pull",
           b"\x00\x00\x00\x0cJXL ": "a JPEG XL picture: save it as PNG or JPEG",
           b"II*\x00": "a TIFF or camera raw file: save it as PNG", b"MM\x00*": "a TIFF file: save it as PNG",
           b"8BPS": "a Photoshop file: save it as PNG", b"%PDF": "a PDF: save the picture as PNG",
           b"PK\x03\x04": "a zip archive: unpack it"}


PNG = b"\x89PNG\r\n\x1a\n"


def is_png(file: Path) -> bool:
    """Whether it is a PNG file, by its content, of a size that may be read."""
    if not file.is_file() or file.stat().st_size > LARGEST_FILE:
        return False
    with open(file, "rb") as start:
        return start.read(len(PNG)) == PNG


def png_chunks(raw: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(kind, content, the chunk's own bytes) of each chunk of a PNG file, as far as the file is whole."""
    at = len(PNG)
    while at + 8 <= len(raw):
        length, kind = struct.unpack(">I4s", raw[at:at + 8])
        yield kind, raw[at + 8:at + 8 + length], raw[at:at + 12 + length]
        at += 12 + length


def without_texts(raw: bytes) -> bytes:
    """A PNG without its text chunks: drawing programs store megabytes there, at which Pillow stops."""
    if not raw.startswith(PNG):
        return raw
    return PNG + b"".join(whole for kind, _, whole in png_chunks(raw) if kind not in (b"tEXt", b"zTXt", b"iTXt"))
