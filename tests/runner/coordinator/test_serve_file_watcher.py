"""The running server under `--reload`: a saved file is in force without a word."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.coordinator.reload.file_watcher import FileStamps, FileWatcher, read_file_stamps
from runner.errors import ReloadRefused
from tests.faults.server_fixture import LiveServer, until

HEAD = "from runner import handler\n"
SAYS = HEAD + "@handler('say')\ndef say(data):\n    return {!r}\n"
Serve = Callable[..., LiveServer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.mkdir()
    (path / "say.py").write_text(SAYS.format("a"))
    return path


def told(server: LiveServer, pattern: str, count: int = 1) -> list[str]:
    """The lines of the log that tell of reloads and match, as soon as there are so many."""

    def lines() -> list[str]:
        every = [line for line in server.log.read_text().splitlines() if "handlers " in line]
        return [line for line in every if re.search(pattern, line)]

    return until(lambda: found if len(found := lines()) >= count else None, pattern)


def says(server: LiveServer) -> object:
    return server.wait_for_end(server.submit("say"))["output"]


def test_a_saved_file_is_in_force_and_one_line_says_so(serve: Serve, folder: Path) -> None:
    server = serve(handlers=[folder], reload=True, log_format="human")
    assert says(server) == "a"
    (folder / "say.py").write_text(SAYS.format("b"))
    told(server, "handlers reloaded: changed say$")
    assert says(server) == "b"
    (folder / "more.py").write_text(SAYS.format("c").replace("say", "more"))
    told(server, "handlers reloaded: added more$")
    (folder / "more.py").unlink()
    told(server, "handlers reloaded: removed more$")
    assert says(server) == "b"
    # Nothing that changes nothing is told: a file that was only touched, one that is no handler's.
    os.utime(folder / "say.py")
    (folder / "_draft.py").write_text("x = 1")
    (folder / "say.py").write_text(SAYS.format("d"))
    told(server, "changed say$", 2)
    assert len(told(server, "handlers reloaded")) == 4
    assert "for development" in server.log.read_text()


@pytest.mark.slow
def test_a_broken_save_says_why_and_the_next_one_mends_it(serve: Serve, folder: Path) -> None:
    server = serve(handlers=[folder], reload=True, log_format="human")
    # Described once: a file that is broken before that is no reload.
    assert says(server) == "a"
    (folder / "say.py").write_text(SAYS.format("b") + "def (:\n")
    told(server, r"handlers reloaded: broken say; say: SyntaxError: ")
    (folder / "say.py").write_text(SAYS.format("b") + "import helper\n")
    told(server, r"broken say; say: ModuleNotFoundError: No module named 'helper'$")
    (folder / "helper.py").write_text("")
    told(server, "changed say$")
    assert says(server) == "b"


@pytest.mark.timed
def test_a_start_that_is_refused_by_then_is_told_and_waited_out(serve: Serve, folder: Path) -> None:
    server = serve(handlers=[folder / "say.py"], reload=True, log_format="human")
    (folder / "say.py").unlink()
    told(server, "reload refused, handlers unchanged: .*there is no file .*say.py")
    (folder / "say.py").write_text(SAYS.format("b"))
    told(server, "changed say$")
    assert says(server) == "b"


def test_a_file_that_is_written_in_steps_is_read_when_it_is_quiet() -> None:
    steps = iter([1, 1, 2, 3, 4, 4, 4, 5, 5])
    seen: list[int] = []
    read_at: list[int] = []
    over = asyncio.Event()

    async def look_next() -> FileStamps:
        try:
            seen.append(next(steps))
        except StopIteration:
            over.set()
        return {"a.py": (seen[-1], 0, 0)}

    async def reload() -> None:
        read_at.append(len(seen))
        if len(read_at) == 2:
            raise ReloadRefused("this one is not taken")

    async def scenario() -> None:
        watching = asyncio.create_task(FileWatcher(look_next, reload).run())
        await asyncio.wait_for(over.wait(), 20)
        watching.cancel()

    asyncio.run(scenario())
    assert [seen[:count] for count in read_at] == [[1, 1], [1, 1, 2, 3, 4, 4], [1, 1, 2, 3, 4, 4, 4, 5, 5]]


def test_the_first_look_reloads_though_nothing_is_there_any_more() -> None:
    async def scenario() -> None:
        reloaded = asyncio.Event()

        async def look_at_nothing() -> FileStamps:
            return {}

        async def reload() -> None:
            reloaded.set()

        watching = asyncio.create_task(FileWatcher(look_at_nothing, reload).run())
        await asyncio.wait_for(reloaded.wait(), 10)
        watching.cancel()

    asyncio.run(scenario())


def test_a_look_sees_python_files_and_the_one_that_is_named(tmp_path: Path) -> None:
    for name in ("a.py", "b.txt", "c.toml"):
        (tmp_path / name).write_text(name)
    (tmp_path / "d.py").symlink_to(tmp_path / "nowhere")
    seen = read_file_stamps([str(tmp_path), str(tmp_path / "none")], tmp_path / "c.toml")
    folders = {str(tmp_path), str(tmp_path / "none")}
    assert set(seen) == {str(tmp_path / "a.py"), str(tmp_path / "c.toml"), *folders}
    (tmp_path / "a.py").write_text("other")
    again = read_file_stamps(folders, tmp_path / "c.toml")
    assert {path for path in seen if again[path] != seen[path]} == {str(tmp_path / "a.py")}
    # A folder whose files are gone differs from one that is not watched yet.
    assert read_file_stamps([str(tmp_path / "none")]) != read_file_stamps([])
