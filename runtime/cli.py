"""What every script needs: options from a dataclass, a user's mistake in one line, an end without a traceback."""
import argparse
import ctypes
import errno
import os
import sys
from collections.abc import Callable
from dataclasses import fields


class UserError(Exception):
    """What the user can mend: one line with file, field and remedy. Scripts print it and exit with code 2."""


def parse_options(options: type, description: str, argv: list[str] | None = None):
    """An instance of a dataclass of options, from the command line. Says what differs from the defaults."""
    parser = argparse.ArgumentParser(description=description, usage=argparse.SUPPRESS,          # its errors: one line
                                     allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(options):
        more = {"action": argparse.BooleanOptionalAction} if field.type is bool else {"type": field.type}
        name = "--" + field.name.replace("_", "-")
        parser.add_argument(name, default=field.default, help=f"default: {field.default}", **more)
    chosen = options(**vars(parser.parse_args(argv)))
    values = [(field.name, getattr(chosen, field.name), field.default) for field in fields(options)]
    changed = [f"{name} = {value}" for name, value, default in values if value != default]
    if changed:
        print("options:", ", ".join(changed), file=sys.stderr)
    return chosen


def peak_memory() -> float:
    """The most memory that this process has held so far, in GB."""
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)


def keep_freed_memory() -> None:
    """Linux: malloc gives every large tensor back to the kernel, which clears it anew at the next step; up to half of a
    training step on a CPU goes there. Told to keep what it has (mallopt: no mmap below 1 GB, no trimming)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(-3, 1 << 30)
        mallopt(-1, 1 << 30)


def run_script(main: Callable[[], None]) -> None:
    """Runs a script's main: a user's mistake is one line and exit code 2, an interrupt is no traceback either."""
    keep_freed_memory()
    try:
        main()
    except UserError as error:
        print("error:", *str(error).split(), file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:                     # the reader of our pipe left, as head does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS):
            raise
        print(f"error: {error.filename or 'disk'}: {error.strerror}; what was saved before is whole", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
