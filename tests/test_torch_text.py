"""Token ids become text that never ends inside a character, whatever the ids are."""

from __future__ import annotations

import random
import unicodedata

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tokenizers import Tokenizer, decoders, models

from inkstream.engines import Chunk, Emitted
from inkstream.engines.torch.text import Answer, Pieces, Texts
from inkstream.errors import EngineFailed
from tests.qwen2_gguf import SAID, VOCABULARY, load_ranks
from tests.tiny_models import tokenizer

IM_END = 151_645


@pytest.fixture(scope="module")
def qwen2_tokens() -> Tokenizer:
    tokens: Tokenizer = tokenizer().backend_tokenizer
    return tokens


@pytest.fixture(scope="module")
def byte_ids() -> list[int]:
    ranks = load_ranks()
    return [ranks[bytes([byte])] for byte in range(256)]


def spoken(
    tokens: Tokenizer, ids: list[int], stops: tuple[str, ...] = (), emitted: Emitted | None = None
) -> list[Chunk]:
    answer = Answer(Texts(tokens), stops, emitted or Emitted())
    chunks = []
    for id in ids:
        answer.feed(id)
        chunks.append(answer.chunk())
        if answer.is_stopped:
            break
    answer.end()
    return [chunk for chunk in (*chunks, answer.chunk()) if chunk]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


def ids_of(chunks: list[Chunk]) -> tuple[int, ...]:
    return tuple(id for chunk in chunks for id in chunk.ids or ())


def test_a_text_comes_back_as_it_was(qwen2_tokens: Tokenizer) -> None:
    ids = qwen2_tokens.encode(SAID).ids
    chunks = spoken(qwen2_tokens, ids)
    assert text_of(chunks) == unicodedata.normalize("NFC", SAID), "which is how Qwen2 reads every text"
    assert ids_of(chunks) == tuple(ids)
    assert all(chunk.tokens == len(chunk.ids or ()) for chunk in chunks)


def test_a_text_byte_by_byte_comes_in_whole_characters(qwen2_tokens: Tokenizer, byte_ids: list[int]) -> None:
    chunks = spoken(qwen2_tokens, [byte_ids[byte] for byte in SAID.encode()])
    assert text_of(chunks) == SAID
    assert all(len(chunk.text) == 1 for chunk in chunks)


@pytest.mark.parametrize("seed", range(30))
def test_ids_at_random_survive_and_go_on_from_anywhere(
    qwen2_tokens: Tokenizer, byte_ids: list[int], seed: int
) -> None:
    draw = random.Random(seed)
    some = [draw.randrange(VOCABULARY) for _ in range(20)] + [IM_END] * 3
    broken = [byte_ids[draw.choice([0x80, 0xBF, 0xC3, 0xE9, 0xF0, 0x9F, 0xFF, 0x41])] for _ in range(40)]
    ids = draw.sample(some + broken, 60)
    whole = spoken(qwen2_tokens, ids, ("\x00", "A�A"))
    for cut in range(len(whole) + 1):
        emitted = Emitted(text_of(whole[:cut]), ids_of(whole[:cut]))
        rest = spoken(qwen2_tokens, ids[len(emitted.ids or ()) :], ("\x00", "A�A"), emitted)
        assert emitted.text + text_of(rest) == text_of(whole), f"seed {seed}, cut {cut}"


@pytest.fixture(scope="module")
def nothing_known(qwen2_tokens: Tokenizer) -> Texts:
    """The same tokens, each to be decoded beside the others."""
    decoded = Tokenizer.from_str(qwen2_tokens.to_str())
    decoded.decoder = decoders.Sequence([decoders.ByteLevel()])
    return Texts(decoded)


@pytest.mark.parametrize("seed", range(30))
def test_what_is_looked_up_is_what_is_decoded(
    qwen2_tokens: Tokenizer, nothing_known: Texts, byte_ids: list[int], seed: int
) -> None:
    draw = random.Random(seed)
    kinds = ([IM_END], byte_ids, byte_ids[0x80:], range(VOCABULARY), range(VOCABULARY))
    ids = [draw.choice(draw.choice(kinds)) for _ in range(400)]
    looked_up, decoded = Pieces(Texts(qwen2_tokens)), Pieces(nothing_known)
    assert [looked_up.feed(id) for id in ids] == [decoded.feed(id) for id in ids], f"seed {seed}"


def test_a_decoder_that_looks_at_a_tokens_place_is_asked_for_each() -> None:
    tokens = Tokenizer(models.WordLevel({"▁ink": 0, "▁stream": 1}, "▁ink"))
    tokens.decoder = decoders.Metaspace()
    assert text_of(spoken(tokens, [0, 1, 0])) == "ink stream ink"


def test_bytes_that_are_no_character_do_not_wait_for_ever(
    qwen2_tokens: Tokenizer, byte_ids: list[int]
) -> None:
    pieces = Pieces(Texts(qwen2_tokens))
    said = [pieces.feed(byte_ids[0x80]) for _ in range(40)]
    assert "".join(said).count("\ufffd") >= 30


def test_control_tokens_are_not_text(qwen2_tokens: Tokenizer) -> None:
    ids = [*qwen2_tokens.encode("before").ids, IM_END, 151_644, *qwen2_tokens.encode(" after").ids]
    assert text_of(spoken(qwen2_tokens, ids)) == "before after"


def test_a_stop_string_ends_at_every_border_of_tokens(qwen2_tokens: Tokenizer, byte_ids: list[int]) -> None:
    text = "流式 answers 👩‍👩‍👧‍👦 end here."
    ids = [byte_ids[byte] for byte in text.encode()]
    for start in range(len(text)):
        for end in range(start + 1, min(start + 6, len(text)) + 1):
            stop = text[start:end]
            assert text_of(spoken(qwen2_tokens, ids, (stop,))) == text[: text.index(stop)]


def test_only_what_may_become_a_stop_string_is_held_back(
    qwen2_tokens: Tokenizer, byte_ids: list[int]
) -> None:
    answer = Answer(Texts(qwen2_tokens), ("END",), Emitted())
    shown = []
    for letter in "aENxEND":
        answer.feed(byte_ids[ord(letter)])
        chunk = answer.chunk()
        shown.append(chunk.text if chunk else "")
    assert shown == ["a", "", "", "ENx", "", "", ""]
    assert answer.is_stopped


def test_ids_of_another_text_are_refused(qwen2_tokens: Tokenizer) -> None:
    with pytest.raises(EngineFailed) as refused:
        Answer(Texts(qwen2_tokens), (), Emitted("hello", tuple(qwen2_tokens.encode("other").ids)))
    assert refused.value.code == "bad_seam"


def test_an_incomplete_character_at_the_end_is_not_shown(
    qwen2_tokens: Tokenizer, byte_ids: list[int]
) -> None:
    assert text_of(spoken(qwen2_tokens, [byte_ids[byte] for byte in "a墨".encode()[:-1]])) == "a"
