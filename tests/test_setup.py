"""What a clone and a wheel promise: pins that match, no addresses, clear words where Python is not enough."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PINS = re.compile(
    r"^([a-z0-9-]+)==(\S+)((?: ;[^\\]*)?) \\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)


def pins(name: str) -> dict[str, str]:
    return {pin[1]: pin[2] for pin in PINS.finditer((ROOT / "requirements" / name).read_text())}


@pytest.mark.parametrize("name", ["build.txt", "dev.txt", "node.txt", "run.txt", "torch.txt"])
def test_every_pin_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text()
    assert PINS.sub("", text) == ""
    assert "://" not in text


def test_the_page_is_locked_without_addresses() -> None:
    lock = json.loads((ROOT / "web" / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert all("integrity" in package and "resolved" not in package for package in packages.values())


def test_the_pins_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = {
        "run.txt": project["project"]["dependencies"],
        "dev.txt": project["dependency-groups"]["dev"],
        "build.txt": project["build-system"]["requires"],
        "torch.txt": project["project"]["optional-dependencies"]["torch"],
    }
    for name, wishes in asked.items():
        for wish in map(Requirement, wishes):
            pinned = pins(name).get(wish.name)
            assert pinned is not None, f"{wish.name} is not in {name}: make lock"
            assert pinned in wish.specifier, f"{wish.name} in {name}: make lock"


def test_what_runs_is_what_is_tested() -> None:
    assert pins("run.txt").items() <= pins("dev.txt").items()
    assert pins("run.txt").items() <= pins("torch.txt").items()


def test_the_extra_forces_no_build_of_torch_on_anyone() -> None:
    assert "transformers" in pins("torch.txt")
    # nvidia-ml-py is a file of Python; the others are CUDA.
    assert not [name for name in pins("torch.txt") if re.match(r"torch$|triton|nvidia-(?!ml-py$)", name)]


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    debian = tmp_path / "python"
    debian.write_text(f'#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    debian.chmod(0o755)
    answer = make_venv(tmp_path / "venv", debian)
    assert answer.returncode == 1
    assert f"apt-get install python3.{sys.version_info[1]}-venv" in answer.stderr
    assert not (tmp_path / "venv").exists()


def test_a_python_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    answer = make_venv(tmp_path / "venv", old)
    assert answer.returncode == 1
    assert "needs Python 3.11 to 3.14" in answer.stderr


def make_venv(folder: Path, python: Path) -> subprocess.CompletedProcess[str]:
    environ = {"PATH": "/usr/bin:/bin", "PYTHON": str(python)}
    return subprocess.run(
        [ROOT / "scripts" / "venv", folder], env=environ, capture_output=True, text=True, check=False
    )


@pytest.mark.real
def test_the_wheel_runs_alone_with_its_page(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("inkstream-*.whl")
    assert "inkstream/page/index.html" in zipfile.ZipFile(wheel).namelist()

    python = clean_environment(tmp_path / "venv", wheel)
    command = [str(python), "-I", "-m", "inkstream", "doctor", "--json"]
    report = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    findings = {finding["check"]: finding for finding in json.loads(report.stdout)["findings"]}
    assert findings["page"]["level"] == "ok"
    helped = subprocess.run(
        [python.parent / "inkstream", "--help"], cwd=tmp_path, capture_output=True, check=True
    )
    assert b"inkstream serve --open" in helped.stdout


def clean_environment(folder: Path, wheel: Path) -> Path:
    """An environment with the wheel, and what the wheel needs lent from this one: nothing is downloaded.

    A .pth file lends the packages but not their own .pth files, so that our editable install stays out.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python)]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True, capture_output=True)
    return python
