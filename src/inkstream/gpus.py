"""Whether driver, GPU and torch fit each other, and the line that installs a torch that does.

A driver runs code that was built for its own CUDA release or an older one, and within a major release for
newer ones too (NVIDIA's "CUDA compatibility"): what counts is the least driver of each major release. The
newest builds have left out the oldest GPUs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from inkstream.probe import Gpu, TorchBuild
from inkstream.words import Words

BUILDS = (("cu130", 580, (7, 5)), ("cu128", 525, (7, 0)), ("cu126", 525, (5, 0)))
"""Builds of torch, newest first, with the least driver and the oldest GPU that they are for."""

LEAST_DRIVER = {13: 580, 12: 525}
CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Problem:
    """``fix`` is a command, or what to do before one."""

    text: str
    fix: str


def problem(gpus: Sequence[Gpu], build: TorchBuild, say: Words) -> Problem | None:
    """What keeps torch from the GPUs that are here; None where nothing does, or none is here."""
    if not gpus:
        return None
    if build.is_usable:
        return _foreign(gpus, build, say)
    names = ", ".join(gpu.name for gpu in gpus)
    if build.cuda is None:
        text = say(
            f"{names} is here, but torch {build.version} is built for the CPU only.",
            f"检测到 {names}，但 torch {build.version} 只支持 CPU。",
        )
    elif _major(gpus[0].driver) < LEAST_DRIVER.get(_major(build.cuda), 0):
        text = say(
            f"torch {build.version} is built for CUDA {build.cuda} and needs driver "
            f"{LEAST_DRIVER[_major(build.cuda)]}; {names} has driver {gpus[0].driver}.",
            f"torch {build.version} 基于 CUDA {build.cuda}，需要 {LEAST_DRIVER[_major(build.cuda)]} "
            f"以上的驱动；{names} 的驱动为 {gpus[0].driver}。",
        )
    else:
        text = say(
            f"torch {build.version} (CUDA {build.cuda}) cannot use {names} (driver {gpus[0].driver}): "
            f"{build.reason or 'it does not say why'}.",
            f"torch {build.version}（CUDA {build.cuda}）无法使用 {names}（驱动 {gpus[0].driver}）："
            f"{build.reason or '原因未知'}。",
        )
    return Problem(text, fix(gpus, say))


def fix(gpus: Sequence[Gpu], say: Words) -> str:
    """How to get a torch that fits."""
    build = fitting_build(gpus)
    if build == CPU and gpus:
        return say(
            f"update the NVIDIA driver to {LEAST_DRIVER[12]} or newer, then: ",
            f"请先将 NVIDIA 驱动更新到 {LEAST_DRIVER[12]} 以上，然后运行：",
        ) + install_line("cu128")
    return install_line(build)


def fitting_build(gpus: Sequence[Gpu]) -> str:
    """The newest build that runs on all of them; ``cpu`` where there is none."""
    fitting = (
        name
        for name, driver, oldest in BUILDS
        if gpus and all(_major(gpu.driver) >= driver and gpu.capability >= oldest for gpu in gpus)
    )
    return next(fitting, CPU)


def install_line(build: str) -> str:
    """uv knows where each build is; pip would have to be told an address."""
    return (
        f"uv pip install --python {sys.executable} --reinstall-package torch --torch-backend={build} "
        "torch accelerate 'inkstream[torch]'"
    )


def _foreign(gpus: Sequence[Gpu], build: TorchBuild, say: Words) -> Problem | None:
    """A GPU that torch can talk to, but has no code for."""
    for gpu in gpus:
        if not _has_code(build.architectures, gpu.capability):
            known, own = ", ".join(build.architectures), "sm_{}{}".format(*gpu.capability)
            text = say(
                f"torch {build.version} has no code for {gpu.name} ({own}); it has {known}.",
                f"torch {build.version} 不含 {gpu.name}（{own}）的代码，仅支持 {known}。",
            )
            return Problem(text, fix(gpus, say))
    return None


def _has_code(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Machine code runs on later GPUs of its own generation, ``compute`` code on all later ones."""
    if not architectures or capability == (0, 0):
        return True  # nothing is known that speaks against it
    for name in architectures:
        kind, _, digits = name.partition("_")
        number = digits.rstrip("af")
        had = (int(number[:-1]), int(number[-1]))
        if had <= capability and (kind == "compute" or had[0] == capability[0]):
            return True
    return False


def _major(version: str) -> int:
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0
