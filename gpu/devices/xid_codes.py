"""Pure: what NVIDIA's Xid codes ask for: the numbers under which its driver reports a card's errors.

The actions are those of the "immediate action" of NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors),
gathered into what a scheduler can do. NVML tells a code and the card, not the process.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: ignore: nothing is to be done; app: the program at fault gets an error of its own and is recycled by that,
#: its neighbours are well; restart: programs on the card are started anew, what they had computed is not
#: trusted; drain: nothing new is started until a check passes; reset: nothing new before the card was reset;
#: lost: the card does not answer any more.
Action = Literal["ignore", "app", "restart", "drain", "reset", "lost"]


class Xid(NamedTuple):
    """What one code stands for."""

    action: Action
    words: str


_TABLE: dict[int, Xid] = {
    8: Xid("app", "the GPU stopped processing"),
    13: Xid("app", "an exception in a kernel"),
    31: Xid("app", "a memory page fault"),
    32: Xid("app", "an invalid push buffer"),
    37: Xid("ignore", "an unknown firmware method"),
    38: Xid("ignore", "a firmware watchdog"),
    **dict.fromkeys((39, 40, 41, 70, 71, 72, 75, 76, 77, 85), Xid("app", "a copy engine error")),
    43: Xid("ignore", "a channel of a program was reset"),
    44: Xid("ignore", "a fault during a context switch"),
    # The driver cleans up after a killed program with this one: our own kills cause it.
    45: Xid("ignore", "a program's channels were removed"),
    46: Xid("reset", "the GPU stopped processing"),
    48: Xid("reset", "an uncorrectable memory error"),
    54: Xid("drain", "the auxiliary power is not connected"),
    62: Xid("reset", "the power management unit halted"),
    63: Xid("ignore", "a bad memory row was marked for replacement"),
    64: Xid("reset", "a bad memory row could not be replaced"),
    66: Xid("ignore", "a firmware register violation"),
    67: Xid("ignore", "a firmware verification violation"),
    **dict.fromkeys((68, 83, 84, 88, 89, 96, 97, 98), Xid("app", "a video decoder error")),
    69: Xid("app", "a graphics engine class error"),
    74: Xid("drain", "an NVLink error"),
    79: Xid("lost", "the GPU has fallen off the bus"),
    80: Xid("app", "a push buffer with a wrong checksum"),
    92: Xid("ignore", "many corrected memory errors"),
    93: Xid("ignore", "the configuration memory was erased too often"),
    94: Xid("restart", "a memory error contained to its program"),
    95: Xid("reset", "a memory error that is not contained"),
    106: Xid("ignore", "a test message"),
    107: Xid("ignore", "a test message"),
    109: Xid("reset", "a context switch timed out"),
    110: Xid("reset", "a security fault"),
    119: Xid("reset", "the GPU's system processor does not answer"),
    120: Xid("reset", "an error of the GPU's system processor"),
    121: Xid("ignore", "a corrected chip-to-chip link error"),
    136: Xid("reset", "link training failed"),
    137: Xid("ignore", "an NVLink access error"),
    140: Xid("reset", "an uncorrectable memory error"),
    141: Xid("ignore", "a fast path error"),
    143: Xid("reset", "the GPU could not be initialised"),
    # Says only that the driver now asks for some recovery; the code before it says for which.
    154: Xid("drain", "the driver asks for a recovery"),
    155: Xid("reset", "an NVLink error found by software"),
    156: Xid("reset", "a resource was retired"),
    157: Xid("ignore", "a resource could not be retired"),
    158: Xid("reset", "a fatal timeout"),
}


def of(code: int) -> Xid:
    """What a code asks for. One that is not known is taken seriously."""
    return _TABLE.get(code, Xid("drain", "an error of no known kind"))


def told(code: int) -> str:
    """A code in words, for people."""
    return f"Xid {code}: {of(code).words}"
