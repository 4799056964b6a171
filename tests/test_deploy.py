"""Effect: what docs/deploy hands to operators, held against the code, systemd and a real nginx."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import pytest

from runner.bounds import WAIT_S_MAX
from runner.errors import Fenced, RefusedStart
from runner.formats.units import parse_seconds
from runner.settings.sections import LimitSettings
from runner.settings.settings import SHORT_NAMES, Settings
from runner.testing import running, serving

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "docs" / "deploy"
UNIT = (DEPLOY / "runner.service").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
CADDY = (DEPLOY / "Caddyfile").read_text()
CONTAINER = (DEPLOY / "Containerfile").read_text()
HOST = "jobs.example.com"
TOKEN = "a-token-of-this-test"


def told(key: str) -> list[str]:
    """All values that the unit gives a key."""
    return re.findall(rf"^{key}=(.*)$", UNIT, re.M)


def settings_of(text: str) -> set[str]:
    names = {name.lower() for name in re.findall(r"\bRUNNER_([A-Z_]+)=", text)}
    return {SHORT_NAMES.get(name, name) for name in names}


@pytest.mark.parametrize("text", [UNIT, CONTAINER], ids=["unit", "container"])
def test_variables_name_settings_that_exist(text: str) -> None:
    assert settings_of(text)
    assert settings_of(text) <= set(Settings.model_fields)


def test_systemd_waits_longer_than_the_server_takes_to_stop() -> None:
    (stop,) = told("TimeoutStopSec")
    # After the grace there come the ladder (1.5 s), the spools and the store.
    assert parse_seconds(stop) >= Settings.model_fields["grace_s"].default + 10


def test_systemd_kills_in_order_and_for_memory_only_the_culprit() -> None:
    assert (told("KillMode"), told("OOMPolicy"), told("Delegate")) == (["mixed"], ["continue"], ["yes"])
    hidden = ["PrivateDevices", "DevicePolicy", "MemoryDenyWriteExecute", "PrivateNetwork", "ProcSubset"]
    assert not any(told(key) for key in hidden), "GPU code would not run"


def test_systemd_does_not_repeat_a_start_that_was_refused() -> None:
    (codes,) = told("RestartPreventExitStatus")
    assert set(map(int, codes.split())) == {RefusedStart.exit_code, Fenced.exit_code}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze here")
def test_systemd_understands_every_line(tmp_path: Path) -> None:
    unit = tmp_path / "runner.service"
    unit.write_text(UNIT.replace("/opt/runner/.venv/bin/runner", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30)
    assert (done.returncode, "runner.service" in done.stderr) == (0, False), done.stderr


def test_proxies_take_what_the_server_takes() -> None:
    mebibytes = LimitSettings().bulk_bytes >> 20
    assert f"client_max_body_size {mebibytes}m;" in NGINX
    assert f"max_size {mebibytes}MiB" in CADDY
    (timeout,) = re.findall(r"proxy_read_timeout (\d+)s;", NGINX)
    assert int(timeout) > WAIT_S_MAX


def test_container_copies_what_exists() -> None:
    sources = [word for line in re.findall(r"^COPY (.*) \S+$", CONTAINER, re.M) for word in line.split()]
    assert {"runner", "gpu", "api", "pyproject.toml"} <= set(sources)
    assert all((ROOT / source).exists() for source in sources)


def test_metrics_that_are_told_of_exist() -> None:
    told_of = set(re.findall(r"`(runner_[a-z_]+)", (ROOT / "docs" / "deploying.md").read_text()))
    with running() as client:
        text = httpx2.get(f"{client.url}/metrics", trust_env=False).text
    assert told_of == set(re.findall(r"^# TYPE (\w+) ", text, re.M))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A client of a server behind nginx with the configuration that we hand out, TLS included."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("no nginx and openssl here")
    folder = tmp_path_factory.mktemp("nginx")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with serving([ROOT / "examples" / "echo.py"], allow_hosts=[HOST], token=TOKEN) as server:
        nginx = subprocess.Popen(["nginx", "-c", str(configured(folder, port, server.url))])
        headers = {"Host": f"{HOST}:{port}", "Authorization": f"Bearer {TOKEN}"}
        trusted = ssl.create_default_context(cafile=str(folder / "cert.pem"))
        url = f"https://127.0.0.1:{port}"
        try:
            with httpx2.Client(
                base_url=url, headers=headers, verify=trusted, trust_env=False, timeout=30
            ) as client:
                wait_for(client)
                yield client
        finally:
            nginx.terminate()
            nginx.wait(10)


def configured(folder: Path, port: int, upstream: str) -> Path:
    """nginx.conf around ours, with the places of this test; a certificate beside it."""
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    names = f"subjectAltName=IP:127.0.0.1,DNS:{HOST}"
    request = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={HOST}",
    ]
    subprocess.run(
        [*request, "-addext", names, "-keyout", key, "-out", certificate], check=True, capture_output=True
    )
    text = NGINX
    for theirs, here in {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/certs/jobs.example.com.pem": certificate,
        "/etc/ssl/private/jobs.example.com.key": key,
        "/var/log/nginx/runner.log": str(folder / "access.log"),
        "server 127.0.0.1:8484": f"server {upstream.removeprefix('http://')}",
    }.items():
        assert theirs in text
        text = text.replace(theirs, here)
    temporary = " ".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    head = f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log; events {{}}"
    path = folder / "nginx.conf"
    path.write_text(f"{head}\nhttp {{\n{temporary}\n{text}\n}}\n")
    return path


def wait_for(client: httpx2.Client) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            assert client.get("/healthz").status_code == 200
            return
        except httpx2.TransportError:
            assert time.monotonic() < deadline, "nginx does not answer"
            time.sleep(0.05)


def test_events_come_through_nginx_as_they_happen(proxied: httpx2.Client) -> None:
    count = {"handler": "count", "input": {"to": 6, "pause_s": 0.25}}
    job = proxied.post("/v1/jobs", json=count).json()["id"]
    late_s, ids = [], []
    with proxied.stream("GET", f"/v1/jobs/{job}/events") as stream:
        for line in stream.iter_lines():
            if line.startswith("id:"):
                ids.append(int(line.removeprefix("id:")))
            if '"fraction"' in line and (at := re.search(r'"at":"([^"]+)"', line)) and ids:
                late_s.append((datetime.now(UTC) - datetime.fromisoformat(at[1])).total_seconds())
    # Held back until the end, the first would be 1.25 s late.
    assert min(late_s) < 0.2
    assert sorted(late_s)[len(late_s) // 2] < 0.5
    rest = proxied.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(ids[-3])})
    assert [int(found) for found in re.findall(r"^id: ?(\d+)$", rest.text, re.M)] == ids[-2:]
    assert proxied.get(f"/v1/jobs/{job}/events", headers={"Last-Event-ID": str(ids[-1])}).status_code == 204


def test_large_bodies_waits_and_origins_pass_nginx(proxied: httpx2.Client) -> None:
    own = {"Origin": f"https://{proxied.headers['Host']}", "Prefer": "wait=20"}
    body = {"handler": "echo", "input": {"text": "x" * (8 << 20)}}
    answer = proxied.post("/v1/jobs", json=body, headers=own)
    assert (answer.status_code, answer.json()["state"]) == (200, "succeeded")
    foreign = proxied.get("/v1/jobs", headers={"Origin": "https://elsewhere.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "wrong_origin")
    assert proxied.get("/v1/jobs", headers={"Authorization": ""}).status_code == 401
    assert proxied.get("/healthz", headers={"Host": "elsewhere.example"}).status_code == 421


def test_nginx_writes_no_query_to_its_log(
    proxied: httpx2.Client, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (log,) = {path.resolve() for path in tmp_path_factory.getbasetemp().glob("nginx*/access.log")}
    proxied.get("/v1/queues?ticket=must-stay-secret")
    deadline = time.monotonic() + 10
    # The line may come after the answer.
    while "GET /v1/queues" not in (text := log.read_text()):
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    assert "must-stay-secret" not in text
