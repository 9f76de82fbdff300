"""What this machine has, lacks and should change."""

from __future__ import annotations

import asyncio
import codecs
import difflib
import importlib.metadata
import importlib.resources
import importlib.util
import shutil
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import replace

from inkstream import gpus, models, probe
from inkstream.choice import TORCH_PACKAGES, choose
from inkstream.config import Settings, env_name, settings_fields
from inkstream.engines import GPU_SLOTS, SLOTS
from inkstream.engines.torch import weighing
from inkstream.errors import ModelError
from inkstream.models import Model
from inkstream.preflight import BEFORE_SERVING, Check, Finding, Subject
from inkstream.probe import Device, Gpu, TorchBuild, size
from inkstream.words import Words

CONTEXT_STEP = 256
PACKAGES = ("inkstream", "fastapi", "starlette", "uvicorn", "httpx", "orjson", "xllamacpp")


def python(subject: Subject) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    text = f"Python {version}, {sys.executable}"
    if sys.version_info[:2] > (3, 14):
        fix = subject.say(
            "tested up to 3.14: if something fails, use that", "已测试到 3.14；若有异常，请改用 3.14"
        )
        yield Finding("python", "warn", text, fix)
    else:
        yield Finding("python", "ok", text)


def packages(subject: Subject) -> Iterator[Finding]:
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        text = subject.say("missing packages: ", "缺少软件包：") + ", ".join(missing)
        yield Finding("packages", "fail", text, f"{sys.executable} -m pip install inkstream")
    yield Finding("packages", "ok", ", ".join(found))


def page(subject: Subject) -> Iterator[Finding]:
    say = subject.say
    if importlib.resources.files("inkstream").joinpath("page", "index.html").is_file():
        yield Finding("page", "ok", say("the page is built", "页面已构建"))
    else:
        fix = say(
            "in a clone: make page. The wheel carries it.", "请在源码目录运行 make page（wheel 包自带页面）"
        )
        yield Finding("page", "fail", say("the page is not built", "页面尚未构建"), fix)


def sqlite(subject: Subject) -> Iterator[Finding]:
    yield Finding("sqlite", "ok", f"SQLite {sqlite3.sqlite_version}")


def language(subject: Subject) -> Iterator[Finding]:
    # Not the locale's: Python prints UTF-8 in the plainest ones, and what its own variables say elsewhere.
    encoding = codecs.lookup(sys.stdout.encoding).name
    text = subject.say(f"language en, encoding {encoding}", f"语言 zh，编码 {encoding}")
    if encoding == "utf-8":
        yield Finding("locale", "ok", text)
    else:
        fix = subject.say(
            "set LC_ALL=C.UTF-8, and no PYTHONIOENCODING, to see every character",
            "设置 LC_ALL=C.UTF-8，并去掉 PYTHONIOENCODING，以正常显示所有字符",
        )
        yield Finding("locale", "warn", text, fix)


def variables(subject: Subject) -> Iterator[Finding]:
    """One with a slip in its name is passed over, and then a limit or a key is not in force."""
    say, known = subject.say, {env_name(setting.name) for setting in settings_fields()} | {"INKSTREAM_LANG"}
    for name in sorted(name for name in subject.environ if name.startswith("INKSTREAM_")):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            fix = say(f"is it {near[0]}?", f"是否应为 {near[0]}？") if near else "inkstream serve --help"
            yield Finding("settings", "warn", say(f"{name} is no setting", f"没有 {name} 这项设置"), fix)


def engine(subject: Subject) -> Iterator[Finding]:
    """The engine's library and the devices that it can compute on, GPUs above all."""
    if subject.settings.engine == "scripted" or subject.settings.engine_url:
        return
    choice = choose(subject.settings, subject.say)
    if choice.engine == "torch":
        yield from _torch(subject)
    else:
        yield from _llama(subject)
    if choice.warning:
        yield Finding("torch", "warn", choice.warning, "inkstream doctor --engine torch")


def _torch(subject: Subject) -> Iterator[Finding]:
    say, found = subject.say, probe.nvidia_gpus()
    try:
        build = probe.torch_build()
    except probe.ProbeError as error:
        text = say(f"torch does not load: {error}", f"torch 无法加载：{error}")
        yield Finding("torch", "fail", text, gpus.fix(found, say))
        return
    missing = [name for name in TORCH_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        text = say("missing packages: ", "缺少软件包：") + ", ".join(missing)
        yield Finding("torch", "fail", text, f"{sys.executable} -m pip install 'inkstream[torch]'")
    kind = f"CUDA {build.cuda}" if build.cuda else say("CPU only", "仅支持 CPU")
    yield Finding("torch", "ok", f"torch {build.version} ({kind})")
    yield _torch_device(subject, found, build)


def _torch_device(subject: Subject, found: Sequence[Gpu], build: TorchBuild) -> Finding:
    say, wanted = subject.say, subject.settings.device
    names = ", ".join(f"{gpu.name} ({size(gpu.memory_bytes)}, driver {gpu.driver})" for gpu in found)
    if wanted in ("cpu", "mps"):
        unused = say(f"; not used: {names}", f"；未使用：{names}") if found else ""
        return Finding("gpu", "warn" if found else "ok", f"--device {wanted}{unused}")
    if problem := gpus.problem(found, build, say):
        return Finding("gpu", "fail", problem.text, problem.fix)
    if found or build.is_usable:
        return Finding("gpu", "ok", say("used: ", "使用中：") + (names or "GPU"))
    if wanted != "auto":
        text = say(f"no GPU for --device {wanted}", f"没有可供 --device {wanted} 使用的 GPU")
        return Finding("gpu", "fail", text, "--device cpu")
    return Finding("gpu", "ok", say("none seen; the CPU answers", "未检测到，使用 CPU"))


def _llama(subject: Subject) -> Iterator[Finding]:
    say = subject.say
    try:
        llama = probe.llama()
    except probe.ProbeError as error:
        text = say(f"llama.cpp does not load: {error}", f"llama.cpp 无法加载：{error}")
        yield Finding("llama", "fail", text, f"{sys.executable} -m pip install --force-reinstall xllamacpp")
        return
    names = ", ".join(f"{d.name} ({d.description}, {size(d.memory_bytes)})" for d in llama.devices)
    yield Finding("llama", "ok", f"llama.cpp (xllamacpp {llama.build}): {names}")
    yield from _gpu(subject, [device for device in llama.devices if device.kind != "CPU"])


def _gpu(subject: Subject, usable: list[Device]) -> Iterator[Finding]:
    say, seen = subject.say, [gpu.name for gpu in probe.nvidia_gpus()]
    if usable and subject.settings.gpu_layers != 0:
        yield Finding("gpu", "ok", say("used: ", "使用中：") + ", ".join(d.description for d in usable))
    elif usable:
        fix = say("drop --gpu-layers 0 to use it", "去掉 --gpu-layers 0 即可启用")
        yield Finding("gpu", "warn", say("there is a GPU, switched off", "有 GPU，但被设置关闭"), fix)
    elif seen:
        text = say(
            f"{', '.join(seen)} is here, but this build of llama.cpp computes on the CPU only",
            f"检测到 {'、'.join(seen)}，但当前的 llama.cpp 只支持 CPU",
        )
        fix = say("--engine torch computes on it, once this is installed: ", "安装后可用 --engine torch：")
        yield Finding("gpu", "warn", text, fix + gpus.fix(probe.nvidia_gpus(), say))
    else:
        yield Finding("gpu", "ok", say("none seen; the CPU answers", "未检测到，使用 CPU"))


def model(subject: Subject) -> Iterator[Finding]:
    """The file that would be served, found as the engine finds it, and whether it fits into memory."""
    settings, say = subject.settings, subject.say
    if settings.engine == "scripted" or settings.engine_url:
        return
    choice = choose(settings, say)
    try:
        found = asyncio.run(_find(settings, choice.form))
    except ModelError as error:
        if error.code != "model_offline" or settings.offline:
            yield Finding("model", "fail", error.message, say("see: ", "参见 ") + "inkstream models")
            return
        text = say(f"{settings.model} is not here yet", f"本地还没有 {settings.model}")
        fix = say("serve fetches it; beforehand: ", "serve 会自动下载；也可提前运行 ")
        yield Finding("model", "warn", text, f"{fix}inkstream pull {settings.model}")
        return
    yield _presence(found, settings, say)
    yield _torch_fit(found, settings, say) if choice.engine == "torch" else _fit(found, settings, say)
    if subject.is_thorough:
        yield _checksum(found, say)


async def _find(settings: Settings, form: models.Form) -> Model:
    return await models.fetch(
        settings.model,
        settings.models_dir,
        on_progress=lambda _: None,
        offline=True,
        is_default=settings.is_default_model,
        form=form,
    )


def _presence(found: Model, settings: Settings, say: Words) -> Finding:
    text = f"{found.name}, {size(found.size_bytes)}, {found.path}"
    if found.notice is None:
        return Finding("model", "ok", text)
    stands_in = say(f"; it stands in for {settings.model}", f"（暂代 {settings.model}）")
    return Finding("model", "warn", text + stands_in, f"inkstream pull {settings.model}")


def _fit(found: Model, settings: Settings, say: Words) -> Finding:
    """llama.cpp takes a cache of the whole context for every slot when it starts."""
    takes, slots = models.footprint(found), settings.slots or SLOTS
    context, free = takes.context(settings.context), models.memory().available_bytes
    needed = _needed(takes, settings, slots, free, say)
    if takes.bytes_for(context * slots) <= free:
        return Finding("memory", "ok", needed)
    fitting = takes.tokens_within(free) // slots // CONTEXT_STEP * CONTEXT_STEP
    shorter = (f"--context {fitting}, ", f"改用 --context {fitting}、") if fitting else ("", "")
    fix = say(
        f"{shorter[0]}fewer --slots, or a smaller model (inkstream models)",
        f"{shorter[1]}减小 --slots，或换小一些的模型（见 inkstream models）",
    )
    return Finding("memory", "warn", needed, fix)


def _torch_fit(found: Model, settings: Settings, say: Words) -> Finding:
    """torch shares one cache between all answers, and makes do with what there is beside the weights."""
    try:
        weighing.require_known(weighing.configuration(found.path))
        demand, room = weighing.demanded(found.path, settings)
    except ModelError as error:
        return Finding("model", "fail", error.message, say("see: ", "参见 ") + "inkstream models")
    free = room.bytes if demand.is_on_gpu and room.bytes else models.memory().available_bytes
    if demand.bytes > free:
        return _too_large(demand, replace(room, bytes=free), say)
    kept = demand.numbers.kept_bytes(demand.number_bytes, demand.quantize)
    takes = replace(models.footprint(found), size_bytes=kept)
    slots = settings.slots or (GPU_SLOTS if demand.is_on_gpu else SLOTS)
    return _cache_fit(takes, settings, slots, free, say)


def _too_large(demand: weighing.Demand, room: weighing.Room, say: Words) -> Finding:
    text = say(
        f"its weights need about {size(demand.bytes)}; {room.where}: {size(room.bytes)}",
        f"权重约需 {size(demand.bytes)}；{room.where}：{size(room.bytes)}",
    )
    ways = [f"{flags} ({size(needed)})" for flags, needed in weighing.ways_out(demand, room)]
    smaller = say("a smaller model (inkstream models)", "换小一些的模型（见 inkstream models）")
    return Finding("memory", "fail", text, "; ".join([*ways, smaller]))


def _cache_fit(takes: models.Footprint, settings: Settings, slots: int, free: int, say: Words) -> Finding:
    context, fitting = takes.context(settings.context), takes.tokens_within(free)
    needed = _needed(takes, settings, slots, free, say)
    if fitting >= context * slots:
        return Finding("memory", "ok", needed)
    if fitting >= context:
        fix = say(
            f"about {fitting // context} answers of that length fit, others give way: fewer --slots",
            f"约可容纳 {fitting // context} 个这样长的回答，超出的会被暂停；可减小 --slots",
        )
        return Finding("memory", "warn", needed, fix)
    fix = say(
        f"the context is capped at about {fitting} tokens; a smaller model has room for more",
        f"上下文将被限制在约 {fitting} 个 token；换小一些的模型可以更长",
    )
    return Finding("memory", "warn", needed, fix)


def _needed(takes: models.Footprint, settings: Settings, slots: int, free: int, say: Words) -> str:
    context = takes.context(settings.context)
    whole = size(takes.bytes_for(context * slots))
    text = say(
        f"needs about {whole} for {slots} answers of {context} tokens, {size(free)} free",
        f"{slots} 个 {context} token 的回答约需 {whole}，可用 {size(free)}",
    )
    if context == settings.context:
        return text
    return text + say("; the model has no longer context", "，已是该模型的上下文上限")


def _checksum(found: Model, say: Words) -> Finding:
    """Reads every byte. The expected sum is the one remembered when the file came, see ``Model``."""
    whole = models.checksum(found)
    if whole == found.sha256:
        return Finding("checksum", "ok", f"SHA-256 {whole[:16]}…")
    text = say(f"{found.path} has changed since it came", f"{found.path} 的内容与下载时不同")
    fix = say("delete it, then: ", "删除后重新下载：") + f"inkstream pull {found.name}"
    return Finding("checksum", "fail", text, fix)


def network(subject: Subject) -> Iterator[Finding]:
    """Proxies and mirrors that downloads go through; never with their credentials."""
    say = subject.say
    proxies = sorted(urllib.request.getproxies())
    text = ", ".join(proxies) if proxies else say("none", "无")
    yield Finding("proxies", "ok", say("proxies: ", "代理：") + text)
    is_set = bool(subject.environ.get("HF_ENDPOINT"))
    text = say("set by HF_ENDPOINT", "由 HF_ENDPOINT 指定") if is_set else say("the default", "默认")
    yield Finding("mirrors", "ok", say("model hub: ", "模型库：") + text)
    yield _package_index(subject)


def _package_index(subject: Subject) -> Finding:
    """Where the stand-in model comes from when no hub answers: through the user's own pip or uv."""
    say = subject.say
    if importlib.util.find_spec("pip"):
        text = say("one of your own", "自定义") if probe.has_package_index() else say("the default", "默认")
        return Finding("mirrors", "ok", say("package index: ", "软件包源：") + text)
    if shutil.which("uv", path=subject.environ.get("PATH")):
        return Finding("mirrors", "ok", say("package index: that of uv", "软件包源：以 uv 的配置为准"))
    text = say(
        "no pip and no uv: no stand-in model without a hub", "没有 pip 和 uv，连不上模型库时无法下载备用模型"
    )
    return Finding("mirrors", "warn", text, say("install pip or uv", "安装 pip 或 uv"))


CHECKS: tuple[Check, ...] = (
    python, packages, page, sqlite, language, variables, *BEFORE_SERVING, engine, model, network,
)  # fmt: skip
