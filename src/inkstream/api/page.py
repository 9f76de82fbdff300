"""The built page: hashed assets that may be kept for ever, and one document that may not."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from inkstream.api.guard import is_guarded

FOLDER = Path(__file__).parent.parent / "page"
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; script-src 'self'; style-src 'self'; img-src 'self' data: blob: http: https:;"
    " font-src 'self'; connect-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self';"
    " frame-ancestors 'none'"
)
SAFETY_HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
COMPRESSED = {"br": ".br", "gzip": ".gz"}  # encodings, the best first, and how the build names their files
NOT_BUILT = "The page has not been built. Run `make page` in the clone; an installed wheel carries it.\n"


def build_of_page() -> str | None:
    """What tells this build of the page from every other; None where there is none."""
    try:
        document = (FOLDER / "index.html").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    found = re.search(r'<meta name="build" content="(\w+)"', document)
    return found and found[1]


class Page:
    def __init__(self) -> None:
        self._files = StaticFiles(directory=FOLDER, html=True) if FOLDER.is_dir() else None
        packed = (file for suffix in COMPRESSED.values() for file in FOLDER.rglob(f"*{suffix}"))
        self._compressed = frozenset(str(file.relative_to(FOLDER)) for file in packed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD") or is_guarded(scope["path"]):
            raise HTTPException(404)
        await (await self._response(scope))(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        if self._files is None:
            return PlainTextResponse(NOT_BUILT, 503)
        path = self._files.get_path(scope)
        name = "index.html" if path == "." else path
        if encoding := self._encoding(name, Headers(scope=scope).get("accept-encoding", "")):
            response = await self._files.get_response(name + COMPRESSED[encoding], scope)
            response.headers["content-encoding"] = encoding
        else:
            response = await self._files.get_response(path, scope)
        is_hashed = path.startswith("assets")
        response.headers["cache-control"] = "public, max-age=31536000, immutable" if is_hashed else "no-cache"
        response.headers["vary"] = "accept-encoding"
        response.headers.update(SAFETY_HEADERS)
        return response

    def _encoding(self, name: str, accepted: str) -> str | None:
        """The best that is accepted and that the build has made of this file: RFC 9110, section 12.5.3."""
        wanted = {part.replace(" ", "") for part in accepted.lower().split(",")}
        refused = {part.partition(";q=")[0] for part in wanted if re.search(r";q=0(?:\.0*)?$", part)}
        names = {part.partition(";")[0] for part in wanted} - refused
        return next((e for e in COMPRESSED if e in names and name + COMPRESSED[e] in self._compressed), None)
