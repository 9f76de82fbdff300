"""Loading with torch: what is told meanwhile, in which numbers, and what is refused with which words."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.torch")

from tqdm import tqdm  # noqa: E402 - transformers brings it, or there is nothing to import for

from inkstream import engines, machine, probe  # noqa: E402
from inkstream.config import Settings  # noqa: E402
from inkstream.engines import Engine, Message, Phase, Request, Sampling, Status, Weights  # noqa: E402
from inkstream.engines.torch.engine import Launch, TorchEngine  # noqa: E402
from inkstream.engines.torch.loading import DEQUANTISING, _capabilities  # noqa: E402
from inkstream.engines.torch.model import _overheard, native_dtype  # noqa: E402
from inkstream.errors import ModelError  # noqa: E402
from inkstream.probe import Gpu  # noqa: E402
from tests.calls import answered, text_of  # noqa: E402

pytestmark = pytest.mark.real

ON_CPU = Settings(engine="torch", device="cpu", context=256, slots=2)
H200 = Gpu("NVIDIA H200", "580.95.05", (9, 0), 143_771 << 20)


async def loaded(engine: Engine) -> list[Status]:
    """What the status was until it was ready or given up."""
    seen = [engine.status]
    while seen[-1].phase is Phase.LOADING:
        seen.append(await engine.status_after(seen[-1]))
    return seen


async def refusal(path: Path, device: str = "cpu") -> ModelError:
    with pytest.raises(ModelError) as refused:
        await TorchEngine(Launch(path=path, device=device)).load()
    return refused.value


def changed(checkpoint: Path, folder: Path, **config: object) -> Path:
    """The checkpoint with another configuration."""
    shutil.copytree(checkpoint, folder)
    described = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(described | config))
    return folder


async def test_loading_is_told_step_by_step_in_both_languages(qwen2_checkpoint: Path) -> None:
    async with engines.create(ON_CPU, Weights(qwen2_checkpoint, "tiny", "ab")) as engine:
        seen = await loaded(engine)
        assert engine.status.phase is Phase.READY
        assert engine.describe().model == "tiny"
    shares = [status.share for status in seen if status.share is not None]
    assert shares == sorted(shares)
    steps = [status.detail["step"] for status in seen if "step" in status.detail]
    assert any(step["en"].startswith("reading the weights") for step in steps)
    assert steps[-1] == {"en": "placing the weights 2/2", "zh": "将权重移到设备 2/2"}


@pytest.mark.parametrize(("dtype", "exact"), [("auto", True), ("bfloat16", False)])
async def test_the_type_of_numbers_is_as_asked_for(qwen2_checkpoint: Path, dtype: str, exact: bool) -> None:
    launch = Launch(path=qwen2_checkpoint, device="cpu", context=256, slots=1, dtype=dtype)
    async with TorchEngine(launch) as engine:
        assert engine.describe().exact_seam is exact
        weights = engine._ready().model.weights
        assert str(weights.dtype) == f"torch.{'float32' if dtype == 'auto' else dtype}"
        prompt = await engine.render([Message("user", "hi")])
        chunks, finish = await answered(
            engine, Request("r", prompt, Sampling(temperature=0.0, seed=1, max_tokens=5))
        )
        assert (finish.reason, finish.completion_tokens) == ("length", 5)
        assert text_of(chunks)


@pytest.mark.parametrize(
    ("device", "is_native", "is_quantized", "dtype"),
    [
        ("cuda", True, False, torch.bfloat16),
        ("cuda", False, False, torch.float16),
        ("cuda", False, True, torch.float16),
        ("cpu", False, False, torch.float32),
        ("cpu", False, True, torch.bfloat16),
    ],
)
def test_numbers_are_those_that_the_device_computes_in(
    monkeypatch: pytest.MonkeyPatch, device: str, is_native: bool, is_quantized: bool, dtype: Any
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: is_native)
    assert native_dtype(torch.device(device), is_quantized=is_quantized) is dtype


async def test_the_fingerprint_tells_numbers_contents_and_contexts_apart(qwen2_checkpoint: Path) -> None:
    launch = Launch(path=qwen2_checkpoint, device="cpu", context=256)
    async with TorchEngine(launch) as engine:
        model = engine._ready().model
        told = engine.describe()
    other = replace(model, checksum="other")
    longer = replace(launch, context=512)
    abouts = [
        _capabilities(*which, told.slots, 100)
        for which in ((launch, model), (launch, other), (longer, model))
    ]
    assert abouts[0].fingerprint == told.fingerprint
    assert len({about.fingerprint for about in abouts}) == 3
    assert told.slots == 4, "where nothing is asked for"


async def test_a_gguf_file_is_read_too_and_its_dequantising_is_told(
    smollm2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with engines.create(ON_CPU, Weights(smollm2, "SmolLM2", "ab")) as engine:
        seen = await loaded(engine)
        prompt = await engine.render([Message("user", "What is the capital of France?")])
        request = Request("r", prompt, Sampling(temperature=0.0, seed=1, max_tokens=8))
        chunks, _ = await answered(engine, request)
    assert "Paris" in text_of(chunks)
    shares = [status.share for status in seen if status.share is not None]
    assert shares == sorted(shares)
    first = [s.share for s in seen if s.detail.get("step", {}).get("en", "").startswith("dequantising")]
    assert len(set(first)) > 5
    assert first[-1] == DEQUANTISING.end
    assert "quantizing" not in capsys.readouterr().err, "nobody reads bars on a server's console"


def test_the_console_has_all_else_that_is_said_while_a_bar_is_drawn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    heard: list[tuple[int, int]] = []
    with _overheard(lambda done, total: heard.append((done, total))):
        for _ in tqdm(range(3), desc="Converting", mininterval=0):
            print("a warning", file=sys.stderr)
    assert heard[0] == (0, 3)
    assert heard[-1] == (3, 3)
    assert capsys.readouterr().err.splitlines() == ["a warning"] * 3


async def test_who_guesses_ahead_is_who_was_asked_to(qwen2_checkpoint: Path) -> None:
    small = Weights(qwen2_checkpoint, "small")
    async with engines.create(ON_CPU, Weights(qwen2_checkpoint), small) as engine:
        await loaded(engine)
        assert engine.describe().speculation == qwen2_checkpoint.name


async def test_another_architecture_is_refused_by_name(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    other = changed(qwen2_checkpoint, tmp_path / "m", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    refused = await refusal(other)
    assert refused.code == "model_unsupported"
    assert "GPT2LMHeadModel" in refused.message
    assert "qwen2, qwen3, llama" in refused.message


async def test_code_in_a_repository_is_not_run(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(
        qwen2_checkpoint, tmp_path / "m", model_type="own", auto_map={"AutoConfig": "own.Config"}
    )
    (folder / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert (await refusal(folder)).code in ("model_corrupt", "model_unsupported")
    assert not (tmp_path / "ran").exists()


async def test_a_model_without_a_chat_template_is_refused(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(qwen2_checkpoint, tmp_path / "m")
    (folder / "chat_template.jinja").unlink()
    refused = await refusal(folder)
    assert refused.code == "model_unsupported"
    assert "chat template" in refused.message


async def test_a_template_that_renders_nothing_is_refused(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(qwen2_checkpoint, tmp_path / "m")
    (folder / "chat_template.jinja").write_text("{% for message in %}")
    refused = await refusal(folder)
    assert refused.code == "model_unsupported"
    assert "template" in refused.message


async def test_weights_that_were_quantised_before_are_refused_with_the_way_out(
    qwen2_checkpoint: Path, tmp_path: Path
) -> None:
    quantised = {"quant_method": "awq", "bits": 4}
    refused = await refusal(changed(qwen2_checkpoint, tmp_path / "m", quantization_config=quantised))
    assert refused.code == "model_unsupported"
    assert "'awq'" in refused.message
    assert "--quantize nf4" in refused.message


def without(tensors: dict[str, Any]) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def of_another_width(tensors: dict[str, Any]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(90, 64)


@pytest.mark.parametrize(
    ("change", "reason"),
    [(without, "is missing"), (of_another_width, r"is \(90, 64\) and should be \(96, 64\)")],
)
async def test_no_weight_is_made_up(
    qwen2_checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], reason: str
) -> None:
    weights = changed(qwen2_checkpoint, tmp_path / "m") / "model.safetensors"
    tensors = safetensors.load_file(weights)
    change(tensors)
    safetensors.save_file(tensors, weights)
    refused = await refusal(weights.parent)
    assert refused.code == "model_corrupt"
    assert re.search(rf"model\.layers\.1\.mlp\.up_proj\.weight {reason}", refused.message)


async def test_a_broken_tokenizer_is_told_from_broken_weights(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(qwen2_checkpoint, tmp_path / "m")
    (folder / "tokenizer.json").write_text("{}")
    refused = await refusal(folder)
    assert refused.code == "model_corrupt"
    assert refused.message.startswith(f"The tokenizer of {folder} cannot be loaded")


async def test_weights_that_are_cut_off_are_refused(qwen2_checkpoint: Path, tmp_path: Path) -> None:
    folder = changed(qwen2_checkpoint, tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    refused = await refusal(folder)
    assert refused.code == "model_corrupt"
    assert "cut off" in refused.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
@pytest.mark.parametrize("device", ["auto", "cuda", "cuda:1"])
async def test_a_gpu_that_torch_cannot_use_is_never_left_alone_silently(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: (H200,))
    refused = await refusal(qwen2_checkpoint, device=device)
    assert refused.code == "gpu_unusable"
    assert "NVIDIA H200" in refused.message
    assert "--torch-backend=cu130" in refused.message
    assert "--device cpu" in refused.message


@pytest.mark.skipif(torch.cuda.is_available(), reason="here is a GPU")
@pytest.mark.parametrize("device", ["cuda:1", "mps"])
async def test_a_device_that_is_not_here_is_refused_by_name(
    qwen2_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: ())
    refused = await refusal(qwen2_checkpoint, device=device)
    assert refused.code == "gpu_unusable"
    assert "--device cpu" in refused.message


async def test_an_engine_that_is_closed_while_it_loads_ends(qwen2_checkpoint: Path) -> None:
    engine = TorchEngine(Launch(path=qwen2_checkpoint, device="cpu", context=256))
    async with asyncio.timeout(50):
        async with engine.loading():
            await engine.status_after(engine.status)
        assert engine.status.phase is Phase.GIVEN_UP


def test_a_core_is_left_for_others() -> None:
    assert machine.spare_cores() >= 1
