"""Effect: `python benchmarks/simulate.py`: scheduling policies side by side in virtual time."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Run by its path Python looks for modules beside it; the checkout's lie one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

    from benchmarks.simulation.command import main

    sys.exit(main(sys.argv[1:]))
