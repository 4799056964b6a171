"""Effect: what an executor does about torch's memory, with the real torch on a machine without a GPU."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from runner.executor.torch_memory import TorchMemory
from runner.handlers.spec import Source
from runner.protocol.worker import AttemptEnded, ConfigureExecutor, ExecutorLoaded, SetGrant
from tests.runner.executor.fake_worker import running_executor

G = 1 << 30
REAL = """
import torch
def f(data):
    return [torch.cuda.is_initialized(), len(torch.cuda._queued_calls)]
"""


@pytest.mark.slow
def test_torch_is_not_woken_by_being_held_to_a_cap(tmp_path: Path) -> None:
    with running_executor(tmp_path, REAL, device="cuda:0", devices=["gpu0"], cap_bytes=G) as capped:
        ended = capped.run()
        (loaded,) = capped.messages_of(ExecutorLoaded)
    with running_executor(tmp_path, REAL, device="cuda:0", devices=["gpu0"]) as free:
        plain = free.run()
    assert (loaded.torch or "").startswith("2.") and loaded.reserved_bytes is None
    assert (ended.code, ended.peak_bytes, ended.reserved_bytes) == (None, None, None)
    is_awake, queued = json.loads(ended.output or b"")
    assert not is_awake and json.loads(plain.output or b"") == [False, queued - 1]


def test_a_handler_without_torch_gets_none(tmp_path: Path) -> None:
    code = "import sys\ndef f(data):\n    return 'torch' in sys.modules"
    with running_executor(tmp_path, code, device="cuda:0", devices=["gpu0"], cap_bytes=G) as worker:
        worker.send(SetGrant(7, 2 * G, 1 * G))
        assert worker.run().output == b"false"
        assert worker.messages_of(ExecutorLoaded)[0].torch is None


class Cuda(SimpleNamespace):
    """A GPU with 10 GiB as torch shows it."""

    def __init__(self, *, awake: bool = True, fraction: float = 1.0, error: Exception | None = None) -> None:
        super().__init__()
        self.awake, self.fraction, self.error = awake, fraction, error
        self.reserved, self.most = 3 * G, 5 * G
        self.queued: list[object] = []

    def is_initialized(self) -> bool:
        return self.awake

    def get_device_properties(self, index: int) -> SimpleNamespace:
        if self.error:
            raise self.error
        return SimpleNamespace(total_memory=10 * G)

    def get_per_process_memory_fraction(self, index: int) -> float:
        return self.fraction

    def set_per_process_memory_fraction(self, fraction: float, index: int) -> None:
        self.fraction = fraction

    def memory_reserved(self, index: int) -> int:
        return self.reserved

    def max_memory_reserved(self, index: int) -> int:
        if self.error:
            raise self.error
        return self.most

    def reset_peak_memory_stats(self, index: int) -> None:
        if self.error:
            raise self.error
        self.most = self.reserved


def held(cuda: Cuda, monkeypatch: pytest.MonkeyPatch, cap_bytes: int | None = 4 * G) -> TorchMemory:
    # What user code imports is looked for in this table and nowhere else.
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda, __version__="9.9"))
    config = ConfigureExecutor(
        *(7, Source("file", "f.py", "f", ()), "f", "function", ["gpu0"], "cuda:0", 4 * G, "", "", 1, 1, 1),
        cap_bytes=cap_bytes,
    )
    memory = TorchMemory(config)
    memory.enforce_cap()
    return memory


def test_the_fraction_follows_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda()
    memory = held(cuda, monkeypatch)
    assert cuda.fraction == 0.4
    for cap, fraction in ((6 * G, 0.6), (20 * G, 1.0), (2 * G, 0.2), (None, 1.0)):
        memory._config.cap_bytes = cap
        memory.enforce_cap()
        assert cuda.fraction == fraction


def test_a_smaller_fraction_of_the_operators_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = Cuda(fraction=0.3)
    memory = held(cuda, monkeypatch)
    assert cuda.fraction == 0.3
    memory._config.cap_bytes = 2 * G
    memory.enforce_cap()
    assert cuda.fraction == 0.2


def test_peaks_are_told_once_and_torch_goes_on_counting(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = held(Cuda(), monkeypatch)
    ended, again, loaded = (
        AttemptEnded("j", 1, 1, None),
        AttemptEnded("j", 2, 1, None),
        ExecutorLoaded(7, 1.0),
    )
    memory.add_reserved(loaded)
    assert (loaded.torch, loaded.reserved_bytes) == ("9.9", 3 * G)
    memory.add_peak(ended)
    memory.add_peak(again)
    assert (ended.peak_bytes, ended.reserved_bytes, again.peak_bytes) == (5 * G, 3 * G, 3 * G)


def test_a_torch_that_fails_is_told_of_and_harms_nobody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda = Cuda(error=RuntimeError("CUDA error: an illegal memory access"))
    memory, ended = held(cuda, monkeypatch), AttemptEnded("j", 1, 1, None)
    memory.add_peak(ended)
    assert (cuda.fraction, ended.peak_bytes, ended.reserved_bytes) == (1.0, None, 3 * G)
    said = capsys.readouterr().err
    assert said.count("illegal memory access") == 3 and "could not be held to its grant" in said
