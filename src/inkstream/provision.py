"""What an engine needs on this disk before it loads: found, or fetched, and checked."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inkstream import models, probe
from inkstream.choice import choose
from inkstream.config import Settings
from inkstream.display import Progress
from inkstream.engines import NGRAM, SLOTS, Sampling, Weights
from inkstream.engines.script import Script
from inkstream.engines.torch import weighing
from inkstream.errors import ModelError
from inkstream.probe import size
from inkstream.words import Words

logger = logging.getLogger(__name__)

SAMPLED = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

OnProgress = Callable[[models.Download], None]


@dataclass(frozen=True, slots=True)
class Provision:
    """``engine`` is the one that was chosen. The scripted one has no model, most others no draft."""

    engine: str
    model: models.Model | None = None
    draft: models.Model | None = None

    @property
    def weights(self) -> Weights | None:
        return _weights(self.model) if self.model else None

    @property
    def draft_weights(self) -> Weights | None:
        return _weights(self.draft) if self.draft else None

    @property
    def notice(self) -> Mapping[str, str] | None:
        """What users must be told of the model, by language."""
        return self.model.notice if self.model else None


async def provide(
    settings: Settings, say: Words, on_progress: OnProgress, *, is_wished: bool = False
) -> Provision:
    """``is_wished``: somebody has asked for this model by name, and another one will not do.

    Raises ModelError.
    """
    choice = await asyncio.to_thread(choose, settings, say)
    if choice.warning:
        logger.warning("%s", choice.warning)
    if choice.engine == "scripted":
        return Provision(choice.engine)
    model = await _fetch(settings, choice.form, say, on_progress, is_wished=is_wished)
    if choice.engine != "torch" or settings.draft_model in ("", NGRAM):
        return Provision(choice.engine, model)
    guessing = replace(settings, model=settings.draft_model)
    return Provision(choice.engine, model, await _fetch(guessing, choice.form, say, on_progress))


async def require_loadable(settings: Settings, provision: Provision) -> None:
    """Find out, without loading, what would not load. What only the engine can tell, it tells later.

    Raises ModelError, ConfigError.
    """
    if provision.model is None:
        if settings.model.endswith(".json"):
            Script.read(Path(settings.model))
    elif provision.engine == "llama":
        await asyncio.to_thread(_require_memory, provision.model, settings)
    elif provision.engine == "torch":
        await asyncio.to_thread(weighing.require_loadable, provision.model.path, settings)


def _require_memory(model: models.Model, settings: Settings) -> None:
    takes = models.footprint(model)
    needed = takes.bytes_for(takes.context(settings.context) * (settings.slots or SLOTS))
    total = models.memory().total_bytes
    if needed > total and not _has_gpu():
        raise ModelError(
            f"{model.name} takes about {size(needed)} of memory, and this machine has {size(total)}."
            " Choose a smaller model, or a smaller --context.",
            code="not_enough_memory",
        )


def _has_gpu() -> bool:
    """Whether llama.cpp has something to put layers on. Asking takes a second or two."""
    try:
        return any(device.kind in ("GPU", "IGPU") for device in probe.llama().devices)
    except probe.ProbeError:
        return False


async def _fetch(
    settings: Settings, form: models.Form, say: Words, on_progress: OnProgress, *, is_wished: bool = False
) -> models.Model:
    console = Progress(sys.stderr, say, is_terminal=False)

    def on_both(download: models.Download) -> None:
        on_progress(download)
        if settings.log_format == "text":
            console(download)

    return await models.fetch(
        settings.model,
        settings.models_dir,
        on_progress=on_both,
        offline=settings.offline,
        is_default=settings.is_default_model and not is_wished,
        form=form,
    )


def _weights(model: models.Model) -> Weights:
    recommended: dict[str, Any] = {name: model.sampling[name] for name in SAMPLED if name in model.sampling}
    return Weights(model.path, model.name, model.sha256, Sampling(**recommended))
