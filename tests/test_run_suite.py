"""Effect: the line that adds up the parts of the suite, and the exit code beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_suite import Counts, Suite, counts_of, run_within

TESTS = {
    "passes": "def test_passes(): pass\n",
    "fails": "def test_fails(): assert False\n",
    "skips": "import pytest\ndef test_skips(): pytest.skip('no')\n",
    "breaks": "import pytest\n@pytest.fixture\ndef bad(): raise OSError\ndef test_breaks(bad): pass\n",
}


# Each part is a pytest of its own.
pytestmark = pytest.mark.timeout(180)


def run(folder: Path, *names: str, marks: str = "not slow", parts: int = 1) -> tuple[int, Suite]:
    """The exit code of a suite of so many parts, each with these tests."""
    file = folder / "test_few.py"
    file.write_text("".join(TESTS[name] for name in names))
    suite = Suite(folder, [])
    for part in range(parts):
        suite.run_part(f"part{part}", marks, "-p", "no:cacheprovider", str(file))
    return suite.end(), suite


def test_parts_are_added_up_in_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = run(tmp_path, "passes", "skips", parts=2)
    assert code == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 passed, 0 failed, 2 skipped"


@pytest.mark.parametrize("name", ["fails", "breaks"])
def test_what_fails_or_breaks_is_a_failure(tmp_path: Path, name: str) -> None:
    code, suite = run(tmp_path, "passes", name)
    assert (code, suite.counts) == (1, Counts(1, 1, 0))


def test_a_part_without_tests_is_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, "passes", marks="slow")[0] == 1


def test_a_failed_check_is_a_failure(tmp_path: Path) -> None:
    suite = Suite(tmp_path, [])
    suite.counts = Counts(1)
    suite.note(True)
    assert suite.end() == 0
    suite.note(False)
    assert suite.end() == 1


def test_without_a_report_there_are_no_counts(tmp_path: Path) -> None:
    assert counts_of(tmp_path / "none.xml") == Counts()


def test_what_takes_too_long_is_interrupted_and_has_failed() -> None:
    command = [sys.executable, "-c", "print('up', flush=True)\nwhile True: pass"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert run_within(process, 0.01) != 0
