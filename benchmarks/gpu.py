"""Effect: `python benchmarks/gpu.py`: what jobs on one NVIDIA GPU gain and lose by being run by runner."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run by its path Python looks for modules beside it; the checkout's lie one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from benchmarks.device.command import main

    sys.exit(main(sys.argv[1:]))
