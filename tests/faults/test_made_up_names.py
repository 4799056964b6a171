"""Effect: a client who makes up the names of queues, tenants and models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutate import mutated, removed
from tests.faults.server_fixture import ServerFixture

LIMITS = {"RUNNER_LIMITS__QUEUES": "3", "RUNNER_LIMITS__TENANTS": "2"}


def check_names(server_fixture: ServerFixture) -> None:
    """Names beyond the limits are refused, also after a restart; known names go on being served."""
    server = server_fixture.start(env=LIMITS)
    later = {"delay_s": 3600}
    for name in "ab":
        server.submit("echo", queue=name, tenant=name, **later)
    server.submit("echo", queue="c", tenant="a", **later)
    for is_restarted in (False, True):
        if is_restarted:
            server_fixture.kill(server)
            server = server_fixture.start(env=LIMITS)
        for beyond, limit in (({"queue": "d"}, "queues"), ({"queue": "a", "tenant": "d"}, "tenants")):
            body = {"handler": "echo", "input": {}, **later, **beyond}
            refused = server.http.post("/v1/jobs", json=body)
            assert (refused.status_code, refused.json().get("code")) == (429, "too_many_names")
            assert refused.json()["limit"] == limit and int(refused.headers["Retry-After"]) > 0
        server.submit("echo", queue="a", tenant="b", **later)
        for name in ("x", "y", "z"):
            assert server.http.put(f"/v1/queues/{name}", json={"paused": True}).status_code == 200
        assert server.http.put("/v1/queues/w", json={"paused": True}).json().get("code") == "too_many_names"


@pytest.mark.slow
def test_names_beyond_the_limits_are_refused(server_fixture: ServerFixture) -> None:
    check_names(server_fixture)


@pytest.mark.slow
def test_without_their_guard_any_name_would_be_taken(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [removed("name-limits")]))
    try:
        with pytest.raises(AssertionError):
            check_names(server_fixture)
    finally:
        server_fixture.close()
