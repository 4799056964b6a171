"""A log that nobody reads: lines are dropped and counted, and no one waits."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.processes.log_sink import LogSink

LINE = b"x" * 99 + b"\n"
#: What fills a pipe.
FILLER = b"-" * 65_536
#: Logs much more than a pipe holds, then ends.
TALKER = """
import logging
from runner.processes import logs
logs.configure("json", "info", "talker")
for number in range(100_000):
    logging.getLogger("runner").info("line %d", number)
"""


def dropped(count: int) -> bytes:
    return b"dropped %d\n" % count


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for fd in ends:
        os.close(fd)


def fill(fd: int) -> None:
    """Write into a pipe until it takes nothing more."""
    os.set_blocking(fd, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, FILLER[:4096])
    os.set_blocking(fd, True)


def read_lines(fd: int, until: bytes) -> list[bytes]:
    data = b""
    while not data.endswith(until):
        data += os.read(fd, 65_536)
    return data.splitlines(keepends=True)


def test_lines_beyond_the_bound_are_dropped_and_told_of_once_they_flow_again(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    fill(writes)
    sink = LogSink(writes, dropped, waiting_max_bytes=100 * len(LINE))
    for _ in range(5_000):
        sink.put(LINE)
    assert not sink.flush(0.01) and sink.dropped_count == 4_900
    assert read_lines(reads, dropped(4_900)) == [FILLER + LINE, *[LINE] * 99, dropped(4_900)]
    assert sink.flush(5) and sink.dropped_count == 0
    sink.put(b"again\n")
    assert read_lines(reads, b"again\n") == [b"again\n"]


def test_a_file_is_written_at_once(tmp_path: Path) -> None:
    with open(tmp_path / "log", "wb") as file:
        LogSink(file.fileno(), dropped, waiting_max_bytes=1).put(LINE)
        assert (tmp_path / "log").read_bytes() == LINE


def test_a_pipe_that_was_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    reads, writes = pipe
    os.set_blocking(writes, False)
    sink = LogSink(writes, dropped)
    for _ in range(2_000):
        sink.put(LINE)
    sink.put(b"last\n")
    assert len(read_lines(reads, b"last\n")) == 2_001


def test_a_log_without_a_reader_harms_nobody() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    sink = LogSink(writes, dropped)
    sink.put(LINE)
    assert sink.flush(5)
    os.close(writes)


def test_a_process_whose_log_is_not_read_goes_on_and_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", TALKER], stderr=subprocess.PIPE) as process:
        assert process.wait(60) == 0
        assert process.stderr is not None and b'"text":"line 0"' in process.stderr.read()
