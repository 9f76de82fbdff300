"""Every code with which the server refuses or fails something is in the protocol."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
REFUSALS = {
    "Conflict",
    "Expired",
    "Forbidden",
    "Invalid",
    "KeyReused",
    "LimitReached",
    "NotFound",
    "Overloaded",
}
FAILURES = {"EngineFailed", "EngineLost", "TooLarge", "Unauthorized"}
# What a script is told to fail with is for tests and demonstrations.
OF_SCRIPTS = {"scripted_failure"}


def codes_in(source: str) -> Iterator[str]:
    """Those that are written where an error is made, or the ending of a run."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == "failed":
            given = node.args[:1]
        elif node.func.id in REFUSALS | FAILURES:
            given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
        else:
            continue
        yield from (
            code.value for code in given if isinstance(code, ast.Constant) and isinstance(code.value, str)
        )


def test_every_code_is_in_the_protocol() -> None:
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "src" / "inkstream").rglob("*.py")]
    codes = {code for source in sources for code in codes_in(source)} - OF_SCRIPTS
    assert len(codes) > 30
    protocol = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    assert sorted(codes - set(re.findall(r"\w+", protocol))) == []
