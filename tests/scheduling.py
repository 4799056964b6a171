"""Effect: which tests pytest-xdist hands out together.

`--dist loadgroup` would do, but finds no group of a test with the pytest that is pinned.
"""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

#: Tests of these files start servers of their own: they may run apart from the others of their file.
APART = (
    "tests/benchmarks/test_run_order.py",
    "tests/device/",
    "tests/fakes/test_memory_attribution.py",
    "tests/faults/",
    "tests/runner/coordinator/test_serve_faults.py",
    "tests/runner/coordinator/test_serve_prewarm.py",
    "tests/runner/coordinator/test_serve_reload.py",
    "tests/test_docs_commands.py",
)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Whole files, whose tests share servers; one by one the tests that start their own."""

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)


def scope_of(nodeid: str) -> str:
    """Tests of one scope run in one process, in order."""
    file = nodeid.partition("::")[0]
    return nodeid if file.startswith(APART) else file
