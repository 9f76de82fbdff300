from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from inkstream.engines.stops import StopMatcher

# Few letters, so that stop strings occur, overlap and nearly occur.
text = st.text(alphabet="ab字", max_size=24)
stops = st.lists(st.text(alphabet="ab字", max_size=5), max_size=3)


def shown(stops: list[str], text: str, cuts: list[int], visible: str = "") -> tuple[str, str | None]:
    matcher = StopMatcher(stops, visible)
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    out = "".join(matcher.feed(text[start:end]) for start, end in pairwise(places))
    return out + matcher.flush(), matcher.matched


def reference(stops: list[str], text: str, visible: str = "") -> tuple[str, str | None]:
    """The definition, read aloud: go on character by character until a stop string has just ended."""
    for end in range(len(visible) + 1, len(visible + text) + 1):
        ended = [stop for stop in stops if stop and (visible + text)[:end].endswith(stop)]
        if ended:
            stop = max(ended, key=len)
            return (visible + text)[len(visible) : max(len(visible), end - len(stop))], stop
    return text, None


@given(stops, text, st.lists(st.integers(0, 24), max_size=6), text)
def test_the_verdict_is_that_of_reading_one_character_at_a_time(
    stops: list[str], text: str, cuts: list[int], visible: str
) -> None:
    assert shown(stops, text, cuts, visible) == reference(stops, text, visible)


@given(stops, text)
def test_a_seam_anywhere_in_what_was_shown_changes_nothing(stops: list[str], text: str) -> None:
    whole, matched = shown(stops, text, [])
    for seam in range(len(whole) + 1):
        rest, again = shown(stops, text[seam:], [], visible=text[:seam])
        assert text[:seam] + rest == whole
        assert again == matched


def test_only_what_may_become_a_stop_string_is_held_back() -> None:
    matcher = StopMatcher(["</s>"])
    assert matcher.feed("a <b> <") == "a <b> "
    assert matcher.feed("/") == ""
    assert matcher.feed("p>") == "</p>"
    assert matcher.feed("<") == ""
    assert matcher.flush() == "<"


def test_nothing_is_shown_after_a_match() -> None:
    matcher = StopMatcher(["stop"])
    assert matcher.feed("do st") == "do "
    assert matcher.feed("op it") == ""
    assert matcher.matched == "stop"
    assert matcher.feed("more") == ""
    assert matcher.flush() == ""
