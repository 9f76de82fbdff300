"""``/docs``: Swagger UI over our OpenAPI description, with every file from this server.

FastAPI's own page loads Swagger UI from another host, which tells that host of each visit and fails offline,
and starts it by an inline script, which our policy forbids. Addresses are relative, so that a base path
needs no mention.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

from inkstream.api.page import SAFETY_HEADERS

PAGE = """\
<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <title>inkstream: API</title>
    <link rel="icon" href="docs/favicon-32x32.png" />
    <link rel="stylesheet" href="docs/swagger-ui.css" />
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
"""

# Without the null, a badge would send the description's address to an online validator.
START = """\
SwaggerUIBundle({ url: 'openapi.json', dom_id: '#swagger-ui', deepLinking: true, validatorUrl: null })
"""

# Its distribution, as the package carries it; the package's code is not used. It is no mount of its own,
# because StaticFiles expects the base path on the address, which our routes never see.
SWAGGER_UI = StaticFiles(packages=[("fastapi_swagger", "resources")])

router = APIRouter(include_in_schema=False)


@router.get("/docs")
async def page() -> Response:
    return HTMLResponse(PAGE, headers=SAFETY_HEADERS)


@router.get("/docs/start.js")
async def start() -> Response:
    return Response(START, media_type="text/javascript")


@router.get("/docs/{name}")
async def swagger_ui(name: str, request: Request) -> Response:
    return await SWAGGER_UI.get_response(name, request.scope)
