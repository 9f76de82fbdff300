"""Driver, GPU and torch are held against each other, and what fits is said as a command."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from inkstream import choice, engines, gpus, probe
from inkstream.choice import Choice, choose
from inkstream.config import Settings
from inkstream.engines import Weights
from inkstream.errors import ModelError
from inkstream.probe import Gpu, TorchBuild, read_gpus
from inkstream.words import Words
from tests.tiny_checkpoint import write_tiny_checkpoint

EN, ZH = Words("en"), Words("zh")
H200 = Gpu("NVIDIA H200", "580.95.05", (9, 0), 143_771 << 20)
LAPTOP = Gpu("NVIDIA GeForce RTX 3060 Laptop GPU", "535.183.01", (8, 6), 6144 << 20)
PASCAL = Gpu("NVIDIA GeForce GTX 1080", "550.54.14", (6, 1), 8192 << 20)
OLD_DRIVER = Gpu("Tesla T4", "470.82.01", (7, 5), 15_360 << 20)
CPU_BUILD = TorchBuild("2.13.0+cpu", None)
CU130 = TorchBuild("2.13.0+cu130", "13.0", True, ("sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"))


def test_what_the_drivers_program_prints_is_read() -> None:
    printed = (
        "NVIDIA H200, 580.95.05, 9.0, 143771\nNVIDIA GeForce RTX 3060 Laptop GPU, 535.183.01, 8.6, 6144\n"
    )
    assert read_gpus(printed) == (H200, LAPTOP)


@pytest.mark.parametrize("printed", ["", "No devices were found\n", "Failed to initialize NVML: x\n"])
def test_a_driver_without_gpus_has_none(printed: str) -> None:
    assert read_gpus(printed) == ()


def test_what_a_driver_does_not_know_is_left_open() -> None:
    assert read_gpus("Graphics Device, 470.82.01, [N/A], [N/A]\n") == (
        Gpu("Graphics Device", "470.82.01", (0, 0), 0),
    )


@pytest.mark.parametrize(
    ("found", "build"),
    [
        ([H200], "cu130"),
        ([LAPTOP], "cu128"),
        ([PASCAL], "cu126"),
        ([H200, LAPTOP], "cu128"),
        ([H200, PASCAL], "cu126"),
        ([OLD_DRIVER], "cpu"),
        ([], "cpu"),
    ],
)
def test_the_newest_build_that_runs_on_all_gpus_fits(found: list[Gpu], build: str) -> None:
    assert gpus.fitting_build(found) == build
    assert gpus.install_line(build).count(f"--torch-backend={build} ") == 1


@pytest.mark.parametrize(
    ("found", "build", "told", "fix"),
    [
        (LAPTOP, CPU_BUILD, "built for the CPU only", "--torch-backend=cu128"),
        (LAPTOP, TorchBuild("2.13.0", "13.0"), "needs driver 580", "--torch-backend=cu128"),
        (OLD_DRIVER, TorchBuild("2.13.0", "13.0"), "has driver 470.82.01", "update the NVIDIA driver to 525"),
        (PASCAL, CU130, "no code for NVIDIA GeForce GTX 1080 (sm_61)", "--torch-backend=cu126"),
        (H200, TorchBuild("2.13.0", "13.0", reason="CUDA unknown error"), "unknown error", "cu130"),
    ],
)
def test_what_stands_between_torch_and_a_gpu_is_said_with_the_way_out(
    found: Gpu, build: TorchBuild, told: str, fix: str
) -> None:
    problem = gpus.problem([found], build, EN)
    assert problem is not None
    assert told in problem.text
    assert fix in problem.fix
    translated = gpus.problem([found], build, ZH)
    assert translated is not None
    assert found.name in translated.text


@pytest.mark.parametrize(
    ("found", "build"),
    [
        ([H200], CU130),
        ([LAPTOP], TorchBuild("2.13.0", "12.8", True, ("sm_80", "sm_90"))),
        ([Gpu("Next", "600.1", (13, 0), 0)], TorchBuild("2.13.0", "13.0", True, ("sm_90", "compute_120"))),
        ([H200], TorchBuild("2.13.0", "13.0", True, ("sm_90a",))),
        ([], CPU_BUILD),
    ],
)
def test_what_fits_is_no_problem(found: list[Gpu], build: TorchBuild) -> None:
    assert gpus.problem(found, build, EN) is None


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """What ``auto`` finds: changed by a test before it asks."""
    found: dict[str, object] = {"gpus": (), "torch": CPU_BUILD, "has_torch": True}
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: found["gpus"])
    monkeypatch.setattr(probe, "torch_build", lambda: found["torch"])
    monkeypatch.setattr(choice, "has_torch", lambda: found["has_torch"])
    return found


def test_auto_is_llama_on_a_machine_without_a_gpu(machine: dict[str, object]) -> None:
    assert choose(Settings(), EN) == Choice("llama")
    assert Choice("llama").form == "gguf"


def test_auto_is_torch_where_torch_can_use_a_gpu(machine: dict[str, object]) -> None:
    machine.update(gpus=(H200,), torch=CU130)
    assert choose(Settings(), EN) == Choice("torch")
    assert Choice("torch").form == "checkpoint"
    assert choose(Settings(model="Owner/M-GGUF"), EN) == Choice("llama")
    assert choose(Settings(model="~/m.gguf"), EN) == Choice("llama")
    machine["has_torch"] = False
    assert choose(Settings(), EN) == Choice("llama")


def test_auto_says_why_a_gpu_is_left_alone(machine: dict[str, object]) -> None:
    machine["gpus"] = (LAPTOP,)
    chosen = choose(Settings(), EN)
    assert chosen.engine == "llama"
    assert "built for the CPU only" in chosen.warning
    assert "--torch-backend=cu128" in chosen.warning


def test_auto_reads_a_checkpoint_with_the_engine_that_can(machine: dict[str, object], tmp_path: Path) -> None:
    machine["has_torch"] = False
    folder = write_tiny_checkpoint(tmp_path / "mine")
    assert choose(Settings(model=str(folder)), EN) == Choice("torch")


def test_what_is_asked_for_is_what_answers(machine: dict[str, object]) -> None:
    machine.update(gpus=(H200,), torch=CU130)
    assert choose(Settings(engine="llama"), EN) == Choice("llama")


async def test_an_engine_whose_packages_are_missing_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("inkstream.engines.torch")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(probe, "nvidia_gpus", lambda: (LAPTOP,))
    with pytest.raises(ModelError, match=r"'torch'.*inkstream\[torch\].*--torch-backend=cu128") as refused:
        async with engines.create(Settings(engine="torch"), Weights(tmp_path)):
            pass
    assert refused.value.code == "engine_missing"


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for nvidia-smi")
def test_the_doctor_holds_the_real_parts_against_each_other(tmp_path: Path) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 580.95.05, 9.0, 143771'\n")
    program.chmod(0o755)
    environ = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "INKSTREAM_DATA_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "inkstream", "doctor", "--json", "--engine", "torch", "--offline"]
    answer = subprocess.run(
        command, env=environ, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False
    )
    findings = {finding["check"]: finding for finding in json.loads(answer.stdout)["findings"]}
    at_fault = findings["gpu" if importlib.util.find_spec("torch") else "torch"]
    assert at_fault["level"] == "fail", "no torch here can use that GPU"
    assert "--torch-backend=cu130" in at_fault["fix"]
