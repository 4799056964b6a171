"""Pure: which modules are the policy, whose every line and branch a test must reach.

Pure modules elsewhere turn one form into another; no bound is put on their coverage.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("gpu", "runner", "api")
#: Here every pure module decides.
FOLDERS = ("gpu", "runner/coordinator")
#: Elsewhere in `runner`, the pure modules of these names do.
NAMED = {
    "runner/worker": {
        "attempts",
        "crash_report",
        "deadlines",
        "exit_status",
        "kill_ladder",
        "outbox",
        "page_figures",
        "recalls",
    },
    "runner": {"retry"},
    "runner/processes": {"pulse", "restart_backoff"},
}


def policy_modules(root: Path = ROOT) -> list[str]:
    """The paths of the policy modules relative to `root`, sorted."""
    found = {path for folder in FOLDERS for path in (root / folder).rglob("*.py")}
    for folder, names in NAMED.items():
        found |= {path for path in (root / folder).rglob("*.py") if path.stem in names}
    return sorted(str(path.relative_to(root)) for path in found if is_pure(path))


def other_modules(root: Path = ROOT) -> list[str]:
    """The paths of all other modules of the product."""
    found = {path for folder in PRODUCT for path in (root / folder).rglob("*.py")}
    return sorted({str(path.relative_to(root)) for path in found} - set(policy_modules(root)))


def is_pure(path: Path) -> bool:
    """Its docstring says so."""
    return path.name != "__init__.py" and path.read_text().startswith('"""Pure:')
