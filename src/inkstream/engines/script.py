"""What the scripted engine is told to do: the fields of ``INKSTREAM_SCRIPT``, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_type_hints

import orjson

from inkstream.errors import ConfigError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What the engine does. ``crash_on``, ``fail_on`` and ``stall_on`` are looked for in the whole prompt.

    ``name`` is the model's. ``answer`` None stands for ``answer_tokens`` tokens drawn from prompt and seed.
    Rates of 0 mean as fast as possible. A prompt with ``crash_on`` in it kills the process behind
    ``crash_after_tokens`` new tokens; with ``crash_after_tokens`` alone every prompt does.

    ``in_step``: the paced answers get their tokens in the same turn of the event loop, as a batching engine
    gives them; otherwise each by its own clock. ``tokens_per_chunk`` is how many an unpaced answer gives at
    a time.
    """

    name: str = "scripted"
    answer: str | None = None
    answer_tokens: int = 200
    think: bool = False
    tokens_per_second: float = 0
    in_step: bool = True
    tokens_per_chunk: int = 64
    prefill_tokens_per_second: float = 0
    load_seconds: float = 0
    continues: Literal["ids", "text", "no"] = "ids"
    slots: int = 256
    context: int = 32768
    crash_on: str = ""
    crash_after_tokens: int = 0
    fail_on: str = ""
    stall_on: str = ""

    def __post_init__(self) -> None:
        if self.continues not in ("ids", "text", "no"):
            raise ConfigError(f"script: 'continues' has value {self.continues!r}. Choose ids, text or no.")
        for name, lowest in (("slots", 1), ("context", 16), ("tokens_per_chunk", 1)):
            if getattr(self, name) < lowest:
                raise ConfigError(
                    f"script: '{name}' has value {getattr(self, name)}. It must be at least {lowest}."
                )
        for setting in fields(self):
            value = getattr(self, setting.name)
            if isinstance(value, int | float) and value < 0:
                raise ConfigError(f"script: '{setting.name}' has value {value}. It must not be negative.")

    @classmethod
    def read(cls, path: Path) -> Script:
        """From a JSON file. Raises ModelError, ConfigError."""
        try:
            return cls.parse(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ModelError(f"There is no file {path}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{path} cannot be read: {error}.", code="model_unreadable") from error

    @classmethod
    def parse(cls, text: str) -> Script:
        """Read a JSON object whose fields are those above; empty text is the default. Raises ConfigError."""
        try:
            given = orjson.loads(text) if text.strip() else {}
        except orjson.JSONDecodeError as error:
            raise ConfigError(f"script is not valid JSON: {error}") from None
        if not isinstance(given, dict):
            raise ConfigError('script must be a JSON object, such as {"answer": "Hello"}.')
        types = get_type_hints(cls)
        for name, value in given.items():
            if name not in types:
                raise ConfigError(f"script has an unknown field '{name}'. It knows: {', '.join(types)}.")
            _check_type(name, value, types[name])
        return cls(**given)


def _check_type(name: str, value: Any, expected: Any) -> None:
    if name == "continues":
        return  # its values are checked with the others, by name
    allowed: dict[Any, tuple[type, ...]] = {float: (int, float), int: (int,), bool: (bool,), str: (str,)}
    types = allowed.get(expected, (str, type(None)))
    if not isinstance(value, types) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(
            f"script: '{name}' has value {value!r}. Not a valid {_TYPE_NAMES.get(expected, 'text')}."
        )


_TYPE_NAMES = {float: "number", int: "whole number", bool: "true or false"}
