"""Effect: handlers that use a GPU, real or made up; servers under test are started with this file."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from runner import Context, handler
from runner.formats import units

Document = dict[str, Any]


def say(data: Document, ctx: Context) -> None:
    """Leave one line per start in the file named by the input: what happened, not what was reported."""
    if "trace" in data:
        fd = os.open(data["trace"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        device = os.environ["CUDA_VISIBLE_DEVICES"]
        os.write(fd, f"{ctx.job_id} {ctx.attempt} {os.getpid()} {device}\n".encode())
        os.close(fd)


def fill(nbytes: int | str, ctx: Context) -> torch.Tensor:
    """A tensor of so many bytes."""
    return torch.empty(units.parse_bytes(nbytes), dtype=torch.uint8, device=ctx.device)


def use(data: Document, ctx: Context) -> Document:
    """Hold `bytes` until the file `gate` is there; with `kernel`, compute something first; with `once`, hold
    them in the first attempt alone."""
    say(data, ctx)
    sizes = [] if data.get("once") and ctx.attempt > 1 else data.get("bytes", [])
    held = [fill(each, ctx) for each in sizes]
    if data.get("kernel"):
        torch.ones(1, device=ctx.device).add_(1)
        torch.cuda.synchronize()
    ctx.progress(1, 2, pid=os.getpid())
    while "gate" in data and not os.path.exists(data["gate"]):
        ctx.check_cancelled()
        time.sleep(0.005)
    return {
        "pid": os.getpid(),
        "device": os.environ["CUDA_VISIBLE_DEVICES"],
        "attempt": ctx.attempt,
        "granted": ctx.vram_bytes,
        "held": sum(each.nbytes for each in held),
    }


@handler("take", vram="4GiB")
def take(data: Document, ctx: Context) -> Document:
    return use(data, ctx)


@handler("take-much", vram="16GiB")
def take_much(data: Document, ctx: Context) -> Document:
    return use(data, ctx)


@handler("beside", gpus=0)
def beside(data: Document) -> Document:
    """Needs no GPU."""
    return data


@handler("take-some")
def take_some(data: Document, ctx: Context) -> Document:
    """Does not say how much it needs."""
    return use(data, ctx)
