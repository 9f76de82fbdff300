"""What a scheduler may ask of the device at once: less after a step for which there was no memory.

A step that failed is planned again with half of its sequences and half of its tokens; who came last waits.
When steps have fitted for a while, twice as much is tried. Where even a single token does not fit, others may
be using the memory for the moment, so that is tried again after a pause, and given up in the end.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import torch

from inkstream.engines.torch.memory import is_out_of_memory
from inkstream.engines.torch.scheduler import Scheduler, Step

FITTING_STEPS = 64
"""Before more is tried: a step that fails again costs everybody a page that is read anew."""

HOPELESS_STEPS = 6
PAUSE_SECONDS = 0.1

logger = logging.getLogger(__name__)


class Thrift:
    """Changes the limits of the scheduler. ``failed`` and ``fitted`` are called for each step."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler, self._full = scheduler, scheduler.limits
        self._fitting = self._hopeless = 0

    def failed(self, step: Step, error: BaseException) -> None:
        """Take the step back. Raises the error where it is of another kind, or nothing smaller is left."""
        if not is_out_of_memory(error):
            raise error
        members = len(step.fills) + len(step.rows)
        tokens = len(step.rows) + sum(fill.count for fill in step.fills)
        logger.warning("out of memory at a step of %s sequences, %s tokens", members, tokens)
        self._fitting = 0
        if members == 1 and tokens <= self._full.grain:
            self._wait(error)
        self._set(members // 2, tokens // 2)
        self._scheduler.retract(step)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def fitted(self) -> None:
        """A step has been launched."""
        limits, full = self._scheduler.limits, self._full
        self._hopeless = 0
        if limits is full:
            return
        self._fitting += 1
        if self._fitting < FITTING_STEPS:
            return
        self._fitting = 0
        self._set(limits.seats * 2, limits.most * 2)

    def _wait(self, error: BaseException) -> None:
        self._hopeless += 1
        if self._hopeless >= HOPELESS_STEPS:
            raise error
        time.sleep(PAUSE_SECONDS * 2 ** (self._hopeless - 1))

    def _set(self, seats: int, tokens: int) -> None:
        """As much as that, within what there is in full."""
        full = self._full
        seats, tokens = max(seats, 1), max(tokens, full.grain)
        if seats >= full.seats and tokens >= full.most:
            self._scheduler.limits = full
            return
        self._scheduler.limits = replace(
            full,
            seats=min(seats, full.seats),
            budget=min(tokens, full.budget),
            most=min(tokens, full.most),
            width=1,
        )
