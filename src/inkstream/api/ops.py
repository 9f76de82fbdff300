"""For those who operate the server: is it alive, can it answer."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter, Request
from starlette.responses import Response

from inkstream.api.description import replies
from inkstream.api.services import json_response, services
from inkstream.engines import Phase

router = APIRouter()


@router.head("/healthz", include_in_schema=False)  # what watches a server often asks for no more
@router.get("/healthz", responses=replies("healthy"))
async def healthz() -> Response:
    """The process answers."""
    return json_response({"status": "ok"})


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", responses=replies("ready") | replies("ready", status=503))
async def readyz(request: Request) -> Response:
    """The engine answers: 200, else 503 with what it is doing."""
    status = services(request).runs.engine.status
    return json_response({"engine": asdict(status)}, 200 if status.phase is Phase.READY else 503)
