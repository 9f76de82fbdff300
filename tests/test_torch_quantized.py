"""Quantised weights take what they should, and say nearly what the whole ones say."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402 - without torch there is nothing to import

from inkstream.engines.torch import weighing  # noqa: E402
from inkstream.engines.torch.forward import Weights  # noqa: E402
from inkstream.engines.torch.model import take_weights  # noqa: E402
from inkstream.engines.torch.quantized import quantizer  # noqa: E402
from inkstream.errors import ModelError  # noqa: E402
from tests.test_torch import GREEDY, ask, ids_of, opened, request_of  # noqa: E402
from tests.tiny_models import write_checkpoint  # noqa: E402

pytestmark = pytest.mark.real
CPU = torch.device("cpu")
LAYERS = 24


@pytest.fixture
def library() -> Any:
    return pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def one_layer() -> Any:
    """Of Qwen2-0.5B's shape, with few positions and tokens."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=1000,
        hidden_size=896,
        intermediate_size=4864,
        num_hidden_layers=1,
        num_attention_heads=14,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    return Qwen2ForCausalLM(config).to(torch.bfloat16).state_dict(), config


def taken(one_layer: Any, quantization: str) -> Weights:
    state, config = one_layer
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(state)
    return take_weights(model, CPU, quantize=quantizer(quantization, CPU))


@pytest.mark.parametrize(("quantization", "linear", "whole"), [("nf4", 0.28, 0.48), ("int8", 0.51, 0.66)])
def test_it_takes_a_fraction_of_the_memory(
    library: Any, one_layer: Any, quantization: str, linear: float, whole: float
) -> None:
    full, small = (next(iter(taken(one_layer, each).layers)) for each in ("", quantization))
    full_bytes, small_bytes = (sum(matrix.bytes for matrix in layer.matrices) for layer in (full, small))
    assert small_bytes / full_bytes <= linear
    embedding = 151_936 * 896 * 2
    assert (embedding + LAYERS * small_bytes) / (embedding + LAYERS * full_bytes) <= whole


def kept_tensors(weights: Weights) -> list[Any]:
    """All but the tables of rotations. A head that is the embedding is there once."""
    norms = [norm for layer in weights.layers for norm in (layer.input_norm, layer.inner_norm)]
    matrices = [tensor for layer in weights.layers for matrix in layer.matrices for tensor in matrix.tensors]
    return [weights.embedding, weights.norm, *norms, *matrices]


@pytest.mark.parametrize("quantization", ["", "nf4", "int8"])
def test_what_they_will_take_is_told_by_the_file(
    library: Any, one_layer: Any, tmp_path: Path, quantization: str
) -> None:
    state, config = one_layer
    model = Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.load_state_dict(state)
    model.save_pretrained(tmp_path)
    counted = sum(tensor.nbytes for tensor in kept_tensors(taken(one_layer, quantization)))
    told = weighing.read(tmp_path).kept_bytes(2, quantization)
    # Matrices that are joined share the tables of nf4, of a kilobyte each.
    assert counted <= told <= counted + 3 * weighing.NF4_TABLES_BYTES * (quantization == "nf4")


@pytest.mark.parametrize(("quantization", "error"), [("nf4", 0.12), ("int8", 0.03)])
def test_products_are_nearly_those_of_the_whole_matrix(
    library: Any, one_layer: Any, quantization: str, error: float
) -> None:
    (full,), (small,) = (taken(one_layer, each).layers for each in ("", quantization))
    draw = torch.Generator().manual_seed(1)
    for one, other in zip(full.matrices, small.matrices, strict=True):
        for rows in (1, 5):
            x = torch.randn(rows, one.weight.shape[1], generator=draw).to(torch.bfloat16)
            exact, near = one(x).float(), other(x)
            assert near.dtype is torch.bfloat16
            assert ((near.float() - exact).norm() / exact.norm()).item() < error


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
async def test_an_engine_answers_with_quantised_weights(
    library: Any, tmp_path: Path, quantization: str
) -> None:
    write_checkpoint(tmp_path, "qwen2")
    request = request_of(ids_of(40, seed=1), GREEDY)
    async with opened(tmp_path, quantize=quantization) as engine, opened(tmp_path) as whole:
        about, heard = engine.describe(), await ask(engine, request)
        assert about.fingerprint != whole.describe().fingerprint
    assert not about.exact_seam
    assert heard.finish is not None
    assert heard.finish.completion_tokens == GREEDY.max_tokens
    assert len(set(heard.ids)) >= 40


def test_what_there_is_not_is_named() -> None:
    with pytest.raises(ModelError, match="'int3'"):
        quantizer("int3", CPU)


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, package: str | None = None) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModelError, match=r"inkstream\[quantize\]") as refused:
        quantizer("nf4", CPU)
    assert refused.value.code == "engine_missing"


def test_a_device_that_cannot_is_refused_with_the_reason(
    library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise NotImplementedError("no kernel for this device")

    monkeypatch.setattr(library.functional, "quantize_4bit", cannot)
    with pytest.raises(ModelError, match="no kernel for this device") as refused:
        quantizer("nf4", CPU)
    assert refused.value.code == "cannot_quantize"
