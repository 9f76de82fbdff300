"""Prints how many lines the project has, and beside the way from prompt to browser how many it should have.

``lines`` is what an editor counts, ``code`` what is left without blank lines, comments and docstrings. The
numbers are an alarm and no gate: nothing fails because of them.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
SILENT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
COMMENTS_OF_THE_WEB = re.compile(r"/\*.*?\*/|<!--.*?-->|^\s*//[^\n]*", re.DOTALL | re.MULTILINE)
MODULES_ON_THE_WAY = (
    *("events", "errors", "config", "engines/__init__", "ask", "conversation"),
    *("channels", "admission", "limits", "news", "drafts", "drive", "runs"),
    *("connection", "gateway", "engine_process"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """A file counts for the first group of which a pattern fits. ``about`` is the size that was planned."""

    name: str
    patterns: tuple[str, ...]
    about: int = 0


GROUPS = (
    Group(
        "prompt → browser, Python",
        (
            *(f"src/inkstream/{name}.py" for name in MODULES_ON_THE_WAY),
            *(
                f"src/inkstream/{name}/**/*.py"
                for name in ("api", "accounts", "history", "log", "engines/link")
            ),
        ),
        about=3000,
    ),
    Group("tests of the page", ("web/src/**/*.test.ts", "web/src/**/*.fake.ts")),
    Group("prompt → browser, TypeScript", ("web/src/**/*.ts", "web/src/**/*.svelte"), about=2500),
    Group("engines", ("src/inkstream/engines/**/*.py",)),
    Group("models", ("src/inkstream/models/**/*.py",)),
    Group("the rest of the package", ("src/inkstream/**/*.py",)),
    Group("tests in Python", ("tests/**/*.py",)),
    Group("measuring and scripts", ("bench/**/*.py", "scripts/**/*.py")),
)


def files_of(root: Path) -> dict[Group, set[Path]]:
    """Raises SystemExit for a pattern that fits nothing: a module has moved, and would not be counted."""
    taken: set[Path] = set()
    found = {}
    for group in GROUPS:
        matches = {pattern: set(root.glob(pattern)) for pattern in group.patterns}
        if missing := [pattern for pattern, paths in matches.items() if not paths]:
            raise SystemExit(f"{sys.argv[0]}: there is no {', '.join(missing)}")
        found[group] = set().union(*matches.values()) - taken
        taken |= found[group]
    return found


def count_code(text: str, suffix: str) -> int:
    if suffix == ".py":
        return len(set(_lines_with_tokens(text)) - set(_lines_of_docstrings(text)))
    return sum(1 for line in COMMENTS_OF_THE_WEB.sub("", text).splitlines() if line.strip())


def _lines_with_tokens(text: str) -> Iterator[int]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SILENT and token.string:
            yield from range(token.start[0], token.end[0] + 1)


def _lines_of_docstrings(text: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Expr(value=ast.Constant(value=str()), lineno=first, end_lineno=int(last)):
                yield from range(first, last + 1)


def main() -> None:
    print(f"{'':30}{'files':>6}{'lines':>8}{'code':>8}{'planned':>9}")
    for group, paths in sorted(files_of(ROOT).items(), key=lambda item: not item[0].about):
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
        lines = sum(text.count("\n") for text in texts.values())
        code = sum(count_code(text, path.suffix) for path, text in texts.items())
        planned = f"{group.about:,}" if group.about else ""
        print(f"{group.name:30}{len(texts):6}{lines:8,}{code:8,}{planned:>9}")


if __name__ == "__main__":
    main()
