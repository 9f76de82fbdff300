"""The child that measures, from both sides: rows in, figures out; one that takes too long is replaced."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import signal
import time
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch

from torch_table.place import Place
from torch_table.results import DONE, Results
from torch_table.rows import ROWS

START_SECONDS = 120
"""What importing torch, and writing a model, may take."""

MACHINE, FIGURES, ENDED = "machine", "figures", "ended"


class Crew:
    """At most one child. It is replaced where a row did not end well."""

    def __init__(self, folder: Path, real: Path | None, *, rehearses: bool) -> None:
        self._given = (folder, real, rehearses)
        self._child: multiprocessing.process.BaseProcess | None = None
        self._ear: Connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._dismiss()

    def measure(self, name: str, seconds: float, results: Results) -> str:
        """Ask for a row and keep its figures; how it ended, ``done`` if all is well."""
        results.begin(name)
        if self._child is None:
            self._hire(results)
        self._ear.send(name)
        ended = self._follow(name, time.monotonic() + seconds, results)
        if ended != DONE:
            self._dismiss()
        return ended

    def _hire(self, results: Results) -> None:
        self._ear, other = multiprocessing.Pipe()
        self._child = multiprocessing.get_context("spawn").Process(target=work, args=(other, *self._given))
        self._child.start()
        other.close()
        kind, machine = self._hear(time.monotonic() + START_SECONDS)
        if kind != MACHINE:
            raise SystemExit(f"the child that measures cannot start: {machine}")
        results.about(machine)

    def _follow(self, name: str, deadline: float, results: Results) -> str:
        while True:
            kind, told = self._hear(deadline)
            if kind == ENDED:
                return str(told)
            results.add(name, told)
            for key, figures in told.items():
                print(f"  {key}: {_short(figures)}", flush=True)

    def _hear(self, deadline: float) -> tuple[str, Any]:
        if not self._ear.poll(max(deadline - time.monotonic(), 0)):
            return ENDED, "cut off: it took too long"
        try:
            kind, told = self._ear.recv()
        except EOFError:
            return ENDED, "cut off: its process died"
        return kind, told

    def _dismiss(self) -> None:
        """With all that it has started: a server that outlives it would keep the device's memory."""
        if self._child is None or self._child.pid is None:
            return
        with contextlib.suppress(ProcessLookupError):  # it has not come so far as to have a group
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.kill()
        self._child.join()
        self._ear.close()
        self._child = None


def work(tell: Connection, folder: Path, real: Path | None, rehearses: bool) -> None:
    """In the child: its own group of processes, until the parent is gone."""
    os.setsid()
    place = Place.of(folder, real, rehearses=rehearses)
    tell.send((MACHINE, _machine(place)))
    with contextlib.suppress(EOFError):
        while True:
            tell.send((ENDED, _measured(tell, tell.recv(), place)))


def _measured(tell: Connection, name: str, place: Place) -> str:
    try:
        for figures in ROWS[name].measure(place):
            tell.send((FIGURES, figures))
    except Exception:  # noqa: BLE001 - whatever it is, it belongs into the table
        return f"failed: {traceback.format_exc(limit=-4)}"
    return DONE


def _machine(place: Place) -> dict[str, Any]:
    name = torch.cuda.get_device_name() if place.is_gpu else platform.processor()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version()}


def _short(figures: Any) -> str:
    if isinstance(figures, float):
        return f"{figures:.4g}"
    if isinstance(figures, dict):
        return json.dumps({key: _short(value) for key, value in figures.items()}).replace('"', "")
    return str(figures)
