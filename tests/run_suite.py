"""Effect: the suite in parts, each as fast as it can go, and one line that adds them up.

`test`: lint and types beside the tests that can share the machine; then the tests marked `timed`, with a core
for each; then those marked `serial`; then the coverage of the policy. `unit`: the tests that start no
process. `slow`: the tests marked `slow`, one by one where they are `serial`. Further arguments go to pytest.
The exit code is 1 where anything failed, and where a part had no test to run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.conftest import COVERAGE_FILE
from tests.policy import ROOT

BIN = Path(sys.executable).parent
PYTEST = [sys.executable, "-m", "pytest"]
#: Tests mostly wait: one process more than there are cores keeps those busy.
CORES = os.cpu_count() or 1
PROCESSES = int(os.environ.get("TEST_PROCESSES") or CORES + 1)
NO_TESTS = 5
#: Here tests start processes: whole servers, parts of one, commands, or an installation.
PROCESS_TESTS = (
    "tests/api",
    "tests/benchmarks",
    "tests/device",
    "tests/examples",
    "tests/faults",
    "tests/fakes",
    "tests/runner/cli",
    "tests/runner/coordinator/test_serve_*.py",
    "tests/runner/discovery",
    "tests/runner/executor",
    "tests/runner/probe",
    "tests/runner/processes",
    "tests/runner/stores/sqlite/test_access.py",
    "tests/runner/worker/processes",
    "tests/runner/worker/test_*.py",
    "tests/runner/test_testing.py",
    "tests/test_deploy.py",
    "tests/test_docs_commands.py",
    "tests/test_packaging.py",
)
UNMARKED = "not timed and not serial and not slow"
CHECKS = {
    "lint": [str(BIN / "ruff"), "check", "."],
    "format": [str(BIN / "ruff"), "format", "--check", "."],
    "types": [str(BIN / "mypy")],
}
#: A part of `slow` that takes longer is ended, and has failed.
SLOW_LIMIT_S, ENDING_S = 2_280, 60


class Counts(NamedTuple):
    """How many tests ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def plus(self, other: Counts) -> Counts:
        """Both together."""
        return Counts(*(one + two for one, two in zip(self, other, strict=True)))

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


@dataclass
class Check:
    """A command that says nothing of tests, and runs while they do."""

    name: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, name: str, command: list[str]) -> Check:
        output = subprocess.PIPE
        return cls(name, subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, text=True))

    def has_passed(self) -> bool:
        """Wait for its end and print what it said."""
        text, _ = self.process.communicate()
        say(f"{self.name}: {text.strip()}")
        return self.process.returncode == 0


class Suite:
    """What was run so far, and whether all of it went well."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self.folder = folder
        self.arguments = arguments
        self.counts = Counts()
        self.has_failed = False

    def run_part(
        self,
        name: str,
        marks: str,
        *flags: str,
        env: dict[str, str] | None = None,
        limit_s: float | None = None,
    ) -> None:
        """Run the tests that have these marks."""
        say(f"{name} (-m '{marks}'):")
        report, began = self.folder / f"{name}.xml", time.monotonic()
        command = [*PYTEST, "-m", marks, f"--junitxml={report}", *flags, *self.arguments]
        with subprocess.Popen(command, env=os.environ | (env or {})) as process:
            status = run_within(process, limit_s)
        counts = counts_of(report)
        self.counts = self.counts.plus(counts)
        # A choice that the caller made may leave a part empty; without one that is a failure.
        if status != 0 and not (status == NO_TESTS and self.arguments):
            self.has_failed = True
        say(f"{name}: {counts} in {time.monotonic() - began:.0f} s")

    def note(self, has_passed: bool) -> None:
        """Of something that is no test."""
        self.has_failed |= not has_passed

    def end(self) -> int:
        """Print the line that adds all parts up; the exit code."""
        if not sum(self.counts):
            say("no test ran")
            self.has_failed = True
        say(str(self.counts))
        return int(self.has_failed)


def say(text: str) -> None:
    """On a line, at once: the commands in between write there too."""
    print(text, flush=True)


def run_within(process: subprocess.Popen[bytes], limit_s: float | None) -> int:
    """The exit status. At the limit it is interrupted, so that it still reports what it ran."""
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        say(f"not through within {limit_s} s")
        process.send_signal(signal.SIGINT)
    try:
        return process.wait(ENDING_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def counts_of(report: Path) -> Counts:
    """What a part's report says. Where there is none, pytest itself went wrong before any test."""
    if not report.exists():
        return Counts()
    tests, failed, skipped = 0, 0, 0
    for suite in ElementTree.parse(report).iter("testsuite"):
        tests += int(suite.attrib["tests"])
        failed += int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        skipped += int(suite.attrib["skipped"])
    return Counts(tests - failed - skipped, failed, skipped)


def is_policy_covered(data: Path) -> bool:
    """Whether the tests reached each line and branch of the policy; prints those that they did not."""
    coverage = [sys.executable, "-m", "coverage"]
    subprocess.run([*coverage, "combine", "-q", f"--data-file={data}", data.parent], check=True)
    say("lines and branches of the policy that were reached:")
    report = [*coverage, "report", f"--data-file={data}", "--fail-under=100"]
    return subprocess.run(report).returncode == 0


def run_test(suite: Suite) -> None:
    """All that must hold."""
    checks = [Check.start(name, command) for name, command in CHECKS.items()]
    data = suite.folder / "coverage"
    suite.run_part("unmarked", UNMARKED, "-n", str(PROCESSES), env={COVERAGE_FILE: str(data)})
    for check in checks:
        suite.note(check.has_passed())
    suite.run_part("timed", "timed and not slow", "-n", str(min(CORES, PROCESSES)))
    suite.run_part("serial", "serial and not slow")
    if not suite.arguments:
        suite.note(is_policy_covered(data))


def run_unit(suite: Suite) -> None:
    """A quick look."""
    ignored = [f"--ignore-glob={path}" for path in PROCESS_TESTS]
    suite.run_part("unit", UNMARKED, "-n", str(PROCESSES), *ignored)


def run_slow(suite: Suite) -> None:
    """What is too long for every change."""
    began = time.monotonic()
    suite.run_part("slow", "slow and not serial", "-n", str(PROCESSES), limit_s=SLOW_LIMIT_S)
    left_s = max(ENDING_S, SLOW_LIMIT_S - (time.monotonic() - began))
    suite.run_part("slow_serial", "slow and serial", limit_s=left_s)


def main(arguments: list[str]) -> int:
    what, *further = arguments
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="runner-suite-") as folder:
        suite = Suite(Path(folder), further)
        {"test": run_test, "unit": run_unit, "slow": run_slow}[what](suite)
        return suite.end()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
