"""The running server: jobs of several tenants."""

from __future__ import annotations

from tests.faults.server_fixture import LiveServer
from tests.runner.coordinator.server_client import post


def test_a_job_shows_its_tenant_and_is_found_by_it(server: LiveServer) -> None:
    alone = server.submit("echo", {}, tenant="acme")
    answer = server.http.post("/v1/handlers/echo/jobs", json={"input": {}, "tenant": "b.2"})
    assert answer.json()["tenant"] == "b.2"
    bulk = post(server, "/jobs/bulk", {"jobs": [{"handler": "echo", "input": 1, "tenant": "acme"}]})
    nobody = server.submit("echo")
    for job_id in (alone, nobody, answer.json()["id"]):
        server.wait_for_end(job_id)
    assert (server.job(alone)["tenant"], server.job(nobody)["tenant"]) == ("acme", None)
    found = server.http.get("/v1/jobs?tenant=acme").json()["data"]
    assert [job["id"] for job in found] == [bulk["jobs"][0]["id"], alone]
    found = server.http.get("/v1/jobs?tenant=acme&tenant=b.2&state=succeeded&limit=10").json()["data"]
    assert {job["tenant"] for job in found} == {"acme", "b.2"}
    assert server.http.post("/v1/jobs", json={"handler": "echo", "tenant": "a b"}).status_code == 422
