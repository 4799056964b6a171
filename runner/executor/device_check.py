"""Effect: the process that checks a device: opens a context, allocates, computes and exits.

It starts with the device mask of an executor and prints one line. Exit status 0: the device works;
1: it does not; 3: it can't be checked, because torch is missing or has no CUDA.
"""

from __future__ import annotations

import signal
import sys

#: Longest run of the check in seconds; its parent waits no longer, and an orphan must end by itself.
LIMIT_S = 60
#: Exit statuses.
WORKS, FAILS, CANNOT_TELL = 0, 1, 3
#: Elements of the tensor that is summed: 4 MiB of float32.
_ELEMENTS = 1 << 20


def main() -> int:
    """Check the first visible device; return the exit status and print one line that gives the reason."""
    signal.alarm(LIMIT_S)
    try:
        import torch
    except ImportError:
        print("torch is not installed")
        return CANNOT_TELL
    if torch.version.cuda is None:
        print("torch is built without CUDA")
        return CANNOT_TELL
    try:
        found = float((torch.ones(_ELEMENTS, device="cuda:0") * 2).sum().item())
        torch.cuda.synchronize()
    except Exception as error:
        if any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
            # A full device that reports the shortage is healthy.
            print("it works, and is full")
            return WORKS
        print(f"{type(error).__name__}: {str(error)[:500]}".replace("\n", " "))
        return FAILS
    if found != 2 * _ELEMENTS:
        print(f"it computes {found:g} where {2 * _ELEMENTS} is right")
        return FAILS
    print("it works")
    return WORKS


if __name__ == "__main__":
    sys.exit(main())
