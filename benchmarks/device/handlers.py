"""Effect: the handlers that are measured on a GPU; the server under test is started with this file."""

from __future__ import annotations

import fcntl
from typing import Any

import torch

from benchmarks.device import torch_work
from runner import Context, handler

Document = dict[str, Any]


class _Small:
    """A model that leaves most of a device to others. Of those that are packed each lives once: loading more
    of them would be measured too."""

    def load(self, ctx: Context) -> None:
        self.layers = torch_work.small_model(ctx.device)

    def run(self, data: Document, ctx: Context) -> float:
        """With `lock`, no two at a time of those that name the same file."""
        if "lock" not in data:
            return torch_work.small_job(self.layers, ctx.device)
        with open(data["lock"], "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return torch_work.small_job(self.layers, ctx.device)


@handler("small-0", vram="2GiB", concurrency=1)
class Small0(_Small):
    pass


@handler("small-1", vram="2GiB", concurrency=1)
class Small1(_Small):
    pass


@handler("small-2", vram="2GiB", concurrency=1)
class Small2(_Small):
    pass


@handler("small-3", vram="2GiB", concurrency=1)
class Small3(_Small):
    pass


@handler("cold", vram="2GiB", keep_alive="0s")
class Cold(_Small):
    """Starts a fresh executor for each job."""


@handler("products", vram="2GiB")
class Products:
    def load(self, ctx: Context) -> None:
        self.factor = torch_work.factor(ctx.device)

    def run(self, data: Document, ctx: Context) -> None:
        torch_work.products(self.factor, data["times"])


@handler("burn", vram="6GiB")
def burn(data: Document, ctx: Context) -> None:
    """Holds memory and computes until it is killed."""
    held = torch.empty(data["bytes"], dtype=torch.uint8, device=ctx.device)
    factor = torch_work.factor(ctx.device)
    torch.cuda.synchronize()
    ctx.progress(1, 2, pending=held.nbytes)
    while True:
        torch_work.products(factor, 1000)
