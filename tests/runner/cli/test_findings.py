"""Pure: what the doctor makes of its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli import findings
from runner.cli.findings import Finding, Header, Holder, Survey

GPU = "NVIDIA H100, 80 GiB"
TWO = Survey("570.1", cards=[GPU, GPU], visible=2, chosen=[f"gpu0: {GPU}", f"gpu1: {GPU}"])
HUNG = "the NVIDIA driver did not answer within 15 s"
NONE = Survey(None, notes=["no NVIDIA driver was found: jobs run on the CPU"])
HOLDER = Holder(7, "http://127.0.0.1:8484")
DATA = Path("/data")
MIB, GIB = 1 << 20, 1 << 30
NOW = 1_800_000_000.0

CASES: list[tuple[Finding, str, str]] = [
    (findings.platform("Linux", "x86_64", "6.1"), "ok", "Linux 6.1 x86_64"),
    (findings.platform("Linux", "aarch64", "5.15-microsoft-standard"), "ok", "(WSL)"),
    (findings.platform("Windows", "AMD64", "11"), "fail", "use WSL2"),
    (findings.platform("Linux", "riscv64", "6.1"), "fail", "x86-64, arm64"),
    (findings.python((3, 11, 0), "/bin/python"), "ok", "3.11.0 at /bin/python"),
    (findings.python((3, 10, 9), "/bin/python"), "fail", "too old"),
    (findings.driver(TWO, "all"), "ok", f"driver 570.1; gpu0: {GPU}, gpu1: {GPU}"),
    (findings.driver(NONE, "all"), "warn", "no NVIDIA driver was found"),
    (findings.driver(NONE, "none"), "ok", "none is used (no NVIDIA driver)"),
    (findings.driver(Survey("570.1", chosen=["sim0: S"]), "sim:24GiB"), "ok", "sim0: S (driver 570.1)"),
    (findings.driver(Survey(None, error="there is no GPU 3"), "3"), "fail", "there is no GPU 3"),
    (findings.driver(HUNG, "all"), "fail", "did not answer"),
    (findings.driver(HUNG, "none"), "warn", "did not answer"),
    (findings.mask(None, TWO), "ok", "not set"),
    (findings.mask("0,1", TWO), "ok", "CUDA_VISIBLE_DEVICES=0,1 leaves 2 of 2"),
    (findings.mask("", Survey("570", [GPU, GPU], 0)), "warn", "leaves 0 of 2"),
    (findings.mask("0,7", Survey("570", [GPU, GPU], 1)), "warn", "first entry that fits no GPU"),
    (findings.mask("0", NONE), "ok", "no GPU is known"),
    (findings.mask("0", HUNG), "ok", "no GPU is known"),
    (findings.port("127.0.0.1", 8484, None, None), "ok", "127.0.0.1:8484 is free"),
    (findings.port("127.0.0.1", 0, None, None), "ok", "a free one"),
    (
        findings.port("127.0.0.1", 8484, "Address already in use", HOLDER),
        "ok",
        "held by the runner with pid 7",
    ),
    (findings.port("127.0.0.1", 84, "Address already in use", HOLDER), "fail", "above 1023"),
    (findings.port("127.0.0.1", 8485, "Address already in use", HOLDER), "fail", "another --port"),
    (findings.port("127.0.0.1", 80, "Permission denied", None), "fail", "above 1023"),
    (findings.port("10.1.1.1", 8484, "Cannot assign requested address", None), "fail", "by --host"),
    (findings.folder(DATA, None, 50 * GIB, "ext4"), "ok", "/data: 50.0 GiB free on ext4"),
    (findings.folder(DATA, "can't be written to", 50 * GIB, "ext4"), "fail", "can't be written to"),
    (findings.folder(DATA, None, 100 * MIB, "ext4"), "fail", "make room"),
    (findings.folder(DATA, None, 2 * GIB, "ext4"), "warn", "make room"),
    (findings.folder(DATA, None, 50 * GIB, "nfs4"), "warn", "local disk"),
    (findings.folder(DATA, None, 50 * GIB, "tmpfs"), "warn", "empty after a restart"),
    (findings.folder(DATA, None, 50 * GIB, ""), "ok", "unknown file system"),
    (findings.sync([0.004, 0.005, 9.0]), "ok", "5 ms (median of 3)"),
    (findings.sync([0.06, 0.07, 0.0]), "warn", "60 ms (median of 3): every accept waits"),
    (findings.sync([2e-6]), "warn", "memory"),
    (findings.sync([]), "warn", "not measured"),
    (findings.sqlite("3.51.3"), "ok", "3.51.3"),
    (findings.sqlite("3.50.7"), "ok", "3.50.7"),
    (findings.sqlite("3.44.6"), "ok", "3.44.6"),
    (findings.sqlite("3.51.2"), "warn", "write-ahead log"),
    (findings.sqlite("3.50.6"), "warn", "apsw"),
    (findings.sqlite("3.40.1"), "warn", "apsw"),
    (findings.sqlite("4.0"), "ok", "4.0"),
    (findings.store(None, None, None), "ok", "memory"),
    (findings.store("/r.db", None, None), "ok", "not there yet"),
    (findings.store("/r.db", None, HOLDER), "ok", "pid 7 at http://127.0.0.1:8484, so it was not opened"),
    (findings.store("/r.db", Header(True, True), None), "ok", "journal mode WAL"),
    (findings.store("/r.db", Header(True, False), None), "warn", "not in journal mode WAL"),
    (findings.store("/r.db", Header(True, True, True), None), "fail", "of another program"),
    (findings.store("/r.db", Header(False, False), None), "fail", "not a file of SQLite"),
    (findings.clock(NOW, 2.0, 2.0, None), "ok", "agree"),
    (findings.clock(NOW, 2.0, 2.0, NOW - 9), "ok", "agree"),
    (findings.clock(NOW, 5.0, 2.0, None), "warn", "+3.0 s"),
    (findings.clock(NOW, -1.0, 2.0, None), "warn", "-3.0 s"),
    (findings.clock(NOW, 2.0, 2.0, NOW + 7200), "warn", "2 h 0 m behind the last write"),
    (findings.clock(0.0, 2.0, 2.0, None), "fail", "before 2025"),
    (findings.handlers([("a", "ok")], [], None), "ok", "1 ok"),
    (findings.handlers([("a", "ok"), ("b", "broken")], ["x"], None), "fail", "1 of 2 broken: b"),
    (findings.handlers([("a", "ok")], ["x"], None), "warn", "[handlers.x]"),
    (findings.handlers([], [], None), "warn", "runner init"),
    (findings.handlers([], [], "there is no file /x.py"), "fail", "there is no file"),
    (findings.server("http://h", "ok", None, is_expected=True), "ok", "http://h is ready"),
    (
        findings.server("http://h", "ok", None, is_expected=True, seen=["gpu0 processes"]),
        "ok",
        "http://h is ready; bytes are known by: gpu0 processes",
    ),
    (findings.server("http://h", "degraded", "handlers: broken: a", is_expected=True), "warn", "broken: a"),
    (findings.server("http://h", "unavailable", None, is_expected=True), "fail", "is unavailable"),
    (findings.server("http://h", None, "no server answers", is_expected=False), "ok", "none runs"),
    (findings.server("http://h", None, "no server answers", is_expected=True), "fail", "no server answers"),
]


@pytest.mark.parametrize(
    ("finding", "state", "said"),
    CASES,
    ids=[f"{one.subject}-{state}-{said[:24]}" for one, state, said in CASES],
)
def test_each_figure_is_judged(finding: Finding, state: str, said: str) -> None:
    assert finding.state == state
    assert said in f"{finding.text} {finding.fix}"


def test_whatever_is_not_fine_says_what_to_do() -> None:
    assert [one for one, state, _ in CASES if state != "ok" and not one.fix] == []


def test_the_worst_decides() -> None:
    ok, warn, fail = (Finding("x", state, "") for state in ("ok", "warn", "fail"))
    assert [findings.worst(found) for found in ([], [ok], [warn, ok], [ok, fail, warn])] == [
        "ok",
        "ok",
        "warn",
        "fail",
    ]
