"""Pure: what the doctor makes of its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli import doctor_findings
from runner.cli.doctor_findings import CheckResult, GpuSurvey, RunningServer, StoreHeader

GPU = "NVIDIA H100, 80 GiB"
TWO = GpuSurvey("570.1", cards=[GPU, GPU], visible=2, chosen=[f"gpu0: {GPU}", f"gpu1: {GPU}"])
HUNG = "the NVIDIA driver did not answer within 15 s"
NONE = GpuSurvey(None, notes=["no NVIDIA driver was found: jobs run on the CPU"])
HOLDER = RunningServer(7, "http://127.0.0.1:8484")
DATA = Path("/data")
MIB, GIB = 1 << 20, 1 << 30
NOW = 1_800_000_000.0

CASES: list[tuple[CheckResult, str, str]] = [
    (doctor_findings.judge_platform("Linux", "x86_64", "6.1"), "ok", "Linux 6.1 x86_64"),
    (doctor_findings.judge_platform("Linux", "aarch64", "5.15-microsoft-standard"), "ok", "(WSL)"),
    (doctor_findings.judge_platform("Windows", "AMD64", "11"), "fail", "use WSL2"),
    (doctor_findings.judge_platform("Linux", "riscv64", "6.1"), "fail", "x86-64 or arm64"),
    (doctor_findings.judge_python((3, 11, 0), "/bin/python"), "ok", "3.11.0 at /bin/python"),
    (doctor_findings.judge_python((3, 10, 9), "/bin/python"), "fail", "too old"),
    (doctor_findings.judge_driver(TWO, "all"), "ok", f"driver 570.1; gpu0: {GPU}, gpu1: {GPU}"),
    (doctor_findings.judge_driver(NONE, "all"), "warn", "no NVIDIA driver was found"),
    (doctor_findings.judge_driver(NONE, "none"), "ok", "no GPU is used (no NVIDIA driver)"),
    (
        doctor_findings.judge_driver(GpuSurvey("570.1", chosen=["sim0: S"]), "sim:24GiB"),
        "ok",
        "sim0: S (driver 570.1)",
    ),
    (
        doctor_findings.judge_driver(GpuSurvey(None, error="there is no GPU 3"), "3"),
        "fail",
        "there is no GPU 3",
    ),
    (doctor_findings.judge_driver(HUNG, "all"), "fail", "did not answer"),
    (doctor_findings.judge_driver(HUNG, "none"), "warn", "did not answer"),
    (doctor_findings.judge_mask(None, TWO), "ok", "not set"),
    (doctor_findings.judge_mask("0,1", TWO), "ok", "CUDA_VISIBLE_DEVICES=0,1 leaves 2 of 2"),
    (doctor_findings.judge_mask("", GpuSurvey("570", [GPU, GPU], 0)), "warn", "leaves 0 of 2"),
    (
        doctor_findings.judge_mask("0,7", GpuSurvey("570", [GPU, GPU], 1)),
        "warn",
        "first entry that matches no GPU",
    ),
    (doctor_findings.judge_mask("0", NONE), "ok", "no GPU was found"),
    (doctor_findings.judge_mask("0", HUNG), "ok", "no GPU was found"),
    (doctor_findings.judge_port("127.0.0.1", 8484, None, None), "ok", "127.0.0.1:8484 is free"),
    (doctor_findings.judge_port("127.0.0.1", 0, None, None), "ok", "a free port"),
    (
        doctor_findings.judge_port("127.0.0.1", 8484, "Address already in use", HOLDER),
        "ok",
        "in use by the runner with pid 7",
    ),
    (doctor_findings.judge_port("127.0.0.1", 84, "Address already in use", HOLDER), "fail", "above 1023"),
    (
        doctor_findings.judge_port("127.0.0.1", 8485, "Address already in use", HOLDER),
        "fail",
        "another --port",
    ),
    (doctor_findings.judge_port("127.0.0.1", 80, "Permission denied", None), "fail", "above 1023"),
    (
        doctor_findings.judge_port("10.1.1.1", 8484, "Cannot assign requested address", None),
        "fail",
        "set --host",
    ),
    (doctor_findings.judge_folder(DATA, None, 50 * GIB, "ext4"), "ok", "/data: 50 GiB free on ext4"),
    (
        doctor_findings.judge_folder(DATA, "can't be written to", 50 * GIB, "ext4"),
        "fail",
        "can't be written to",
    ),
    (doctor_findings.judge_folder(DATA, None, 100 * MIB, "ext4"), "fail", "free some space"),
    (doctor_findings.judge_folder(DATA, None, 2 * GIB, "ext4"), "warn", "free some space"),
    (doctor_findings.judge_folder(DATA, None, 50 * GIB, "nfs4"), "warn", "local disk"),
    (doctor_findings.judge_folder(DATA, None, 50 * GIB, "tmpfs"), "warn", "empty after a reboot"),
    (doctor_findings.judge_folder(DATA, None, 50 * GIB, ""), "ok", "unknown file system"),
    (doctor_findings.judge_sync([0.004, 0.005, 9.0]), "ok", "5 ms (median of 3)"),
    (doctor_findings.judge_sync([0.06, 0.07, 0.0]), "warn", "60 ms (median of 3): every submit waits"),
    (doctor_findings.judge_sync([2e-6]), "warn", "memory"),
    (doctor_findings.judge_sync([]), "warn", "not measured"),
    (doctor_findings.judge_sqlite("3.51.3"), "ok", "3.51.3"),
    (doctor_findings.judge_sqlite("3.50.7"), "ok", "3.50.7"),
    (doctor_findings.judge_sqlite("3.44.6"), "ok", "3.44.6"),
    (doctor_findings.judge_sqlite("3.51.2"), "warn", "write-ahead log"),
    (doctor_findings.judge_sqlite("3.50.6"), "warn", "apsw"),
    (doctor_findings.judge_sqlite("3.40.1"), "warn", "apsw"),
    (doctor_findings.judge_sqlite("4.0"), "ok", "4.0"),
    (doctor_findings.judge_store(None, None, None), "ok", "memory"),
    (doctor_findings.judge_store("/r.db", None, None), "ok", "does not exist yet"),
    (
        doctor_findings.judge_store("/r.db", None, HOLDER),
        "ok",
        "pid 7 at http://127.0.0.1:8484 and was not opened",
    ),
    (doctor_findings.judge_store("/r.db", StoreHeader(True, True), None), "ok", "journal mode WAL"),
    (doctor_findings.judge_store("/r.db", StoreHeader(True, False), None), "warn", "not in journal mode WAL"),
    (doctor_findings.judge_store("/r.db", StoreHeader(True, True, True), None), "fail", "of another program"),
    (doctor_findings.judge_store("/r.db", StoreHeader(False, False), None), "fail", "not an SQLite file"),
    (doctor_findings.judge_clock(NOW, 2.0, 2.0, None), "ok", "agree"),
    (doctor_findings.judge_clock(NOW, 2.0, 2.0, NOW - 9), "ok", "agree"),
    (doctor_findings.judge_clock(NOW, 5.0, 2.0, None), "warn", "+3.0 s"),
    (doctor_findings.judge_clock(NOW, -1.0, 2.0, None), "warn", "-3.0 s"),
    (doctor_findings.judge_clock(NOW, 2.0, 2.0, NOW + 7200), "warn", "2 h 0 m behind the last write"),
    (doctor_findings.judge_clock(0.0, 2.0, 2.0, None), "fail", "before 2025"),
    (doctor_findings.judge_handlers([("a", "ok")], [], None), "ok", "1 ok"),
    (doctor_findings.judge_handlers([("a", "ok"), ("b", "broken")], ["x"], None), "fail", "1 of 2 broken: b"),
    (doctor_findings.judge_handlers([("a", "ok")], ["x"], None), "warn", "[handlers.x]"),
    (doctor_findings.judge_handlers([], [], None), "warn", "runner init"),
    (doctor_findings.judge_handlers([], [], "there is no file /x.py"), "fail", "there is no file"),
    (doctor_findings.judge_server("http://h", "ok", None, is_expected=True), "ok", "http://h is ready"),
    (
        doctor_findings.judge_server("http://h", "ok", None, is_expected=True, levels=["gpu0 processes"]),
        "ok",
        "http://h is ready; memory attribution: gpu0 processes",
    ),
    (
        doctor_findings.judge_server("http://h", "degraded", "handlers: broken: a", is_expected=True),
        "warn",
        "broken: a",
    ),
    (
        doctor_findings.judge_server("http://h", "unavailable", None, is_expected=True),
        "fail",
        "is unavailable",
    ),
    (
        doctor_findings.judge_server("http://h", None, "no server answers", is_expected=False),
        "ok",
        "no server is running",
    ),
    (
        doctor_findings.judge_server("http://h", None, "no server answers", is_expected=True),
        "fail",
        "no server answers",
    ),
]


@pytest.mark.parametrize(
    ("finding", "state", "said"),
    CASES,
    ids=[f"{one.subject}-{state}-{said[:24]}" for one, state, said in CASES],
)
def test_each_figure_is_judged(finding: CheckResult, state: str, said: str) -> None:
    assert finding.state == state
    assert said in f"{finding.text} {finding.fix}"


def test_whatever_is_not_fine_says_what_to_do() -> None:
    assert [one for one, state, _ in CASES if state != "ok" and not one.fix] == []


def test_the_worst_decides() -> None:
    ok, warn, fail = (CheckResult("x", state, "") for state in ("ok", "warn", "fail"))
    assert [doctor_findings.worst_state(found) for found in ([], [ok], [warn, ok], [ok, fail, warn])] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]
