"""Chunks: nothing lost or moved, whatever the cuts and the cursor, and borders where people see them."""

from __future__ import annotations

import time
from itertools import accumulate, pairwise
from unittest.mock import patch

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inkstream.api import chunker
from inkstream.api.chunker import LONGEST, Chunker, Grain

CUTTING = [Grain.WORD, Grain.SENTENCE]
PIECES = st.sampled_from(
    [
        *"aZ1 .!?。！？…；，,:*`~\"'”“」「()（）\n\r\t\u2028\u0085\u00a0\u3000你好かキ한é",
        *("Mr.", "e.g.", "3.14", "1. ", "U.S. ", "http://a.b/?c=d", "...", "……", "```", "```py\n", "\n```\n"),
        *("`a. B`", "**", "👩‍👩‍👧‍👦", "👍🏽", "🇨🇳", "e\u0301", "‼\ufe0f", "1\ufe0f\u20e3", "𠮷", "각"),
        *(" " * 70, "\n" * 40, "x" * 90, "好" * 90),
    ]
)
TEXTS = st.lists(PIECES, max_size=60).map("".join)
BOUNDS = st.sampled_from([7, 20, 90, 400])  # near bounds are where borders meet them
UNHURRIED = settings(deadline=None)  # a busy machine is no failure
ANY_TEXTS = st.text(max_size=80)


def chunks(text: str, grain: Grain = Grain.SENTENCE, behind: int = 0) -> list[str]:
    return fed([text], grain, behind)


def fed(pieces: list[str], grain: Grain, behind: int = 0) -> list[str]:
    chunker = Chunker(grain, behind)
    return [chunk for piece in pieces for chunk in chunker.feed(piece)] + chunker.flush()


def cut(text: str, marks: list[int]) -> list[str]:
    borders = [0, *sorted(mark % (len(text) + 1) for mark in marks), len(text)]
    return [text[start:end] for start, end in pairwise(borders)]


# What holds for every text


@pytest.mark.parametrize("grain", Grain)
@UNHURRIED
@given(text=TEXTS | ANY_TEXTS)
def test_the_chunks_are_the_text(grain: Grain, text: str) -> None:
    assert "".join(chunks(text, grain)) == text
    assert "" not in chunks(text, grain)


@pytest.mark.parametrize("grain", CUTTING)
@UNHURRIED
@example(text="approx. X", marks=[], longest=4)
@example(text="xxxxxxx\n  y", marks=[], longest=8)
@given(text=TEXTS | ANY_TEXTS, marks=st.lists(st.integers(min_value=0), max_size=20), longest=BOUNDS)
def test_how_the_text_arrives_changes_no_chunk(
    grain: Grain, text: str, marks: list[int], longest: int
) -> None:
    with patch.dict(LONGEST, {grain: longest}):
        assert fed(cut(text, marks), grain) == chunks(text, grain)
        assert fed(list(text), grain) == chunks(text, grain)


@pytest.mark.parametrize("grain", CUTTING)
@UNHURRIED
@given(text=TEXTS, mark=st.integers(min_value=0), longest=BOUNDS)
def test_what_was_given_out_is_never_taken_back(grain: Grain, text: str, mark: int, longest: int) -> None:
    with patch.dict(LONGEST, {grain: longest}):
        early = Chunker(grain).feed(text[: mark % (len(text) + 1)])
        assert chunks(text, grain)[: len(early)] == early


@pytest.mark.parametrize("grain", CUTTING)
@UNHURRIED
@given(text=TEXTS)
def test_a_reader_gets_the_rest_from_any_code_point_on(grain: Grain, text: str) -> None:
    borders = [0, *accumulate(len(chunk) for chunk in chunks(text, grain))]
    for behind in range(len(text) + 1):
        rest = chunks(text, grain, behind)
        assert "".join(rest) == text[behind:]
        if behind in borders:
            assert rest == chunks(text, grain)[borders.index(behind) :]


@pytest.mark.parametrize("grain", CUTTING)
@UNHURRIED
@given(text=TEXTS)
def test_no_border_lies_inside_a_grapheme(grain: Grain, text: str) -> None:
    graphemes = {0, *(match.end() for match in regex.finditer(r"\X", text))}
    assert set(accumulate(map(len, chunks(text, grain)))) <= graphemes


@pytest.mark.parametrize("grain", CUTTING)
@UNHURRIED
@given(text=TEXTS)
def test_no_chunk_is_longer_than_its_bound(grain: Grain, text: str) -> None:
    assert all(len(chunk) <= LONGEST[grain] for chunk in chunks(text, grain))


@UNHURRIED
@given(pieces=st.lists(st.text(min_size=1)))
def test_tokens_stay_as_they_come(pieces: list[str]) -> None:
    assert fed(pieces, Grain.TOKEN) == pieces


# Sentences

SENTENCES = {
    "chinese": ["你好。", "我是墨流！", "你呢？", "很好……", "那就好；", "再见"],
    "closing marks stay with their sentence": ["他说：“你好！”", "我答（轻声）：「好。」", "完"],
    "an opening mark begins the next one": ["好。", "“走吧。”", "《书》。"],
    "a comma goes on behind a quote": ["“你好！”，他说。", "好"],
    "stops in a row end one sentence": ["真的吗？！", "真的！！！", "唉……！", "完"],
    "straight quotes open and close in turn": ['他说:"你好!"', "然后走了。", '"再见!"', "好"],
    "latin marks between han": ["你好!", "我是AI.版本是3.14版.", "再见"],
    "english": ["Hello there. ", "How are you? ", "Fine! ", "OK"],
    "english quotes": ['He said "Go." ', "“Now.” ", "(Really?) ", "She went."],
    "a reporting clause": ['"What?" he said. ', "Then he left."],
    "titles and latin abbreviations": [
        "Mr. Smith met Dr. Who vs. Prof. Xu. ",
        "They ate fruit, e.g. Apples, i.e. food, etc. ",
        "Then they left.",
    ],
    "numbers behind no. and fig.": ["See Fig. 3 and No. 5. ", "No. ", "I do not."],
    "initials": ["J. R. R. Tolkien of the U.S. Army wrote. ", "So did I. ", "You did not."],
    "decimals, versions, addresses": [
        "Pi is 3.14, v1.2.3 is at https://a.example/b.c?d=e!f. ",
        "Visit example.com now. ",
        "In 2024. ",
        "Then.",
    ],
    "an ellipsis": ["Wait... what? ", "Hm… maybe. ", "Well... ", "No. ", "Sure…ly."],
    "numbered lists": ["1. First. ", "Then this.\n", "2. Second\n", "  2.1. Deeper\n", "**3. Third**\n"],
    "numbered lists in a line": ["Do this. ", "1. Open it. ", "2. Close it."],
    "lines": ["# Title\n\n", "- one\n", "  - two\n\n\n", "end"],
    "lines of other systems": ["a\r\n\r\n", "b\r", "c\u2028", "d"],
    "indentation belongs to its line": ["one\n   \n", "   two\n"],
    "fenced code": ["Look:\n", "```python\n", "x = 1. 2\n", "\n  print('a. B')\n", "```\n", "Done. ", "Yes."],
    "a fence of tildes holds backticks": ["~~~\n", "```\n", "a. B\n", "~~~\n", "End. ", "Yes"],
    "a fence closes only on its own mark": ["````\n", "```\n", "a. B\n", "```` x\n", "````\n", "C. D"],
    "three backticks within a line": ["```a. B``` is code. ", "Next."],
    "inline code": ["Call `a. B` or ``c ` d. E``. ", "Then go."],
    "unclosed inline code ends with its line": ["A ` b. C\n", "D! ", "E"],
    "emphasis": ["**注意：**正文。", "**重要。**", "下一句。", "**Bold.** ", "*One.* ", "Two."],
    "a bullet is no emphasis": ["* 好。", "* 坏。"],
    "emoji": ["好！", "👍🏽Great! ", "🇨🇳 is a flag‼\ufe0f", "是。"],
    "leading blanks": ["\n\n  Hello. ", "World."],
    "a name with a dot": ["Use it. ", ".NET is fine. ", "Use Node.js然后 a.txt。", "Yes"],
    "no-break space": ["Mr.\u00a0X is No.\u00a05! ", "Yes."],
}


@pytest.mark.parametrize("expected", SENTENCES.values(), ids=SENTENCES)
def test_sentences(expected: list[str]) -> None:
    assert chunks("".join(expected)) == expected


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("你好。", []),
        ("你好。我", ["你好。"]),
        ("你好。”", []),
        ("Hello. ", []),
        ("Hello. W", ["Hello. "]),
        ("Hello. w", []),
        ("Hello.\n\n", []),
        ("Hello.\n\nW", ["Hello.\n\n"]),
        ("```\ncode\n", ["```\n", "code\n"]),
    ],
)
def test_a_sentence_is_given_out_with_the_first_character_behind_it(text: str, certain: list[str]) -> None:
    assert Chunker(Grain.SENTENCE).feed(text) == certain


def test_blank_lines_that_never_end_hold_no_sentence_back() -> None:
    assert Chunker(Grain.SENTENCE).feed("One.\n" + " " * 64) == []
    assert Chunker(Grain.SENTENCE).feed("One.\n" + " " * 65) == ["One.\n"]


def test_a_sentence_that_never_ends_is_cut_behind_a_comma() -> None:
    first, *_ = chunks("字" * 150 + "，" + "字" * 150 + "，" + "字" * 400)
    assert first == "字" * 150 + "，" + "字" * 150 + "，"


def test_a_line_of_code_that_never_ends_is_cut() -> None:
    assert [len(chunk) for chunk in chunks("```\n" + "x" * 1000)] == [4, 399, 399, 202]


def test_a_grapheme_as_long_as_a_chunk_is_cut() -> None:
    assert [len(chunk) for chunk in chunks("e" + "\u0301" * 999)] == [400, 400, 200]


# Words

WORDS = {
    "english": ["Hello, ", "world! ", "It's ", "don’t ", "(not ", "that) ", "3.14 ", "a.b/c?d=e\n"],
    "han characters one by one": ["你", "好，", "世", "界。", "“引", "号”，", "（括", "号）"],
    "kana": ["か", "な、", "カ", "ナ"],
    "between the scripts": ["用", "Python", "写", "3", "个，", "OK。", "“foo”", "bar"],
    "blanks and blank lines": [" \n a \n\n  ", "b"],
    "graphemes": ["好\u0301", "👩‍👩‍👧‍👦👍🏽", "字", "🇨🇳 ", "한국어"],
}


@pytest.mark.parametrize("expected", WORDS.values(), ids=WORDS)
def test_words(expected: list[str]) -> None:
    assert chunks("".join(expected), Grain.WORD) == expected


# Cost

WORST = ["a", " ", ".", "\n", "`", "*", '"', "。", "\u0301", "…", "```\n", "你好。Hi. "]


@pytest.mark.parametrize("grain", CUTTING)
@pytest.mark.parametrize("unit", WORST)
def test_cost_grows_with_the_text_and_not_faster(grain: Grain, unit: str) -> None:
    def seconds(length: int) -> float:
        text = unit * (length // len(unit))
        started = time.process_time()
        fed([text[at : at + 50] for at in range(0, len(text), 50)], grain)
        chunker = fed([text], grain)
        assert chunker
        return time.process_time() - started

    small = min(seconds(4_000) for _ in range(3))
    assert seconds(64_000) < 16 * 4 * small + 0.1


def test_the_documented_rules_are_those_in_force() -> None:
    assert chunker.LONGEST == {Grain.WORD: 64, Grain.SENTENCE: 400}
