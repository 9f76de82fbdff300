"""A restart under live answers, as real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from inkstream.engines.scripted import Script
from restart import restarted

pytestmark = pytest.mark.real

SCRIPT = Script(answer_tokens=100, tokens_per_second=20)


@pytest.mark.parametrize("is_apart", [False, True], ids=["whole", "engine apart"])
async def test_fifty_readers_of_fifty_answers_notice_but_a_pause(tmp_path: Path, is_apart: bool) -> None:
    outcome = await restarted(tmp_path, SCRIPT, 50, is_apart=is_apart)
    assert outcome.faults == []
    crowd = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others may have the processors as well
    assert outcome.exit_seconds < 2 * crowd
    assert outcome.loads == (1 if is_apart else 2)
