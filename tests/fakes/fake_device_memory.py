"""Effect: what a process does on a card that is made up: its context, its blocks of memory, its kernels."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tests.fakes.fake_gpus import GIB, MIB, VARIABLE, Card, Folder, State

#: As in torch's allocator: small blocks come in segments of 2 MiB, middle ones of 20, large ones by 2 MiB.
SMALL, MIDDLE = 2 * MIB, 20 * MIB


class OutOfMemoryError(RuntimeError):
    """The card, or what this process may use of it, is full."""


class AcceleratorError(RuntimeError):
    """A kernel failed, and so does all that this process does on its cards from now on."""


#: What lost this process its cards.
_lost: list[str] = []


class FakeDevice:
    """cuda:N of this process."""

    def __init__(self, index: int, uuid: str) -> None:
        self.index, self.uuid = index, uuid
        self._folder = self.folder()
        self._lock = threading.RLock()
        self._is_open = False
        #: Block to its segment, by number; free segments; what tensors asked for, by block.
        self._blocks: dict[int, int] = {}
        self._free: list[int] = []
        self._asked: dict[int, int] = {}
        self._last = 0
        #: The part of the card that this process may reserve, and its bytes where one was set.
        self.fraction = 1.0
        self._limit: int | None = None
        self.max_reserved = self.max_allocated = 0
        self._busy_until = 0.0

    @staticmethod
    def folder() -> Folder:
        """Where the cards are."""
        return Folder(Path(os.environ[VARIABLE]))

    @property
    def card(self) -> Card:
        """As it is now."""
        return self._card(self._folder.state())

    @property
    def reserved(self) -> int:
        return sum(self._blocks.values()) + sum(self._free)

    @property
    def allocated(self) -> int:
        return sum(self._asked.values())

    def open(self) -> None:
        """What the first call costs: the context."""
        if _lost:
            raise AcceleratorError(_lost[0])
        if self._is_open:
            return
        with self._folder.lock():
            state = self._folder.state()
            card = self._card(state)
            if self._unused(state, card) < card.context:
                raise RuntimeError("CUDA error: out of memory")
            self._is_open = True
            self._publish(card)

    def memory(self) -> tuple[int, int]:
        """(free, total) bytes of the card. Opens it."""
        self.open()
        with self._folder.lock():
            state = self._folder.state()
            card = self._card(state)
            return self._unused(state, card), card.total - card.reserved

    def limit(self, fraction: float) -> None:
        """This process may reserve this part of the card."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: [0, 1]")
        self.fraction, self._limit = fraction, int(fraction * self.memory()[1])

    def allocate(self, nbytes: int) -> int:
        """A block for a tensor; its number."""
        self.open()
        with self._lock:
            self._last += 1
            fitting = [segment for segment in self._free if segment >= nbytes]
            if fitting:
                segment = min(fitting)
                self._free.remove(segment)
            else:
                segment = self._reserve(nbytes)
            self._blocks[self._last], self._asked[self._last] = segment, nbytes
            self.max_reserved = max(self.max_reserved, self.reserved)
            self.max_allocated = max(self.max_allocated, self.allocated)
            return self._last

    def free_block(self, block: int) -> None:
        """Its tensor is gone; the segment is kept for the next one."""
        with self._lock:
            self._free.append(self._blocks.pop(block))
            del self._asked[block]

    def empty_cache(self) -> None:
        """Give what no tensor uses back to the card."""
        with self._lock:
            self._free.clear()
        if self._is_open:
            with self._folder.lock():
                self._publish(self._card(self._folder.state()))

    def reset_peaks(self) -> None:
        """Count the peaks from now on."""
        self.max_reserved, self.max_allocated = self.reserved, self.allocated

    def launch(self, busy_s: float = 0.0) -> None:
        """Have a kernel run; what goes wrong in it is told by `synchronize`, as on a real card."""
        self.open()
        self._busy_until = max(self._busy_until, time.monotonic()) + busy_s

    def synchronize(self) -> None:
        """Until all kernels have run.

        Raises:
            AcceleratorError: one failed.
        """
        self.open()
        left = self._busy_until - time.monotonic()
        if left > 0:
            time.sleep(left)
        with self._folder.lock():
            state = self._folder.state()
            card = self._card(state)
            if not card.launch_errors:
                return
            card.launch_errors -= 1
            self._folder.write(state)
        _lost.append(card.launch_error)
        raise AcceleratorError(card.launch_error)

    def _reserve(self, nbytes: int) -> int:
        size = _segment(nbytes)
        with self._folder.lock():
            state = self._folder.state()
            card = self._card(state)
            if not self._fits(size, state, card):
                # As torch does: what no tensor uses goes first.
                self._free.clear()
                self._publish(card)
                if not self._fits(size, state, card):
                    raise OutOfMemoryError(self._complaint(nbytes, state, card))
            self._publish(card, more=size)
        return size

    def _fits(self, size: int, state: State, card: Card) -> bool:
        is_allowed = self._limit is None or self.reserved + size <= self._limit
        return is_allowed and size <= self._unused(state, card)

    def _unused(self, state: State, card: Card) -> int:
        return max(0, card.total - card.reserved - self._folder.used(state, card.uuid))

    def _publish(self, card: Card, more: int = 0) -> None:
        """What this process holds now is what the driver tells of it."""
        self._folder.hold(self.uuid, card.context + self.reserved + more)

    def _card(self, state: State) -> Card:
        card = state.find(self.uuid)
        if card is None:
            raise RuntimeError("No CUDA GPUs are available")
        return card

    def _complaint(self, nbytes: int, state: State, card: Card) -> str:
        total, free = card.total - card.reserved, self._unused(state, card)
        return (
            f"CUDA out of memory. Tried to allocate {nbytes / GIB:.2f} GiB. GPU {self.index} has a total "
            f"capacity of {total / GIB:.2f} GiB of which {free / GIB:.2f} GiB is free. "
            f"{'' if self._limit is None else f'{self._limit / GIB:.2f} GiB allowed; '}"
            f"Of the allocated memory {self.allocated / GIB:.2f} GiB is allocated by PyTorch"
        )


def _segment(nbytes: int) -> int:
    if nbytes <= MIB:
        return SMALL
    return MIDDLE if nbytes < 10 * MIB else -(-nbytes // SMALL) * SMALL
