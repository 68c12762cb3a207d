"""Files: written so that no kill leaves half of one, locked against a second run, and recognized by their digest."""
import ast
import dataclasses
import errno
import functools
import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

from runtime.cli import UserError
from runtime.processes import is_main

STATE, NEARNESS = "state.safetensors", "nearness.safetensors"      # in a run's folder, beside its weights

# ---- writing ---------------------------------------------------------------------------------------------------------


def write_beside(path: Path, write: Callable[[Path], object]) -> None:
    """Calls write(temporary path), then renames: a kill or a full disk leaves the old file whole. Of several processes
    only the first writes."""
    if not is_main():
        return
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)                      # what a kill left
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777            # an ordinary file's: safetensors alone would make it 0600
        write(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        raise as_disk_error(error, path) from None


def as_disk_error(error: BaseException, path: Path) -> BaseException:
    """safetensors reports the system's errors in its own class, with the number in the text: here it is an OSError."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if isinstance(error, OSError) or number is None:
        return error
    code = int(number[1])
    return OSError(code, os.strerror(code), str(path))


# ---- one run to a folder ---------------------------------------------------------------------------------------------

LOCKED: dict[Path, object] = {}                            # the open lock files of this process


def lock(folder: Path) -> None:
    """Keeps the folder for this process, until the process ends or calls `unlock`. Raises UserError if another has it.

    The lock is the operating system's, on an open file. It ends with the process, even by kill -9: a lock file that is
    left over locks nothing."""
    folder = folder.resolve()
    if not is_main() or folder in LOCKED:
        return
    file = open(folder / "lock", "a+")
    try:
        lock_file(file)
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise UserError(f"{folder}: another run is writing here; wait for its end, or give --out") from None
        return                                             # some network disks have no locks
    LOCKED[folder] = file


def unlock(folder: Path) -> None:
    file = LOCKED.pop(folder.resolve(), None)
    if file:
        file.close()


def lock_file(file) -> None:
    """Raises OSError if another process has locked the file."""
    try:
        import fcntl
    except ImportError:                                    # Windows
        import msvcrt
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


# ---- digests ---------------------------------------------------------------------------------------------------------

WHOLE = 2**28                                              # bytes; of a larger file, such as a 7B's, samples are read
SAMPLES, SAMPLE = 64, 2**20


def digest(*things) -> str:
    """16 hexadecimal digits that tell whether things are still the same. A Path stands for its content: a file's bytes,
    or a model folder's weights. Pictures stand for their pixels; lists, dicts and dataclasses for what they hold."""
    sha = hashlib.sha256()
    for thing in things:
        add_to_digest(sha, thing)
    return sha.hexdigest()[:16]


def add_to_digest(sha, thing) -> None:
    if isinstance(thing, Path) and thing.is_dir():
        for file in sorted(thing.glob("*.safetensors")):
            if file.name not in (STATE, NEARNESS):         # a run's own memory; what helps chat.py to look up
                add_file(sha, file)
    elif isinstance(thing, Path) and thing.is_file():
        add_file(sha, thing)
    elif dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            add_to_digest(sha, getattr(thing, field.name))
    elif isinstance(thing, dict):
        add_to_digest(sha, list(thing.items()))
    elif isinstance(thing, (list, tuple)):
        sha.update(f"{len(thing)} things".encode())
        for item in thing:
            add_to_digest(sha, item)
    elif hasattr(thing, "tobytes"):
        sha.update(f"picture {thing.size}".encode())
        sha.update(thing.tobytes())
    else:
        text = f"{type(thing).__name__} {thing!s}"
        sha.update(f"{len(text)} {text}".encode("utf-8", "surrogatepass"))


def add_file(sha, path: Path) -> None:
    """Its name, its size, and its bytes; of a large file, SAMPLES pieces spread evenly."""
    size = path.stat().st_size
    sha.update(f"file {path.name} {size}".encode())
    with open(path, "rb") as file:
        if size <= WHOLE:
            sha.update(file.read())
            return
        for i in range(SAMPLES):
            file.seek((size - SAMPLE) * i // (SAMPLES - 1))
            sha.update(file.read(SAMPLE))


# ---- the code of a script --------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def code_digest(script: Path) -> str:
    """Of a script and of all files of this repository that it imports: of what they do, not of comments and docstrings.
    A better explanation must not make twelve hours of results stale."""
    return digest([(file.name, what_it_does(file)) for file in sorted(imported_files(script))])


def what_it_does(file: Path) -> str:
    tree = ast.parse(file.read_text("utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def imported_files(script: Path) -> set[Path]:
    """The script, the files of this repository that it imports, and those that they import."""
    found, to_read = set(), [script]
    while to_read:
        file = to_read.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                path = ROOT / name.replace(".", "/")
                to_read += [path.with_suffix(".py"), path / "__init__.py"]
    return found
