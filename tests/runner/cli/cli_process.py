"""Effect: the real program in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def environment(url: str = "http://127.0.0.1:1", more: Mapping[str, str] | None = None) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("RUNNER_", "COLUMNS"))}
    return kept | {"RUNNER_URL": url, "PYTHONPATH": str(ROOT)} | dict(more or {})


def runner(
    *words: str,
    url: str = "http://127.0.0.1:1",
    stdin: str = "",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """`runner WORDS...`, to its end; without `url` there is no server."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "runner", *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        cwd=cwd,
        env=environment(url, env),
    )
