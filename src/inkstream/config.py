"""Every setting, once: its default, its type, what it is for.

A value comes from the command line, else the environment (``INKSTREAM_PORT``), else ``inkstream.toml``,
else the default. One frozen object is built at the entry and passed down; nobody reads the environment
elsewhere. A malformed value stops the start and is named.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any, get_type_hints

import platformdirs

from inkstream.errors import ConfigError

LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off", ""})
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def _setting(
    default: Any, en: str, zh: str, *, at_least: float | None = None, choices: tuple[str, ...] = ()
) -> Any:
    return field(default=default, metadata={"en": en, "zh": zh, "at_least": at_least, "choices": choices})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of one process. Numbers with a unit carry it in their name."""

    # Where
    host: str = _setting("127.0.0.1", "address to listen on", "监听地址")
    port: int = _setting(8000, "port to listen on", "监听端口", at_least=0)
    base_path: str = _setting(
        "", "path prefix behind a proxy, such as /chat", "反向代理下的路径前缀，例如 /chat"
    )
    data_dir: Path = _setting(
        Path(platformdirs.user_data_dir("inkstream", appauthor=False)),
        "folder for models, chats and the token log",
        "模型、对话和日志所在的文件夹",
    )

    # What answers
    model: str = _setting(
        "qwen2-0.5b", "alias, hub name or path of the model", "模型：别名、模型库名称或文件路径"
    )
    engine: str = _setting(
        "auto", "what generates the text", "生成文本的引擎", choices=("auto", "llama", "torch", "scripted")
    )
    engine_url: str = _setting(
        "",
        "where an engine listens: serve joins it instead of starting one",
        "引擎的地址：serve 连接它，不再自行启动",
    )
    engine_key: str = _setting(
        "",
        "secret shared with that engine (default: kept in the data folder)",
        "与该引擎共享的密钥（默认保存在数据文件夹）",
    )
    context: int = _setting(
        8192,
        "tokens of context per answer, at most the model's own",
        "每个回答的上下文长度（token），不超过模型上限",
        at_least=256,
    )
    slots: int = _setting(
        0,
        "answers generated at the same time, 0 for 4, or 64 where torch computes on a GPU",
        "同时生成的回答数，0 表示 4，torch 使用 GPU 时为 64",
        at_least=0,
    )
    threads: int = _setting(
        0,
        "CPU threads of the engine, 0 for all cores but one",
        "引擎使用的 CPU 线程数，0 表示留出一个核心，其余全用",
        at_least=0,
    )
    gpu_layers: int = _setting(
        -1, "layers put on a GPU, -1 for as many as fit", "放到 GPU 上的层数，-1 表示尽量多", at_least=-1
    )
    device: str = _setting(
        "auto",
        "where torch computes: cpu, cuda, cuda:1, mps; auto is an NVIDIA GPU, where there is none the CPU",
        "torch 的计算设备：cpu、cuda、cuda:1、mps；auto 优先 NVIDIA GPU，没有时用 CPU",
    )
    dtype: str = _setting(
        "auto",
        "numbers that torch computes in; auto is bfloat16 or float16 on a GPU, float32 on a CPU",
        "torch 计算所用的数值类型；auto 在 GPU 上为 bfloat16 或 float16，在 CPU 上为 float32",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    quantize: str = _setting(
        "none",
        "keep the matrices in fewer bits, for torch: nf4 takes a quarter of 16, int8 half",
        "torch 以更少的位数存放矩阵：与 16 位相比，nf4 占四分之一，int8 占一半",
        choices=("none", "nf4", "int8"),
    )
    draft_model: str = _setting(
        "",
        "smaller model of the same vocabulary that guesses ahead for torch; ngram: from the text so far",
        "torch 推测解码用的小模型，词表须相同；填 ngram 则根据已有文本推测",
    )
    offline: bool = _setting(False, "never ask a model hub", "从不访问模型库")
    script: str = _setting("", "what the scripted engine does, as JSON", "scripted 引擎的行为（JSON）")

    # Who may
    key: str = _setting(
        "", "access key, required beyond loopback without users", "访问密钥；未添加用户而监听非本机地址时必填"
    )
    session_days: float = _setting(
        30.0, "how long a browser stays signed in", "浏览器保持登录的天数", at_least=0
    )
    public_url: str = _setting("", "address of the page in sign-in links", "登录链接中使用的页面地址")
    user_header: str = _setting(
        "",
        "header in which a trusted proxy names the user",
        "受信任的代理用哪个请求头给出用户名",
    )
    trusted_proxies: tuple[str, ...] = _setting(
        (),
        "addresses or networks of proxies whose word on users and callers counts",
        "受信任的代理地址或网段，采信其给出的用户和来源地址",
    )
    hosts: tuple[str, ...] = _setting(
        (), "further host names under which the page is reached", "页面可用的其他主机名"
    )
    cors_origins: tuple[str, ...] = _setting(
        (), "origins of other pages that may use the API", "允许使用 API 的其他网页来源"
    )

    # How much
    queue: int = _setting(64, "runs that may wait for the engine", "可排队等待的回答数", at_least=0)
    user_runs: int = _setting(
        0,
        "answers of one user at the same time, 0 for no limit",
        "每个用户同时进行的回答数，0 表示不限",
        at_least=0,
    )
    user_requests: int = _setting(
        0,
        "requests of one user per minute, reading an answer apart, 0 for no limit",
        "每个用户每分钟的请求数（读取回答不计），0 表示不限",
        at_least=0,
    )
    user_tokens: int = _setting(
        0,
        "tokens of one user per minute, read and written, 0 for no limit",
        "每个用户每分钟的 token 数（读入与写出合计），0 表示不限",
        at_least=0,
    )
    readers: int = _setting(
        20_000, "streams that may be open at the same time", "可同时打开的流的数量", at_least=1
    )
    connections: int = _setting(
        0,
        "connections at the same time, 0 for as many as the system allows",
        "可同时保持的连接数，0 表示以系统允许的为限",
        at_least=0,
    )
    header_seconds: float = _setting(
        10.0, "how long a request's headers may take to come", "接收请求头的最长秒数", at_least=0.05
    )
    body_seconds: float = _setting(
        60.0, "how long a request's body may take to come", "接收请求体的最长秒数", at_least=0.05
    )
    stream_chars: int = _setting(
        1000, "longest prompt of /stream, in characters", "/stream 提示词的最大字符数", at_least=1
    )
    body_kib: int = _setting(4096, "largest request body, in KiB", "请求体大小上限（KiB）", at_least=1)
    retention_hours: float = _setting(
        24.0, "how long an ended run can be replayed", "回答结束后仍可重放的时长（小时）", at_least=0
    )
    undo_hours: float = _setting(
        24.0,
        "how long a deleted chat can be restored before it is gone for good",
        "已删除的对话可以恢复的时长（小时），之后彻底清除",
        at_least=0,
    )
    linger_seconds: float = _setting(
        30.0,
        "how long a /stream run lives without a reader",
        "/stream 的回答在无人读取时保留的秒数",
        at_least=0,
    )
    heartbeat_seconds: float = _setting(
        10.0, "pause after which a comment keeps a stream open", "流空闲多少秒后发送心跳", at_least=0.05
    )
    patience_seconds: float = _setting(
        30.0,
        "how long a reader may take nothing before it is dropped",
        "读者连续多少秒不接收数据就断开",
        at_least=0.05,
    )
    engine_wait_seconds: float = _setting(
        600.0,
        "how long runs wait for an engine that does not answer",
        "引擎无响应时回答等待的秒数",
        at_least=0,
    )
    durability: str = _setting(
        "process",
        "what a token survives: the death of every process, or also a power cut",
        "已显示的内容在哪种故障后仍不丢失：所有进程被杀，或者断电",
        choices=("process", "power"),
    )
    log_level: str = _setting(
        "info",
        "how much is written to the console",
        "控制台输出的详细程度",
        choices=("debug", "info", "warning", "error"),
    )
    log_format: str = _setting(
        "text",
        "how it is written: for people, or as a JSON object per line",
        "控制台输出的格式：供人阅读的文本，或每行一个 JSON 对象",
        choices=("text", "json"),
    )
    metrics_names: bool = _setting(
        False, "call users by their names in /metrics", "在 /metrics 中显示用户名（默认只有编号）"
    )
    traces: str = _setting(
        "",
        "OpenTelemetry collector for a trace of each answer, such as http://127.0.0.1:4318",
        "接收每个回答链路追踪的 OpenTelemetry 收集器，例如 http://127.0.0.1:4318",
    )

    def __post_init__(self) -> None:
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if self.port > 65535:
            raise ConfigError(f"{env_name('port')} has value {self.port}. Ports end at 65535.")
        if not DEVICE.fullmatch(self.device):
            raise ConfigError(
                f"{env_name('device')} has value '{self.device}'. Write auto, cpu, mps, cuda or cuda:1."
            )
        for name in ("public_url", "traces"):
            url = getattr(self, name)
            if url and not url.startswith(("http://", "https://")):
                raise ConfigError(f"{env_name(name)} has value {url!r}. Not an http:// or https:// address.")
        object.__setattr__(self, "base_path", normal_base_path(self.base_path))
        self._check_proxies()

    def _check_proxies(self) -> None:
        for proxy in self.trusted_proxies:
            try:
                ip_network(proxy)
            except ValueError as error:
                raise ConfigError(f"{env_name('trusted_proxies')} has value {proxy!r}: {error}.") from None
        if self.user_header and not self.trusted_proxies:
            raise ConfigError(
                f"{env_name('user_header')} is set, and nobody is trusted to send it."
                f" Name the proxy's address in {env_name('trusted_proxies')}."
            )

    @property
    def is_loopback(self) -> bool:
        return self.host in LOOPBACK

    @property
    def is_default_model(self) -> bool:
        """Nobody asked for a model in particular: another may stand in."""
        return self.model == next(setting.default for setting in fields(self) if setting.name == "model")

    @property
    def models_dir(self) -> Path:
        return self.data_dir / "models"


def normal_base_path(path: str) -> str:
    path = path.strip("/")
    return f"/{path}" if path else ""


def env_name(name: str) -> str:
    return f"INKSTREAM_{name.upper()}"


def load(
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] = os.environ,
    folder: Path | None = None,
) -> Settings:
    """Build the settings. ``flags`` are those given on the command line, already typed or as text.

    ``inkstream.toml`` is looked for in ``folder``, by default the working folder. Raises ConfigError.
    """
    types = get_type_hints(Settings)
    toml = _read_toml(folder, set(types))
    values: dict[str, Any] = {}
    for name, kind in types.items():
        sources = (
            (f"--{name.replace('_', '-')}", (flags or {}).get(name)),
            (env_name(name), environ.get(env_name(name))),
            (f"'{name}' in inkstream.toml", toml.get(name)),
        )
        for source, value in sources:
            if value is not None:
                values[name] = _convert(source, value, kind)
                break
    return Settings(**values)


def as_environ(settings: Settings) -> dict[str, str]:
    """The variables from which ``load`` builds the same settings in another process."""
    return {env_name(field.name): _as_text(getattr(settings, field.name)) for field in fields(Settings)}


def _as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def settings_fields() -> tuple[Field[Any], ...]:
    """The fields in order, with ``metadata`` in both languages, for command-line help and docs."""
    return fields(Settings)


def default_of(setting: Field[Any]) -> Any:
    return None if setting.default is MISSING else setting.default


def _read_toml(folder: Path | None, known: set[str]) -> dict[str, Any]:
    path = Path("inkstream.toml")
    try:
        path = (folder or Path.cwd()) / path  # the working folder may be gone
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # Notepad writes a mark
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{path} has an unknown setting '{unknown[0]}'. 'inkstream serve --help' lists them."
        )
    return values


def _convert(source: str, value: Any, kind: Any) -> Any:
    try:
        return _as(kind, value)
    except (ValueError, TypeError, OverflowError, RuntimeError, OSError):  # no such ~user, no folder to be in
        raise ConfigError(f"{source} has value {value!r}. Not a valid {_type_name(kind)}.") from None


def _as(kind: Any, value: Any) -> Any:
    if kind is bool:
        return _as_bool(value)
    if kind is Path:
        if not value or "\0" in str(value):  # Path takes nothing for the working folder
            raise ValueError
        return Path(value).expanduser().absolute()
    if kind in (int, float):
        number = kind(value)
        is_cut = isinstance(value, float) and number != value
        if isinstance(value, bool) or is_cut or abs(number) == math.inf:
            raise ValueError
        return number
    if kind is str:
        if not isinstance(value, str):
            raise TypeError
        return value
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise TypeError
    return tuple(str(item).strip() for item in items if str(item).strip())


def _as_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text not in TRUE | FALSE:
        raise ValueError
    return text in TRUE


def _type_name(kind: Any) -> str:
    names = {int: "whole number", float: "number", bool: "yes or no", str: "text", Path: "path"}
    return names.get(kind, "list")


def _check(setting: Field[Any], value: Any) -> None:
    lowest, choices = setting.metadata["at_least"], setting.metadata["choices"]
    if lowest is not None and not value >= lowest:
        raise ConfigError(f"{env_name(setting.name)} has value {value!r}. It must be at least {lowest}.")
    if choices and value not in choices:
        raise ConfigError(
            f"{env_name(setting.name)} has value {value!r}. Choose one of: {', '.join(choices)}."
        )
