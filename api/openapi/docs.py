"""Effect: the page at /docs, self-contained so that it works offline."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from starlette.responses import HTMLResponse

_FOLDER = Path(__file__).parent


class DocsPage:
    """The page, with a content security policy that allows only its own script and style.

    It contains nothing confidential: it requests all content from /openapi.json.
    """

    def __init__(self) -> None:
        style, script = (_FOLDER.joinpath(name).read_text("utf-8") for name in ("docs.css", "docs.js"))
        page = _FOLDER.joinpath("docs.html").read_text("utf-8")
        self.text = page.replace("STYLE", style, 1).replace("SCRIPT", script, 1)
        self.policy = (
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
            "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def response(self, status: int = 200, headers: dict[str, str] | None = None) -> HTMLResponse:
        """Return the page as a response with this status and these extra headers."""
        return HTMLResponse(self.text, status, {"content-security-policy": self.policy, **(headers or {})})


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
