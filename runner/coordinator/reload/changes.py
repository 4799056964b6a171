"""Pure: what a reload has made of the handlers."""

from __future__ import annotations

from collections.abc import Mapping, Set

import msgspec

from runner.handlers.spec import HandlerSpec

#: A log line names so many of a kind.
NAMES_SHOWN_MAX = 10


class ReloadResult(msgspec.Struct, frozen=True):
    """Names of handlers, each in one list, sorted."""

    added: list[str] = []
    #: Their code, or the operator's options for them, are others than before, or they were broken.
    changed: list[str] = []
    removed: list[str] = []
    #: All that can't be used now.
    broken: list[str] = []
    unchanged: list[str] = []
    #: It takes long: what became of them is not known yet.
    describing: bool = False

    def summary(self) -> str:
        """All but the unchanged ones, for a line of the log."""
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
    """What became of each handler; `touched` are those whose files are not what they were."""
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
