from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstream.channels import ChannelSplitter, Piece

ANSWERS = [
    ("plain text", "", "plain text"),
    ("<think>Let me see.</think>\n\nYes.", "Let me see.", "Yes."),
    ("\n<think>\nLet me\nsee.\n</think>\n\nYes.", "Let me\nsee.\n", "Yes."),
    ("<think></think>Yes.", "", "Yes."),
    ("<think>\n\n</think>\n\n", "", ""),
    ("write `<think>` to think", "", "write `<think>` to think"),
    ("<thinking aloud>", "", "<thinking aloud>"),
    ("<think>a < b </thin k></think>ok </think>", "a < b </thin k>", "ok </think>"),
    ("<think>cut off in the mid", "cut off in the mid", ""),
    ("<think>cut off </thi", "cut off </thi", ""),
    ("<thi", "", "<thi"),
    ("  indented", "", "  indented"),
    ("  ", "", "  "),
    ("<think>想一想……</think>好的。", "想一想……", "好的。"),
]


def read(pieces: list[Piece], channel: str) -> str:
    return "".join(piece.text for piece in pieces if piece.channel == channel)


def split(cuts: list[str]) -> list[Piece]:
    splitter = ChannelSplitter()
    return [piece for cut in cuts for piece in splitter.feed(cut)] + splitter.flush()


@pytest.mark.parametrize(("raw", "thinking", "answer"), ANSWERS)
def test_the_channels_are_the_same_however_the_text_is_cut(raw: str, thinking: str, answer: str) -> None:
    for cuts in ([raw], list(raw), *([raw[:at], raw[at:]] for at in range(len(raw)))):
        pieces = split(cuts)
        assert (read(pieces, "thinking"), read(pieces, "text")) == (thinking, answer)


@pytest.mark.parametrize(("raw", "thinking", "answer"), ANSWERS)
def test_an_answer_can_be_continued_behind_any_piece(raw: str, thinking: str, answer: str) -> None:
    undisturbed = ChannelSplitter()
    pieces = [piece for character in raw for piece in undisturbed.feed(character)]
    for seam in range(len(pieces) + 1):
        before = pieces[:seam]
        emitted = "".join(piece.raw for piece in before)
        splitter = ChannelSplitter(emitted=emitted)
        after = splitter.feed(raw[len(emitted) :]) + splitter.flush()
        assert read(before + after, "thinking") == thinking
        assert read(before + after, "text") == answer


@pytest.mark.parametrize(("raw", "thinking", "answer"), ANSWERS)
def test_a_cut_answer_can_be_continued_where_it_ended(raw: str, thinking: str, answer: str) -> None:
    for cut in range(len(raw) + 1):
        splitter = ChannelSplitter()
        fed, flushed = splitter.feed(raw[:cut]), splitter.flush()
        emitted = "".join(piece.raw for piece in fed + flushed)
        splitter = ChannelSplitter(emitted=emitted)
        after = splitter.feed(raw[len(emitted) :]) + splitter.flush()
        assert raw.startswith(emitted + "".join(piece.raw for piece in after))
        for channel, whole in (("thinking", thinking), ("text", answer)):
            before, seen = read(fed, channel), read(flushed, channel)
            behind = whole.removeprefix(before)
            if not behind.startswith(seen):  # it has become a tag, and cannot be taken back
                behind = seen + behind
            assert before + seen + read(after, channel) == before + behind, (cut, channel)


def test_a_template_may_open_the_thinking_itself() -> None:
    splitter = ChannelSplitter("thinking")
    pieces = splitter.feed("\nLet me see.</think>\n\nYes.") + splitter.flush()
    assert [(p.channel, p.text) for p in pieces] == [("thinking", "Let me see."), ("text", "Yes.")]


@given(st.lists(st.text(alphabet="<>/think x\n", max_size=6), max_size=12))
def test_random_cuts_change_nothing_and_raw_text_is_a_prefix(cuts: list[str]) -> None:
    raw = "".join(cuts)
    whole, pieces = split([raw]), split(cuts)
    for channel in ("thinking", "text"):
        assert read(pieces, channel) == read(whole, channel)
    assert raw.startswith("".join(piece.raw for piece in pieces))
