"""One model of the torch engine takes another's place while the server runs: real weights, real processes."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.fake_hub import fake_hub
from tests.test_api import ask, first_text
from tests.test_serving import child_of
from tests.test_switching import Engine, Served, is_at, is_over, served, text_of

pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(240),
    pytest.mark.skipif(sys.platform != "linux", reason="finds the children in /proc"),
]

SERVE = ("--engine", "torch", "--device", "cpu", "--threads", "1", "--context", "512", "--slots", "2")
QUESTION = "Tell me a short story about a lighthouse keeper."
GREEDY = {"temperature": 0, "max_tokens": 24}
REPO = "Ink/Tiny-Instruct"
WEIGHTS_BYTES = 4 * 134_515_008
"""SmolLM2-135M in float32."""

Broken = Callable[[Path, Path], Path]


@pytest.fixture(scope="module")
async def it(
    smollm2_checkpoint: Path,
    qwen2_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
    anyio_backend: str,
) -> AsyncIterator[Served]:
    """It answers with SmolLM2, and a hub has a tiny Qwen2."""
    async with fake_hub() as hub:
        hub.repos[REPO] = contents(qwen2_checkpoint)
        hubs = {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
        model = {"INKSTREAM_MODEL": str(smollm2_checkpoint)}
        async with served(tmp_path_factory.mktemp("switching"), *SERVE, **hubs, **model) as server:
            yield server


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def copied(checkpoint: Path, folder: Path, **config: Any) -> Path:
    """With another configuration, where one is given."""
    shutil.copytree(checkpoint, folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | config))
    return folder


def nameless(checkpoint: Path, folder: Path) -> Path:
    (copied(checkpoint, folder) / "config.json").unlink()
    return folder


def foreign(checkpoint: Path, folder: Path) -> Path:
    return copied(checkpoint, folder, model_type="gpt2", architectures=["GPT2LMHeadModel"])


def huge(checkpoint: Path, folder: Path) -> Path:
    """Its header claims more numbers than are there: nobody reads them where there is no room for them."""
    weights = copied(checkpoint, folder) / "model.safetensors"
    content = weights.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["model.layers.0.mlp.up_proj.weight"]["shape"] = [1 << 25, 1 << 25]
    claimed = json.dumps(header).encode()
    weights.write_bytes(len(claimed).to_bytes(8, "little") + claimed + content[start:])
    return folder


def speechless(checkpoint: Path, folder: Path) -> Path:
    """Without a chat template, which is known when it has been loaded."""
    (copied(checkpoint, folder) / "chat_template.jinja").unlink()
    return folder


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def engine_of(it: Served) -> int:
    return child_of(it.process, "engine")


async def model_of(it: Served) -> str:
    model: str = (await it.http.get("/api/models")).json()["model"]
    return model


async def told_of_switch(it: Served, model: str | Path, *, now: bool = False) -> list[Engine]:
    assert (await it.switch(model, now=now)).status_code == 202
    return await it.until(is_over)


@pytest.mark.parametrize(
    ("broken", "code", "words"),
    [
        (nameless, "model_not_found", "config.json, model.safetensors"),
        (foreign, "model_unsupported", "no GPT2LMHeadModel"),
        (huge, "model_too_large", "main memory has"),
    ],
)
async def test_what_could_not_load_is_refused_while_the_model_before_answers(
    it: Served, qwen2_checkpoint: Path, tmp_path: Path, broken: Broken, code: str, words: str
) -> None:
    before, engine = await model_of(it), engine_of(it)
    told = await told_of_switch(it, broken(qwen2_checkpoint, tmp_path / "broken"))
    assert {engine["phase"] for engine in told} == {"ready"}
    assert told[-1]["switch"]["code"] == code
    assert words in told[-1]["switch"]["message"]
    assert (await model_of(it), engine_of(it)) == (before, engine)


async def test_what_does_not_load_gives_way_to_the_model_before(
    it: Served, qwen2_checkpoint: Path, tmp_path: Path
) -> None:
    before = await model_of(it)
    cut = await ask(it.http, QUESTION, sampling=GREEDY)
    await first_text(it.http, cut["run"]["id"])
    told = await told_of_switch(it, speechless(qwen2_checkpoint, tmp_path / "broken"), now=True)
    assert any(map(is_at("returning"), told))
    assert told[-1]["switch"]["code"] == "model_unsupported"
    assert "chat template" in told[-1]["switch"]["message"]
    assert await model_of(it) == before
    # The answer that was cut for it goes on, and has the words that it would have had.
    whole = await ask(it.http, QUESTION, sampling=GREEDY)
    texts = [text_of(await it.ended(asked["message"]["id"])) for asked in (cut, whole)]
    assert texts[0] == texts[1]


async def test_one_model_makes_room_for_another_when_its_answers_are_finished(
    it: Served, smollm2_checkpoint: Path
) -> None:
    large, large_bytes = engine_of(it), resident_bytes(engine_of(it))
    first = await ask(it.http, QUESTION, sampling=GREEDY | {"max_tokens": 96})
    await first_text(it.http, first["run"]["id"])
    assert (await it.switch(REPO)).status_code == 202
    told = await it.until(is_at("waiting"))
    assert all(engine["phase"] == "ready" for engine in told)
    assert any(engine["switch"]["share"] for engine in told)
    second = await ask(it.http, QUESTION, sampling=GREEDY)
    told = await it.until(is_over)
    shares = [engine["share"] for engine in told if engine["phase"] == "loading" and engine["share"]]
    assert shares == sorted(shares)
    assert shares[-1] > 0.6
    assert told[-1]["switch"] is None
    for asked, model in ((first, str(smollm2_checkpoint)), (second, REPO)):
        message = await it.ended(asked["message"]["id"])
        assert (message["state"], message["made_with"]["model"]) == ("done", model)
        assert text_of(message)
    assert not is_alive(large)
    assert resident_bytes(engine_of(it)) < large_bytes - WEIGHTS_BYTES // 2


async def test_an_answer_that_was_cut_is_continued_by_a_model_with_another_vocabulary(
    it: Served, smollm2_checkpoint: Path
) -> None:
    other = REPO if await model_of(it) == str(smollm2_checkpoint) else str(smollm2_checkpoint)
    cut = await ask(it.http, QUESTION, sampling=GREEDY | {"max_tokens": 400})
    await first_text(it.http, cut["run"]["id"])
    await told_of_switch(it, other, now=True)
    message = await it.ended(cut["message"]["id"])
    assert (message["state"], message["error"]["code"]) == ("failed", "model_changed")
    kept = text_of(message)
    assert kept
    body = {"continue": message["id"], "sampling": GREEDY}
    reply = await it.http.post(f"/api/chats/{message['chat']}/messages", json=body)
    assert reply.status_code == 202, reply.text
    message = await it.ended(message["id"])
    assert (message["state"], message["made_with"]["model"]) == ("done", other)
    assert text_of(message).startswith(kept)
    assert len(text_of(message)) > len(kept)
