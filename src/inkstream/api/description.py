"""The OpenAPI description: what every route may answer, in the schemas of ``wire/``.

Routes return finished replies, so that nothing is validated twice on the way out; what they promise stands
in their ``responses``, and a test holds the server to it.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from importlib.resources import files
from typing import Any

from fastapi import FastAPI
from starlette.routing import compile_path

from inkstream.api.door import COOKIE
from inkstream.api.guard import OPEN_PATHS, is_guarded

JSON, SSE, MARKDOWN = "application/json", "text/event-stream", "text/markdown"
COMPONENTS = "#/components/schemas/"
SCHEMAS = ("chats", "server", "accounts", "openai")
EVERYWHERE = (400, 403, 408, 413, 431, 503)
KNOWN = (401, 429, 507)  # for who asks has to be known first, may ask too often, and is looked up
SECURITY = {
    "key": {"type": "http", "scheme": "bearer"},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE},
}

Responses = dict[int | str, dict[str, Any]]
"""What FastAPI takes as ``responses``."""


def replies(
    shape: str, *refusals: int, status: int = 200, kinds: tuple[str, ...] = (JSON,), error: str = "error"
) -> Responses:
    """One shape of ``wire/``, in JSON or as what else comes; and the refusals that are this route's own.

    An empty shape stands for a reply that has none: no body, or a body that is no JSON.
    """
    success: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if status != 204:
        success["content"] = {kind: {"schema": _schema(shape)} if kind == JSON else {} for kind in kinds}
    return {status: success, **{refusal: _refusal(refusal, error) for refusal in refusals}}


def _schema(shape: str) -> dict[str, Any]:
    return {"$ref": COMPONENTS + shape}


def _refusal(status: int, error: str) -> dict[str, Any]:
    if status == 204:
        return {"description": "there is nothing more"}
    return {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": _schema(error)}}}


class Described(FastAPI):
    """FastAPI's description, completed by what holds of every route."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            self.openapi_schema = _completed(super().openapi())
        return self.openapi_schema

    def allowed(self, path: str) -> str:
        """All that may be done there, for ``Allow``; the framework knows of one route at a time."""
        paths: dict[str, dict[str, Any]] = self.openapi()["paths"]
        found = [methods for template, methods in paths.items() if compile_path(template)[0].match(path)]
        return ", ".join(sorted({method.upper() for methods in found for method in methods}))


def _completed(description: dict[str, Any]) -> dict[str, Any]:
    components = description["components"]
    schemas = components["schemas"]
    for framework in ("HTTPValidationError", "ValidationError"):
        schemas.pop(framework, None)
    schemas.update(_wire())
    components["securitySchemes"] = SECURITY
    for path, methods in description["paths"].items():
        for operation in methods.values():
            _complete(operation, path)
    return description


def _complete(operation: dict[str, Any], path: str) -> None:
    said = operation["responses"]
    if "HTTPValidationError" in json.dumps(said.get("422")):  # the framework's; ours is a 400
        del said["422"]
    is_known = is_guarded(path) and path not in OPEN_PATHS
    if is_known:
        operation["security"] = [{name: []} for name in SECURITY]
    error = "openai_error" if path.startswith("/v1/") else "error"
    for status in EVERYWHERE + (KNOWN if is_known else ()):
        said.setdefault(str(status), _refusal(status, error))


def _wire() -> dict[str, Any]:
    """The schemas of ``wire/`` as components."""
    found: dict[str, Any] = {}
    for name in SCHEMAS:
        text = (files("inkstream.api") / "wire" / f"{name}.schema.json").read_text(encoding="utf-8")
        found |= json.loads(text.replace("chats#/$defs/", "#/$defs/").replace("#/$defs/", COMPONENTS))[
            "$defs"
        ]
    return found
