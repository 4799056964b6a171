"""Pure: the handlers of all sources by name, and the handling of duplicate names."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from runner.errors import RefusedStart
from runner.handlers.spec import HandlerSpec


class HandlerTable:
    """The handlers of all sources by name; `specs` holds those added so far."""

    def __init__(self) -> None:
        self.specs: dict[str, HandlerSpec] = {}
        self._titles: dict[str, str] = {}

    def add(self, title: str, specs: Iterable[HandlerSpec]) -> None:
        """Add the handlers of a source; `title` is the operator's name for it, used in errors.

        A broken placeholder never conflicts: it gives way to a usable handler of the same name.

        Raises:
            RefusedStart: two usable handlers have the same name; the text names both sources.
        """
        for spec in specs:
            other = self.specs.get(spec.name)
            if other is None:
                self.specs[spec.name] = spec
                self._titles[spec.name] = title
            elif spec.state == other.state == "ok":
                if not _is_same(spec, other):
                    raise RefusedStart(
                        f"two handlers are called {spec.name!r}: "
                        f"{self._titles[spec.name]} ({_location(other)}) and {title} ({_location(spec)})"
                    )
            else:
                self._add_duplicate(spec, other, title)

    def _add_duplicate(self, spec: HandlerSpec, other: HandlerSpec, title: str) -> None:
        """Give the name to the usable one of two handlers; list the broken one as `NAME-2` or so."""
        good, bad = (spec, other) if spec.state == "ok" else (other, spec)
        self.specs[spec.name] = good
        number = 2
        while f"{spec.name}-{number}" in self.specs:
            number += 1
        name = f"{spec.name}-{number}"
        self.specs[name] = msgspec.structs.replace(bad, name=name)
        self._titles[name] = title if bad is spec else self._titles[spec.name]
        if good is spec:
            self._titles[spec.name] = title


def _is_same(one: HandlerSpec, other: HandlerSpec) -> bool:
    """Return whether both are the same object, found through two sources."""
    a, b = one.source, other.source
    return (a.kind, a.target, a.attr) == (b.kind, b.target, b.attr)


def _location(spec: HandlerSpec) -> str:
    """Return the source file or module and the attribute of a handler."""
    return f"{spec.source.target}:{spec.source.attr}"
