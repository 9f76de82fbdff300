"""The commands: parse, check, call the part that does it, say how it went.

Exit codes: 0 done; 1 the doctor found something that stands in the way; 2 refused, with one line that says
why and what to do; 130 interrupted; 141 the reader of the output went away.
"""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict

from inkstream import config, doctor, flags
from inkstream.config import Settings
from inkstream.errors import ConfigError, InkstreamError
from inkstream.words import Words, language


def main(argv: Sequence[str] | None = None) -> int:
    _never_fail_on_a_character()
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
        # The reader (head, less) has seen enough; without this Python complains when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _never_fail_on_a_character() -> None:
    """A terminal that cannot show one gets a question mark instead of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")


def _settings(arguments: Namespace) -> Settings:
    given = {setting.name: getattr(arguments, setting.name, None) for setting in config.settings_fields()}
    return config.load(given)


def _refuse_what_cannot_work(settings: Settings, say: Words) -> None:
    subject = doctor.Subject(settings, os.environ, say)
    for finding in doctor.examine(subject, doctor.BEFORE_SERVING):
        if finding.level == "fail":
            raise ConfigError(f"{finding.text}\n  → {finding.fix}")


def serve(arguments: Namespace, say: Words) -> int:
    settings = _settings(arguments)
    _refuse_what_cannot_work(settings, say)
    raise NotImplementedError


def examine(arguments: Namespace, say: Words) -> int:
    subject = doctor.Subject(_settings(arguments), os.environ, say)
    findings = []
    for finding in doctor.examine(subject):
        findings.append(finding)
        if not arguments.json:
            _print_finding(finding)
    is_well = all(finding.level != "fail" for finding in findings)
    if arguments.json:
        print(json.dumps({"ok": is_well, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
    return 0 if is_well else 1


def _print_finding(finding: doctor.Finding) -> None:
    print(f"{finding.level:<4}  {finding.check:<9}  {finding.text}", flush=True)
    if finding.fix:
        print(f"{'':<15}  → {finding.fix}", flush=True)


COMMANDS: dict[str, Callable[[Namespace, Words], int]] = {
    "serve": serve,
    "doctor": examine,
}
