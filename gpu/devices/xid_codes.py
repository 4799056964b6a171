"""Pure: the meaning of NVIDIA's Xid codes, the numbers under which its driver reports GPU errors.

The actions are those of the "immediate action" of NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors),
reduced to what a scheduler can do. NVML reports a code and the GPU, not the process.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

#: ignore: no action; app: the program at fault gets an error of its own and is recycled for it, its
#: neighbours are unaffected; restart: programs on the GPU are restarted, and their results are not trusted;
#: drain: nothing new starts until a check passes; reset: nothing new starts before the GPU was reset; lost:
#: the GPU no longer answers.
XidAction = Literal["ignore", "app", "restart", "drain", "reset", "lost"]


class XidMeaning(NamedTuple):
    """The meaning of one code."""

    #: What a scheduler does about it.
    action: XidAction
    #: For people, as the end of a sentence.
    description: str


#: The codes of NVIDIA's catalogue that concern data-centre and consumer GPUs.
_TABLE: dict[int, XidMeaning] = {
    8: XidMeaning("app", "the GPU stopped processing"),
    13: XidMeaning("app", "an exception in a kernel"),
    31: XidMeaning("app", "a memory page fault"),
    32: XidMeaning("app", "an invalid push buffer"),
    37: XidMeaning("ignore", "an unknown firmware method"),
    38: XidMeaning("ignore", "a firmware watchdog"),
    **dict.fromkeys((39, 40, 41, 70, 71, 72, 75, 76, 77, 85), XidMeaning("app", "a copy engine error")),
    43: XidMeaning("ignore", "a channel of a program was reset"),
    44: XidMeaning("ignore", "a fault during a context switch"),
    # The driver reports this when it cleans up after a killed program: our own kills cause it.
    45: XidMeaning("ignore", "a program's channels were removed"),
    46: XidMeaning("reset", "the GPU stopped processing"),
    48: XidMeaning("reset", "an uncorrectable memory error"),
    54: XidMeaning("drain", "the auxiliary power is not connected"),
    62: XidMeaning("reset", "the power management unit halted"),
    63: XidMeaning("ignore", "a bad memory row was marked for replacement"),
    64: XidMeaning("reset", "a bad memory row could not be replaced"),
    66: XidMeaning("ignore", "a firmware register violation"),
    67: XidMeaning("ignore", "a firmware verification violation"),
    **dict.fromkeys((68, 83, 84, 88, 89, 96, 97, 98), XidMeaning("app", "a video decoder error")),
    69: XidMeaning("app", "a graphics engine class error"),
    74: XidMeaning("drain", "an NVLink error"),
    79: XidMeaning("lost", "the GPU has fallen off the bus"),
    80: XidMeaning("app", "a push buffer with a wrong checksum"),
    92: XidMeaning("ignore", "many corrected memory errors"),
    93: XidMeaning("ignore", "the configuration memory was erased too often"),
    94: XidMeaning("restart", "a memory error contained to its program"),
    95: XidMeaning("reset", "a memory error that is not contained"),
    106: XidMeaning("ignore", "a test message"),
    107: XidMeaning("ignore", "a test message"),
    109: XidMeaning("reset", "a context switch timed out"),
    110: XidMeaning("reset", "a security fault"),
    119: XidMeaning("reset", "the GPU's system processor does not answer"),
    120: XidMeaning("reset", "an error of the GPU's system processor"),
    121: XidMeaning("ignore", "a corrected chip-to-chip link error"),
    136: XidMeaning("reset", "link training failed"),
    137: XidMeaning("ignore", "an NVLink access error"),
    140: XidMeaning("reset", "an uncorrectable memory error"),
    141: XidMeaning("ignore", "a fast path error"),
    143: XidMeaning("reset", "the GPU could not be initialised"),
    # Says only that the driver now asks for some recovery; the code before it says which.
    154: XidMeaning("drain", "the driver asks for a recovery"),
    155: XidMeaning("reset", "an NVLink error found by software"),
    156: XidMeaning("reset", "a resource was retired"),
    157: XidMeaning("ignore", "a resource could not be retired"),
    158: XidMeaning("reset", "a fatal timeout"),
}


def lookup(code: int) -> XidMeaning:
    """Return the meaning of a code. An unknown code drains the device: a check then decides."""
    return _TABLE.get(code, XidMeaning("drain", "an error of no known kind"))


def describe(code: int) -> str:
    """Describe a code in plain text."""
    return f"Xid {code}: {lookup(code).description}"
