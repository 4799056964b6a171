"""Pure: the names under which the store keeps values that are not jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

#: Measured overhead of CUDA contexts, a JSON object.
CONTEXT_OVERHEAD = "learned/contexts"
#: Prefix; `HANDLER/MODEL` follows.
LEARNED_MODELS = "learned/models/"
#: One peak for each handler, as an older version stored them.
LEARNED_PEAKS = "learned/peaks"
#: Prefix; the fingerprint of a source follows.
DESCRIPTIONS = "describe/"
#: Prefix; `KIND/NAME` follows.
USAGE = "spent/"
USAGE_SINCE = f"{USAGE}since"
#: Prefixes; the UUID of a device follows.
DEVICE_DRAINED = "device/drained/"
DEVICE_MAX_EXECUTORS = "device/max_executors/"

_QUEUE, _PAUSED = "queue/", "/paused"


def queue_paused(queue: str) -> str:
    """The name of the value that exists while a queue is paused."""
    return f"{_QUEUE}{queue}{_PAUSED}"


def paused_queues(names: Iterable[str]) -> Iterator[str]:
    """The queues that are paused according to the names of all values."""
    for name in names:
        if name.startswith(_QUEUE) and name.endswith(_PAUSED):
            yield name[len(_QUEUE) : -len(_PAUSED)]
