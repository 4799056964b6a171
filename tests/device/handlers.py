"""Effect: handlers that use a GPU by torch, as users would write them."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from runner import Batch, Context, handler

Document = dict[str, Any]
MIB = 1 << 20
#: What is asked of the device at once.
BLOCK_BYTES = 128 * MIB


def block(ctx: Context, nbytes: int = BLOCK_BYTES) -> torch.Tensor:
    return torch.empty(nbytes, dtype=torch.uint8, device=ctx.device)


def wait_for(path: str, ctx: Context) -> None:
    while not os.path.exists(path):
        ctx.check_cancelled()
        time.sleep(0.005)


@handler("where", vram="2GiB")
def where(data: Document, ctx: Context) -> Document:
    """Which devices this process sees, and a sum that the first one computes."""
    ones = torch.ones(256, 256, device=ctx.device)
    return {
        "count": torch.cuda.device_count(),
        "device": ctx.device,
        "uuid": str(torch.cuda.get_device_properties(0).uuid),
        "mask": os.environ["CUDA_VISIBLE_DEVICES"],
        "sum": (ones @ ones).sum().item(),
    }


@handler("fill", vram="2GiB")
def fill(data: Document, ctx: Context) -> Document:
    """Takes memory until there is no more, and tells how much that was."""
    held: list[torch.Tensor] = []
    try:
        while len(held) * BLOCK_BYTES < data["most"]:
            held.append(block(ctx))
    except torch.cuda.OutOfMemoryError:
        return {"full": True, "held": len(held) * BLOCK_BYTES, "granted": ctx.vram_bytes}
    return {"full": False, "held": len(held) * BLOCK_BYTES, "granted": ctx.vram_bytes}


@handler("batched", vram="2GiB", batch=Batch(max=8, wait="500ms"))
def batched(data: list[Document], ctx: Context) -> list[Document]:
    """One computation for all of them."""
    product = torch.ones(len(data), 256, device=ctx.device) @ torch.ones(256, 256, device=ctx.device)
    each = product.sum().item() / len(data)
    return [{"together": len(data), "number": one["number"], "sum": each} for one in data]


@handler("need", vram="2GiB")
def need(data: Document, ctx: Context) -> Document:
    """Runs out of memory where it can't have so much."""
    held = [block(ctx) for _ in range(data["bytes"] // BLOCK_BYTES)]
    return {"held": len(held) * BLOCK_BYTES}


@handler("hold", vram="2GiB")
def hold(data: Document, ctx: Context) -> Document:
    """Holds memory until the file `gate` is there."""
    held = [block(ctx) for _ in range(data["bytes"] // BLOCK_BYTES)]
    torch.cuda.synchronize()
    ctx.progress(1, 2, pid=os.getpid())
    wait_for(data["gate"], ctx)
    return {"held": len(held) * BLOCK_BYTES, "granted": ctx.vram_bytes}


@handler("hold-too", vram="2GiB")
def hold_too(data: Document, ctx: Context) -> Document:
    """The same, of which nothing was learned."""
    return hold(data, ctx)


@handler("burn", vram="4GiB")
def burn(data: Document, ctx: Context) -> None:
    """Gives the device work for minutes at once, and waits in one C call until it is done."""
    kept = block(ctx, data["bytes"])
    factor = torch.ones(8192, 8192, device=ctx.device)
    torch.cuda.synchronize()
    ctx.progress(1, 2, pending=kept.nbytes)
    for _ in range(20_000):
        product = factor @ factor
    torch.cuda.synchronize()
    raise AssertionError(f"it was to be killed before {product.numel()} numbers were there")


@handler("model", vram="2GiB")
class Model:
    """Keeps a block that stands for its weights."""

    def load(self, ctx: Context) -> None:
        self.weights = block(ctx, 256 * MIB)
        self.jobs = 0

    def run(self, data: Document, ctx: Context) -> Document:
        self.jobs += 1
        ctx.progress(1, 2, pid=os.getpid())
        if "gate" in data:
            wait_for(data["gate"], ctx)
        return {"pid": os.getpid(), "jobs": self.jobs, "held": self.weights.nbytes}


@handler("other-model", vram="2GiB")
class OtherModel(Model):
    pass
