"""Effect: a look-alike of the few parts of torch that handlers of the tests use, on cards that are made up.

A tensor is a number that all its elements have, and bytes of its card. So `a @ b`, `a + 1`, `a.add_(1)`,
`a.sum()` and `a.item()` give what torch gives for tensors of like elements.
"""

from __future__ import annotations

import math
import sys
from types import SimpleNamespace
from typing import Any

from tests.fakes import fake_torch_cuda as cuda
from tests.fakes.fake_device_memory import AcceleratorError, OutOfMemoryError

__all__ = ["AcceleratorError", "OutOfMemoryError", "Tensor", "cuda", "empty", "full", "ones", "zeros"]
__version__ = "0.0+fake"
version = SimpleNamespace(cuda="0.0")
sys.modules[f"{__name__}.cuda"] = cuda


class dtype:
    def __init__(self, name: str, itemsize: int) -> None:
        self.name, self.itemsize = name, itemsize

    def __repr__(self) -> str:
        return f"torch.{self.name}"


uint8 = dtype("uint8", 1)
float16 = dtype("float16", 2)
float32 = dtype("float32", 4)
float64 = dtype("float64", 8)


class Tensor:
    """All its elements are alike."""

    def __init__(self, shape: tuple[int, ...], value: float, kind: dtype, device: str) -> None:
        self.shape, self.dtype, self.device = shape, kind, device
        self._value = value
        if device.startswith("cuda"):
            self._block = cuda.allocator(device).allocate(self.nbytes)

    def __del__(self) -> None:
        # One that found no room has none.
        block = getattr(self, "_block", None)
        if block is not None:
            cuda.allocator(self.device).free_block(block)

    @property
    def nbytes(self) -> int:
        return self.numel() * self.dtype.itemsize

    def numel(self) -> int:
        return math.prod(self.shape)

    def add_(self, other: float) -> Tensor:
        self._launch()
        self._value += other
        return self

    def __add__(self, other: Tensor | float) -> Tensor:
        self._launch()
        value = other._value if isinstance(other, Tensor) else other
        return Tensor(self.shape, self._value + value, self.dtype, self.device)

    def __mul__(self, other: float) -> Tensor:
        self._launch()
        return Tensor(self.shape, self._value * other, self.dtype, self.device)

    def __matmul__(self, other: Tensor) -> Tensor:
        (rows, inner), (_, columns) = self.shape, other.shape
        self._launch(2.0 * rows * inner * columns)
        return Tensor((rows, columns), self._value * other._value * inner, self.dtype, self.device)

    def sum(self) -> Tensor:
        self._launch()
        return Tensor((), self._value * self.numel(), self.dtype, self.device)

    def item(self) -> float:
        assert self.numel() == 1
        if self.device.startswith("cuda"):
            cuda.synchronize(self.device)
        return self._value

    def cpu(self) -> Tensor:
        if self.device.startswith("cuda"):
            cuda.synchronize(self.device)
        return Tensor(self.shape, self._value, self.dtype, "cpu")

    def _launch(self, operations: float = 0.0) -> None:
        if self.device.startswith("cuda"):
            cuda.launch(self.device, operations)


def full(
    size: tuple[int, ...], fill_value: float, *, dtype: dtype = float32, device: str | None = None
) -> Tensor:
    return Tensor(tuple(size), fill_value, dtype, str(device or "cpu"))


def empty(*size: Any, dtype: dtype = float32, device: str | None = None) -> Tensor:
    return full(_shape(size), 0.0, dtype=dtype, device=device)


def zeros(*size: Any, dtype: dtype = float32, device: str | None = None) -> Tensor:
    return full(_shape(size), 0.0, dtype=dtype, device=device)


def ones(*size: Any, dtype: dtype = float32, device: str | None = None) -> Tensor:
    return full(_shape(size), 1.0, dtype=dtype, device=device)


def _shape(size: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
