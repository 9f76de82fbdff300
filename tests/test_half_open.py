"""A crowd of half-open connections around a real server; ``bench/half_open.py`` has the full size."""

from __future__ import annotations

import pytest

from half_open import main, make_room

pytestmark = pytest.mark.real

CROWD = 1000
LIFE_SECONDS = 4.0
REPLY_SECONDS = 1.0
KEPT_MIB = 8.0


async def test_a_crowd_keeps_nobody_waiting_and_leaves_nothing_behind() -> None:
    outcome = await main(CROWD, LIFE_SECONDS)
    assert outcome.standing >= 0.9 * CROWD, outcome
    assert outcome.replies > 10, outcome
    assert outcome.median_reply < REPLY_SECONDS, outcome
    assert outcome.slowest_reply < LIFE_SECONDS, outcome  # nobody has to wait until the crowd is gone
    assert outcome.after_again - outcome.after < KEPT_MIB, outcome


def test_a_crowd_that_there_are_no_files_for_is_refused() -> None:
    with pytest.raises(SystemExit, match="hard limit"):
        make_room(10_000_000)
