"""What the console shows of models: a download's progress, and the table of what is here and what fits."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from typing import TextIO

from inkstream.models import Download, Row
from inkstream.probe import size
from inkstream.words import Words, aligned, columns, pad, wrap

LINE_SECONDS = 10.0


@dataclass(slots=True)
class Progress:
    """One line that is written over on a terminal; elsewhere a line every ten seconds and at each change."""

    stream: TextIO
    say: Words
    is_terminal: bool
    _width: int = 0
    _said: str | None = None
    _said_at: float = field(default=float("-inf"))

    def __call__(self, download: Download) -> None:
        if self.is_terminal:
            self._overwrite(self._line(download))
        elif self._is_news(download):
            print(self._line(download), file=self.stream, flush=True)

    def end(self) -> None:
        if self._width:
            print(file=self.stream, flush=True)
            self._width = 0

    def _overwrite(self, line: str) -> None:
        # A line that the terminal has broken in two cannot be written over.
        line = wrap(line, shutil.get_terminal_size().columns - 1)[0]
        print(f"\r{pad(line, self._width)}", end="", file=self.stream, flush=True)
        self._width = columns(line)

    def _is_news(self, download: Download) -> bool:
        what = self._note(download) or f"{download.file} {download.source} {download.share == 1}"
        now = time.monotonic()
        if what == self._said and now - self._said_at < LINE_SECONDS:
            return False
        self._said, self._said_at = what, now
        return True

    def _line(self, download: Download) -> str:
        if note := self._note(download):
            return f"{download.file}: {note}"
        return "  ".join(part for part in self._parts(download) if part)

    def _note(self, download: Download) -> str:
        return self.say(download.note["en"], download.note["zh"]) if download.note else ""

    def _parts(self, download: Download) -> tuple[str, ...]:
        total = f" / {size(download.total_bytes)}" if download.total_bytes else ""
        left = download.seconds_left
        return (
            download.file,
            f"{download.share:4.0%}" if download.share is not None else "",
            f"{size(download.done_bytes)}{total}",
            f"{size(download.bytes_per_second)}/s" if download.bytes_per_second else "",
            self.say(f"{clock(left)} left", f"剩余 {clock(left)}") if left is not None else "",
            self.say(f"from {download.source}", f"来自 {download.source}") if download.source else "",
        )


def clock(seconds: float) -> str:
    """Minutes and seconds: 3:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"


def table(shown: list[Row], say: Words) -> str:
    head = (
        say("NAME", "名称"),
        say("SIZE", "大小"),
        say("MEMORY", "内存"),
        say("FITS", "装得下"),
        say("HERE", "本地"),
        say("LANGUAGES", "语言"),
    )
    yes, no = say("yes", "是"), say("no", "否")
    body = [
        (
            row.name,
            size(row.size_bytes),
            size(row.memory_bytes),
            yes if row.fits else no,
            yes if row.path else "-",
            row.languages,
        )
        for row in shown
    ]
    return aligned([head, *body])
