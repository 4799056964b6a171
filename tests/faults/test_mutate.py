from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.mutate import mutated


def test_a_child_with_the_copy_on_its_path_imports_the_copy(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [("runner/errors.py", '"queue_full"', '"mutant"')])
    program = (
        "import runner.errors, gpu, api; print(runner.errors.QueueFull.code, runner.__file__, gpu.__path__)"
    )
    env = {**os.environ, "PYTHONPATH": str(tree)}
    printed = subprocess.run(
        [sys.executable, "-P", "-c", program], env=env, cwd="/", capture_output=True, text=True, check=True
    ).stdout
    assert printed.startswith(f"mutant {tree}/runner/__init__.py") and f"{tree}/gpu" in printed


@pytest.mark.parametrize("old", ["no such text at all", "class"])
def test_a_text_that_does_not_stand_there_once_is_refused(tmp_path: Path, old: str) -> None:
    with pytest.raises(AssertionError, match="needs it once"):
        mutated(tmp_path, [("runner/errors.py", old, "")])
