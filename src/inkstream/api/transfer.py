"""Conversations out of here and into here: as Markdown to read, as JSON to keep. See ``docs/protocol.md``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import StrEnum
from urllib.parse import quote

import orjson
import regex
from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from inkstream.api.chats import conversation
from inkstream.api.description import JSON, MARKDOWN, replies
from inkstream.api.foreign import converted
from inkstream.api.portable import FORMAT, Taken, document, head, read
from inkstream.api.services import Services, json_response, principal_of, services
from inkstream.api.shapes import chat_json
from inkstream.conversation import Tree
from inkstream.errors import Invalid, NotFound
from inkstream.events import encode, text_of
from inkstream.history import Chat, Message

router = APIRouter(prefix="/api")

FILE_NAME_CHARS = 80
FORBIDDEN_IN_NAMES = regex.compile(r'[\p{C}\p{Zl}\p{Zp}<>:"/\\|?*]+')
A_DOCUMENT = {
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": {"anyOf": [{"type": "object"}, {"type": "array"}]}}},
    }
}
HEADINGS = {"user": "User", "assistant": "Assistant"}


class ExportFormat(StrEnum):
    MARKDOWN = "markdown"
    JSON = "json"


@router.get("/chats/{chat}/export", responses=replies("export", 404, kinds=(MARKDOWN, JSON)))
async def export_chat(
    request: Request, chat: str, format: ExportFormat = ExportFormat.MARKDOWN, leaf: str | None = None
) -> Response:
    """The branch that ends with ``leaf`` as Markdown, by default the newest, or all of it as JSON."""
    found, messages = await conversation(services(request), principal_of(request), chat)
    if format is ExportFormat.JSON:
        body = encode({**head(), "exported_at": time.time(), "chats": [document(found, messages)]})
        return _file(body, "application/json", f"{found.title}.json")
    text = markdown(found, messages, leaf)
    return _file(text.encode(), "text/markdown; charset=utf-8", f"{found.title}.md")


@router.get("/export", responses=replies("export"))
async def export_all(request: Request) -> Response:
    """All conversations in one document, which is written while it is read."""
    date = time.strftime("%Y-%m-%d")
    headers = _headers(f"inkstream-{date}.json")
    pieces = _pieces(services(request), principal_of(request))
    return StreamingResponse(pieces, headers=headers, media_type="application/json")


async def _pieces(here: Services, principal: str) -> AsyncGenerator[bytes]:
    opening = encode({**head(), "exported_at": time.time(), "chats": []})
    yield opening[:-2]
    comma = b""
    async with aclosing(here.history.all_chats(principal)) as chats:
        async for chat in chats:
            with suppress(NotFound):  # deleted while this is read
                found, messages = await conversation(here, principal, chat.id)
                yield comma + encode(document(found, messages))
                comma = b","
    yield opening[-2:]


def markdown(chat: Chat, messages: list[Message], leaf: str | None) -> str:
    """What was said on the way to ``leaf``, without what the model thought. Raises NotFound."""
    tree = Tree(chat.id, messages)
    path = tree.path(tree.newest() if leaf is None else leaf)
    said = [f"## {HEADINGS[message.role]}\n\n{text_of(message.parts).strip()}\n" for message in path]
    return "\n".join([f"# {chat.title}\n", *said])


def _file(body: bytes, kind: str, name: str) -> Response:
    return Response(body, headers=_headers(name), media_type=kind)


def _headers(name: str) -> dict[str, str]:
    """Saved, never shown: the text is not ours. RFC 6266, the name in UTF-8 as RFC 5987 spells it."""
    stem, _, suffix = name.rpartition(".")
    stem = " ".join(FORBIDDEN_IN_NAMES.sub(" ", stem).split())
    stem = "".join(regex.findall(r"\X", stem)[:FILE_NAME_CHARS]).strip(" .") or "chat"
    ascii_ = stem.encode("ascii", "ignore").decode().strip(" .%") or "chat"
    full = quote(f"{stem}.{suffix}", safe="")
    return {
        "content-disposition": f"attachment; filename=\"{ascii_}.{suffix}\"; filename*=UTF-8''{full}",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }


@router.post("/import", responses=replies("imported"), openapi_extra=A_DOCUMENT)
async def import_chats(request: Request) -> Response:
    """Add conversations from an export of ours, of ChatGPT or of Open WebUI. They never replace any.

    One that an earlier import has brought is not brought again, so that an import may be repeated.
    """
    here, principal = services(request), principal_of(request)
    taken = await asyncio.to_thread(_taken, principal, await request.body())
    added = [await here.history.add(given.chat, given.messages, given.key) for given in taken.chats]
    chats, known = (
        [chat_json(chat) for chat, is_new in added if is_new is wanted] for wanted in (True, False)
    )
    return json_response({"chats": chats, "known": known, "skipped": taken.skipped})


def _taken(principal: str, body: bytes) -> Taken:
    """All of it is checked before anything is written. Raises Invalid."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Invalid(f"the body is not JSON: {error}.", code="bad_json") from None
    if isinstance(given, dict) and given.get("format") == FORMAT:
        return read(principal, given)
    ours, skipped = converted(given)
    return Taken(read(principal, ours).chats, skipped)
