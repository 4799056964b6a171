"""Pure: the OpenAPI document, made of the route table, the models and the handlers' own schemas."""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pydantic.json_schema import models_json_schema

from api.coordinator.handler_catalog import HandlerCatalog
from api.http.problems import MEDIA_TYPE
from api.openapi import schema
from api.openapi.route import BODY, COMMON, JSON, Parameter, Route
from runner.handlers.spec import HandlerSpec

_REF = "#/components/schemas/"
_PATH_PARAMETER = re.compile(r"{(\w+)}")
_PATTERNS = {"job_id": r"^[0-9a-f-]{36}$", "name": r"^[A-Za-z0-9_.-]{1,100}$"}

Json = dict[str, Any]


class OpenApi:
    """The document of a table of routes; kept as text until the handlers change."""

    def __init__(self, routes: Callable[[], Sequence[Route]], version: str, *, token: bool) -> None:
        self._routes = routes
        self._version = version
        self._token = token
        self._text = b""
        self._generation = -1

    def text(self, catalog: HandlerCatalog) -> bytes:
        """The document as JSON text."""
        if self._generation != catalog.generation:
            self._generation = catalog.generation
            self._text = msgspec.json.encode(self.document(catalog.specs()))
        return self._text

    def document(self, specs: list[HandlerSpec]) -> Json:
        """The document with a typed path for each of these handlers."""
        _, definitions = models_json_schema(
            [(model, "validation") for model in schema.MODELS], ref_template=_REF + "{model}"
        )
        components: Json = dict(definitions["$defs"])
        paths: Json = {}
        for route in self._routes():
            operation = _operation(route)
            if self._token and route.is_stream:
                operation["security"] = [{"token": []}, {"ticket": []}]
            paths.setdefault(route.path, {})[route.method.lower()] = operation
            if route.name == "submit_to_handler":
                for spec in specs:
                    if spec.state == "ok":
                        _add_handler(paths, components, route, spec)
        document: Json = {
            "openapi": "3.1.0",
            "info": {"title": "runner", "version": self._version},
            "paths": paths,
            "components": {"schemas": components},
        }
        if self._token:
            document["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            }
            document["security"] = [{"token": []}]
        return document


def _operation(route: Route) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": (route.endpoint.__doc__ or "").split("\n")[0],
        "tags": [route.tag],
        "responses": {
            **{str(status): _answer(*answer) for status, answer in route.answers.items()},
            **_problems(route),
        },
    }
    parameters = [_path_parameter(name) for name in _PATH_PARAMETER.findall(route.path)]
    parameters += [_parameter(parameter) for parameter in route.parameters]
    if parameters:
        operation["parameters"] = parameters
    if route.body:
        content = {media: {"schema": _schema(model)} for media, model in route.body.items()}
        operation["requestBody"] = {"required": route.body_required, "content": content}
    if route.path == "/healthz":
        operation["security"] = []
    return operation


def _problems(route: Route) -> Json:
    statuses = sorted({*route.problems, *COMMON, *(BODY if route.method != "GET" else ())})
    content = {MEDIA_TYPE: {"schema": _schema("Problem")}}
    return {
        str(status): {"description": http.HTTPStatus(status).phrase, "content": content}
        for status in statuses
        if status not in route.answers
    }


def _answer(media_type: str | None, model: str | None, description: str) -> Json:
    answer: Json = {"description": description}
    if media_type is not None:
        answer["content"] = {media_type: {"schema": _schema(model)}}
    return answer


def _schema(model: str | None) -> Json:
    return {} if model is None else {"$ref": _REF + model}


def _path_parameter(name: str) -> Json:
    pattern = _PATTERNS.get(name)
    kind: Json = {"type": "string"} if pattern is None else {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": kind}


def _parameter(parameter: Parameter) -> Json:
    shown: Json = {"name": parameter.name, "in": parameter.where, "schema": parameter.schema}
    if parameter.description:
        shown["description"] = parameter.description
    return shown


def _add_handler(paths: Json, components: Json, route: Route, spec: HandlerSpec) -> None:
    """The handler's own path, with its input and output types."""
    given = _adopt(components, f"{spec.name}.input", msgspec.json.decode(spec.input_schema))
    made = _adopt(components, f"{spec.name}.output", msgspec.json.decode(spec.output_schema))
    options = components["HandlerJobRequest"]
    components[f"{spec.name}.request"] = {
        **options,
        "title": f"{spec.name}.request",
        "properties": {**options["properties"], "input": given},
    }
    components[f"{spec.name}.job"] = {
        "allOf": [
            _schema("Job"),
            {"type": "object", "properties": {"output": {"anyOf": [made, {"type": "null"}]}}},
        ]
    }
    operation = _operation(route)
    operation["operationId"] = f"submit_{spec.name}"
    operation["parameters"] = [one for one in operation["parameters"] if one["in"] != "path"]
    operation["requestBody"]["content"][JSON]["schema"] = _schema(f"{spec.name}.request")
    if spec.description:
        operation["description"] = spec.description
    for status in ("200", "202"):
        operation["responses"][status]["content"][JSON]["schema"] = _schema(f"{spec.name}.job")
    paths[route.path.replace("{name}", spec.name)] = {"post": operation}


def _adopt(components: Json, name: str, found: Any) -> Any:
    """Move a schema under the components, its definitions beside it, and give the reference to it."""
    if not isinstance(found, dict):
        return {}
    definitions = found.get("$defs", {})
    for key, definition in definitions.items():
        components[f"{name}.{_safe(key)}"] = _moved(definition, name)
    components[name] = _moved({key: value for key, value in found.items() if key != "$defs"}, name)
    return _schema(name)


def _moved(value: Any, name: str) -> Any:
    """The schema with its local references turned to where `_adopt` put their targets."""
    if isinstance(value, list):
        return [_moved(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _moved(item, name) for key, item in value.items()}
    ref = moved.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/"):
        first, _, rest = ref.removeprefix("#/$defs/").partition("/")
        moved["$ref"] = f"{_REF}{name}.{_safe(first)}" + (f"/{rest}" if rest else "")
    elif ref == "#":
        moved["$ref"] = _REF + name
    return moved


def _safe(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", key)
