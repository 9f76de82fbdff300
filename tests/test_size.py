from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "size.py"
PYTHON = '''\
"""What it is
about."""

# A reason.
NAME = "a"  # counts
TEXT = """in
two lines"""


def call() -> None:
    """Says something."""
'''
SVELTE = """\
<script lang="ts">
  // A reason.
  const address = 'http://ink.test' // counts
  /** What it is
      about. */
</script>

<!-- A reason. -->
<p>{address}</p>
"""


@pytest.fixture
def size() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_every_file_is_counted_once_and_the_plan_stands_beside_it(size: dict[str, Any]) -> None:
    said = subprocess.run([sys.executable, SCRIPT], capture_output=True, encoding="utf-8", check=True).stdout
    rows = {line[:30].strip(): line[30:].replace(",", "").split() for line in said.splitlines()[1:]}
    assert rows["prompt → browser, Python"][3] == "3000"
    assert rows["prompt → browser, TypeScript"][3] == "2500"
    root = SCRIPT.parent.parent
    there = [path for name in ("src", "tests", "bench", "scripts") for path in (root / name).rglob("*.py")]
    counted = [path for paths in size["files_of"](root).values() for path in paths if path.suffix == ".py"]
    assert sorted(counted) == sorted(there)


def test_a_module_that_has_moved_is_missed(size: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"there is no src/inkstream/events\.py"):
        size["files_of"](tmp_path)


def test_blank_lines_comments_and_docstrings_are_no_code(size: dict[str, Any]) -> None:
    assert size["count_code"](PYTHON, ".py") == 4
    assert size["count_code"](SVELTE, ".svelte") == 4
