"""How each kind of server is asked, and which lines of its stream tell a token, the end and a failure.

Everybody is asked for greedy answers, so that two servers of one model have the same to say.

A stream is never decoded: its frames are told apart by their first bytes. No pattern can match inside a
text, because texts stand in JSON strings, where a quotation mark is escaped and a line cannot begin.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from urllib.parse import urlencode

import orjson

from inkstream.bench.plan import Plan

RUN = re.compile("/api/runs/[^/]+/events$")
TEXT_KEYS = rb"content|reasoning_content|reasoning|text"


@dataclass(frozen=True, slots=True)
class Frames:
    """The lines that tell. ``tokens`` counts the frames with text among whole frames."""

    tokens: Callable[[bytes], int]
    end: re.Pattern[bytes]
    failure: re.Pattern[bytes]


def _named(name: bytes) -> Callable[[bytes], int]:
    """Counts by the event's name, by plain searching: over a replay, a pattern takes ten times as long."""
    firsts = (b"event: " + name, b"event:" + name)
    inner = tuple(b"\n" + first for first in firsts)
    return lambda body: body.startswith(firsts) + sum(map(body.count, inner))


def _with(pattern: bytes) -> Callable[[bytes], int]:
    found = re.compile(pattern, re.M).findall
    return lambda body: len(found(body))


OPENAI = Frames(
    # The first chunk of most servers has the role and an empty or no text: it is no token.
    tokens=_with(rb'^data: ?\{.*?"(?:' + TEXT_KEYS + rb')": ?"(?!")'),
    end=re.compile(rb"^data: ?\[DONE\]", re.M),
    failure=re.compile(rb'^(?:data: ?\{"error"|event: ?error)', re.M),
)
STREAM = Frames(
    tokens=_named(b"message"),
    end=re.compile(rb"^event: ?end", re.M),
    failure=re.compile(rb"^event: ?error", re.M),
)
NATIVE = Frames(
    tokens=_named(b"text"),
    end=re.compile(rb"^event: ?done", re.M),
    failure=re.compile(rb"^event: ?(?:failed|stopped)", re.M),
)


@dataclass(frozen=True, slots=True)
class Http:
    """Writes requests for one server."""

    host: str
    key: str

    def request(self, method: str, path: str, body: object = None) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}", "User-Agent: inkstream-bench"]
        lines += ["Accept: text/event-stream, application/json", "Accept-Encoding: identity"]
        if self.key:
            lines.append(f"Authorization: Bearer {self.key}")
        payload = b"" if body is None else orjson.dumps(body)
        if method == "POST":
            lines.append(f"Content-Length: {len(payload)}")
        if payload:
            lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, "", ""]).encode() + payload


class Dialect:
    """One kind of server. Each ``question`` is another, so that no cache answers for the engine."""

    frames: Frames

    def __init__(self, plan: Plan, nonce: str) -> None:
        self.http = Http(plan.address.netloc.rpartition("@")[2], plan.key)
        self._plan, self._nonce, self._numbers = plan, nonce, count(1)

    @property
    def path(self) -> str:
        return path_of(self._plan)[1]

    def question(self) -> str:
        return f"({self._nonce}-{next(self._numbers)}) {self._plan.prompt}"

    def preparations(self, answers: int) -> list[bytes]:
        """What is asked before the clock runs, for about so many answers; the replies go to ``prepared``."""
        return []

    def prepared(self, status: int, allow: str, body: bytes) -> None:
        """Take a preparation's reply. Raises ValueError, KeyError for one that makes no sense."""

    def opening(self) -> bytes:
        """The request of one answer."""
        raise NotImplementedError

    def follow_up(self, body: bytes) -> bytes | None:
        """The request behind a reply that is not a stream yet; None where there is none."""
        return None


class OpenAI(Dialect):
    frames = OPENAI

    def opening(self) -> bytes:
        messages = [{"role": "user", "content": self.question()}]
        options = {"stream": True, "stream_options": {"include_usage": True}, "max_tokens": self._plan.tokens}
        options["temperature"] = 0
        body = {"model": self._plan.model, "messages": messages, **options}
        if not self._plan.model:
            del body["model"]
        return self.http.request("POST", self.path, body)


class Stream(Dialect):
    """The article's own server takes POST alone, its page sends GET: the server says which it has."""

    frames = STREAM
    _method = "GET"

    def preparations(self, answers: int) -> list[bytes]:
        return [self.http.request("HEAD", self.path)]

    def prepared(self, status: int, allow: str, body: bytes) -> None:
        allowed = {method.strip().upper() for method in allow.split(",") if method.strip()}
        if status == 405 and "POST" in allowed and "GET" not in allowed:
            self._method = "POST"

    def opening(self) -> bytes:
        fields = urlencode({"prompt": self.question(), "max_tokens": self._plan.tokens, "temperature": 0})
        return self.http.request(self._method, f"{self.path}?{fields}")


class Native(Dialect):
    """Asks in one chat after the other, always as its first question: no prompt and no chat grows."""

    frames = NATIVE

    def __init__(self, plan: Plan, nonce: str) -> None:
        super().__init__(plan, nonce)
        self._chats: deque[str] = deque()

    def preparations(self, answers: int) -> list[bytes]:
        return [self.http.request("POST", f"{self.path}/api/chats", {})] * answers

    def prepared(self, status: int, allow: str, body: bytes) -> None:
        if status != 201:
            raise ValueError(f"HTTP {status}")
        self._chats.append(orjson.loads(body)["id"])

    def opening(self) -> bytes:
        chat = self._chats[0]
        self._chats.rotate(-1)
        sampling = {"max_tokens": self._plan.tokens, "temperature": 0}
        asked = {"content": self.question(), "parent": None, "sampling": sampling}
        return self.http.request("POST", f"{self.path}/api/chats/{chat}/messages", asked)

    def follow_up(self, body: bytes) -> bytes:
        return self.http.request("GET", f"{self.path}/api/runs/{orjson.loads(body)['run']['id']}/events")


class Run(Dialect):
    """All follow one run that is there already: many readers of one answer, or its replay."""

    frames = NATIVE

    def opening(self) -> bytes:
        query = self._plan.address.query
        return self.http.request("GET", f"{self.path}?{query}" if query else self.path)


DIALECTS: dict[str, type[Dialect]] = {"openai": OpenAI, "stream": Stream, "native": Native, "run": Run}


def dialect_of(plan: Plan, nonce: str) -> Dialect:
    return DIALECTS[path_of(plan)[0]](plan, nonce)


def path_of(plan: Plan) -> tuple[str, str]:
    """The kind of server and the path to ask: a base URL gets what its kind has behind it."""
    path = plan.address.path.rstrip("/")
    kind = _kind(path) if plan.api == "auto" else plan.api
    match kind:
        case "openai" if path.endswith("/v1"):
            return kind, f"{path}/chat/completions"
        case "openai" if not path.endswith("/completions"):
            return kind, f"{path}/v1/chat/completions"
        case "stream" if not path:
            return kind, "/stream"
        case "native":
            return kind, path.removesuffix("/api")
    return kind, path


def _kind(path: str) -> str:
    if RUN.search(path):
        return "run"
    if path.endswith(("/v1", "/completions")):
        return "openai"
    return "stream" if path.endswith("/stream") else "native"
