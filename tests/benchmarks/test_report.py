"""What a run prints and writes."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.figure import Figures
from benchmarks.http_client import BenchmarkFailed
from benchmarks.scale_sizes import Sizes

MACHINE = {"processor": "abacus", "cores": 2.0, "python": "3.11", "fdatasync_ms": 0.1}
OVERHEAD = "overhead on jobs of 100 ms"


def measured(overhead: float) -> Figures:
    figures = Figures()
    figures.add(OVERHEAD, "runner", "%", overhead)
    figures.add("jobs that wait", "runner", "jobs", 1_000_000)
    return figures


@pytest.mark.parametrize(("overhead", "word", "all_ok"), [(1.5, "ok", True), (2.5, "missed", False)])
def test_a_target_is_printed_with_what_became_of_it(overhead: float, word: str, all_ok: bool) -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=200)
    assert report.show(console, measured(overhead), MACHINE) is all_ok
    lines = [line for line in shown.getvalue().splitlines() if OVERHEAD in line]
    assert [part.strip() for part in lines[-1].strip("│").split("│")] == [
        OVERHEAD,
        "<= 2",
        str(overhead),
        word,
    ]
    # What was not measured is neither reached nor missed.
    assert "huey" not in shown.getvalue()


def test_the_file_holds_every_round_and_every_verdict(tmp_path: Path) -> None:
    document = msgspec.json.decode(report.write(tmp_path / "out", measured(2.5), MACHINE).read_bytes())
    assert document["machine"] == MACHINE
    assert [(figure["name"], figure["values"]) for figure in document["figures"]] == [
        (OVERHEAD, [2.5]),
        ("jobs that wait", [1_000_000]),
    ]
    (verdict,) = document["targets"]
    assert (verdict["target"]["figure"], verdict["reached"], verdict["ok"]) == (OVERHEAD, 2.5, False)


def test_a_group_that_does_not_exist_is_refused_with_those_that_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--only", "line,warp"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert "no group 'warp'" in told and "overhead, idle, scale" in told


def test_a_group_that_fails_costs_no_other_its_figures(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fails(*_: object) -> None:
        raise BenchmarkFailed("no [luck]")

    def measures(folder: Path, sizes: Sizes, figures: Figures, rounds: int) -> None:
        figures.add(OVERHEAD, "runner", "%", 1.0)

    assert main(["--out", str(tmp_path)], {"line": fails, "overhead": measures}) == 1
    assert "line failed: no [luck]" in capsys.readouterr().out
    (written,) = tmp_path.iterdir()
    assert [figure["name"] for figure in msgspec.json.decode(written.read_bytes())["figures"]] == [OVERHEAD]
