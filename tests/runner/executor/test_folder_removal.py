"""A private folder goes away with whatever a handler has made of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.executor.folder_removal import remove_folder
from tests.runner.executor.fake_worker import running_executor

#: Beyond the recursion limit, the limit of descriptors and the longest path.
DEPTH = 1_500


@pytest.fixture(autouse=True)
def leave_nothing_deep(tmp_path: Path) -> Iterator[None]:
    """Remove what a failed test has left, which pytest's own removal could not."""
    yield
    subprocess.run(["rm", "-rf", str(tmp_path)], check=False)


def make_deep(folder: Path) -> None:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        for _ in range(DEPTH):
            Path("file").write_text("x")
            os.mkdir("folder")
            os.chdir("folder")
    finally:
        os.fchdir(before)
        os.close(before)


def make_mixed(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "loop").symlink_to(folder)
    (folder / "a" / "out").symlink_to(folder.parent / "kept")
    os.mkfifo(folder / "a" / "b" / "fifo")
    (folder / "a" / "b" / "text").write_text("x")
    os.link(folder / "a" / "b" / "text", folder / "text")
    os.mkdir(os.fsencode(folder) + b"/\xff")


def make_closed(folder: Path) -> None:
    (folder / "a" / "b" / "c").mkdir(parents=True)
    (folder / "a" / "b" / "text").write_text("x")
    for name in ("a/b/c", "a/b", "a", "."):
        (folder / name).chmod(0)


def make_link(folder: Path) -> None:
    folder.rmdir()
    folder.symlink_to(folder.parent / "kept")


def make_file(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("x")


def make_nothing(folder: Path) -> None:
    folder.rmdir()


@pytest.mark.parametrize(
    "make", [make_deep, make_mixed, make_closed, make_link, make_file, make_nothing, lambda folder: None]
)
def test_a_folder_is_removed_whatever_is_in_it(tmp_path: Path, make: Callable[[Path], None]) -> None:
    folder, kept = tmp_path / "job-1", tmp_path / "kept"
    folder.mkdir()
    kept.mkdir()
    (kept / "text").write_text("x")
    make(folder)
    remove_folder(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept"]
    assert [path.name for path in kept.iterdir()] == ["text"]


def test_what_may_not_be_removed_raises_nothing(tmp_path: Path) -> None:
    remove_folder(tmp_path / "missing" / "job-1")
    remove_folder(Path("/proc/self/fd"))


DEEP = f"""
    import os
    def f(d, ctx):
        os.chdir(ctx.tmpdir)
        for _ in range({DEPTH}):
            os.mkdir("folder")
            os.chdir("folder")
        os.chdir("/")
        return "deep"
"""
LINK = """
    import os
    def f(d, ctx):
        os.rmdir(ctx.tmpdir)
        os.symlink("/usr", ctx.tmpdir)
        return "link"
"""


@pytest.mark.parametrize(("code", "output"), [(DEEP, b'"deep"'), (LINK, b'"link"')])
def test_a_finished_job_is_not_failed_by_its_private_folder(tmp_path: Path, code: str, output: bytes) -> None:
    with running_executor(tmp_path, code) as worker:
        for job in "ab":
            ended = worker.run(job)
            assert (ended.code, ended.output) == (None, output)
    assert list((tmp_path / "tmp").iterdir()) == []
