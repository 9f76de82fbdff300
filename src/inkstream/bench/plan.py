"""What is to be measured: one frozen plan, checked once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from secrets import randbelow
from typing import Any
from urllib.parse import SplitResult, urlsplit

from inkstream.errors import ConfigError

APIS = ("auto", "openai", "stream", "native", "run")
MOST_STREAMS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The load, how often it is repeated, and whose costs are watched.

    Closed loop: each of ``streams`` (one count after the other) reads one answer, or answers one behind the
    other for ``duration`` seconds. With ``rate`` the loop is open: that many new answers per second for
    ``duration`` seconds, at random moments (Poisson), whether the earlier ones have ended or not.

    ``ramp`` is the seconds over which the first answers of a closed loop are begun. ``timeout`` is how many
    seconds a server may send nothing. ``pids`` are the server's processes, with all their descendants;
    without them the one that listens there is looked for. ``warm_up``: one answer first, counted nowhere.
    Raises ConfigError.
    """

    url: str
    api: str = "auto"
    streams: tuple[int, ...] = (1, 8, 32, 256, 1000)
    tokens: int = 128
    rounds: int = 3
    duration: float = 0.0
    rate: float = 0.0
    ramp: float = 0.0
    key: str = ""
    model: str = ""
    prompt: str = "Tell me a long story about a river. 讲一个关于河流的长故事。"
    workers: int = 1
    timeout: float = 60.0
    pids: tuple[int, ...] = ()
    seed: int = 1
    warm_up: bool = True

    def __post_init__(self) -> None:
        if self.api not in APIS:
            raise ConfigError(f"--api has value {self.api!r}. Choose one of: {', '.join(APIS)}.")
        self._require_address()
        if not self.streams or not all(0 < count <= MOST_STREAMS for count in self.streams):
            raise ConfigError(f"--streams has value {self.streams!r}. Counts are from 1 to {MOST_STREAMS}.")
        for name in ("tokens", "rounds", "workers"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("duration", "rate", "ramp"):
            self._require(name, getattr(self, name) >= 0, "no negative number")
        self._require("timeout", self.timeout > 0, "more than 0")
        if self.rate and not self.duration:
            raise ConfigError("--rate needs --duration: for how many seconds are new answers asked for?")

    @classmethod
    def parse(cls, given: Mapping[str, Any]) -> Plan:
        """Build one from the command line's texts; None stands for the default. Raises ConfigError.

        A seed is drawn if none is given: the same questions again would be answered from a server's cache.
        """
        values: dict[str, Any] = {"seed": randbelow(1_000_000)}
        for field in fields(cls):
            text = given.get(field.name)
            if text is not None:
                values[field.name] = _converted(field.name, text, CONVERTERS.get(field.name, str))
        return cls(**values)

    @property
    def address(self) -> SplitResult:
        return urlsplit(self.url)

    def _require_address(self) -> None:
        try:
            known = (
                self.address.scheme in ("http", "https") and self.address.hostname and self.address.port != 0
            )
        except ValueError:
            known = False
        if not known:
            raise ConfigError(f"URL has value {self.url!r}. Give one such as http://127.0.0.1:8000.")

    def _require(self, name: str, holds: bool, what: str) -> None:
        if not holds:
            raise ConfigError(f"--{name} has value {getattr(self, name)!r}. It must be {what}.")


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part.replace("_", "")) for part in text.split(",") if part.strip())


CONVERTERS: dict[str, Callable[[str], Any]] = {
    "streams": _numbers,
    "pids": _numbers,
    **dict.fromkeys(("tokens", "rounds", "workers", "seed"), int),
    **dict.fromkeys(("duration", "rate", "ramp", "timeout"), float),
}


def _converted(name: str, text: Any, convert: Callable[[str], Any]) -> Any:
    try:
        return convert(text)
    except ValueError:
        kind = {_numbers: "list of whole numbers", int: "whole number"}.get(convert, "number")
        raise ConfigError(f"--{name} has value {text!r}. Not a valid {kind}.") from None
