"""The OpenAPI document is complete, sound and true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, OpenAPIV32SpecValidator

from api.http.problems import MEDIA_TYPE
from runner.jobs.event import EVENT_TYPES

Json = dict[str, Any]


@pytest.fixture
def document(http: httpx2.Client) -> Json:
    found: Json = http.get("/openapi.json").json()
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def resolve(document: Json, reference: str) -> Any:
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_every_reference_leads_somewhere(document: Json) -> None:
    for reference in references(document):
        assert resolve(document, reference) is not None


def test_every_operation_has_a_name_of_its_own_a_summary_and_problems(document: Json) -> None:
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(names) == len(set(names))
    for path, _, operation in operations(document):
        assert operation["summary"], path
        for status in ("401", "403", "421", "422", "500", "503"):
            assert list(operation["responses"][status]["content"]) == [MEDIA_TYPE], path


def test_every_path_parameter_is_described(document: Json) -> None:
    for path, _, operation in operations(document):
        named = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
        assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path


def test_what_is_described_is_there_and_nothing_else(http: httpx2.Client, document: Json) -> None:
    for path, methods in document["paths"].items():
        real = path.replace("{job_id}", "0" * 36).replace("{name}", "echo").replace("{file}", "x")
        answer = http.request("PROPFIND", real)
        assert answer.status_code == 405, path
        allowed = {method.lower() for method in answer.headers["allow"].split(", ")} - {"head"}
        assert allowed >= set(methods), path


def test_a_handler_has_a_typed_path(http: httpx2.Client, document: Json) -> None:
    operation = document["paths"]["/v1/handlers/paint/jobs"]["post"]
    body = resolve(document, operation["requestBody"]["content"]["application/json"]["schema"]["$ref"])
    assert body["additionalProperties"] is False and "priority" in body["properties"]
    input = resolve(document, body["properties"]["input"]["$ref"])
    assert input["required"] == ["text"]
    assert resolve(document, input["properties"]["style"]["$ref"])["properties"] == {
        "name": {"type": "string"}
    }
    assert "/v1/handlers/bad/jobs" not in document["paths"]


def test_answers_are_as_described(http: httpx2.Client, document: Json) -> None:
    def fits(name: str, value: Any) -> bool:
        schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
        return jsonschema_rs.validator_for(schema).is_valid(value)

    assert fits("Problem", http.get("/none").json())
    assert fits("Problem", http.post("/v1/jobs", json={}).json())
    bulk = http.post("/v1/jobs/bulk", json={"jobs": [{"handler": "echo"}, {"handler": "none"}]})
    assert fits("BulkAnswer", bulk.json())
    assert fits("Health", http.get("/healthz").json())
    assert fits("JobRequest", {"handler": "echo", "backoff": [1, 2]})
    assert not fits("JobRequest", {"handler": "echo", "unique": {}})


def test_the_stream_is_described_as_one(document: Json) -> None:
    responses = document["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]
    assert list(responses["200"]["content"]) == ["text/event-stream"] and "204" in responses


@pytest.mark.parametrize(
    ("version", "validator"), [("3.1", OpenAPIV31SpecValidator), ("3.2", OpenAPIV32SpecValidator)]
)
def test_either_version_is_valid(http: httpx2.Client, version: str, validator: Any) -> None:
    found = http.get("/openapi.json", params={"version": version}).json()
    assert found["openapi"] == f"{version}.0"
    assert [error.message for error in validator(found).iter_errors()] == []


def test_the_default_is_the_version_that_generators_read(http: httpx2.Client, document: Json) -> None:
    assert document == http.get("/openapi.json?version=3.1").json()
    assert document["openapi"] == "3.1.0" and "itemSchema" not in str(document)
    refused = http.get("/openapi.json?version=2.0")
    assert refused.status_code == 422 and "3.1, 3.2" in refused.text


def test_a_stream_is_described_event_by_event(http: httpx2.Client, document: Json) -> None:
    newer = http.get("/openapi.json?version=3.2").json()
    media = newer["paths"]["/v1/jobs/{job_id}/events"]["get"]["responses"]["200"]["content"]
    items = {
        one["properties"]["event"]["const"]: one for one in media["text/event-stream"]["itemSchema"]["oneOf"]
    }
    assert {*EVENT_TYPES, "snapshot", "gap", "waiting"} == {*items}
    for event, item in items.items():
        model = item["properties"]["data"]["contentSchema"]["$ref"].rpartition("/")[2]
        # Both versions have the models: generators that do not know streams make types of them.
        assert model in document["components"]["schemas"]
        assert ("id" in item["required"]) == (event in EVENT_TYPES), event
