"""The commands: their names, what they are for, and examples to start from, in both languages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Command:
    """``settings`` are those that it takes as flags, None for all. Without ``en`` it is not listed."""

    name: str
    en: str = ""
    zh: str = ""
    settings: frozenset[str] | None = None
    examples: tuple[tuple[str, str, str], ...] = ()


ENGINE_SETTINGS = frozenset(
    {
        "data_dir", "model", "engine", "engine_url", "engine_key", "context", "slots", "threads",
        "gpu_layers", "device", "dtype", "quantize", "draft_model", "offline", "script", "log_level",
    }
)  # fmt: skip
DOCTOR_SETTINGS = frozenset(
    {
        "host", "port", "data_dir", "model", "engine", "engine_url", "context", "slots", "gpu_layers",
        "device", "offline", "key",
    }
)  # fmt: skip

COMMANDS = (
    Command(
        "serve",
        "serve the chat page and the API",
        "启动聊天页面和 API",
        examples=(
            (
                "inkstream serve --open",
                "on http://127.0.0.1:8000, opened in the browser",
                "启动并在浏览器中打开",
            ),
            ("inkstream serve --model smollm2-135m", "a smaller model", "换用更小的模型"),
            (
                "inkstream serve --engine scripted",
                "no model at all, to try the page",
                "不加载模型，只试用页面",
            ),
            ("inkstream serve --host 0.0.0.0 --key SECRET", "for the whole network", "向整个局域网开放"),
        ),
    ),
    Command(
        "pull",
        "download a model",
        "下载模型",
        settings=frozenset({"data_dir", "engine", "offline"}),
        examples=(
            ("inkstream pull", "the default model", "下载默认模型"),
            (
                "inkstream pull qwen2.5-1.5b",
                "by alias; 'inkstream models' lists them",
                "按别名下载，别名见 inkstream models",
            ),
        ),
    ),
    Command(
        "models",
        "list models: what is here and what fits this machine",
        "列出模型：本地已有哪些，本机装得下哪些",
        settings=frozenset({"data_dir", "context", "slots"}),
    ),
    Command(
        "engine",
        "run an engine alone, for 'serve --engine-url'",
        "单独运行引擎，供 serve --engine-url 连接",
        settings=ENGINE_SETTINGS,
        examples=(
            (
                "inkstream engine --engine-url tcp://127.0.0.1:8001",
                "keeps the weights loaded",
                "让权重一直留在内存",
            ),
            ("inkstream serve --engine-url tcp://127.0.0.1:8001", "comes and goes", "可随时启停"),
        ),
    ),
    Command(
        "doctor",
        "check this machine and say what to do",
        "检查本机环境，并给出解决办法",
        settings=DOCTOR_SETTINGS,
    ),
    Command(
        "bench",
        "measure a streaming server: latency, throughput, what it costs",
        "测量流式服务器：延迟、吞吐量和开销",
        settings=frozenset(),
        examples=(
            ("inkstream bench http://127.0.0.1:8000", "an inkstream", "测量 inkstream"),
            (
                "inkstream bench http://127.0.0.1:8080/v1 --streams 1,4,8 --tokens 64",
                "an OpenAI-compatible server",
                "测量兼容 OpenAI 的服务器",
            ),
            (
                "inkstream bench http://127.0.0.1:8000/stream --rate 20 --duration 60",
                "20 new answers per second",
                "每秒新增 20 个回答",
            ),
        ),
    ),
    Command("gateway"),
)
