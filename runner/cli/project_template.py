"""Pure: the files that `runner init` writes.

A test writes them to a folder, imports the handlers and runs the tests on a real server.
"""

from __future__ import annotations

#: A handler class with load, progress and typed input and output.
HANDLERS = '''"""Handlers of this project; runner.toml names this file."""

from pydantic import BaseModel, Field
from runner import Context, handler


class Text(BaseModel):
    text: str = Field(min_length=1, description="The text whose words are counted")
    top: int = Field(3, ge=1, le=100, description="Number of words to return")


class Counts(BaseModel):
    words: int
    most: dict[str, int]


# A handler with a model of its own sets gpus=1 and its peak device memory: vram="6GiB".
@handler("count-words", gpus=0, timeout="1m", retries=1)
class CountWords:
    """Counts the words of a text and returns the most frequent ones."""

    def load(self, ctx: Context) -> None:
        # Called once per process, which is reused for later jobs: load weights here, .to(ctx.device).
        self.ignored = {"a", "an", "and", "of", "the"}

    def run(self, data: Text, ctx: Context) -> Counts:
        words = data.text.lower().split()
        counts: dict[str, int] = {}
        for place, word in enumerate(words, start=1):
            if word not in self.ignored:
                counts[word] = counts.get(word, 0) + 1
            ctx.progress(place, len(words))
        most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        return Counts(words=len(words), most=dict(most[: data.top]))
'''

#: The settings of the project.
CONFIG = """# Settings of `runner serve` in this folder; flags and RUNNER_* variables take precedence.
# `runner config show --origin` lists every setting.
sources = ["handlers.py"]

# How long running jobs may continue after the server was asked to stop.
grace = "30s"

# Override options of a handler for this machine:
# [handlers.count-words]
# timeout = "5m"
"""

#: Tests of the handlers on a real server.
TEST = '''"""The handlers on a real server: run `pytest`."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import RunnerError
from runner.testing import ServedClient, running

HANDLERS = Path(__file__).with_name("handlers.py")


@pytest.fixture(scope="module")
def client() -> Iterator[ServedClient]:
    with running(handlers=[HANDLERS]) as client:
        yield client


def test_words_are_counted(client: ServedClient) -> None:
    counts = client.run("count-words", {"text": "the cat and the other cat", "top": 1})
    assert counts == {"words": 6, "most": {"cat": 2}}


def test_progress_comes_live(client: ServedClient) -> None:
    job = client.submit("count-words", {"text": "one two three"})
    fractions: list[float | None] = []
    job.on_progress(lambda event: fractions.append(event.fraction))
    job.result(timeout="30s")
    assert fractions[-1] == 1.0


def test_an_empty_text_is_refused(client: ServedClient) -> None:
    with pytest.raises(RunnerError, match="/input/text"):
        client.submit("count-words", {"text": ""})
'''

#: File name -> content, in the order in which they are reported.
FILES = {"handlers.py": HANDLERS, "runner.toml": CONFIG, "test_handlers.py": TEST}
