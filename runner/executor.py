"""Effect: entry of the process that runs a handler's code (`python -P -m runner.executor`)."""

from __future__ import annotations

from runner.execution import process
from runner.execution.executor import Executor
from runner.execution.page import Page


def main() -> None:
    """Become an executor; does not return."""
    process.bind_to_parent()
    process.settle_signals()
    descriptors = process.take_descriptors()
    Executor(descriptors, Page(process.take_page())).run()


if __name__ == "__main__":
    main()
