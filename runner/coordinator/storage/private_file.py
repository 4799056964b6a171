"""Effect: writes a small file of the data folder whole or not at all, readable by its owner alone."""

from __future__ import annotations

import os
from pathlib import Path


def replace_private_file(path: Path, content: bytes) -> None:
    """Write `content` under another name and rename that file to `path`, so that no reader gets a part of it.

    Raises:
        OSError: the file can't be written.
    """
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
