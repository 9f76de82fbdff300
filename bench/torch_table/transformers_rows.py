"""Others on the same weights: the article's way, and transformers' own continuous batching."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from transformers import AutoTokenizer, ContinuousBatchingConfig, GenerationConfig, TextIteratorStreamer

from torch_table.core import Figures
from torch_table.place import Place
from torch_table.weights import pretrained


def article(place: Place) -> Iterator[Figures]:
    """``generate`` in a thread for each request, read through ``TextIteratorStreamer``."""
    model = pretrained(place.scale.half, place.device)
    tokenizer = AutoTokenizer.from_pretrained(place.folder)
    _stream(place, model, tokenizer, streams=1, new=4)
    for streams, new in place.scale.article:
        seconds = _stream(place, model, tokenizer, streams, new)
        yield {str(streams): {"tokens_per_second": streams * new / seconds, "new_tokens": new}}


def continuous_batching(place: Place) -> Iterator[Figures]:
    """``generate_batch``'s manager as it comes, and with CUDA graphs. Starting it is not counted."""
    place.clear()
    model = pretrained(place.scale.half, place.device)
    if place.is_gpu:
        variants = {
            "as it comes": ContinuousBatchingConfig(),
            "with CUDA graphs": ContinuousBatchingConfig(use_cuda_graph=True),
        }
    else:  # it would take nearly all of main memory for its cache
        variants = {"as it comes": ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=256)}
    for name, config in variants.items():
        for streams, new in place.scale.batched:
            yield {f"{streams}, {name}": _batched(place, model, config, streams, new)}


def _stream(place: Place, model: Any, tokenizer: Any, streams: int, new: int) -> float:
    """Seconds until the last reader has the last text."""
    readers = []
    started = time.perf_counter()
    for ids in place.prompts(streams):
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        options = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "pad_token_id": 0}
        options |= {"input_ids": torch.tensor([ids], device=place.device), "streamer": streamer}
        threading.Thread(target=model.generate, kwargs=options, daemon=True).start()
        readers.append(threading.Thread(target=lambda texts=streamer: list(texts), daemon=True))
        readers[-1].start()
    for reader in readers:
        reader.join()
    return time.perf_counter() - started


def _batched(place: Place, model: Any, config: Any, streams: int, new: int) -> Figures:
    greedy = GenerationConfig(max_new_tokens=new, do_sample=False, eos_token_id=-1, pad_token_id=0)
    with model.continuous_batching_context_manager(
        generation_config=greedy, continuous_batching_config=config, timeout=5
    ) as manager:
        _answered(manager, place.prompts(1), 2)
        started = time.perf_counter()
        tokens = _answered(manager, place.prompts(streams), new)
        seconds = time.perf_counter() - started
    return {"tokens_per_second": tokens / seconds, "new_tokens": new, "tokens": tokens}


def _answered(manager: Any, prompts: list[list[int]], new: int) -> int:
    """How many tokens came. Raises RuntimeError where the manager dies."""
    manager.add_requests(prompts, max_new_tokens=new)
    tokens = finished = 0
    while finished < len(prompts):
        result = manager.get_result(timeout=1)
        if result is not None and result.is_finished():
            finished += 1
            tokens += len(result.generated_tokens)
        elif result is None and not manager.is_running():
            raise RuntimeError("transformers' manager has died")
    return tokens
