"""Pure: compares the handlers before and after a reload."""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from runner.handlers.spec import HandlerSpec

#: The number of names of each kind in a log line.
NAMES_SHOWN_MAX = 10


class ReloadResult(msgspec.Struct, frozen=True):
    """Names of handlers, each in one list, sorted."""

    added: list[str] = []
    #: Their code or the operator's overrides have changed, or they were broken.
    changed: list[str] = []
    removed: list[str] = []
    #: All handlers that can't be used now.
    broken: list[str] = []
    unchanged: list[str] = []
    #: Describing takes long: the result is not known yet.
    describing: bool = False

    def summary(self) -> str:
        """Summarize all but the unchanged handlers, for a log line."""
        lists = {
            "added": self.added,
            "changed": self.changed,
            "removed": self.removed,
            "broken": self.broken,
        }
        parts = [f"{kind} {_join_names(names)}" for kind, names in lists.items() if names]
        return "; ".join(parts) or "nothing has changed"


def compare_handlers(
    before: Mapping[str, HandlerSpec], after: Mapping[str, HandlerSpec], touched: Set[str]
) -> ReloadResult:
    """Compare each handler by name; `touched` handlers count as changed even if their specs are equal."""
    changes = ReloadResult([], [], sorted(before.keys() - after.keys()), [], [])
    for name in sorted(after):
        spec, old = after[name], before.get(name)
        if spec.state == "broken":
            changes.broken.append(name)
        elif old is None:
            changes.added.append(name)
        elif name in touched or spec != old:
            changes.changed.append(name)
        else:
            changes.unchanged.append(name)
    return changes


def _join_names(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN_MAX
    return ", ".join(names[:NAMES_SHOWN_MAX]) + (f" and {more} more" if more > 0 else "")
