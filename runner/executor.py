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
    executor = Executor(descriptors, Page(process.take_page()))
    try:
        executor.run()
    except BaseException as error:
        # Not to be left to the interpreter, which would wait for threads that user code has started.
        process.fail(error)


if __name__ == "__main__":
    main()
