"""Effect: a library of which no executor may be forked: it has a thread."""

from __future__ import annotations

import threading

threading.Thread(target=threading.Event().wait, daemon=True).start()
