"""What a started server says is read to the end of its line, and never waited for in vain."""

from __future__ import annotations

import os
import threading

from benchmarks.ready_pipe import read_line


def test_a_line_that_comes_in_parts_is_read_whole() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b'{"url":')
    later = threading.Timer(0.01, os.write, (theirs, b'"http://x"}\n'))
    later.start()
    assert read_line(ours, 5.0) == b'{"url":"http://x"}\n'
    later.join()
    os.close(ours)
    os.close(theirs)


def test_a_pipe_that_closes_or_says_nothing_gives_no_line() -> None:
    ours, theirs = os.pipe()
    os.write(theirs, b"half a line")
    assert read_line(ours, 0.01) == b""
    os.close(theirs)
    assert read_line(ours, 5.0) == b""
    os.close(ours)
