"""Effect: what stands in the log, for people and as JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from runner.processes import logs

HOSTILE = "boom \x1b[31m\x1b]0;title\x07\x9b2J end\nnext"


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def written(format: str) -> str:
    stream = io.StringIO()
    logs.configure(format, "info", "coordinator", stream)
    logging.getLogger("runner.some").info("%s", HOSTILE, extra={"job": "j", "attempt": 2})
    return stream.getvalue()


def test_a_terminal_is_shown_control_characters_and_does_not_obey_them() -> None:
    text = written("human")
    assert not set("\x1b\x07\x9b") & set(text)
    assert "info    coordinator: boom \ufffd[31m" in text
    assert text.endswith(" end\nnext (job j, attempt 2)\n")


def test_json_keeps_a_message_as_it_was_on_one_line() -> None:
    text = written("json")
    assert text.count("\n") == 1 and "\x1b" not in text
    entry = json.loads(text)
    assert (entry["text"], entry["job"], entry["attempt"]) == (HOSTILE, "j", 2)


def test_without_a_stream_lines_go_to_the_stderr_of_the_process(capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", "coordinator")
    logging.getLogger("runner.some").info("%s", "here")
    assert json.loads(capfd.readouterr().err)["text"] == "here"


def test_a_stderr_without_a_descriptor_is_written_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("json", "info", "coordinator")
    logging.getLogger("runner.some").info("%s", "here")
    assert json.loads(capsys.readouterr().err)["text"] == "here"
