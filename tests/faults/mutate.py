"""Effect: a copy of the program with a guard taken out, to prove that a test notices."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def mutated(folder: Path, changes: Sequence[tuple[str, str, str]]) -> Path:
    """A copy of `runner`, `gpu` and `api` under `folder` with each (file, old text, new text) applied.

    Put it on PYTHONPATH of a child: that comes before an editable installation. An old text must stand in its
    file exactly once, so that a mutation cannot fall silent when the program changes.
    """
    tree = folder / "mutant"
    for name in ("runner", "gpu", "api"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in changes:
        path = tree / file
        text = path.read_text()
        found = text.count(old)
        assert found == 1, f"{file} holds {old!r} {found} times; a mutation needs it once"
        path.write_text(text.replace(old, new))
    return tree
