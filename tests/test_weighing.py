"""What a model will take is told by its files, before torch is asked and before another model makes room."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inkstream import doctor, machine, probe
from inkstream.config import Settings
from inkstream.engines.torch import weighing
from inkstream.engines.torch.weighing import Demand, Numbers, Room
from inkstream.errors import ModelError
from inkstream.models import Model
from inkstream.preflight import Finding, Subject
from inkstream.probe import Gpu
from inkstream.provision import Provision, require_loadable
from inkstream.words import Language, Words
from tests.tiny_checkpoint import write_tiny_checkpoint
from tests.tiny_gguf import tiny_gguf

H200 = Gpu("NVIDIA H200", "580.95.05", (9, 0), 143_771 << 20)
LAPTOP = Gpu("NVIDIA GeForce RTX 3060 Laptop GPU", "580.95.05", (8, 6), 6144 << 20)


def qwen2(layers: int, width: int, keys: int, inner: int, vocabulary: int, *, is_tied: bool) -> Numbers:
    """Of its shape, as its safetensors name the tensors; ``keys`` is the width of all key heads together."""
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    for layer in range(layers):
        inside = {
            **{f"self_attn.{name}_proj.weight": (keys, width) for name in "kv"},
            **{f"self_attn.{name}_proj.weight": (width, width) for name in "qo"},
            **{f"self_attn.{name}_proj.bias": (keys,) for name in "kv"},
            "self_attn.q_proj.bias": (width,),
            **{f"mlp.{name}_proj.weight": (inner, width) for name in ("gate", "up")},
            "mlp.down_proj.weight": (width, inner),
            **{f"{name}_layernorm.weight": (width,) for name in ("input", "post_attention")},
        }
        tensors |= {f"model.layers.{layer}.{name}": shape for name, shape in inside.items()}
    head = {} if is_tied else {"lm_head.weight": (vocabulary, width)}
    return Numbers.of(tensors | {"model.norm.weight": (width,)} | head)


SMALL = qwen2(24, 896, 128, 4864, 151_936, is_tied=True)
LARGE = qwen2(28, 3584, 512, 18_944, 152_064, is_tied=False)


def test_the_numbers_are_those_that_the_models_are_published_with() -> None:
    assert (SMALL.elements, LARGE.elements) == (494_032_768, 7_615_616_512)
    assert (SMALL.is_tied, LARGE.is_tied) == (True, False)
    assert SMALL.head == LARGE.head * 896 // 3584 * 151_936 // 152_064 == 151_936 * 896


@pytest.mark.parametrize(("quantize", "layers", "whole"), [("nf4", 0.26, 0.46), ("int8", 0.50, 0.64)])
def test_quantised_layers_take_a_share_and_all_else_what_it_took(
    quantize: str, layers: float, whole: float
) -> None:
    small, full = SMALL.kept_bytes(2, quantize), SMALL.kept_bytes(2)
    assert full == 2 * SMALL.elements
    assert round(small / full, 2) == whole
    others = 2 * SMALL.others
    assert round((small - others) / (full - others), 2) == layers


@pytest.mark.parametrize(("quantize", "gigabytes"), [("", 15.8), ("int8", 9.3), ("nf4", 6.1)])
def test_a_gpu_needs_room_for_the_matrices_that_are_being_joined(quantize: str, gigabytes: float) -> None:
    demand = Demand(LARGE, 2, quantize, is_on_gpu=True)
    assert demand.bytes - LARGE.kept_bytes(2, quantize) == 2 * 2 * (2 * 18_944 * 3584)
    assert round(demand.bytes / 1e9, 1) == gigabytes


def test_main_memory_holds_the_whole_model_before_it_is_made_smaller() -> None:
    quantised, tied, untied = (
        Demand(model, each, "nf4" if each == 2 else "", is_on_gpu=False).bytes - machine.RUNTIME_BYTES
        for model, each in ((LARGE, 2), (SMALL, 4), (LARGE, 4))
    )
    assert quantised == 2 * LARGE.elements
    assert tied == 4 * SMALL.elements + 4 * SMALL.head + 2 * SMALL.head
    assert untied == 4 * LARGE.elements + 4 * LARGE.head


@pytest.mark.parametrize(
    ("gigabytes", "ways"),
    [
        (14, ["--quantize int8", "--quantize nf4", "--device cpu"]),
        (7, ["--quantize nf4", "--device cpu"]),
        (6, ["--device cpu"]),
    ],
)
def test_the_ways_out_are_those_that_lead_somewhere(
    monkeypatch: pytest.MonkeyPatch, gigabytes: int, ways: list[str]
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(64 << 30, 40 << 30))
    demand, room = Demand(LARGE, 2, "", is_on_gpu=True), Room("a GPU", gigabytes * 10**9)
    assert [flags for flags, needed in weighing.ways_out(demand, room)] == ways
    said = weighing.too_large("Qwen2-7B", demand, room)
    assert said.code == "model_too_large"
    assert "Qwen2-7B needs 15.8 GB for its 7.6 billion parameters (16 bits each)" in said.message
    assert f"a GPU has {gigabytes}.0 GB" in said.message
    assert f"{gigabytes / 2:.1f} billion parameters fit in 16 bits" in said.message


def test_in_full_precision_half_is_the_first_way_out() -> None:
    demand = Demand(LARGE, 4, "", is_on_gpu=True)
    flags = [flags for flags, smaller in demand.smaller()]
    assert flags[:3] == [
        "--dtype bfloat16",
        "--dtype bfloat16 --quantize int8",
        "--dtype bfloat16 --quantize nf4",
    ]
    assert all(smaller.bytes < demand.bytes for _, smaller in demand.smaller() if smaller.is_on_gpu)
    (only,) = Demand(SMALL, 4, "", is_on_gpu=False).smaller()
    assert only[0] == "--dtype bfloat16"


def test_a_checkpoint_in_parts_and_a_gguf_file_are_counted(tmp_path: Path) -> None:
    parts = weighing.read(write_tiny_checkpoint(tmp_path / "m", parts=2))
    assert parts.others == 8 * 11  # the same name in both: the last one counts
    (tmp_path / "m.gguf").write_bytes(tiny_gguf(size=4096))
    assert weighing.read(tmp_path / "m.gguf").head == 1024


def served(path: Path, **settings: Any) -> tuple[Settings, Provision]:
    model = Model("m", path, 1, "", "file", {}, ())
    return Settings(engine="torch", model=str(path), **settings), Provision("torch", model)


def described(folder: Path, **config: object) -> Path:
    write_tiny_checkpoint(folder)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


async def test_another_architecture_is_refused_without_loading_it(tmp_path: Path) -> None:
    other = described(tmp_path / "m", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    with pytest.raises(
        ModelError, match="no GPT2LMHeadModel of type 'gpt2'; it has qwen2, qwen3, llama"
    ) as refused:
        await require_loadable(*served(other))
    assert refused.value.code == "model_unsupported"


@pytest.mark.parametrize(("quantised", "name"), [({"quant_method": "gptq"}, "gptq"), ("fp8", "fp8")])
async def test_weights_that_were_quantised_before_are_refused_without_loading_them(
    tmp_path: Path, quantised: object, name: str
) -> None:
    other = described(tmp_path / "m", quantization_config=quantised)
    with pytest.raises(ModelError, match=f"quantised by '{name}'.*--quantize nf4") as refused:
        await require_loadable(*served(other))
    assert refused.value.code == "model_unsupported"


async def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    (write_tiny_checkpoint(tmp_path / "m") / "config.json").write_text("[]")
    with pytest.raises(ModelError, match="describes no model") as refused:
        await require_loadable(*served(tmp_path / "m"))
    assert refused.value.code == "model_corrupt"


@pytest.mark.parametrize(
    ("gpus", "device", "refused_by"),
    [
        ((), "auto", "main memory"),
        ((LAPTOP,), "auto", LAPTOP.name),
        ((LAPTOP,), "cpu", "main memory"),
        ((LAPTOP, H200), "auto", ""),
        ((LAPTOP, H200), "cuda:0", LAPTOP.name),
        ((LAPTOP, H200), "cuda:1", ""),
        ((LAPTOP,), "cuda:1", ""),  # that there is none, the engine says
    ],
)
async def test_what_no_device_holds_is_refused_without_loading_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, gpus: tuple[Gpu, ...], device: str, refused_by: str
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(8 << 30, 8 << 30))
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: gpus)
    monkeypatch.setattr(weighing, "read", lambda _: LARGE)
    settings, provision = served(described(tmp_path / "m"), device=device)
    if refused_by:
        with pytest.raises(ModelError, match=f"{refused_by} has") as refused:
            await require_loadable(settings, provision)
        assert refused.value.code == "model_too_large"
    else:
        await require_loadable(settings, provision)


@pytest.mark.parametrize(
    ("language", "quantize", "level", "text"),
    [
        ("en", "none", "fail", "its weights need about 15.8 GB; NVIDIA GeForce RTX 3060 Laptop GPU: 6.4 GB"),
        ("zh", "none", "fail", "权重约需 15.8 GB"),
        ("en", "nf4", "ok", "needs about 6.1 GB for 64 answers of 8192 tokens, 6.4 GB free"),
    ],
)
def test_the_doctor_says_what_the_weights_need(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, language: Language, quantize: str, level: str, text: str
) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(8 << 30, 8 << 30))
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: (LAPTOP,))
    monkeypatch.setattr(weighing, "read", lambda _: LARGE)
    settings, _ = served(described(tmp_path / "m"), quantize=quantize)
    findings = doctor.model(Subject(settings, {}, Words(language)))
    (memory,) = [finding for finding in findings if finding.check == "memory"]
    assert (memory.level, memory.text.startswith(text)) == (level, True)
    assert ("--quantize nf4 (6.1 GB)" in memory.fix) == (level == "fail")


def test_the_doctor_says_that_there_is_no_such_architecture(tmp_path: Path) -> None:
    other = described(tmp_path / "m", model_type="gpt2", architectures=["GPT2LMHeadModel"])
    *_, last = doctor.model(Subject(served(other)[0], {}, Words("en")))
    assert last == Finding("model", "fail", last.text, "see: inkstream models")
    assert "GPT2LMHeadModel" in last.text
