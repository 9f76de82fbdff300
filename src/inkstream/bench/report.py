"""What a person is shown: progress while it runs, then a table; both languages."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TextIO

from inkstream.bench.measure import Progress
from inkstream.bench.result import Figures, Result
from inkstream.bench.stats import Spread
from inkstream.probe import size
from inkstream.words import Words, aligned, columns, pad, wrap

LINE_SECONDS = 10.0
Read = Callable[[Figures], float | None]
Write = Callable[[float], str]


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class Row:
    en: str
    zh: str
    read: Read
    write: Write = number


ROWS = (
    Row("first token p50, ms", "首 token p50，毫秒", lambda f: f.first.p50, milliseconds),
    Row("  p90", "  p90", lambda f: f.first.p90, milliseconds),
    Row("  p99", "  p99", lambda f: f.first.p99, milliseconds),
    Row("  max", "  最大", lambda f: f.first.max, milliseconds),
    Row("inter-token p50, ms", "token 间隔 p50，毫秒", lambda f: f.gap.p50, milliseconds),
    Row("  p90", "  p90", lambda f: f.gap.p90, milliseconds),
    Row("  p99", "  p99", lambda f: f.gap.p99, milliseconds),
    Row("  max", "  最大", lambda f: f.gap.max, milliseconds),
    Row("tokens/s", "token/秒", lambda f: f.tokens_per_second),
    Row("events per arrival", "每次到达的事件数", lambda f: f.events / f.arrivals if f.arrivals else None),
    Row(
        "server, CPU s per M tokens",
        "服务端 CPU 秒/百万 token",
        lambda f: f.per_million_tokens(f.server_cpu_seconds),
    ),
    Row(
        "client, CPU s per M tokens",
        "客户端 CPU 秒/百万 token",
        lambda f: f.per_million_tokens(f.client_cpu_seconds),
    ),
    Row("server, memory", "服务端内存", lambda f: f.server_rss_bytes, size),
    Row("received", "收到", lambda f: f.received_bytes, size),
    Row("idle timers late, p50, ms", "空闲定时器晚到 p50，毫秒", lambda f: f.jitter.p50, milliseconds),
    Row("  p99", "  p99", lambda f: f.jitter.p99, milliseconds),
    Row("answers", "完成的回答", lambda f: f.answers),
    Row("errors", "错误", lambda f: sum(f.errors.values())),
)


def table(result: Result, say: Words) -> str:
    """Loads beside each other; each cell is the median over the rounds, with its range behind it."""
    loads = list(result.loads().values())
    lines = [[say("load", "负载"), *(_load(rounds[0], say) for rounds in loads)]]
    for row in ROWS:
        lines.append([say(row.en, row.zh), *(_cell(row, rounds) for rounds in loads)])
    return aligned(lines)


def _load(figures: Figures, say: Words) -> str:
    if figures.rate:
        return say(f"{figures.rate:g} new/s", f"每秒新增 {figures.rate:g}")
    return say(f"{figures.streams} streams", f"{figures.streams} 路")


def _cell(row: Row, rounds: list[Figures]) -> str:
    values = [value for figures in rounds if (value := row.read(figures)) is not None]
    if not values:
        return "?"
    found = Spread.of(values)
    median, low, high = (row.write(value) for value in (found.median, found.min, found.max))
    return median if low == high else f"{median} ({low}–{high})"


def remarks(result: Result, say: Words) -> str:
    """What the table depends on, in lines."""
    lines = [_machine(result, say), _method(result, say)]
    lines.append(
        say(
            "idle timers are those of a process beside the load: latency up to theirs is the machine's",
            "空闲定时器来自负载旁的另一个进程：这个量级以内的延迟属于机器本身",
        )
    )
    lines += [_counted(result, say), _server(result, say), *_errors(result, say)]
    if result.plan.rate:
        lines.append(
            say(
                "open loop: first token counted from the moment at which the answer was due to be asked for",
                "开环：首 token 延迟从计划发出请求的时刻算起",
            )
        )
    return "\n".join(lines)


def _machine(result: Result, say: Words) -> str:
    machine = result.machine
    load = (
        "" if machine.load is None else say(f", load {machine.load} before", f"，开始前负载 {machine.load}")
    )
    cores = f"{machine.cores} " + say("cores", "核")
    return f"{machine.cpu}, {cores}, {machine.system}, Python {machine.python}{load}"


def _method(result: Result, say: Words) -> str:
    plan = result.plan
    return say(
        f"median of {plan.rounds} rounds (least–most); {plan.tokens} tokens asked for per answer; "
        f"seed {plan.seed}, load processes: {plan.workers}",
        f"{plan.rounds} 轮的中位数（最小–最大）；每个回答请求 {plan.tokens} 个 token；"
        f"随机种子 {plan.seed}，压测进程 {plan.workers} 个",
    )


def _counted(result: Result, say: Words) -> str:
    if result.counts_usage:
        return say("tokens are those of the server's own usage", "token 数取自服务端的 usage")
    return say("tokens are events: the server reported no usage", "token 数按事件计：服务端未报告 usage")


def _server(result: Result, say: Words) -> str:
    named = {use.name: use for figures in result.rounds for use in figures.server}
    if not named:
        return say(
            "the server's CPU and memory cannot be known from here; --pid names a process of this machine",
            "无法得知服务端的 CPU 和内存；可用 --pid 指定本机进程",
        )
    return say("server processes: ", "服务端进程：") + ", ".join(sorted(named))


def _errors(result: Result, say: Words) -> list[str]:
    lines = []
    for rounds in result.loads().values():
        kinds = sorted({kind for figures in rounds for kind in figures.errors})
        for kind in kinds:
            total = sum(figures.errors.get(kind, 0) for figures in rounds)
            lines.append(say("errors, ", "错误，") + f"{_load(rounds[0], say)}: {kind} × {total}")
    return lines


@dataclass(slots=True)
class Ticker:
    """One line that is written over on a terminal; elsewhere a line every ten seconds and per round."""

    stream: TextIO
    say: Words
    is_terminal: bool
    rounds: int
    _width: int = 0
    _said: tuple[int, int] = (-1, -1)
    _said_at: float = field(default=float("-inf"))

    def __call__(self, progress: Progress) -> None:
        if self.is_terminal:
            line = wrap(self._line(progress), shutil.get_terminal_size().columns - 1)[0]
            print(f"\r{pad(line, self._width)}", end="", file=self.stream, flush=True)
            self._width = columns(line)
        elif self._is_news(progress):
            print(self._line(progress), file=self.stream, flush=True)

    def end(self) -> None:
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=self.stream, flush=True)
            self._width = 0

    def _is_news(self, progress: Progress) -> bool:
        what, now = (progress.round, progress.streams), time.monotonic()
        if what == self._said and now - self._said_at < LINE_SECONDS:
            return False
        self._said, self._said_at = what, now
        return True

    def _line(self, progress: Progress) -> str:
        counts, say = progress.counts, self.say
        where = (
            say("warming up", "预热")
            if not progress.round
            else say(f"round {progress.round}/{self.rounds}", f"第 {progress.round}/{self.rounds} 轮")
        )
        load = f"{progress.rate:g}/s" if progress.rate else f"{progress.streams} " + say("streams", "路")
        errors = counts.errors.total()
        parts = (
            where, load, say(f"{counts.open} open", f"{counts.open} 路进行中"),
            say(f"{counts.events:,} events", f"{counts.events:,} 个事件"),
            say(f"{errors} errors", f"{errors} 个错误") if errors else "",
        )  # fmt: skip
        return "  ".join(part for part in parts if part)
