"""Matrices that oneDNN has in its own order: the same products, and an embedding that is not there twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from inkstream.engines.torch.engine import Launch, TorchEngine  # noqa: E402 - without torch nothing to import for
from inkstream.engines.torch.forward import Linear  # noqa: E402
from inkstream.engines.torch.packed import can_pack, narrowed, packed  # noqa: E402

pytestmark = pytest.mark.real
CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="this torch has no oneDNN")


@needs_onednn
@pytest.mark.parametrize("rows", [1, 3, 4, 9])
@pytest.mark.parametrize("has_bias", [False, True])
def test_packed_products_are_those_of_the_matrix(rows: int, has_bias: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    linear = Linear(
        torch.randn(70, 48, generator=draw), torch.randn(70, generator=draw) if has_bias else None
    )
    x = torch.randn(rows, 48, generator=draw)
    torch.testing.assert_close(packed(linear)(x), linear(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_was_saved_in_16_bits_is_kept_in_16_bits(dtype: Any) -> None:
    saved = torch.randn(300, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    kept = narrowed(saved.float())
    assert kept.dtype is dtype
    assert torch.equal(kept.float(), saved.float())


def test_what_would_lose_a_digit_stays_as_it_is() -> None:
    embedding = torch.randn(300, 16, generator=torch.Generator().manual_seed(3))
    assert narrowed(embedding) is embedding


@needs_onednn
async def test_a_tied_embedding_of_16_bits_is_there_in_16_bits_beside_the_packed_head(
    smollm2_checkpoint: Path,
) -> None:
    async with TorchEngine(Launch(path=smollm2_checkpoint, device="cpu", context=256, slots=1)) as engine:
        weights = engine._ready().model.weights
    assert weights.dtype is torch.float32
    assert weights.embedding.dtype is torch.bfloat16
    assert type(weights.head).__name__ == "PackedLinear"
