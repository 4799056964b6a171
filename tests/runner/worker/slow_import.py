"""Effect: a library that takes long to import, as far as tests of the template go."""

from __future__ import annotations

import os
from pathlib import Path

#: Of the process that has imported it.
PID = os.getpid()


def _ready() -> None:
    """The template tries a fork as the last thing before it serves."""
    path = os.environ.get("TEMPLATE_READY")
    if path and os.getpid() == PID:
        Path(path).touch()


os.register_at_fork(after_in_parent=_ready)
