"""The simulator's command line, the files it reads and the workloads it draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.simulation import decisions, mix, trace
from benchmarks.simulation.devices import parse_devices
from benchmarks.simulation.job import GIB, InvalidJob
from benchmarks.simulation.jobfile import parse, read
from benchmarks.simulation.outcome import average

ROOT = Path(__file__).resolve().parents[2]
HEADER = "submit_s,handler,run_s,load_s,vram_gib,gpus,priority,tenant"
WAITS = {"mean_wait_s", "p50_wait_s", "p95_wait_s", "max_wait_s"}
PODS = """\
name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time
p0,1000,1,1,460,,LS,Running,0,100,0
p1,1000,1,0,0,,LS,Running,0,100,0
p2,1000,1,4,1000,,LS,Running,0,999999,0
"""


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run as users do, from elsewhere and without the checkout on the path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = str(ROOT / "benchmarks" / "simulate.py")
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=50
    )


def test_a_file_of_jobs_gives_figures_a_table_and_a_plot(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "jobs.csv").write_text(f"{HEADER}\n0,a,10,5,40,1,50,x\n1,b,10,,80,2,,\n2,a,10,5,40,,,y\n")
    arguments = ("--jobs", "jobs.csv", "--devices", "2x80GiB", "--policies", "ours,fifo,skip,slots")
    done = command(*arguments, "--json", "out.json", "--plot", "out.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "out.json").read_text())
    assert list(document) == ["policies"]
    assert list(document["policies"]) == ["ours", "fifo", "skip", "slots"]
    for figures in document["policies"].values():
        assert set(figures) >= WAITS | {"cold_starts", "max_overtaken", "makespan_s", "device_s", "big"}
        assert set(figures["big"]) == WAITS
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "fifo" in done.stdout and "overtaken" in done.stdout
    again = command(*arguments, "--json", "again.json", folder=tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "out.json").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--jobs", "bad.csv"), "bad.csv, line 3: run_s is 'long'"),
        (("--jobs", "none.csv"), "none.csv"),
        (("--jobs", "fat.csv"), "job 1 (handler 'a') asks for 90 GiB on each of 1 devices"),
        (("--jobs", "fat.csv", "--devices", "8"), "write 8x80GiB or 4x80GiB,8x24GiB"),
        (("--jobs", "fat.csv", "--policies", "best"), "there is no policy 'best'"),
        (("--mix", "--loads", "0"), "a load is above 0"),
        (("--mix", "--seeds", "-1"), "not a whole number from 1 on"),
        ((), "one of the arguments --jobs --trace --mix --decisions is required"),
    ],
)
def test_what_makes_no_sense_is_told_in_a_line(arguments: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text(f"{HEADER}\n0,a,1,1,1,1,50,\n1,a,long,1,1,1,50,\n")
    (tmp_path / "fat.csv").write_text(f"{HEADER}\n0,a,1,1,90,1,50,\n")
    done = command(*arguments, folder=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the header lacks 'submit_s', 'handler', 'run_s'"),
        ("submit_s,run_s\n", "line 1: the header lacks 'handler'"),
        ("submit_s,handler,run_s,vram\n", "line 1: the header has the unknown 'vram'"),
        ("submit_s,handler,run_s,run_s\n", "line 1: the header names twice 'run_s'"),
        ("submit_s,handler,run_s\n", "has no jobs"),
        ("submit_s,handler,run_s\n0,a,1\n0,a\n", "line 3: 2 cells where the header has 3"),
        ("submit_s,handler,run_s\n\n0,,1\n", "line 3: handler is empty"),
        ("submit_s,handler,run_s\n-1,a,1\n", "line 2: submit_s is '-1'"),
        ("submit_s,handler,run_s\n0,a,nan\n", "line 2: run_s is 'nan'"),
        ("submit_s,handler,run_s\n0,a,inf\n", "line 2: run_s is 'inf'"),
        ("submit_s,handler,run_s\n0,a,\n", "line 2: run_s is ''; it takes a number from 0 on"),
        ("submit_s,handler,run_s,gpus\n0,a,1,0\n", "line 2: gpus is 0; a job takes at least 1"),
        ("submit_s,handler,run_s,gpus\n0,a,1,1.5\n", "line 2: gpus is '1.5'; it takes a whole number"),
        ("submit_s,handler,run_s,priority\n0,a,1,high\n", "line 2: priority is 'high'"),
        ('submit_s,handler,run_s\n0,"a,1\n', "line 2: unexpected end of data"),
    ],
)
def test_a_bad_row_is_named_with_its_line(text: str, told: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse(text.splitlines(keepends=True))
    assert told in str(caught.value)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_bytes(b"submit_s,handler,run_s\n0,\xff\xfe,1\n")
    with pytest.raises(InvalidJob, match=r"jobs\.csv is not UTF-8"):
        read(tmp_path / "jobs.csv")


def test_columns_stand_in_any_order_and_missing_ones_have_defaults() -> None:
    late, early = parse(["handler, run_s ,submit_s", "a,2,10", "b,3,5"])[::-1]
    assert (early.number, early.submit_s, early.run_s, early.load_s, early.need_bytes) == (1, 5, 3, 0, 0)
    assert (late.job_class.handler, late.job_class.gpus, late.job_class.priority, late.job_class.queue) == (
        "a",
        1,
        50,
        "default",
    )


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_bytes("\ufeffsubmit_s,handler,run_s,tenant\n0,a,1,x\n".encode())
    assert read(tmp_path / "jobs.csv")[0].job_class.tenant == "x"


def test_devices_are_counted_and_may_be_mixed() -> None:
    devices = parse_devices("2x80GiB, 24GiB", 4)
    assert [device.cap_bytes // GIB for device in devices] == [80, 80, 24]
    assert [device.id for device in devices] == ["sim0", "sim1", "sim2"]
    assert {device.max_executors for device in devices} == {4}


@pytest.mark.parametrize("text", ["", "8", "0x80GiB", "x80GiB", "8x80", "1001x1GiB", "8x80GiB,", "1x0GiB"])
def test_devices_that_make_no_sense_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_devices(text)


def test_the_trace_gives_fractions_as_bytes_and_cuts_long_runs(tmp_path: Path) -> None:
    (tmp_path / trace.FILE).write_text(PODS)
    pods = trace.read(tmp_path)
    share, whole = pods.shapes
    assert (share.job_class.need_bytes, share.job_class.gpus, share.run_s) == (
        trace.DEVICE_BYTES * 46 // 100,
        1,
        100,
    )
    assert (whole.job_class.need_bytes, whole.job_class.gpus, whole.run_s) == (
        trace.DEVICE_BYTES,
        4,
        6 * 3600,
    )
    assert pods.mean_gpu_s == pytest.approx((46 + 4 * 21600) / 2)


@pytest.mark.parametrize(
    ("text", "told"), [(PODS + "p3,1,1,x,0,,,,0,1,0\n", "line 5"), (PODS[: PODS.index("p0")], "no job")]
)
def test_a_trace_that_is_none_is_told(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / trace.FILE).write_text(text)
    with pytest.raises(InvalidJob, match=told):
        trace.read(tmp_path)


def test_the_models_of_the_mix_are_asked_for_as_they_should_be() -> None:
    shares = mix.weights()
    assert len(shares) == 87
    assert [round(sum(shares[:top]), 9) for top in (1, 4, 8, 16, 87)] == [0.31, 0.63, 0.81, 0.92, 1.0]
    assert shares == sorted(shares, reverse=True)


def test_the_mix_asks_for_the_load_that_it_says() -> None:
    jobs = mix.jobs(0.6, seed=1, count=20_000)
    runs = sorted(job.run_s for job in jobs)
    assert runs[10_000] == pytest.approx(23, rel=0.03)
    assert sum(runs) / jobs[-1].submit_s / mix.DEVICES == pytest.approx(0.6, rel=0.03)


def test_runs_are_averaged_but_for_maxima() -> None:
    runs: list[dict[str, Any]] = [
        {"mean_wait_s": 1.0, "max_wait_s": 3.0, "big": {"mean_wait_s": None}},
        {"mean_wait_s": 3.0, "max_wait_s": 2.0, "big": {"mean_wait_s": None}},
    ]
    assert average(runs) == {"mean_wait_s": 2.0, "max_wait_s": 3.0, "big": {"mean_wait_s": None}}


def test_a_fleet_for_decisions_is_full_and_its_line_long() -> None:
    fleet = decisions.BusyCluster(10)
    assert len(fleet.running) == decisions.EXECUTORS
    view = fleet.policy.state
    assert sum(view.backlog.count(cls) for cls in view.backlog.classes()) >= decisions.WAITING
    before = fleet.last_number
    fleet.apply_case(decisions.Case(10, 3, 2))
    assert len(fleet.running) == decisions.EXECUTORS - 3
    assert fleet.last_number == before + 2
