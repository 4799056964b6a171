"""Effect: entry point of the worker process."""

from __future__ import annotations

import sys

from runner.worker.main import main

sys.exit(main())
