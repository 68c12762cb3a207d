"""How a file is written so that no kill can leave half of one."""
import os
from pathlib import Path

from runtime.processes import rank


def write_beside(path: Path, write):
    """write(temporary path), then rename: a kill or a full disk leaves the old file whole. Of several processes only
    the first writes."""
    if rank() > 0:
        return
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)                      # what a kill left
    try:
        temporary.touch()
        mode = temporary.stat().st_mode & 0o777            # an ordinary file's: safetensors alone would make it 0600
        write(temporary)
        temporary.chmod(mode)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
