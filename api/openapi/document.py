"""Pure: builds the OpenAPI document from the route table, the models and the handlers' own schemas."""

from __future__ import annotations

import http
import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from pydantic.json_schema import models_json_schema

from api.coordinator.handler_catalog import HandlerCatalog
from api.http.problems import MEDIA_TYPE
from api.openapi import event_schema, schema
from api.openapi.route import BODY_PROBLEMS, COMMON_PROBLEMS, EVENTS, JSON, Parameter, RouteSpec
from runner.handlers.spec import HandlerSpec

_REF = "#/components/schemas/"
_PATH_PARAMETER = re.compile(r"{(\w+)}")
_PATTERNS = {"job_id": r"^[0-9a-f-]{36}$", "name": r"^[A-Za-z0-9_.-]{1,100}$"}

Json = dict[str, Any]

#: Versions of OpenAPI that the document is available in; the first is the default.
VERSIONS = ("3.1", "3.2")


class OpenApiDocument:
    """The OpenAPI document of a route table, in either version; cached as text until the handlers change."""

    def __init__(self, routes: Callable[[], Sequence[RouteSpec]], version: str, *, needs_token: bool) -> None:
        self._routes = routes
        self._version = version
        self._needs_token = needs_token
        #: Version -> text, of the handlers of `_generation`.
        self._texts: dict[str, bytes] = {}
        self._generation = -1

    def json_text(self, catalog: HandlerCatalog, version: str = VERSIONS[0]) -> bytes:
        """Return the document as JSON text (UTF-8), with the handlers of the catalog.

        `version` is one of `VERSIONS`; only the later one describes the items of streams.
        """
        if self._generation != catalog.generation:
            self._generation = catalog.generation
            self._texts = {}
        if version not in self._texts:
            self._texts[version] = msgspec.json.encode(self.build(catalog.specs(), version))
        return self._texts[version]

    def build(self, specs: list[HandlerSpec], version: str = VERSIONS[0]) -> Json:
        """Return the document in a version of `VERSIONS`, with a typed path for each of these handlers."""
        models = (*schema.MODELS, *event_schema.MODELS)
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=_REF + "{model}"
        )
        components: Json = dict(definitions["$defs"])
        paths: Json = {}
        for route in self._routes():
            operation = _operation(route)
            if route.is_stream:
                stream = event_schema.stream_media_type(_REF, has_item_schema=version != VERSIONS[0])
                operation["responses"]["200"]["content"] = {EVENTS: stream}
            if self._needs_token and route.is_stream:
                operation["security"] = [{"token": []}, {"ticket": []}]
            paths.setdefault(route.path, {})[route.method.lower()] = operation
            if route.name == "submit_to_handler":
                for spec in specs:
                    if spec.state == "ok":
                        _add_handler(paths, components, route, spec)
        built: Json = {
            "openapi": f"{version}.0",
            "info": {"title": "runner", "version": self._version},
            "paths": paths,
            "components": {"schemas": components},
        }
        if self._needs_token:
            built["components"]["securitySchemes"] = {
                "token": {"type": "http", "scheme": "bearer"},
                "ticket": {"type": "apiKey", "in": "query", "name": "ticket"},
            }
            built["security"] = [{"token": []}]
        return built


def _operation(route: RouteSpec) -> Json:
    operation: Json = {
        "operationId": route.name,
        "summary": (route.endpoint.__doc__ or "").split("\n")[0],
        "tags": [route.tag],
        "responses": {
            **{str(status): _response(*answer) for status, answer in route.responses.items()},
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


def _problems(route: RouteSpec) -> Json:
    statuses = sorted({*route.problems, *COMMON_PROBLEMS, *(BODY_PROBLEMS if route.method != "GET" else ())})
    content = {MEDIA_TYPE: {"schema": _schema("Problem")}}
    return {
        str(status): {"description": http.HTTPStatus(status).phrase, "content": content}
        for status in statuses
        if status not in route.responses
    }


def _response(media_type: str | None, model: str | None, description: str) -> Json:
    response: Json = {"description": description}
    if media_type is not None:
        response["content"] = {media_type: {"schema": _schema(model)}}
    return response


def _schema(model: str | None) -> Json:
    return {} if model is None else {"$ref": _REF + model}


def _path_parameter(name: str) -> Json:
    pattern = _PATTERNS.get(name)
    kind: Json = {"type": "string"} if pattern is None else {"type": "string", "pattern": pattern}
    return {"name": name, "in": "path", "required": True, "schema": kind}


def _parameter(parameter: Parameter) -> Json:
    shown: Json = {"name": parameter.name, "in": parameter.location, "schema": parameter.schema}
    if parameter.description:
        shown["description"] = parameter.description
    return shown


def _add_handler(paths: Json, components: Json, route: RouteSpec, spec: HandlerSpec) -> None:
    """Add the handler's own submit path, with its input and output types."""
    input_schema = _add_schema(components, f"{spec.name}.input", msgspec.json.decode(spec.input_schema))
    output_schema = _add_schema(components, f"{spec.name}.output", msgspec.json.decode(spec.output_schema))
    options = components["HandlerJobRequest"]
    components[f"{spec.name}.request"] = {
        **options,
        "title": f"{spec.name}.request",
        "properties": {**options["properties"], "input": input_schema},
    }
    components[f"{spec.name}.job"] = {
        "allOf": [
            _schema("Job"),
            {"type": "object", "properties": {"output": {"anyOf": [output_schema, {"type": "null"}]}}},
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


def _add_schema(components: Json, name: str, found: Any) -> Any:
    """Move a schema and its definitions to the components; return a reference to it."""
    if not isinstance(found, dict):
        return {}
    definitions = found.get("$defs", {})
    for key, definition in definitions.items():
        components[f"{name}.{_component_name(key)}"] = _with_moved_refs(definition, name)
    components[name] = _with_moved_refs({key: value for key, value in found.items() if key != "$defs"}, name)
    return _schema(name)


def _with_moved_refs(value: Any, name: str) -> Any:
    """Return the schema with its local references adjusted to where `_add_schema` has moved their targets."""
    if isinstance(value, list):
        return [_with_moved_refs(item, name) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: _with_moved_refs(item, name) for key, item in value.items()}
    ref = moved.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/"):
        first, _, rest = ref.removeprefix("#/$defs/").partition("/")
        moved["$ref"] = f"{_REF}{name}.{_component_name(first)}" + (f"/{rest}" if rest else "")
    elif ref == "#":
        moved["$ref"] = _REF + name
    return moved


def _component_name(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", key)
