"""Loads a model with transformers and takes over its weights.

Only architectures whose forward pass ``forward`` has are taken, by name; of those only variants of which it
has everything. What is refused is refused with the reason.
"""

from __future__ import annotations

import hashlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

import torch
from tqdm import tqdm
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from inkstream.engines import Sampling
from inkstream.engines.torch.chat import Chat
from inkstream.engines.torch.drafting import Drafting
from inkstream.engines.torch.forward import Layer, Linear, Shape, Weights
from inkstream.engines.torch.memory import free_bytes, is_out_of_memory
from inkstream.engines.torch.quantized import Quantize
from inkstream.engines.torch.weighing import require_known
from inkstream.errors import ModelError

ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Those whose frequencies do not change with the length of the text."""

SILENT_MODEL = Sampling(
    temperature=0.7,
    top_p=0.95,
    top_k=40,
    min_p=0.0,
    repetition_penalty=1.0,
    presence_penalty=0.0,
    frequency_penalty=0.0,
    min_tokens=0,
    ignore_eos=False,
    logprobs=False,
    top_logprobs=0,
)
"""For a model whose files recommend nothing."""

SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
BAR = re.compile(r"\| (\d+)/(\d+) \[")
"""What a progress bar of tqdm says of how many of how many."""

READ_BYTES = 1 << 22
SHOWN_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Model:
    """``stops`` are the tokens that end an answer. ``positions`` is the longest text it can read."""

    name: str
    weights: Weights
    chat: Chat
    stops: frozenset[int]
    defaults: Sampling
    checksum: str
    positions: int


Heard = Callable[[int, int], None]
"""Is told how many of how many are done."""


def nobody(done: int, total: int) -> None: ...


def load(
    path: Path,
    device: torch.device,
    dtype: torch.dtype | None = None,
    checksum: str = "",
    read: Heard = nobody,
    placed: Heard = nobody,
    quantize: Quantize = lambda linear: linear,
    dequantised: Heard = nobody,
    others: Sequence[torch.device] = (),
) -> Model:
    """From a folder as transformers saves them, or from a GGUF file. Raises ModelError.

    ``checksum`` of the weights spares computing it. ``read`` hears of tensors, ``placed`` of layers, and
    ``dequantised`` of a GGUF file's tensors before. ``others`` are further devices for layers.
    """
    folder, source = (path, {}) if path.is_dir() else (path.parent, {"gguf_file": path.name})
    config = _translated(path, "configuration", lambda: AutoConfig.from_pretrained(folder, **source))
    require_supported(config)
    kept = dtype or native_dtype(device)
    with _watched(read), _overheard(dequantised):
        # What does not fit is told with what is missing: transformers would draw either at random.
        told = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        pretrained, found = _translated(
            path,
            "weights",
            lambda: AutoModelForCausalLM.from_pretrained(folder, dtype=kept, **told, **source),
        )
    _require_complete(path, found)
    tokenizer = _translated(path, "tokenizer", lambda: AutoTokenizer.from_pretrained(folder, **source))
    return Model(
        name=path.stem if source else path.name,
        weights=take_weights(pretrained, device, placed, quantize, others),
        chat=Chat(tokenizer),
        stops=_stops(pretrained.generation_config, tokenizer),
        defaults=_recommended(pretrained.generation_config),
        checksum=checksum or _checksum(path),
        positions=_positions(config),
    )


def load_drafting(model: Model, device: torch.device, path: Path | None, *, ngram: bool) -> Drafting | None:
    """With what steps speculate, if they do. Raises ModelError for a model that cannot draft for this one."""
    if path is None:
        return Drafting("ngram") if ngram else None
    small = load(path, device, model.weights.dtype, checksum="not needed")
    vocabularies = [each.chat.tokenizer.get_vocab() for each in (model, small)]
    if vocabularies[0] != vocabularies[1]:
        raise _refused(f"{small.name} cannot draft for {model.name}: their vocabularies differ.")
    if small.positions < model.positions:
        raise _refused(
            f"{small.name} cannot draft for {model.name}: it reads {small.positions} tokens, "
            f"not {model.positions}."
        )
    return Drafting(small.name, small.weights)


def native_dtype(device: torch.device, *, is_quantized: bool = False) -> torch.dtype:
    """bfloat16 where the device computes in it, else half precision; on a CPU full precision, but beside
    quantised matrices, which have lost more than that."""
    if device.type != "cuda":
        return torch.bfloat16 if is_quantized else torch.float32
    is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if is_native else torch.float16


def require_supported(config: Any) -> None:
    """Raises ModelError with the reason."""
    require_known(config.to_dict())
    if config.hidden_act != "silu":
        raise _refused(f"The torch engine has no activation '{config.hidden_act}', only silu.")
    rope = config.rope_parameters["rope_type"]
    if rope not in ROPE_TYPES:
        raise _refused(f"The torch engine has no rotary embedding '{rope}', only {', '.join(ROPE_TYPES)}.")


def take_weights(
    pretrained: Any,
    device: torch.device,
    placed: Heard = nobody,
    quantize: Quantize = lambda linear: linear,
    others: Sequence[torch.device] = (),
) -> Weights:
    """Move the weights of a transformers model to the device, joined; the model is empty afterwards.

    ``quantize`` is applied to the matrices of the layers, on the device. Layers are spread over it and the
    ``others``, in order.
    """
    config, body = pretrained.config, pretrained.model
    shape = Shape(
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        key_heads=config.num_key_value_heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocabulary=config.vocab_size,
        positions=config.max_position_embeddings,
        epsilon=config.rms_norm_eps,
    )
    with torch.inference_mode():
        cos, sin = _rotations(body.rotary_emb, shape.positions, device)
        embedding = body.embed_tokens.weight.to(device)
        is_tied = pretrained.lm_head.weight is body.embed_tokens.weight
        head = Linear(embedding if is_tied else pretrained.lm_head.weight.to(device))
        layers = []
        # What is on the first device already leaves less of it for layers.
        homes = spread([(each, free_bytes(each)) for each in (device, *others)], shape.layers)
        for layer, home in zip(body.layers, homes, strict=True):
            layers.append(_take_layer(layer, home, quantize))
            placed(len(layers), shape.layers)
        return Weights(shape, embedding, tuple(layers), body.norm.weight.to(device), head, cos, sin)


def spread(devices: Sequence[tuple[torch.device, int]], layers: int) -> list[torch.device]:
    """Where each layer goes: in order, to each device as many as its free bytes are a part of all."""
    homes: list[torch.device] = []
    until, total = 0, sum(free for _, free in devices)
    for device, free in devices[:-1]:
        until += free
        homes += [device] * (round(layers * until / max(total, 1)) - len(homes))
    return homes + [devices[-1][0]] * (layers - len(homes))


def _take_layer(layer: Any, device: torch.device, quantize: Quantize) -> Layer:
    """One after the other, so that no more than one layer is there twice."""

    def linear(*modules: Any) -> Linear:
        parts = [Linear(m.weight.to(device), None if m.bias is None else m.bias.to(device)) for m in modules]
        return quantize(Linear.joined(parts))

    def norm(module: Any) -> torch.Tensor | None:
        weight: torch.Tensor | None = None if module is None else module.weight.to(device)
        return weight

    attention, inner = layer.self_attn, layer.mlp
    taken = Layer(
        input_norm=layer.input_layernorm.weight.to(device),
        qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
        query_norm=norm(getattr(attention, "q_norm", None)),
        key_norm=norm(getattr(attention, "k_norm", None)),
        output=linear(attention.o_proj),
        inner_norm=layer.post_attention_layernorm.weight.to(device),
        gate_up=linear(inner.gate_proj, inner.up_proj),
        down=linear(inner.down_proj),
    )
    layer.to("meta")
    return taken


def _rotations(rotary: Any, positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    angles = torch.arange(positions, dtype=torch.float32).unsqueeze(1) * rotary.inv_freq.float().cpu()
    return (
        (angles.cos() * rotary.attention_scaling).to(device),
        (angles.sin() * rotary.attention_scaling).to(device),
    )


def _positions(config: Any) -> int:
    """Within a sliding window full attention sees the same."""
    positions: int = config.max_position_embeddings
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        positions = min(positions, config.sliding_window)
    return positions


def _stops(generation: Any, tokenizer: Any) -> frozenset[int]:
    ends = generation.eos_token_id
    ids = ends if isinstance(ends, list) else [ends]
    return frozenset(id for id in (*ids, tokenizer.eos_token_id) if id is not None)


def _recommended(generation: Any) -> Sampling:
    if not generation.do_sample:
        return SILENT_MODEL
    told = {name: value for name in SAMPLED if (value := getattr(generation, name, None)) is not None}
    # What transformers does not filter by where nothing is said.
    return replace(SILENT_MODEL, **{"temperature": 1.0, "top_p": 1.0, "top_k": 50} | told)


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _weight_files(path):
        with file.open("rb") as opened:
            while block := opened.read(READ_BYTES):
                digest.update(block)
    return digest.hexdigest()


def _weight_files(path: Path) -> Iterator[Path]:
    yield from sorted([*path.glob("*.safetensors"), path / "config.json"]) if path.is_dir() else [path]


@contextmanager
def _watched(read: Heard) -> Iterator[None]:
    """Hear of the tensors that transformers loads: where it would draw a bar, one of ours listens."""

    class Bar(tqdm):  # type: ignore[misc]  # an optional package, which is Any where types are checked
        monitor_interval = 0  # it would start a thread

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if self.total:
                read(self.n, self.total)

    before = transformers_logging.set_tqdm_hook(
        lambda _, args, kwargs: Bar(*args, **kwargs | {"file": io.StringIO(), "disable": False})
    )
    try:
        yield
    finally:
        transformers_logging.set_tqdm_hook(before)


@contextmanager
def _overheard(heard: Heard) -> Iterator[None]:
    """Hear of the bar that transformers draws by itself, past its own hook, while it dequantises."""
    with redirect_stderr(_Bars(heard, sys.stderr)):
        yield


class _Bars(io.StringIO):
    """Stands in for the console: takes the bars, and passes on all else."""

    def __init__(self, heard: Heard, behind: TextIO) -> None:
        super().__init__()
        self._heard, self._behind = heard, behind
        self._is_bar = False

    def write(self, text: str) -> int:
        """A bar's last line end comes by itself, as that of a warning does."""
        if found := BAR.search(text):
            self._heard(int(found[1]), int(found[2]))
        self._is_bar = bool(found) or (self._is_bar and not text.strip())
        if not self._is_bar:
            self._behind.write(text)
        return len(text)

    def flush(self) -> None:
        self._behind.flush()


def _require_complete(path: Path, found: dict[str, Any]) -> None:
    """``found`` is what transformers says of the weights that it has read. Raises ModelError."""
    problems = [f"{name} is missing" for name in sorted(found["missing_keys"])]
    for name, there, wanted in sorted(found["mismatched_keys"]):
        problems.append(f"{name} is {tuple(there)} and should be {tuple(wanted)}")
    if problems:
        named, others = "; ".join(problems[:SHOWN_PROBLEMS]), len(problems) - SHOWN_PROBLEMS
        more = f"; and {others} more" if others > 0 else ""
        raise ModelError(
            f"The weights in {path} are not those that its configuration describes: {named}{more}.",
            code="model_corrupt",
        )


def _translated(path: Path, what: str, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except ImportError as error:
        raise ModelError(f"The {what} of {path} cannot be loaded: {error}", code="engine_missing") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ModelError(f"The {what} of {path} cannot be loaded: {reason}", code="model_corrupt") from error


def _refused(message: str) -> ModelError:
    return ModelError(message, code="model_unsupported")
