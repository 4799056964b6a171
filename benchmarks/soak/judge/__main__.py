"""Effect: `python -m benchmarks.soak.judge FILE`: hold a stored history against all rules."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.soak.judge.history import BadHistory, read_history
from benchmarks.soak.judge.verdict import judge


def main() -> int:
    """Exit code 1 when a rule is broken, 2 when the file is no history."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.judge",
        description="Reads a history that `make soak` has recorded and lists the rules that it breaks.",
    )
    parser.add_argument("file", type=Path)
    path: Path = parser.parse_args().file
    try:
        with path.open(encoding="utf-8") as lines:
            verdict = judge(read_history(lines))
    except (OSError, BadHistory) as error:
        print(f"{path} can't be judged: {error}", file=sys.stderr)
        return 2
    print(", ".join(f"{name}: {count:,}" for name, count in verdict.counts.items()))
    for words in verdict.wrong:
        print(words)
    print(f"{len(verdict.wrong)} wrong" if verdict.wrong else "nothing is wrong")
    return 1 if verdict.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
