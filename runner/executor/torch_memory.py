"""Effect: this process's device memory as torch counts it, and its cap; active only if user code uses torch.

Nothing here imports torch or initialises the GPU: a handler that uses neither pays nothing.
"""

from __future__ import annotations

import sys
from typing import Any

from runner.protocol.worker import AttemptEnded, ConfigureExecutor, ExecutorLoaded


class TorchMemory:
    """Reads and caps the memory that torch's allocator reserves on each device of the executor.

    Used by the main thread when the handler is loaded and when an attempt begins or ends; the channel thread
    may set `config.cap_bytes` at any time.
    """

    def __init__(self, config: ConfigureExecutor) -> None:
        self._config = config
        self._count = len(config.devices)
        #: The cap that was applied last; None: no cap, or none applied yet.
        self._enforced_cap_bytes: int | None = None
        #: torch calls `_set_cap` when it initialises the GPU.
        self._is_queued = False
        #: By device: the fraction that user code has set, which ours never exceeds, and the one that we set.
        self._user_fractions: dict[int, float] = {}
        self._own_fractions: dict[int, float] = {}

    def enforce_cap(self) -> None:
        """Apply the latest cap to torch's allocator: now, or when user code initialises the GPU.

        Does nothing if torch is not imported or the cap has not changed. A lower cap releases nothing that is
        reserved already; further allocations fail until enough is free.
        """
        if self._config.cap_bytes == self._enforced_cap_bytes:
            return
        cuda = getattr(sys.modules.get("torch"), "cuda", None)
        if cuda is None:
            return
        if _is_initialized(cuda):
            self._set_cap(cuda)
        elif not self._is_queued and hasattr(cuda, "_lazy_call"):
            # torch calls functions queued here first thing after it has created the context.
            self._is_queued = True
            cuda._lazy_call(lambda: self._set_cap(cuda))

    def add_reserved(self, message: ExecutorLoaded) -> None:
        """Add torch's version and the bytes that it has reserved to the message about the load."""
        torch = sys.modules.get("torch")
        if torch is None:
            return
        message.torch = str(getattr(torch, "__version__", ""))
        cuda = _initialized_cuda()
        if cuda is not None:
            message.reserved_bytes = self._max_bytes(cuda, "memory_reserved")

    def add_peak(self, message: AttemptEnded) -> None:
        """Add the reserved bytes and their peak to the message of an attempt's end; start a new peak.

        The peak is that since the end of an attempt before, so concurrent attempts share it.
        """
        cuda = _initialized_cuda()
        if cuda is None:
            return
        message.reserved_bytes = self._max_bytes(cuda, "memory_reserved")
        message.peak_bytes = self._max_bytes(cuda, "max_memory_reserved")
        try:
            for index in range(self._count):
                cuda.reset_peak_memory_stats(index)
        except Exception as error:
            _print_error("torch's peak of reserved memory could not be reset", error)

    def _max_bytes(self, cuda: Any, statistic: str) -> int | None:
        """Return the bytes on the device that has most; None, with the error printed, if torch fails."""
        try:
            return max(int(getattr(cuda, statistic)(index)) for index in range(self._count))
        except Exception as error:
            _print_error(f"torch.cuda.{statistic} failed", error)
            return None

    def _set_cap(self, cuda: Any) -> None:
        cap = self._config.cap_bytes
        try:
            for index in range(self._count):
                self._limit_device(cuda, index, cap)
        except Exception as error:
            # This torch has no fraction, or the context is lost: the memory watchdog sees the actual use.
            _print_error("torch could not be held to its grant", error)
        self._enforced_cap_bytes = cap

    def _limit_device(self, cuda: Any, index: int, cap: int | None) -> None:
        """Set torch's fraction of one device to `cap / total` bytes, or to the user's if that is smaller."""
        total = int(cuda.get_device_properties(index).total_memory)
        now = getattr(cuda, "get_per_process_memory_fraction", lambda _: self._own_fractions.get(index, 1.0))(
            index
        )
        if now != self._own_fractions.get(index, 1.0):
            # The operator or the handler has set it.
            self._user_fractions[index] = now
        ours = 1.0 if cap is None else min(1.0, cap / total)
        self._own_fractions[index] = min(ours, self._user_fractions.get(index, 1.0))
        cuda.set_per_process_memory_fraction(self._own_fractions[index], index)


def _initialized_cuda() -> Any:
    """Return `torch.cuda` if user code has imported torch and used a GPU, else None."""
    cuda = getattr(sys.modules.get("torch"), "cuda", None)
    return cuda if cuda is not None and _is_initialized(cuda) else None


def _is_initialized(cuda: Any) -> bool:
    """Return whether user code has initialised the GPU."""
    # Attributes may be missing while another thread still imports it.
    asked = getattr(cuda, "is_initialized", None)
    return asked is not None and bool(asked())


def _print_error(what: str, error: Exception) -> None:
    print(f"runner: {what}: {error}", file=sys.stderr)
