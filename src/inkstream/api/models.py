"""Which model answers, which there are, and for admins another one. See ``docs/models.md``."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import Response

from inkstream import models
from inkstream.api.body import StrictJson
from inkstream.api.description import replies
from inkstream.api.services import Services, json_response, require_admin, services
from inkstream.api.shapes import engine_json
from inkstream.engines import SLOTS
from inkstream.errors import EngineLost

router = APIRouter(prefix="/api", route_class=StrictJson)

Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=1024)]


class ModelIn(BaseModel):
    """``now``: answers that are being written are cut, and may be continued, instead of finished first."""

    model_config = ConfigDict(extra="forbid")
    model: Name
    now: bool = False


@router.get("/models", responses=replies("models"))
async def list_models(request: Request) -> Response:
    """The model that answers, what becomes of it, and those that could: on this disk, or by an alias."""
    require_admin(request)
    here = services(request)
    rows = await asyncio.to_thread(_rows, here) if here.switching.is_possible else []
    return json_response(_state(here) | {"models": rows})


@router.put("/model", status_code=202, responses=replies("answering", 409, status=202) | replies("answering"))
async def switch_model(request: Request, body: ModelIn) -> Response:
    """Begin to switch. 202 tells how it begins, 200 that the model answers already; the live feed goes on."""
    require_admin(request)
    here = services(request)
    has_begun = here.switching.begin(models.name_of(body.model), now=body.now)
    return json_response(_state(here), 202 if has_begun else 200)


@router.delete("/model", responses=replies("answering", 409))
async def call_off_switch(request: Request) -> Response:
    """Call the switch off that is under way, as long as the present model answers."""
    require_admin(request)
    here = services(request)
    await here.switching.call_off()
    return json_response(_state(here))


def _state(here: Services) -> dict[str, Any]:
    engine, switching = here.runs.engine, here.switching
    told = engine_json(engine, engine.status, switching.switch)
    return {"model": switching.model, "can_switch": switching.is_possible, "engine": told}


def _rows(here: Services) -> list[dict[str, Any]]:
    """What the engine of the settings could load."""
    settings = here.settings
    if settings.engine == "scripted":
        return []
    tokens = settings.context * (settings.slots or SLOTS)
    is_torch = _has_torch(here)
    found = models.rows(models.local(settings.models_dir), models.catalog(tokens), tokens)
    return [_row(row, is_torch) for row in found if is_torch or not _is_checkpoint(row)]


def _is_checkpoint(row: models.Row) -> bool:
    return bool(row.path) and Path(row.path).is_dir()


def _row(row: models.Row, is_torch: bool) -> dict[str, Any]:
    """What an alias costs is known of its GGUF file, which is not what torch would fetch."""
    is_known = bool(row.path) or not is_torch
    return {
        "name": row.name,
        "is_here": bool(row.path),
        "size_bytes": row.size_bytes if is_known else None,
        "memory_bytes": row.memory_bytes if is_known else None,
        "fits": row.fits if is_known else None,
        "languages": row.languages,
    }


def _has_torch(here: Services) -> bool:
    try:
        return here.runs.engine.describe().engine == "torch"
    except EngineLost:
        return here.settings.engine == "torch"
