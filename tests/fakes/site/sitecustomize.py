"""Effect: has a server under test run on cards that are made up (see `tests/fakes/fake_gpus.py`).

Python imports a module of this name by itself in every process whose path holds this folder. Whoever
imports `pynvml` then gets the real one with another driver under it; `torch` is found in this folder before
any other.
"""

from __future__ import annotations

import importlib.machinery
import os
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType

FOLDER = os.environ.get("FAKE_GPUS", "")


class Finder(MetaPathFinder):
    """Puts the driver under `pynvml` as soon as that is loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "pynvml":
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.loader is None:
            return None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            from tests.fakes import fake_gpus, fake_nvml

            load(module)
            fake_nvml.attach(module, fake_gpus.Folder(Path(FOLDER)))

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if FOLDER:
    sys.meta_path.insert(0, Finder())
