"""What has been measured, in a file that is whole after every figure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DONE = "done"


class Results:
    """``rows`` by name: ``figures``, how the row ``ended`` and how many ``seconds`` it took."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: dict[str, Any] = {"machine": {}, "rows": {}}
        if path.exists():
            self._kept = json.loads(path.read_text())

    @property
    def rows(self) -> dict[str, Any]:
        rows: dict[str, Any] = self._kept["rows"]
        return rows

    def has(self, name: str) -> bool:
        return bool(self.rows.get(name, {}).get("ended") == DONE)

    def about(self, machine: dict[str, Any]) -> None:
        self._kept["machine"] = machine
        self._write()

    def begin(self, name: str) -> None:
        self.rows[name] = {"figures": {}, "ended": "cut off"}

    def add(self, name: str, figures: dict[str, Any]) -> None:
        self.rows[name]["figures"] |= figures
        self._write()

    def end(self, name: str, ended: str, seconds: float) -> None:
        self.rows[name] |= {"ended": ended, "seconds": round(seconds, 1)}
        self._write()

    def _write(self) -> None:
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._kept, indent=1))
        part.rename(self._path)
