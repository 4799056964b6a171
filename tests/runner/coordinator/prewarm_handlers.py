"""Effect: handlers that are loaded ahead of their jobs; files are the gates at which they wait."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from runner import Context, handler
from runner.testing import allocate

#: A folder of the test; a file "NAME.gate" in it holds a load of NAME, "NAME.bad" makes it fail.
FOLDER = Path(os.environ.get("LOADS_FOLDER", "/nonexistent"))


def loading(name: str, bytes_: str) -> int:
    with open(FOLDER / f"{name}.loads", "a") as file:
        print(os.getpid(), file=file)
    while (FOLDER / f"{name}.gate").exists():
        time.sleep(0.003)
    if (FOLDER / f"{name}.bad").exists():
        raise RuntimeError(f"{name} has no weights")
    allocate(bytes_)
    return os.getpid()


class Loaded:
    name = ""
    bytes_ = "1GiB"

    def load(self, ctx: Context) -> None:
        self.pid = loading(self.name, self.bytes_)

    def run(self, data: Any, ctx: Context) -> int:
        ctx.progress(0, 1)
        while "gate" in data and not os.path.exists(data["gate"]):
            ctx.check_cancelled()
            time.sleep(0.003)
        return self.pid


@handler("small", vram="4GiB")
class Small(Loaded):
    name = "small"


@handler("large", vram="16GiB", keep_alive="10m")
class Large(Loaded):
    name, bytes_ = "large", "15GiB"


@handler("pinned", vram="16GiB", keep_alive=-1)
class Pinned(Loaded):
    name, bytes_ = "pinned", "15GiB"


@handler("ahead", vram="12GiB", keep_alive="100ms", preload=True)
class Ahead(Loaded):
    name, bytes_ = "ahead", "12GiB"


@handler("brief", vram="1GiB", load_timeout="300ms")
class Brief(Loaded):
    name = "brief"


@handler("models", vram="1GiB", model_by="model.name")
class Models(Loaded):
    name = "models"

    def load(self, ctx: Context) -> None:
        super().load(ctx)
        self.model = ctx.model

    def run(self, data: Any, ctx: Context) -> Any:
        return [self.model, self.pid]


@handler("gang", vram="1GiB", gpus=2)
class Gang(Loaded):
    name = "gang"


@handler("forked", gpus=0)
def forked(data: Any) -> list[int]:
    """The process, and the one that has imported the heavy module."""
    from tests.runner.worker import slow_import

    return [os.getpid(), slow_import.PID]


@handler("plain")
def plain(data: Any) -> int:
    return os.getpid()
