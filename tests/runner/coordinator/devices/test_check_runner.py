"""A device is tried out by a process of its own."""

from __future__ import annotations

import asyncio
import os
import textwrap
import time
from pathlib import Path

import pytest

from gpu.devices.device import nvidia, sim
from runner.coordinator.devices.check_runner import DeviceCheckRunner
from runner.processes.orphans import find_marked
from tests.fakes.fake_gpus import GIB, ROOT, Card, FakeGpus

CARD = nvidia(0, "GPU-a", "Fake GPU", 24 * GIB)


def checked(env: dict[str, str], *, within_s: float = 20.0) -> str | None:
    return asyncio.run(DeviceCheckRunner(os.environ | env, "r-test", timeout_s=within_s).run_check(CARD))


def torch_of(folder: Path, code: str) -> dict[str, str]:
    """An environment whose torch is this."""
    (folder / "torch.py").write_text(textwrap.dedent(code))
    return {"PYTHONPATH": os.pathsep.join(map(str, (folder, ROOT)))}


def test_a_device_that_computes_is_well(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path, Card("GPU-a"), Card("GPU-b", launch_error="broken", launch_errors=9))
    assert checked(gpus.environ()) is None
    assert gpus.used("GPU-a") == gpus.used("GPU-b") == 0


def test_one_that_does_not_is_told_in_its_own_words(tmp_path: Path) -> None:
    error = "CUDA error: an illegal memory access was encountered"
    gpus = FakeGpus(tmp_path, Card("GPU-a", launch_error=error, launch_errors=9))
    assert error in (checked(gpus.environ()) or "")


def test_one_that_is_full_is_well(tmp_path: Path) -> None:
    gpus = FakeGpus(tmp_path, Card("GPU-a", foreign=24 * GIB - (256 << 20)))
    assert checked(gpus.environ()) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise ImportError('not here')", None),
        ("from types import SimpleNamespace\nversion = SimpleNamespace(cuda=None)", None),
        ("import os\nos.abort()", "the check process exited with -6"),
    ],
)
def test_what_can_not_be_tried_is_not_blamed_and_what_dies_is(
    tmp_path: Path, code: str, words: str | None
) -> None:
    assert checked(torch_of(tmp_path, code)) == words


def test_a_wrong_result_is_a_fault(tmp_path: Path) -> None:
    code = """
        from types import SimpleNamespace
        version = SimpleNamespace(cuda="1")
        cuda = SimpleNamespace(synchronize=lambda: None)
        class ones:
            def __init__(self, count, device): pass
            def __mul__(self, other): return self
            def sum(self): return self
            def item(self): return 7
    """
    assert checked(torch_of(tmp_path, code)) == "it computes 7 where 2097152 is right"


def test_one_that_hangs_is_given_up_and_its_process_killed(tmp_path: Path) -> None:
    env = torch_of(tmp_path, "import time\ntime.sleep(50)")
    begin = time.monotonic()
    assert checked(env, within_s=0.3) == "no answer within 0.3 s"
    assert time.monotonic() - begin < 3 and find_marked("r-test.") == []


def test_a_simulated_device_is_always_well() -> None:
    assert asyncio.run(DeviceCheckRunner({}, "r-test").run_check(sim(0, GIB))) is None
