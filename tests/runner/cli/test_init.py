"""Effect: what `runner init` writes works as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.runner.cli.cli_process import ROOT, environment, runner

FILES = {"handlers.py", "runner.toml", "test_handlers.py"}


def test_the_test_that_is_written_passes_and_the_code_is_clean(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "project"
    ended = runner("init", str(folder), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert {path.name for path in folder.iterdir()} == FILES
    tested = _python(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert tested.returncode == 0 and "3 passed" in tested.stdout, tested.stdout + tested.stderr
    linted = _python(
        folder, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), "--ignore", "D", "."
    )
    assert linted.returncode == 0, linted.stdout


def test_the_written_config_is_read(tmp_path: Path) -> None:
    assert runner("init", cwd=tmp_path).returncode == 0
    shown = runner("config", "show", "--origin", cwd=tmp_path).stdout
    assert f"{tmp_path}/handlers.py" in shown and "runner.toml: sources" in shown


def test_nothing_is_overwritten_and_then_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "runner.toml").write_text("port = 1\n")
    (tmp_path / "handlers.py").symlink_to(tmp_path / "nowhere")
    ended = runner("init", str(tmp_path))
    assert ended.returncode == 2
    assert "handlers.py, runner.toml" in ended.stderr and "never overwrites files" in ended.stderr
    assert (tmp_path / "runner.toml").read_text() == "port = 1\n"
    assert not (tmp_path / "test_handlers.py").exists() and not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = runner("init", str(tmp_path / "file" / "below"))
    assert ended.returncode == 2
    assert "cannot write to" in ended.stderr and len(ended.stderr.splitlines()) == 1


def _python(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment(), capture_output=True, text=True, timeout=50
    )
