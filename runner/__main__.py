"""Effect: entry point of all processes: makes `gpu` and `api` importable, then runs the process's role."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

#: Role -> module; imported by name, because this module must not import higher levels.
ROLES = {
    "front": "api.server",
    "worker": "runner.worker",
    "probe": "runner.probe",
    "writer": "runner.stores.sqlite.writer",
    "validator": "api.validation.process",
    "survey": "runner.coordinator.devices.scan",
}


def main() -> None:
    """Run `runner` or `python -m runner [ROLE]`; without a role the command line."""
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
