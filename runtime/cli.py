"""What every script needs: options from a dataclass, errors in one line, and text that is safe to print.

A script ends with

    if __name__ == "__main__":
        run_script(main)

and its main begins with `options = parse_options(Options, __doc__, argv)`.
"""
import argparse
import ast
import ctypes
import errno
import inspect
import io
import math
import os
import shlex
import subprocess
import sys
import textwrap
import tokenize
import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path

# No space, quota used up, file too large, no right to write, read-only.
DISK_ERRORS = {getattr(errno, name, None) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EROFS")} - {None}


class UserError(Exception):
    """A mistake that the user can mend: one line with file, field and remedy. Scripts print it and exit with code 2."""


# ---- text that is safe to print --------------------------------------------------------------------------------------

UNPRINTABLE = "Cc", "Cf", "Cs", "Zl", "Zp"                 # Unicode categories: controls, invisible marks, lone halves
JOINERS = "\u200c\u200d"                                   # invisible too, but Persian words and many emoji need them


def printable(text: str) -> str:
    """The text with every character that could command a terminal, or that nobody can see, written as an escape.

    Line ends and tabs stay. A file of a stranger may hold anything, so whatever comes from one passes through here
    before it is printed."""
    return "".join(escaped(c) if is_unprintable(c) else c for c in text)


def is_unprintable(character: str) -> bool:
    if character in "\n\t" or character in JOINERS:
        return False
    return unicodedata.category(character) in UNPRINTABLE


def escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def say(text: str, file=None) -> None:
    """Prints a line of text, whatever it holds."""
    print(printable(str(text)), file=file or sys.stdout, flush=True)


# ---- options ---------------------------------------------------------------------------------------------------------

class Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(message)


def parse_options(options: type, description: str, argv: list[str] | None = None, quiet: bool = False):
    """An instance of a dataclass of options, from the command line. Says which differ from the defaults, unless `quiet`.

    The command line itself stays in the instance's attribute `argv`."""
    parser = Parser(description=description, usage=argparse.SUPPRESS, allow_abbrev=False,
                    formatter_class=argparse.RawDescriptionHelpFormatter)
    comments = comments_of(options)
    for field in fields(options):
        kind = {"type": field.type}
        if field.type is bool:
            kind = {"action": argparse.BooleanOptionalAction}
        explained = comments[field.name].replace("%", "%%")
        parser.add_argument(option_name(field.name), default=field.default,
                            help=f"{explained} (default: {field.default})", **kind)
    argv = sys.argv[1:] if argv is None else [str(word) for word in argv]
    chosen = options(**vars(parser.parse_args(argv)))
    chosen.argv = argv
    changed = []
    for field in fields(options):
        value = getattr(chosen, field.name)
        if value != field.default:
            changed.append(f"{field.name} = {value}")
    if changed and not quiet:
        say("options: " + ", ".join(changed), sys.stderr)
    return chosen


def comments_of(options: type) -> dict[str, str]:
    """Field of a dataclass -> the comment behind it in the source: the one place where an option is explained."""
    found = {}
    for kind in reversed(options.__mro__):
        if not is_dataclass(kind):
            continue
        source = textwrap.dedent(inspect.getsource(kind))
        body = ast.parse(source).body[0].body
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
        ends = [node.lineno for node in body[1:]] + [source.count("\n") + 2]
        for node, end in zip(body, ends):
            if isinstance(node, ast.AnnAssign):
                lines = [comments[line] for line in range(node.lineno, end) if line in comments]
                found[node.target.id] = " ".join(lines)
    return found


def option_name(field: str) -> str:
    """micro_batch -> --micro-batch"""
    return "--" + field.replace("_", "-")


COUNTS = "steps iterations warmup prompts group updates window micro_batch vqa_batch gpus".split()
SHARES = "frozen smoothing truncate drop_text".split()
NOT_NEGATIVE = ("lr und_rate muon clip w_ce w_mse lora lora_alpha prior_pictures prior_replies clip_range clip_advantage "
                "beta").split()


def check_numbers(options) -> None:
    """Raises UserError if an option that counts something is 0 or less, a share is none, or what may be 0 is negative."""
    for names, least, most, allowed in ((COUNTS, 1, math.inf, "1 or more"), (SHARES, 0, 1, "from 0 to 1"),
                                        (NOT_NEGATIVE, 0, math.inf, "0 or more")):
        for name in names:
            value = getattr(options, name, least)
            if not least <= value <= most:                  # nan fails, too
                raise UserError(f"{option_name(name)} {value}: must be {allowed}")


def command(script: str, *arguments) -> str:
    """A command that can be pasted: `command("grpo.py", "--char", "my friends/Zoë")` gives
    python grpo.py --char 'my friends/Zoë', and `command("runtime.plan", "sft")` python -m runtime.plan sft. A script
    is looked for beside the one that is running."""
    words = ["python", "-m", script]
    if script.endswith(".py"):
        beside = Path(sys.argv[0]).with_name(script)
        words = ["python", str(beside) if beside.is_file() else script]
    words += map(str, arguments)
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


# ---- the process -----------------------------------------------------------------------------------------------------

def peak_memory() -> float | None:
    """The most memory that this process has held so far, in GB; None where the system does not tell (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20         # bytes there, KB elsewhere


def keep_freed_memory() -> None:
    """On Linux, malloc gives every large tensor back to the kernel, which clears it again at the next step. Up to half
    of a training step on a CPU goes there. So malloc is told to keep it: no mmap below 64 MB, no trimming.

    What is larger, which the tiny model has nowhere, goes back. Kept, it would be cut up: loading a 7B in int8 left
    holes of twice the size of the model."""
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)                     # glibc has it, musl does not
    if mallopt:
        M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
        mallopt(M_MMAP_THRESHOLD, 1 << 26)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)


def prepare_streams() -> None:
    """Some consoles cannot print a sign such as ⟦ or ▀. They get another in its place, and the script goes on."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def print_traceback(kind, error, trace) -> None:
    """Python's own traceback, but printable: an unforeseen error may quote a stranger's file."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), sys.stderr)


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's main. A user's mistake becomes one line and exit code 2; an interrupt ends without traceback."""
    prepare_streams()
    keep_freed_memory()
    sys.excepthook = print_traceback
    try:
        main()
        if "TORCHELASTIC_RUN_ID" in os.environ:             # one of several processes, see runtime/processes.py
            end_at_once()
    except UserError as error:
        fail(str(error))
    except BrokenPipeError:                     # the reader of our pipe left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        fail(f"{error.filename or 'disk'}: {error.strerror}; what was saved before is whole")
    except KeyboardInterrupt:
        sys.exit(130)


def end_at_once() -> None:
    """Ends the process without the end of its interpreter. There a thread of gloo's may outlive what it belongs to, and
    C++ then aborts a process that has done all its work ("terminate called without an active exception")."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def fail(message: str) -> None:
    """Prints a message as one line of its own and exits with code 2."""
    tqdm = sys.modules.get("tqdm")                         # if it is loaded, a progress bar may be open
    for bar in list(tqdm.tqdm._instances) if tqdm else ():
        bar.close()
    say("error: " + " ".join(message.split()), sys.stderr)
    sys.exit(2)
