"""Effect: the look-alike of torch does with memory what torch does, told by processes that import it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.fake_gpus import GIB, MIB, Card, FakeGpus

A, B = "GPU-a", "GPU-b"


@pytest.fixture
def gpus(tmp_path: Path) -> FakeGpus:
    return FakeGpus(tmp_path / "gpus", Card(A), Card(B, total=80 * GIB))


def printed(gpus: FakeGpus, code: str, mask: str = A) -> list[str]:
    """What lines of code print that have torch."""
    done = subprocess.run(
        [sys.executable, "-c", f"import torch\nGIB = 1 << 30\n{code}"],
        env=os.environ | gpus.environ() | {"CUDA_VISIBLE_DEVICES": mask},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


def test_the_mask_says_which_cards_there_are_and_looking_opens_none(gpus: FakeGpus) -> None:
    look = (
        "print(torch.cuda.is_available(), torch.cuda.device_count(), torch.cuda.is_initialized())\n"
        "print(torch.cuda.memory_reserved())"
    )
    assert printed(gpus, look) == ["True 1 False", "0"]
    assert printed(gpus, look, f"{B},{A}")[0] == "True 2 False"
    assert printed(gpus, look, "")[0] == "False 0 False"


def test_the_free_memory_can_not_be_asked_without_opening_the_card(gpus: FakeGpus) -> None:
    gpus.change(A, foreign=4 * GIB)
    free, total = 20 * GIB - 256 * MIB, 24 * GIB
    assert printed(gpus, "print(torch.cuda.mem_get_info())") == [f"({free}, {total})"]


def test_blocks_are_kept_until_the_cache_is_emptied(gpus: FakeGpus) -> None:
    code = """
kept = torch.empty(3 << 20, dtype=torch.uint8, device="cuda")
large = torch.empty(GIB, dtype=torch.uint8, device="cuda:0")
print(torch.cuda.memory_allocated() >> 20, torch.cuda.memory_reserved() >> 20)
del large
print(torch.cuda.memory_allocated() >> 20, torch.cuda.memory_reserved() >> 20)
torch.cuda.empty_cache()
print(torch.cuda.memory_reserved() >> 20, torch.cuda.max_memory_reserved() >> 20)
torch.cuda.reset_peak_memory_stats()
print(torch.cuda.max_memory_reserved() >> 20)
"""
    assert printed(gpus, code) == ["1027 1044", "3 1044", "20 1044", "20"]


def test_a_fraction_is_a_bound_and_the_process_goes_on(gpus: FakeGpus) -> None:
    code = """
torch.cuda._lazy_call(lambda: torch.cuda.set_per_process_memory_fraction(0.25))
print(torch.cuda.is_initialized())
held = torch.empty(4 * GIB, dtype=torch.uint8, device="cuda")
try:
    torch.empty(3 * GIB, dtype=torch.uint8, device="cuda")
except torch.cuda.OutOfMemoryError as error:
    print(str(error)[:45])
del held
print(torch.empty(6 * GIB, dtype=torch.uint8, device="cuda").nbytes >> 30)
print(torch.cuda.get_per_process_memory_fraction(0))
"""
    assert printed(gpus, code) == ["False", "CUDA out of memory. Tried to allocate 3.00 Gi", "6", "0.25"]


def test_what_others_hold_is_not_to_be_had(gpus: FakeGpus) -> None:
    gpus.change(A, foreign=20 * GIB)
    code = """
try:
    torch.empty(4 * GIB, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError as error:
    print("full")
"""
    assert printed(gpus, code) == ["full"]


def test_after_a_kernel_that_failed_nothing_works_any_more(gpus: FakeGpus) -> None:
    gpus.change(A, launch_error="CUDA error: an illegal memory access was encountered", launch_errors=1)
    code = """
number = torch.ones(2, device="cuda") + 1
for use in (torch.cuda.synchronize, number.sum, lambda: torch.zeros(1, device="cuda")):
    try:
        use()
    except RuntimeError as error:
        print(error)
"""
    assert printed(gpus, code) == ["CUDA error: an illegal memory access was encountered"] * 3
    assert printed(gpus, "print((torch.ones(2, device='cuda') + 1).sum().item())") == ["4.0"]


COUNTS = """
a, b = torch.ones(2, 3, device=DEVICE), torch.full((3, 4), 2.0, device=DEVICE)
found = ((a @ b) * 3 + 1).sum().item()
a.add_(2)
more = (a + a).sum().cpu().item()
"""


def test_tensors_of_like_elements_count_as_torch_counts(gpus: FakeGpus) -> None:
    names = {"torch": pytest.importorskip("torch"), "DEVICE": "cpu"}
    exec(COUNTS, names)
    expected = f"{names['found']} {names['more']}"
    assert printed(gpus, f"DEVICE = 'cuda'\n{COUNTS}\nprint(found, more)") == [expected]
