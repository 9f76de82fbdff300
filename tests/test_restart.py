"""A restart under live answers, as real processes."""

from __future__ import annotations

from pathlib import Path

import pytest
from restart import restarted

from inkstream.engines.scripted import Script

pytestmark = pytest.mark.real

SCRIPT = Script(answer_tokens=100, tokens_per_second=20)


@pytest.mark.parametrize("is_apart", [False, True], ids=["whole", "engine apart"])
async def test_fifty_readers_of_fifty_answers_notice_but_a_pause(tmp_path: Path, is_apart: bool) -> None:
    outcome = await restarted(tmp_path, SCRIPT, 50, is_apart=is_apart)
    assert outcome.faults == []
    assert outcome.exit_seconds < 2
    assert outcome.loads == (1 if is_apart else 2)
