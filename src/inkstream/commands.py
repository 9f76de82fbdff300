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
        "log_format",
    }
)  # fmt: skip
ADDRESS_SETTINGS = frozenset({"data_dir", "host", "port", "base_path", "hosts", "public_url"})
DOCTOR_SETTINGS = frozenset(
    {
        "host", "port", "data_dir", "model", "engine", "engine_url", "context", "slots", "gpu_layers",
        "device", "offline", "key", "user_header", "trusted_proxies",
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
            (
                "inkstream serve --host 0.0.0.0",
                "for the users of 'inkstream users'",
                "供 inkstream users 中的用户使用",
            ),
            ("inkstream serve --host 0.0.0.0 --key SECRET", "for whoever has the key", "供持有密钥的人使用"),
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
        "model",
        "show or switch the model of the running server",
        "查看或切换正在运行的服务器的模型",
        settings=frozenset({"host", "port", "base_path", "key"}),
        examples=(
            ("inkstream model", "what answers, and what is here", "当前模型，以及本地已有的模型"),
            (
                "inkstream model qwen2.5-1.5b",
                "answers being written are finished first",
                "先写完进行中的回答，再切换",
            ),
            (
                "inkstream model qwen2.5-1.5b --now",
                "they are cut, and can be continued",
                "立即切换，回答中断后可继续",
            ),
            (
                "inkstream model --url https://chat.example.org --key KEY",
                "of another machine, with an admin's key",
                "其他机器上的服务器，需管理员密钥",
            ),
        ),
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
        "users",
        "say who may use the server",
        "管理可以使用服务的用户",
        settings=ADDRESS_SETTINGS,
        examples=(
            (
                "inkstream users add ada --admin --local",
                "the first one, who keeps what is there",
                "首位用户，接管已有的对话",
            ),
            ("inkstream users add bob", "prints a sign-in link", "添加用户，并输出登录链接"),
            ("inkstream users link bob", "another link: a new device", "再发一个链接，用于新设备"),
            ("inkstream users disable bob", "signs out everywhere, at once", "立即停用，并退出所有登录"),
            ("inkstream users list", "who there is", "列出用户"),
        ),
    ),
    Command(
        "keys",
        "bearer keys of users, for programs",
        "管理供程序使用的访问密钥",
        settings=frozenset({"data_dir"}),
        examples=(
            ("inkstream keys add bob --label laptop", "shows a new key, once", "新建密钥，只显示一次"),
            ("inkstream keys list bob", "without their secrets", "列出密钥，不含密文"),
            ("inkstream keys revoke ID", "ends what uses it", "吊销，正在使用它的连接随即断开"),
        ),
    ),
    Command(
        "backup",
        "write chats, answers and users into one file, beside a running server",
        "把对话、回答和用户存成一个文件，服务无需停止",
        settings=frozenset({"data_dir"}),
        examples=(("inkstream backup monday.zip", "never replaces a file", "不会覆盖已有文件"),),
    ),
    Command(
        "restore",
        "put a backup into a data folder that holds none of this",
        "把备份恢复到尚无这些数据的文件夹",
        settings=frozenset({"data_dir"}),
        examples=(
            (
                "inkstream restore monday.zip --data-dir new",
                "then: inkstream serve --data-dir new",
                "之后：inkstream serve --data-dir new",
            ),
        ),
    ),
    Command(
        "doctor",
        "check this machine, or an address from outside, and say what to do",
        "检查本机环境，或从外部检查一个地址，并给出解决办法",
        settings=DOCTOR_SETTINGS,
        examples=(
            ("inkstream doctor", "this machine", "检查本机"),
            (
                "inkstream doctor https://chat.example.org/",
                "what a proxy does to pages and streams",
                "检查代理对页面和流做了什么",
            ),
            (
                "inkstream doctor https://chat.example.org/ --seconds 600",
                "whether ten silent minutes are survived",
                "检查连接能否撑过十分钟静默",
            ),
        ),
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
    Command("fetch"),
)
