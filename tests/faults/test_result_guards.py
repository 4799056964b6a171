"""Effect: an executor refuses a path outside its folder and too many events; a download replaces no file."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.faults.mutate import mutated, never, removed
from tests.runner.executor.fake_worker import running_executor

SECRET = "from pathlib import Path\ndef f(data, ctx):\n ctx.tmpdir\n return Path(data)"
POUR = "def f(n, ctx):\n for i in range(n): ctx.output(i)"
#: Downloads a file beside one of its name, and prints what that one holds afterwards.
DOWNLOAD = """
import sys
from pathlib import Path
from runner.client.downloads import Download
folder = Path(sys.argv[1])
(folder / "a").write_bytes(b"mine")
with Download({"name": "a", "size": 1, "sha256": sys.argv[2]}, folder, None) as download:
    download.write(b"x")
    download.finish()
print((folder / "a").read_bytes())
"""


def _code_of(folder: Path, code: str, value: object, environ: Mapping[str, str]) -> str | None:
    with running_executor(folder, code, events_max=10, environ=environ) as worker:
        return worker.run("j", value).code


def _kept(folder: Path, tree: Path | None = None) -> str:
    env = {} if tree is None else {"PYTHONPATH": str(tree)}
    words = [sys.executable, "-P", "-c", DOWNLOAD, str(folder), hashlib.sha256(b"x").hexdigest()]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=True).stdout.strip()


def test_a_path_outside_the_private_folder_is_not_saved(tmp_path: Path) -> None:
    assert _code_of(tmp_path, SECRET, __file__, {}) == "result_not_serialisable"


@pytest.mark.slow
def test_that_holds_only_because_the_path_is_checked(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [never("result-path")])
    assert _code_of(tmp_path, SECRET, __file__, {"PYTHONPATH": str(tree)}) is None


def test_an_attempt_with_too_many_events_fails(tmp_path: Path) -> None:
    assert _code_of(tmp_path, POUR, 11, {}) == "result_too_large"


@pytest.mark.slow
def test_that_holds_only_because_dropped_events_are_noted(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [removed("events-bound")])
    assert _code_of(tmp_path, POUR, 11, {"PYTHONPATH": str(tree)}) is None


def test_a_download_replaces_no_file(tmp_path: Path) -> None:
    assert _kept(tmp_path) == "b'mine'"


@pytest.mark.slow
def test_that_holds_only_because_the_name_is_claimed(tmp_path: Path) -> None:
    tree = mutated(tmp_path, [removed("download-claim")])
    folder = tmp_path / "folder"
    folder.mkdir()
    assert _kept(folder, tree) == "b'x'"
