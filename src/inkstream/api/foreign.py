"""Other people's exports, as documents of ours: ChatGPT's ``conversations.json`` and Open WebUI's list.

Both hold trees of messages by id. What we have no place for (pictures, tools, hidden messages) is left out
and told; what one side says in a row becomes one message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from inkstream.api.chats import TITLE_CHARS
from inkstream.api.portable import CHATS, MESSAGES, ONE_FAULT, fault, head, parents_first, path_of
from inkstream.errors import Invalid

PICTURES = "pictures and files have no place here yet"


class _Record(BaseModel):
    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _GptAuthor(_Record):
    role: str


class _GptContent(_Record):
    content_type: str
    parts: list[Any] = []


class _GptMessage(_Record):
    author: _GptAuthor
    content: _GptContent
    create_time: float | None = None
    metadata: dict[str, Any] = {}


class _GptNode(_Record):
    message: _GptMessage | None = None
    parent: str | None = None


class _GptChat(_Record):
    title: str | None = None
    create_time: float | None = None
    update_time: float | None = None
    mapping: dict[str, _GptNode] = Field(max_length=MESSAGES)
    current_node: str | None = None


class _WebuiMessage(_Record):
    role: str
    content: str
    parent: str | None = Field(default=None, alias="parentId")
    timestamp: float | None = None
    model: str | None = None
    files: list[Any] | None = None


class _WebuiHistory(_Record):
    messages: dict[str, _WebuiMessage] = Field(max_length=MESSAGES)
    current: str | None = Field(default=None, alias="currentId")


class _WebuiParams(_Record):
    system: str | None = None


class _WebuiBody(_Record):
    history: _WebuiHistory
    params: _WebuiParams = _WebuiParams()


class _WebuiChat(_Record):
    title: str | None = None
    chat: _WebuiBody
    created_at: float | None = None
    updated_at: float | None = None


_GPT = TypeAdapter(Annotated[list[_GptChat], ONE_FAULT, Field(max_length=CHATS)])
_WEBUI = TypeAdapter(Annotated[list[_WebuiChat], ONE_FAULT, Field(max_length=CHATS)])


@dataclass(slots=True)
class _Node:
    """A message of either. Without a ``role`` it is left out, and its children follow its parent."""

    parent: str | None
    role: Literal["user", "assistant"] | None
    texts: list[str] = field(default_factory=list)
    created_at: float | None = None
    model: str | None = None
    why_not: str = ""


def converted(given: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """A document of ours, and what was left out and why. Raises Invalid with the path of the fault."""
    chats = given if isinstance(given, list) else [given]
    first = chats[0] if chats and isinstance(chats[0], dict) else {}
    skipped: list[dict[str, str]] = []
    try:
        if "mapping" in first:
            taken = [_gpt(f"[{at}]", chat, skipped) for at, chat in enumerate(_GPT.validate_python(chats))]
        elif "chat" in first:
            taken = [
                _webui(f"[{at}]", chat, skipped) for at, chat in enumerate(_WEBUI.validate_python(chats))
            ]
        else:
            raise Invalid(
                "this is no export that is known here: inkstream, ChatGPT (conversations.json), Open WebUI.",
                code="unknown_format",
            )
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        raise fault(path_of(wrong["loc"]), wrong["msg"]) from None
    return {**head(), "chats": [chat for chat in taken if chat is not None]}, skipped


def _gpt(path: str, chat: _GptChat, skipped: list[dict[str, str]]) -> dict[str, Any] | None:
    nodes = {id_: _gpt_node(node) for id_, node in chat.mapping.items()}
    return _chat(
        f"{path}.mapping",
        nodes,
        skipped,
        {"title": chat.title, "created_at": chat.create_time, "updated_at": chat.update_time},
        chat.current_node,
    )


def _gpt_node(node: _GptNode) -> _Node:
    message = node.message
    if message is None:
        return _Node(node.parent, None)
    kind, parts = message.content.content_type, message.content.parts
    texts = [part for part in parts if isinstance(part, str) and part]
    role = _role(message.author.role)
    if role is None or kind not in ("text", "multimodal_text") or not texts:
        is_nothing = role is None and not texts
        return _Node(node.parent, None, why_not="" if is_nothing else f"{message.author.role}, {kind}")
    has_more = any(not isinstance(part, str) for part in parts)
    model = message.metadata.get("model_slug")
    return _Node(
        node.parent,
        role,
        texts,
        message.create_time,
        model if isinstance(model, str) else None,
        PICTURES if has_more else "",
    )


def _webui(path: str, chat: _WebuiChat, skipped: list[dict[str, str]]) -> dict[str, Any] | None:
    history = chat.chat.history
    nodes = {}
    for id_, message in history.messages.items():
        role = _role(message.role)
        why_not = PICTURES if message.files else ("" if role else message.role)
        nodes[id_] = _Node(
            *(message.parent, role, [message.content], message.timestamp, message.model, why_not)
        )
    about: dict[str, Any] = {
        "title": chat.title,
        "created_at": chat.created_at,
        "updated_at": chat.updated_at,
    }
    if chat.chat.params.system:
        about["settings"] = {"system": chat.chat.params.system}
    return _chat(f"{path}.chat.history.messages", nodes, skipped, about, history.current)


def _role(role: str) -> Literal["user", "assistant"] | None:
    return role if role in ("user", "assistant") else None  # type: ignore[return-value]  # just narrowed


def _chat(
    path: str,
    nodes: dict[str, _Node],
    skipped: list[dict[str, str]],
    about: dict[str, Any],
    current: str | None,
) -> dict[str, Any] | None:
    ordered = _parents_first(path, nodes)
    _leave_out(nodes, ordered)
    skipped += [{"path": f"{path}.{id_}", "reason": n.why_not} for id_, n in nodes.items() if n.why_not]
    within = _alternating(nodes, [id_ for id_ in ordered if nodes[id_].role])
    if not within:
        skipped.append({"path": path, "reason": "there is no question in it"})
        return None
    kept = list(dict.fromkeys(within.values()))
    kept.sort(key=lambda id_: id_ == within.get(current or ""))  # what was shown last is the newest here
    return {
        **about,
        "title": " ".join((about["title"] or "").split())[:TITLE_CHARS],
        "created_at": _time(about["created_at"]),
        "updated_at": _time(about["updated_at"]),
        "messages": [_message(id_, nodes[id_]) for id_ in kept],
    }


def _message(id_: str, node: _Node) -> dict[str, Any]:
    return {
        "id": id_,
        "parent": node.parent,
        "role": node.role,
        "parts": [{"type": "text", "text": "\n\n".join(node.texts)}],
        "created_at": _time(node.created_at),
        "made_with": {"model": node.model} if node.role == "assistant" else None,
    }


def _time(given: float | None) -> float | None:
    return given if given is not None and given > 0 else None


def _parents_first(path: str, nodes: Mapping[str, _Node]) -> list[str]:
    for id_, node in nodes.items():
        if node.parent is not None and node.parent not in nodes:
            raise fault(f"{path}.{id_}.parent", f"there is no message {node.parent!r}")
    ids = list(nodes)
    parents = {id_: node.parent for id_, node in nodes.items()}
    return parents_first(parents, lambda at: f"{path}.{ids[at]}.parent")


def _leave_out(nodes: Mapping[str, _Node], ordered: Iterable[str]) -> None:
    """Tie the children of what is left out to what is above it; an answer without a question is left out."""
    for id_ in ordered:
        node = nodes[id_]
        while node.parent is not None and nodes[node.parent].role is None:
            node.parent = nodes[node.parent].parent
        if node.parent is None and node.role == "assistant":
            node.role, node.why_not = None, "an answer without a question"


def _alternating(nodes: dict[str, _Node], ordered: Iterable[str]) -> dict[str, str]:
    """Put what one side says in a row into its first message, and tell for each message in which it is.

    Where such a row branches, its branches stand side by side: repeating what they share has no bound.
    """
    ordered = list(ordered)
    children = Counter(nodes[id_].parent for id_ in ordered)
    within: dict[str, str] = {}
    for id_ in ordered:
        node, within[id_] = nodes[id_], id_
        if node.parent is None:
            continue
        is_alone, node.parent = children[node.parent] == 1, within[node.parent]
        above = nodes[node.parent]
        if above.role == node.role and is_alone:
            within[id_] = node.parent
            above.texts += node.texts
        elif above.role == node.role:
            node.parent = above.parent
    return within
