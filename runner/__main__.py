"""Effect: the one door of all processes that are ours: puts `gpu` and `api` in reach, then hands over."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

#: Role -> module. Given by name so that nothing here imports upwards.
ROLES = {
    "front": "api.server",
    "worker": "runner.worker",
    "probe": "runner.probe",
    "writer": "runner.stores.sqlite.writer",
    "survey": "runner.coordinator.devices.scan",
}


def main() -> None:
    """Entry of `runner` and of `python -m runner`."""
    here = Path(__file__).resolve().parent
    site = here / "_site"
    sys.path.insert(0, str(site if site.is_dir() else here.parent))
    role = sys.argv[1] if len(sys.argv) > 1 else ""
    if role in ROLES and "--lifeline" in sys.argv:
        runpy.run_module(ROLES[role], run_name="__main__", alter_sys=False)
        return
    runpy.run_module("runner.cli", run_name="__main__", alter_sys=False)


if __name__ == "__main__":
    main()
