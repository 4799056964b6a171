"""Which children count as left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.protocol.worker import Leftovers
from tests.runner.executor.fake_worker import running_executor

CODE = """
    import subprocess
    early = subprocess.Popen(["sleep", "60"])
    left = []
    def f(options):
        if options == "stop":
            child = left.pop()
            child.kill()
            child.wait()
        elif options is not None:
            left.append(subprocess.Popen(["sleep", "60"], **options))
        return 1
"""
NULL = -3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [Leftovers(0, True), Leftovers(0, False)]),
        ({"stdout": NULL}, [Leftovers(0, True), Leftovers(0, False)]),
        ({"stdout": NULL, "stderr": NULL}, []),
    ],
)
def test_children_that_share_a_pipe_are_reported_until_they_end(
    tmp_path: Path, options: dict[str, int], expected: list[Leftovers]
) -> None:
    with running_executor(tmp_path, CODE) as worker:
        for job, value in enumerate((None, options, None, "stop", None)):
            assert worker.run(str(job), value).output == b"1"
        assert worker.messages_of(Leftovers) == expected
