"""The command line, made from the settings: one flag for each, help in two languages.

Values stay text here: ``config`` alone says what is valid, wherever a value comes from.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import Field, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from inkstream import __version__
from inkstream.commands import COMMANDS, Command
from inkstream.config import Settings, default_of, settings_fields
from inkstream.words import Words, wrap


@dataclass(frozen=True, slots=True)
class Section:
    """A heading in the list of settings. It begins with the setting named ``first``."""

    first: str
    en: str
    zh: str


SECTIONS = (
    Section("host", "Where", "地址与文件夹"),
    Section("model", "What answers", "模型与引擎"),
    Section("key", "Who may", "访问权限"),
    Section("queue", "How much", "容量与时限"),
    Section("log_level", "What operators see", "日志与监控"),
)


class Parser(argparse.ArgumentParser):
    """Speaks ``say``'s language where argparse lets it; a wrong line is answered in two lines."""

    def __init__(self, say: Words, prog: str, **options: Any) -> None:
        self.say = say
        super().__init__(
            prog=prog, formatter_class=partial(_Formatter, say), add_help=False, allow_abbrev=False, **options
        )

    def error(self, message: str) -> NoReturn:
        hint = self.say(f"'{self.prog} --help' lists what there is.", f"用法见 {self.prog} --help")
        self.exit(2, f"{self.prog}: {message}\n{hint}\n")


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, say: Words, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._say = say

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage(usage, actions, groups, prefix or self._say("usage: ", "用法："))

    def _format_action(self, action: argparse.Action) -> str:
        text = super()._format_action(action)
        # argparse heads the list of commands with a line that repeats the heading above it.
        return text.partition("\n")[2] if action.nargs == argparse.PARSER else text

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrap(text, width)


def parser(say: Words) -> Parser:
    """The whole command line. The namespace has ``command``, one attribute per setting, None if not given."""
    top = Parser(
        say,
        "inkstream",
        usage=say("inkstream COMMAND [options]", "inkstream 命令 [选项]"),
        description=_introduction(say),
        epilog=_epilog(say),
    )
    options = _options(top, say)
    options.add_argument(
        "--version",
        action="version",
        version=f"inkstream {__version__}",
        help=say("show the version", "显示版本号"),
    )
    build: Any = partial(Parser, say)  # any factory will do; the stubs allow classes alone
    commands = top.add_subparsers(dest="command", title=say("Commands", "命令"), parser_class=build)
    for command in COMMANDS:
        _add(commands, command, say)
    return top


def flag_of(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def sections() -> Iterator[tuple[Section, list[Field[Any]]]]:
    """The settings under their headings, in order."""
    begin = {section.first: section for section in SECTIONS}
    current, members = SECTIONS[0], list[Field[Any]]()
    for setting in settings_fields():
        if setting.name in begin and members:
            yield current, members
            members = []
        current = begin.get(setting.name, current)
        members.append(setting)
    yield current, members


def _introduction(say: Words) -> str:
    what = say(
        "Self-hosted streaming chat: every token reaches the page exactly once, whatever dies on the way.",
        "自托管的流式聊天：中途无论哪个进程挂掉，每个 token 都恰好到达页面一次。",
    )
    start = (
        ("inkstream serve --open", "start the chat and open it in the browser", "启动聊天，并在浏览器中打开"),
        ("inkstream doctor", "find out what is wrong", "出了问题，先做诊断"),
    )
    here = say("Start here:", "从这里开始：")
    return f"{what}\n\n{here}\n{_lines(start, say)}"


def _epilog(say: Words) -> str:
    return say(
        "'inkstream COMMAND --help' explains a command. Every option is also an environment variable\n"
        "(--port is INKSTREAM_PORT) and a line in inkstream.toml. INKSTREAM_LANG=zh switches to Chinese.",
        "各命令的说明见 inkstream 命令 --help。每个选项也可用环境变量设置（--port 对应 INKSTREAM_PORT），\n"
        "或写进 inkstream.toml。INKSTREAM_LANG=en 切换为英文。",
    )


def _lines(examples: tuple[tuple[str, str, str], ...], say: Words) -> str:
    width = max(len(line) for line, _, _ in examples)
    return "\n".join(f"  {line:<{width}}  {say(en, zh)}" for line, en, zh in examples)


def _add(commands: Any, command: Command, say: Words) -> None:
    text = say(command.en, command.zh)
    listed = {"help": text} if text else {}
    examples = say("Examples:\n", "示例：\n") + _lines(command.examples, say) if command.examples else None
    parser = commands.add_parser(
        command.name,
        prog=f"inkstream {command.name}",
        usage=_usage(command, say),
        description=text,
        epilog=examples,
        **listed,
    )
    options = _options(parser, say)
    if command.name in EXTRAS:
        EXTRAS[command.name](options, say)
    for section, settings in sections():
        chosen = [s for s in settings if command.settings is None or s.name in command.settings]
        if chosen:
            _add_section(parser.add_argument_group(say(section.en, section.zh)), chosen, say)


ARGUMENTS = {
    "pull": " [NAME]",
    "model": " [NAME]",
    "bench": " URL",
    "doctor": " [URL]",
    "users": " ACTION [NAME]",
    "keys": " ACTION [NAME]",
    "backup": " FILE",
    "restore": " FILE",
}


def _usage(command: Command, say: Words) -> str:
    argument = ARGUMENTS.get(command.name, "")
    return f"inkstream {command.name}{argument} " + say("[options]", "[选项]")


def _options(parser: Parser, say: Words) -> argparse._ArgumentGroup:
    group = parser.add_argument_group(say("Options", "选项"))
    group.add_argument("-h", "--help", action="help", help=say("show this text", "显示本帮助"))
    return group


def _add_section(group: argparse._ArgumentGroup, settings: list[Field[Any]], say: Words) -> None:
    types = get_type_hints(Settings)
    for setting in settings:
        text = say(setting.metadata["en"], setting.metadata["zh"])
        default = shown_default(setting)
        action: Any = argparse.BooleanOptionalAction if types[setting.name] is bool else "store"
        kind: dict[str, Any] = (
            {} if types[setting.name] is bool else {"metavar": _metavar(setting, types[setting.name])}
        )
        group.add_argument(
            flag_of(setting.name),
            dest=setting.name,
            action=action,
            default=None,
            help=(f"{text} [{default}]" if default else text).replace("%", "%%"),
            **kind,
        )


def shown_default(setting: Field[Any]) -> str:
    """The default as one would type it; empty where there is none to speak of."""
    default = default_of(setting)
    if isinstance(default, bool) or default in ("", ()):
        return ""
    return f"{default:g}" if isinstance(default, float) else str(default)


def _metavar(setting: Field[Any], kind: Any) -> str:
    if setting.metadata["choices"]:
        return "|".join(setting.metadata["choices"])
    if kind in (int, float):
        return "N"
    if kind is Path:
        return "FOLDER"
    return "TEXT" if kind is str else "A,B"


def _serve_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    text = say("open the page in the browser when it is ready", "就绪后在浏览器中打开页面")
    options.add_argument("--open", action="store_true", help=text)


def _child_extras(options: argparse._ArgumentGroup, _: Words) -> None:
    options.add_argument("--child", action="store_true", help=argparse.SUPPRESS)


def _gateway_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    _child_extras(options, say)
    options.add_argument("--has-engine", action="store_true", help=argparse.SUPPRESS)


def _model_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    text = say(
        "alias, hub name, address on a hub or path; without it what answers is shown",
        "别名、模型库名称或网址、文件路径；省略时显示当前模型",
    )
    options.add_argument("name", nargs="?", metavar="NAME", help=text)
    text = say("do not wait for answers that are being written", "不等待进行中的回答")
    options.add_argument("--now", action="store_true", help=text)
    text = say("call the switch off that is under way", "取消正在进行的切换")
    options.add_argument("--cancel", action="store_true", help=text)
    text = say("where the server is [of the settings]", "服务器地址 [取自设置]")
    options.add_argument("--url", metavar="URL", help=text)
    _json_extras(options, say)


def _pull_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    text = say(
        "alias, hub name or path; without it the model of the settings",
        "别名、模型库名称或路径；省略时取设置中的模型",
    )
    options.add_argument("name", nargs="?", metavar="NAME", help=text)


def _json_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    options.add_argument("--json", action="store_true", help=say("for programs", "以 JSON 输出，供程序读取"))


USER_ACTIONS = ("add", "list", "link", "disable", "enable")
KEY_ACTIONS = ("add", "list", "revoke")


def _users_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    _action_extras(options, say, USER_ACTIONS)
    options.add_argument("name", nargs="?", metavar="NAME", help=say("of the user", "用户名"))
    text = say("add: who may manage users and models", "add：可以管理用户和模型")
    options.add_argument("--admin", action="store_true", help=text)
    text = say(
        "add: goes on with the chats from before there were users",
        "add：接管尚无用户时留下的对话",
    )
    options.add_argument("--local", action="store_true", help=text)
    _json_extras(options, say)


def _keys_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    _action_extras(options, say, KEY_ACTIONS)
    text = say("of the user; for revoke the key's ID", "用户名；revoke 时为密钥编号")
    options.add_argument("name", nargs="?", metavar="NAME", help=text)
    text = say("add: what it is for", "add：用途备注")
    options.add_argument("--label", metavar="TEXT", default="", help=text)
    _json_extras(options, say)


def _action_extras(options: argparse._ArgumentGroup, say: Words, actions: tuple[str, ...]) -> None:
    text = say("what to do: ", "操作：") + ", ".join(actions)
    options.add_argument("action", choices=actions, metavar="ACTION", help=text)


def _file_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    options.add_argument("file", metavar="FILE", help=say("the backup", "备份文件"))


def _doctor_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    text = say(
        "look at a server from outside, with what is between; --key signs in there",
        "从外部检查服务器及途中的代理；--key 用于登录该服务器",
    )
    options.add_argument("url", nargs="?", metavar="URL", help=text)
    text = say("how long its silent stream is watched [15]", "观察静默流的秒数 [15]")
    options.add_argument("--seconds", metavar="N", help=text)
    _json_extras(options, say)
    text = say("read all model files and compare their checksums", "读取全部模型文件并核对校验和")
    options.add_argument("--checksums", action="store_true", help=text)


BENCH_OPTIONS = (
    (
        "api",
        "KIND",
        "openai, stream, native or run (many readers of one); auto reads it off the URL",
        "openai、stream、native 或 run（多人读同一回答）；auto 按 URL 判断",
    ),
    ("streams", "N,N", "numbers of streams, one after the other", "并发流数，依次测量"),
    ("tokens", "N", "tokens asked for per answer", "每个回答请求的 token 数"),
    ("rounds", "N", "how often everything is repeated", "整体重复的轮数"),
    (
        "duration",
        "SECONDS",
        "go on asking for so long (default: one answer per stream)",
        "持续请求的秒数（默认每路一个回答）",
    ),
    ("rate", "N", "open loop: so many new answers per second, at random", "开环：每秒随机到达的新回答数"),
    ("ramp", "SECONDS", "spread the first answers over so long", "首批请求在多少秒内错开发出"),
    ("timeout", "SECONDS", "how long a server may send nothing", "服务端可静默的秒数"),
    ("key", "KEY", "bearer key of the server", "服务端的访问密钥"),
    ("model", "NAME", "model to ask for", "请求的模型"),
    ("prompt", "TEXT", "what is asked", "提示词"),
    ("workers", "N", "load processes, when one core is not enough", "压测进程数，一个核心不够时增加"),
    (
        "pid",
        "PID,PID",
        "the server's processes (default: found by the port, on this machine)",
        "服务端进程（默认按端口在本机查找）",
    ),
    ("seed", "N", "of questions and arrivals (default: drawn)", "问题和到达时刻的随机种子（默认随机选取）"),
    ("json", "FILE", "write everything there", "将全部结果写入文件"),
    ("svg", "FILE", "write a picture there", "将图表写入文件"),
)


def _bench_extras(options: argparse._ArgumentGroup, say: Words) -> None:
    text = say("where the server is; its path tells its kind", "服务器地址，路径决定其类型")
    options.add_argument("url", metavar="URL", help=text)
    for name, metavar, en, zh in BENCH_OPTIONS:
        options.add_argument(f"--{name}", metavar=metavar, help=say(en, zh))


EXTRAS: dict[str, Callable[[argparse._ArgumentGroup, Words], None]] = {
    "serve": _serve_extras,
    "engine": _child_extras,
    "gateway": _gateway_extras,
    "fetch": _child_extras,
    "pull": _pull_extras,
    "models": _json_extras,
    "model": _model_extras,
    "users": _users_extras,
    "keys": _keys_extras,
    "backup": _file_extras,
    "restore": _file_extras,
    "doctor": _doctor_extras,
    "bench": _bench_extras,
}
