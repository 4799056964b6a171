"""Effect: the same work in one plain process, `python -m benchmarks.device.plain`, asked line by line.

`about` gives versions and the device, `times SECONDS` how many products take that long, and `run TIMES JOBS`
the seconds that JOBS jobs take one after the other.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from benchmarks.device import torch_work

DEVICE = "cuda:0"
#: Products before anything is measured, and those whose time is taken for one.
WARM, SAMPLE = 20, 50


def main() -> None:
    """Answer until the input closes."""
    if not torch.cuda.is_available():
        sys.exit("torch can't use a GPU here: it is a build without CUDA, or its driver does not answer")
    factor = torch_work.factor(DEVICE)
    torch_work.products(factor, WARM)
    for line in sys.stdin:
        match line.split():
            case ["about"]:
                answer: object = {
                    "torch": torch.__version__,
                    "cuda": torch.version.cuda,
                    "device": torch.cuda.get_device_name(0),
                }
            case ["times", seconds]:
                began = time.perf_counter()
                torch_work.products(factor, SAMPLE)
                answer = max(1, round(float(seconds) * SAMPLE / (time.perf_counter() - began)))
            case ["run", times, jobs]:
                began = time.perf_counter()
                for _ in range(int(jobs)):
                    torch_work.products(factor, int(times))
                answer = time.perf_counter() - began
            case _:
                sys.exit(f"no such question: {line!r}")
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
