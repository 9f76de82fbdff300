"""How a conversation becomes the token ids that a llama-server reads.

The template is rendered with placeholders and tokenised apart from the contents, so that ``<|im_end|>`` typed
by a user is text. What the template makes of a sequence of roles is kept: a question then takes one call to
the server instead of three, on the way to its first token.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from inkstream.engines import Message, Prompt
from inkstream.engines.llama_client import LlamaClient

PLACEHOLDER = "inkstreamContent{}Here"
PLACEHOLDERS = re.compile(r"inkstreamContent(\d+)Here")
BORDER = -1
"""Stands between texts that are tokenised in one call: the server hands ids in its input through."""

TEMPLATES = 256

Channel = Literal["text", "thinking"]


@dataclass(frozen=True, slots=True)
class _Template:
    """``pieces`` stand around the contents, which go in by the places of their messages in ``order``."""

    pieces: list[list[int]]
    order: list[int]
    channel: Channel


class LlamaPrompts:
    """Raises what the client raises. Make a new one for a server that may have another model."""

    def __init__(self, client: LlamaClient) -> None:
        self._client = client
        self._templates: dict[tuple[date, tuple[str, ...]], _Template] = {}

    async def render(self, messages: Sequence[Message]) -> Prompt:
        template = await self._template_for(tuple(message.role for message in messages))
        said = await self.tokenize([messages[place].content for place in template.order])
        ids = [id for pair in zip(template.pieces, [*said, []], strict=True) for part in pair for id in part]
        return Prompt(len(ids), ids, template.channel)

    async def tokenize(self, texts: Sequence[str], *, with_control: bool = False) -> list[list[int]]:
        """The ids of each text. Only ``with_control`` are control tokens recognised in it."""
        if not texts:
            return []
        content: list[str | int] = [part for text in texts for part in (text, BORDER)]
        body = {"content": content, "add_special": with_control, "parse_special": with_control}
        reply = await self._client.post("/tokenize", body)
        tokens: list[list[int]] = [[]]
        for id in reply["tokens"]:
            if id == BORDER:
                tokens.append([])
            else:
                tokens[-1].append(id)
        return tokens[:-1]

    async def _template_for(self, roles: tuple[str, ...]) -> _Template:
        key = date.today(), roles  # templates may write the date
        if key not in self._templates:
            template = await self._read_template(roles)
            if len(self._templates) >= TEMPLATES:
                self._templates.clear()
            self._templates[key] = template
        return self._templates[key]

    async def _read_template(self, roles: tuple[str, ...]) -> _Template:
        marked = [{"role": role, "content": PLACEHOLDER.format(place)} for place, role in enumerate(roles)]
        reply = await self._client.post("/apply-template", {"messages": marked})
        # Odd places hold the number of the message whose content goes there.
        pieces = PLACEHOLDERS.split(reply["prompt"])
        return _Template(
            pieces=await self.tokenize(pieces[::2], with_control=True),
            order=[int(number) for number in pieces[1::2]],
            channel="thinking" if pieces[-1].rstrip().endswith("<think>") else "text",
        )
