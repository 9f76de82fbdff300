"""The commands: parse, check, call the part that does it, say how it went.

Exit codes: 0 done; 1 the doctor found something that stands in the way; 2 refused, with one line that says
why and what to do; 130 interrupted; 141 the reader of the output went away.

A command imports late what it alone needs: the parent of a server starts faster and stays smaller without an
HTTP client and a catalogue of models.
"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import sys
import webbrowser
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from inkstream import chosen, config, flags, serving
from inkstream.config import Settings
from inkstream.errors import ConfigError, InkstreamError
from inkstream.preflight import BEFORE_SERVING, Finding, Subject, examine
from inkstream.probe import size
from inkstream.words import Words, language


def main(argv: Sequence[str] | None = None) -> int:
    _never_fail_on_output()
    say = Words(language(os.environ))
    parser = flags.parser(say)
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        code = COMMANDS[arguments.command](arguments, say)
        sys.stdout.flush()
    except InkstreamError as error:
        print(f"inkstream: {error.message}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) has seen enough.
        _discard_output()
        return 141
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"inkstream: {error.filename or 'stdout'}: {error.strerror}", file=sys.stderr)
        _discard_output()
        return 1
    return code


def _discard_output() -> None:
    """Without this Python complains when it closes stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _never_fail_on_output() -> None:
    """A terminal that cannot show a character gets a question mark instead of a traceback.

    And what is started without stdout or stderr, by a daemon or a shell's ``>&-``, writes to nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _settings(arguments: Namespace) -> Settings:
    given = {setting.name: getattr(arguments, setting.name, None) for setting in config.settings_fields()}
    return config.load(given)


def _refuse_what_cannot_work(settings: Settings, say: Words) -> None:
    subject = Subject(settings, os.environ, say)
    for finding in examine(subject, BEFORE_SERVING):
        if finding.level == "fail":
            raise ConfigError(finding.text + (f"\n  → {finding.fix}" if finding.fix else ""))


def serve(arguments: Namespace, say: Words) -> int:
    settings = _settings(arguments)
    _refuse_what_cannot_work(settings, say)
    if not settings.engine_url:
        settings = _as_chosen(settings, say, is_named=arguments.model is not None)

    def announce(url: str) -> None:
        stop = say("Ctrl-C stops it", "按 Ctrl-C 停止")
        print(say("inkstream is ready: ", "inkstream 已就绪：") + f"{url}  ({stop})", flush=True)
        if arguments.open:
            webbrowser.open(url)

    return serving.serve(settings, announce)


def _as_chosen(settings: Settings, say: Words, *, is_named: bool) -> Settings:
    now = chosen.begin(settings, is_named=is_named)
    if now.model != settings.model:
        text = say(
            f"{now.model} was chosen while the server ran; --model brings another back",
            f"沿用运行时选定的 {now.model}；可用 --model 另行指定",
        )
        print(f"inkstream: {text}", file=sys.stderr)
    return now


def gateway(arguments: Namespace, _: Words) -> int:
    return serving.run_gateway(_settings(arguments), has_engine=arguments.has_engine)


def engine(arguments: Namespace, _: Words) -> int:
    return serving.run_engine(_settings(arguments), is_child=arguments.child)


def fetch(arguments: Namespace, _: Words) -> int:
    return serving.run_fetch(_settings(arguments))


def pull(arguments: Namespace, say: Words) -> int:
    from inkstream import models  # noqa: PLC0415
    from inkstream.choice import choose  # noqa: PLC0415
    from inkstream.display import Progress  # noqa: PLC0415

    settings = _settings(arguments)
    name = arguments.name or settings.model
    progress = Progress(sys.stderr, say, sys.stderr.isatty())
    try:
        model = asyncio.run(
            models.fetch(
                name,
                settings.models_dir,
                on_progress=progress,
                offline=settings.offline,
                is_default=arguments.name is None and settings.is_default_model,
                form=choose(replace(settings, model=name), say).form,
            )
        )
    finally:
        progress.end()
    if model.notice:
        print(f"inkstream: {say(model.notice['en'], model.notice['zh'])}", file=sys.stderr)
    print(f"{model.name}  {size(model.size_bytes)}  {model.path}")
    return 0


def show_models(arguments: Namespace, say: Words) -> int:
    from inkstream import models  # noqa: PLC0415
    from inkstream.display import table  # noqa: PLC0415
    from inkstream.engines import SLOTS  # noqa: PLC0415

    settings = _settings(arguments)
    tokens = settings.context * (settings.slots or SLOTS)
    shown = models.rows(models.local(settings.models_dir), models.catalog(tokens), tokens)
    if arguments.json:
        print(json.dumps({"models": [asdict(row) for row in shown]}, ensure_ascii=False))
        return 0
    memory = models.memory()
    print(table(shown, say))
    print()
    print(
        say(
            f"{size(memory.total_bytes)} of memory here, {size(memory.available_bytes)} of it free. "
            f"MEMORY is an estimate for {tokens} tokens of context.",
            f"本机内存 {size(memory.total_bytes)}，可用 {size(memory.available_bytes)}。"
            f"内存一列按 {tokens} 个 token 的上下文估算。",
        )
    )
    return 0


def model(arguments: Namespace, say: Words) -> int:
    from inkstream import remote  # noqa: PLC0415

    def on_line(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    print(remote.run(arguments, _settings(arguments), say, on_line))
    return 0


def run_doctor(arguments: Namespace, say: Words) -> int:
    findings = []
    for finding in _examined(arguments, say):
        findings.append(finding)
        if not arguments.json:
            _print_finding(finding)
    is_well = all(finding.level != "fail" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": is_well, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
    return 0 if is_well else 1


def _examined(arguments: Namespace, say: Words) -> Iterator[Finding]:
    """What is wrong with this machine, or, from outside, with the address that is named."""
    if arguments.url is None:
        from inkstream import doctor  # noqa: PLC0415

        settings = _settings(arguments)
        if arguments.model is None:
            settings = chosen.in_effect(settings)
        subject = Subject(settings, os.environ, say, arguments.checksums)
        yield from examine(subject, doctor.CHECKS)
        return
    from inkstream.reach import Reach, watch_seconds  # noqa: PLC0415
    from inkstream.visit import Visit  # noqa: PLC0415

    seconds = watch_seconds(arguments.seconds)
    # The key of this machine's settings is for its own server alone, so it is not sent unasked.
    with Visit(arguments.url, arguments.key or "") as visit:
        yield from Reach(visit, say, seconds).examine()


def _print_finding(finding: Finding) -> None:
    print(f"{finding.level:<4}  {finding.check:<9}  {finding.text}", flush=True)
    if finding.fix:
        print(f"{'':<15}  → {finding.fix}", flush=True)


def bench(arguments: Namespace, say: Words) -> int:
    from inkstream.bench import command  # noqa: PLC0415

    return command.run(arguments, say)


def users(arguments: Namespace, say: Words) -> int:
    from inkstream import roster  # noqa: PLC0415

    print(roster.users(arguments, _settings(arguments), say))
    return 0


def keys(arguments: Namespace, say: Words) -> int:
    from inkstream import roster  # noqa: PLC0415

    print(roster.keys(arguments, _settings(arguments), say))
    return 0


def backup(arguments: Namespace, _: Words) -> int:
    from inkstream.backup import back_up  # noqa: PLC0415

    target = Path(arguments.file).absolute()
    back_up(_settings(arguments).data_dir, target)
    print(f"{target}  {size(target.stat().st_size)}")
    return 0


def restore(arguments: Namespace, say: Words) -> int:
    from inkstream.backup import restore as put_back  # noqa: PLC0415

    folder = _settings(arguments).data_dir
    put_back(Path(arguments.file).absolute(), folder)
    print(
        say(
            f"{folder} is as it was when the backup was made. Whoever was disabled or lost a key since"
            " can sign in again: see inkstream users list, inkstream keys list.",
            f"{folder} 已恢复到备份时的状态。此后停用的用户、吊销的密钥会重新生效，"
            "请用 inkstream users list 和 inkstream keys list 核对。",
        )
    )
    return 0


COMMANDS: dict[str, Callable[[Namespace, Words], int]] = {
    "serve": serve,
    "fetch": fetch,
    "pull": pull,
    "models": show_models,
    "model": model,
    "engine": engine,
    "gateway": gateway,
    "users": users,
    "keys": keys,
    "backup": backup,
    "restore": restore,
    "doctor": run_doctor,
    "bench": bench,
}
