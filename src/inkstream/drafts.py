"""What a run writes: an engine's chunks and endings, as events that the log can take."""

from __future__ import annotations

from inkstream.ask import encode_seam
from inkstream.channels import ChannelSplitter, Piece
from inkstream.engines import Chunk, Finish
from inkstream.events import Draft, Kind, encode

STOPPED = Draft(Kind.STOPPED, b"{}")


def failed(code: str, message: str, *, retryable: bool = False) -> Draft:
    return Draft(Kind.FAILED, encode({"code": code, "message": message, "retryable": retryable}))


def joined(first: Chunk, second: Chunk) -> Chunk:
    """One chunk that says what both say."""
    ids = None if first.ids is None or second.ids is None else first.ids + second.ids
    logprobs = second.logprobs if first.logprobs is None else [*first.logprobs, *(second.logprobs or ())]
    return Chunk(first.text + second.text, first.tokens + second.tokens, ids, logprobs)


def text_drafts(pieces: list[Piece], chunk: Chunk) -> list[Draft]:
    """The events of what became visible. Its tokens are accounted for with the last of them."""
    drafts = []
    for piece in pieces:
        is_last = piece is pieces[-1]
        public = (
            {"text": piece.text}
            if piece.channel == "text"
            else {"text": piece.text, "channel": piece.channel}
        )
        none_of_it = Chunk("", 0, None if chunk.ids is None else ())
        drafts.append(
            Draft(Kind.TEXT, encode(public), encode_seam(piece.raw, chunk if is_last else none_of_it))
        )
    return drafts


def last_words(splitter: ChannelSplitter, unseen: Chunk, finish: Finish) -> list[Draft]:
    """The events of what came with the end, and of what was held back until it."""
    if finish.last is None:
        return text_drafts(splitter.flush(), unseen)
    return text_drafts(splitter.feed(finish.last.text) + splitter.flush(), joined(unseen, finish.last))


def done(finish: Finish, timings: dict[str, float]) -> Draft:
    usage = {
        "prompt_tokens": finish.prompt_tokens,
        "completion_tokens": finish.completion_tokens,
        "cached_tokens": finish.cached_tokens,
    }
    return Draft(Kind.DONE, encode({"finish": finish.reason, "usage": usage, "timings": timings}))
