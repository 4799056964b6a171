"""Pure: a bound on the values of a metric's label, so that many queues or tenants keep a scrape small."""

from __future__ import annotations

#: Values of a label that are shown by name.
LABELS_MAX = 200
#: The label of all others together. No queue, tenant or handler can have this name.
OTHERS = "(others)"


class LabelBound:
    """The values of one label in one scrape: the first ones by name, the others as `OTHERS`."""

    def __init__(self, labels_max: int = LABELS_MAX) -> None:
        """Show `labels_max` values by name."""
        self._labels_max = labels_max
        self._named: set[str] = set()

    def label(self, name: str) -> str:
        """Return the label under which the figures of a name are summed."""
        if name in self._named:
            return name
        if len(self._named) >= self._labels_max:
            return OTHERS
        self._named.add(name)
        return name
