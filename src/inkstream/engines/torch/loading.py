"""From a model on the disk to a runner that can be driven, and what is told meanwhile.

All of it blocks and belongs in a thread.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from inkstream import machine
from inkstream.engines import Capabilities, Phase, Sampling, Status
from inkstream.engines.torch.cache import PAGE, SCRATCH
from inkstream.engines.torch.device import (
    choose_device,
    create_runner,
    default_slots,
    pages_that_fit,
    spread_over,
)
from inkstream.engines.torch.forward import Weights
from inkstream.engines.torch.memory import require_room, within_memory
from inkstream.engines.torch.model import Model, load, load_drafting, native_dtype
from inkstream.engines.torch.packed import can_pack, narrowed, packed
from inkstream.engines.torch.quantized import quantizer
from inkstream.engines.torch.runner import Runner
from inkstream.engines.torch.weighing import Demand, read

logger = logging.getLogger(__name__)

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What to load, and for how many at a time; ``slots`` 0 is what suits the device. ``threads`` are those
    of a CPU, 0 all cores but one.

    ``queue`` is how many more may wait. ``cache_tokens`` bounds what all answers together have in the cache;
    0 is room for all of them, as far as there is memory. ``sha256`` of the weights spares computing it.

    ``draft_model`` is a smaller model of the same vocabulary, which guesses tokens ahead; ``ngram`` guesses
    them from what the text has said before. Either is lossless, and is left off while it costs time.
    ``quantize`` keeps matrices in fewer bits: nf4 or int8.
    """

    path: Path
    context: int = 8192
    slots: int = 0
    queue: int = 64
    cache_tokens: int = 0
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    name: str = ""
    sha256: str = ""
    defaults: Sampling = field(default_factory=Sampling)
    ngram: bool = False
    draft_model: Path | None = None
    quantize: str = ""


@dataclass(frozen=True, slots=True)
class Loaded:
    """``pages`` includes the scratch page."""

    model: Model
    runner: Runner
    pages: int
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of loading. It takes the share of it from ``begin`` to ``end``, roughly."""

    en: str
    zh: str
    begin: float
    end: float


DEQUANTISING = Stage("dequantising the weights", "反量化权重", 0.0, 0.5)
READING = Stage("reading the weights", "读取权重", 0.0, 0.6)
PLACING = Stage("placing the weights", "将权重移到设备", 0.6, 0.7)
CAPTURING = Stage("capturing graphs", "捕获计算图", 0.7, 1.0)

Tell = Callable[[Status], None]


def load_all(launch: Launch, tell: Tell) -> Loaded:
    """Raises ModelError: what is wrong with the model, the device or the memory, and what to do."""

    def at(stage: Stage) -> Callable[[int, int], None]:
        return lambda done, total: tell(_status(stage, done, total))

    device = choose_device(launch.device)
    dtype = DTYPES.get(launch.dtype) or native_dtype(device, is_quantized=bool(launch.quantize))
    demand = Demand(read(launch.path), dtype.itemsize, launch.quantize, is_on_gpu=device.type == "cuda")
    devices = spread_over(device, launch.device, demand.bytes)
    packs = not launch.quantize and can_pack(device, dtype)
    quantize = packed if packs else quantizer(launch.quantize, device)
    if device.type == "cpu":
        torch.set_num_threads(launch.threads or machine.spare_cores())
    with within_memory(launch.path, device):
        require_room(launch.path.name, demand, devices)
        model = load(
            launch.path,
            device,
            dtype,
            launch.sha256,
            read=at(READING if launch.path.is_dir() else replace(READING, begin=DEQUANTISING.end)),
            placed=at(PLACING),
            quantize=quantize,
            dequantised=at(DEQUANTISING),
            others=devices[1:],
        )
        if packs:
            model = replace(model, weights=_packed(model.weights))
        _tell_where(model.weights)
        drafting = load_drafting(model, device, launch.draft_model, ngram=launch.ngram)
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what joining and quantising have left over is for the cache
        slots, context = launch.slots or default_slots(device), min(launch.context, model.positions)
        pages = pages_that_fit(model.weights, launch.cache_tokens or slots * context, drafting)
        runner = create_runner(
            model.weights, sorted(model.stops), slots, pages, context, at(CAPTURING), drafting
        )
    about = _capabilities(launch, model, slots, pages)
    return Loaded(model, runner, pages, replace(about, speculation=drafting.name if drafting else None))


def _packed(weights: Weights) -> Weights:
    is_tied = weights.head.weight is weights.embedding
    embedding = narrowed(weights.embedding) if is_tied else weights.embedding
    return replace(weights, embedding=embedding, head=packed(weights.head))


def _tell_where(weights: Weights) -> None:
    """Where one device does not have all of it, everybody is to know: nothing is captured then."""
    if len(weights.layers_on) > 1:
        homes = ", ".join(f"{layers} on {device}" for device, layers in weights.layers_on.items())
        logger.warning("one GPU does not hold the model; its layers are spread: %s", homes)


def _status(stage: Stage, done: int, total: int) -> Status:
    share = stage.begin + (stage.end - stage.begin) * done / max(total, 1)
    step = {"en": f"{stage.en} {done}/{total}", "zh": f"{stage.zh} {done}/{total}"}
    return Status(Phase.LOADING, share=round(share, 2), detail={"step": step})


def _capabilities(launch: Launch, model: Model, slots: int, pages: int) -> Capabilities:
    # A row at the end of its context must fit even where it has the cache to itself.
    context = min(launch.context, model.positions, (pages - SCRATCH - 1) * PAGE)
    if context < min(launch.context, model.positions):
        logger.warning("memory is short: answers have a context of %s tokens", context)
    dtype = str(model.weights.dtype)
    identity = f"{model.checksum}\n{dtype} {launch.quantize}\n{context}\n{model.chat.identity}"
    return Capabilities(
        engine="torch",
        model=launch.name or model.name,
        fingerprint=f"torch:{hashlib.sha256(identity.encode()).hexdigest()[:32]}",
        context_length=context,
        slots=slots,
        continues="ids",
        exact_seam=dtype == "torch.float32" and not launch.quantize,
        defaults=launch.defaults.over(model.defaults),
    )
