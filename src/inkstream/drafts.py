"""What a run writes: an engine's chunks and endings, as events that the log can take."""

from __future__ import annotations

import orjson

from inkstream.ask import Pin, encode_pin, encode_seam
from inkstream.channels import Piece
from inkstream.engines import Chunk, Finish
from inkstream.events import Draft, Kind, encode

STOPPED = Draft(Kind.STOPPED, b"{}")


def failed(code: str, message: str, *, retryable: bool = False) -> Draft:
    return Draft(Kind.FAILED, encode({"code": code, "message": message, "retryable": retryable}))


def started(pin: Pin) -> Draft:
    told: dict[str, object] = {"model": pin.model, "seed": pin.sampling.seed}
    if pin.left_out:
        told["left_out"] = pin.left_out
    return Draft(Kind.STARTED, encode(told), encode_pin(pin))


def text_drafts(pieces: list[Piece], chunk: Chunk) -> list[Draft]:
    """The events of what became visible. Its tokens are accounted for with the last of them."""
    if len(pieces) <= 1:
        return [_text_draft(piece, chunk) for piece in pieces]
    none_of_it = Chunk("", 0, None if chunk.ids is None else ())
    return [*(_text_draft(piece, none_of_it) for piece in pieces[:-1]), _text_draft(pieces[-1], chunk)]


def plain_draft(chunk: Chunk) -> Draft:
    """The event of a chunk that is the answer itself, as nearly all are."""
    return Draft(Kind.TEXT, b'{"text":%b}' % orjson.dumps(chunk.text), encode_seam(None, chunk))


def _text_draft(piece: Piece, chunk: Chunk) -> Draft:
    channel, text, raw = piece
    if channel == "text":
        data = b'{"text":%b}' % orjson.dumps(text)
    else:
        data = encode({"text": text, "channel": channel})
    return Draft(Kind.TEXT, data, encode_seam(None if raw == text else raw, chunk))


def done(finish: Finish, timings: dict[str, float]) -> Draft:
    usage = {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "cached_tokens": finish.cached_tokens,
    }
    return Draft(Kind.DONE, encode({"finish": finish.reason, "usage": usage, "timings": timings}))
