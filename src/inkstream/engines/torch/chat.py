"""Conversations to token ids. What users typed is text, never a control token.

The template is rendered with placeholders. What it says itself is tokenised with the control tokens, what
stands for a placeholder by a tokenizer that knows none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, cast

from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from inkstream.engines import Message, Prompt
from inkstream.errors import EngineFailed, ModelError

PLACEHOLDER = "inkstreamContent{}Here"
PLACEHOLDERS = re.compile(r"inkstreamContent(\d+)Here")
BYTE, BLANK = re.compile(r"<0x([0-9A-F]{2})>"), "\u2581"
"""How vocabularies of SentencePiece write a byte that is no character, and a blank."""


class Chat:
    """``pretrained`` is a transformers tokenizer with a chat template. Raises ModelError if it has none, or
    one that renders nothing.
    """

    def __init__(self, pretrained: Any) -> None:
        if not pretrained.chat_template:
            raise ModelError("The model has no chat template: it is no chat model.", code="model_unsupported")
        self._pretrained = pretrained
        self.tokenizer: Tokenizer = pretrained.backend_tokenizer
        self._plain = _without_control(self.tokenizer)
        self._bytes = {char: byte for byte, char in bytes_to_unicode().items()}
        self._is_byte_level = "ByteLevel" in str(self.tokenizer.decoder)
        self._control = self.tokenizer.get_added_tokens_decoder()
        try:
            self._apply([{"role": "user", "content": PLACEHOLDER.format(0)}])
        except EngineFailed as error:
            raise ModelError(error.message, code="model_unsupported") from error

    @property
    def identity(self) -> str:
        """Changes with the template and the vocabulary."""
        return f"{self._pretrained.chat_template}\n{self.tokenizer.to_str()}"

    def render(self, messages: Sequence[Message]) -> Prompt:
        """Raises EngineFailed for what is no Unicode or does not fit the template."""
        marked = [{"role": m.role, "content": PLACEHOLDER.format(at)} for at, m in enumerate(messages)]
        # Odd places hold the number of the message whose content goes there.
        pieces = PLACEHOLDERS.split(self._apply(marked))
        ids: list[int] = []
        for at, piece in enumerate(pieces):
            if at % 2:
                ids += self.encode(messages[int(piece)].content)
            else:
                ids += self.tokenizer.encode(piece, add_special_tokens=False).ids
        opens_thinking = pieces[-1].rstrip().endswith("<think>")
        return Prompt(len(ids), ids, "thinking" if opens_thinking else "text")

    def encode(self, text: str) -> list[int]:
        """As text only. Raises EngineFailed for what is no Unicode."""
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise EngineFailed(f"The text is no Unicode: {error}.", code="bad_prompt") from error
        return cast("list[int]", self._plain.encode(text, add_special_tokens=False).ids)

    def spelling(self, id: int) -> bytes:
        """The bytes of a token by itself, which may end inside a character; none of an id without a token."""
        token = self.tokenizer.id_to_token(id)
        if token is None:
            return b""
        if id in self._control:
            return cast("str", token).encode()
        if self._is_byte_level:
            return bytes(self._bytes[char] for char in token)
        if byte := BYTE.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return cast("str", token).replace(BLANK, " ").encode()

    def _apply(self, messages: list[dict[str, str]]) -> str:
        from jinja2.exceptions import TemplateError  # noqa: PLC0415 - transformers brings it, or none is needed

        try:
            rendered = self._pretrained.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            )
        except TemplateError as error:
            raise EngineFailed(
                f"The model's template refuses these messages: {error}", code="bad_prompt"
            ) from error
        return cast("str", rendered)


def _without_control(tokenizer: Tokenizer) -> Tokenizer:
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = []
    described["post_processor"] = None
    return Tokenizer.from_str(json.dumps(described))
