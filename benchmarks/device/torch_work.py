"""Effect: what the measured jobs compute, in torch alone, by runner and without it."""

from __future__ import annotations

import time

import torch

MIB = 1 << 20
#: Of a small model: the number of square float32 layers and their width, 512 MiB in all.
LAYERS, WIDTH = 8, 4096
#: Each of its jobs is a wait, as for an image from the network, then passes of a batch through all layers.
WAIT_S, PASSES, BATCH = 0.015, 20, 8
#: Side of the product that jobs of a set length repeat, in float32.
SIDE = 4096


def small_model(device: str) -> list[torch.Tensor]:
    """The layers: a pass gives back what it is given."""
    return [torch.full((WIDTH, WIDTH), 1.0 / WIDTH, device=device) for _ in range(LAYERS)]


def small_job(layers: list[torch.Tensor], device: str) -> float:
    """One job of a small model; BATCH * WIDTH."""
    time.sleep(WAIT_S)
    batch = torch.ones(BATCH, WIDTH, device=device)
    for _ in range(PASSES):
        for layer in layers:
            batch = batch @ layer
    return float(batch.sum().item())


def factor(device: str) -> torch.Tensor:
    """What `products` multiplies by itself."""
    return torch.ones(SIDE, SIDE, device=device)


def products(matrix: torch.Tensor, times: int) -> None:
    """Keep the device busy; back when it is done."""
    for _ in range(times):
        matrix @ matrix
    torch.cuda.synchronize()
