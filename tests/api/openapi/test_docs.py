"""Effect: the page at /docs, as text and, where there is a browser, as it is seen."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx2
import pytest

from tests.api.fake_coordinator import RunningFront, running_front

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGE = {"accept": "text/html,*/*;q=0.8"}


def test_the_page_names_no_other_server(http: httpx2.Client) -> None:
    answer = http.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "://" not in answer.text and "@import" not in answer.text
    assert re.findall(r"(?:src|href|action)=\"([^\"]*)\"", answer.text) == ["data:,", "/openapi.json"]


def test_the_policy_lets_the_page_run_itself_and_nothing_else(http: httpx2.Client) -> None:
    answer = http.get("/docs")
    policy = answer.headers["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("frame-ancestors") == "'none'"
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{digest}'"
    assert rules == {"connect-src": "'self'", "img-src": "data:", "form-action": "'none'"}


def test_a_browser_without_the_token_gets_the_page_that_asks_for_it() -> None:
    with running_front(token="secret") as front, httpx2.Client(base_url=front.url) as http:
        page = http.get("/docs", headers=PAGE)
        assert (page.status_code, page.headers["www-authenticate"]) == (401, "Bearer")
        assert 'id="token"' in page.text and "script-src" in page.headers["content-security-policy"]
        for path, headers in (("/docs", {}), ("/openapi.json", PAGE), ("/v1/jobs", PAGE)):
            refusal = http.get(path, headers=headers)
            assert (refusal.status_code, refusal.json()["code"]) == (401, "unauthorized")
        assert http.get("/docs", headers={"authorization": "Bearer secret"}).status_code == 200


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium here")
def test_the_page_shows_every_route(http: httpx2.Client, front: RunningFront, tmp_path: Path) -> None:
    assert BROWSER is not None
    flags = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--no-first-run", "--virtual-time-budget=5000", "--dump-dom",
    )  # fmt: skip
    command = [BROWSER, *flags, f"--user-data-dir={tmp_path}", f"{front.url}/docs#stream_job"]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env={**os.environ, "NO_PROXY": "*"}
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    seen = re.findall(r'<summary><span class="method (\w+)">\w+</span><code>([^<]+)</code>', ran.stdout)
    paths = http.get("/openapi.json").json()["paths"]
    assert sorted(seen) == sorted((method, path) for path, methods in paths.items() for method in methods)
    assert "/v1/handlers/paint/jobs" in paths
    (opened,) = re.findall(r'<details class="operation" id="stream_job".*?</form>', ran.stdout, re.DOTALL)
    for word in ("Last-Event-ID", "ticket", "text/event-stream", "curl -sN '"):
        assert word in html.unescape(opened)
