"""The commands as a user meets them: a real process, its output, its exit code."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstream import config, flags
from inkstream.commands import COMMANDS
from inkstream.config import settings_fields
from inkstream.errors import ConfigError
from inkstream.words import Words, columns, language, wrap

ROOT = Path(__file__).parent.parent


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user's environment with nothing of ours in it but a data folder of its own."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("INKSTREAM_", "LC_"))}
    return own | {"LANG": "C.UTF-8", "INKSTREAM_DATA_DIR": str(tmp_path / "data"), "COLUMNS": "80"}


def inkstream(
    environ: Mapping[str, str], *arguments: str, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inkstream", *arguments]
    return subprocess.run(
        command,
        env=environ,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=50,
        check=False,
    )


def refusal(answer: subprocess.CompletedProcess[str]) -> str:
    """What a refused command said, having checked that it said it as one should."""
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    assert answer.stderr.startswith("inkstream")
    return answer.stderr


def test_help_lists_the_commands_in_the_language_of_the_locale(environ: dict[str, str]) -> None:
    english = inkstream(environ, "--help").stdout
    chinese = inkstream(environ | {"LANG": "zh_CN.UTF-8"}, "--help").stdout
    for command in ("serve", "pull", "models", "engine", "doctor", "bench"):
        assert re.search(rf"^ +{command} ", english, re.M)
        assert re.search(rf"^ +{command} ", chinese, re.M)
    assert "gateway" not in english
    assert "download a model" in english
    assert "下载模型" in chinese


def test_without_a_command_the_help_goes_to_stderr(environ: dict[str, str]) -> None:
    answer = inkstream(environ)
    assert (answer.returncode, answer.stdout) == (2, "")
    assert "inkstream serve --open" in answer.stderr


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_serve_explains_every_setting_within_the_terminal(environ: dict[str, str], lang: str) -> None:
    text = inkstream(environ | {"INKSTREAM_LANG": lang}, "serve", "--help").stdout
    listed, _, _ = text.partition("示例" if lang == "zh" else "Examples")
    for setting in settings_fields():
        assert re.search(rf"^  {flags.flag_of(setting.name)}\b", listed, re.M)
        assert re.sub(r"\s", "", setting.metadata[lang]) in re.sub(r"\s", "", listed)
    assert max(map(columns, listed.splitlines())) <= 80


def test_every_setting_stands_under_one_heading_in_order() -> None:
    grouped = [setting.name for _, settings in flags.sections() for setting in settings]
    assert grouped == [setting.name for setting in settings_fields()]
    assert [section.first for section, _ in flags.sections()] == [section.first for section in flags.SECTIONS]


def test_every_text_is_there_in_both_languages() -> None:
    for command in COMMANDS:
        assert bool(command.en) == bool(command.zh)
        assert all(en and zh for _, en, zh in command.examples)
    assert all(setting.metadata["en"] and setting.metadata["zh"] for setting in settings_fields())


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "en"),
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_MESSAGES": "en_US.UTF-8"}, "en"),
        ({"LC_MESSAGES": "en_US.UTF-8", "LC_ALL": "zh_TW"}, "zh"),
        ({"LC_ALL": "", "LANG": "zh_CN"}, "zh"),
        ({"LC_ALL": "zh_CN", "INKSTREAM_LANG": "en"}, "en"),
    ],
)
def test_language_follows_the_locale_variables_in_their_order(environ: dict[str, str], expected: str) -> None:
    assert language(environ) == expected


@given(st.text("ab 流式，。（）", max_size=60), st.integers(4, 30))
def test_wrapping_keeps_every_character_and_never_starts_a_line_with_a_closing_one(
    text: str, width: int
) -> None:
    text = re.sub("\\s+(?=[，。）])", "", text)
    lines = wrap(text, width)
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)
    assert not any(line[:1] in "，。）" for line in lines[1:] if line)


def test_an_unknown_flag_is_named_and_the_help_offered(environ: dict[str, str]) -> None:
    said = refusal(inkstream(environ, "serve", "--prot", "80"))
    assert "--prot" in said
    assert "inkstream --help" in said


def test_a_malformed_value_is_named_with_where_it_came_from(environ: dict[str, str], tmp_path: Path) -> None:
    assert "--port has value '80a'" in refusal(inkstream(environ, "serve", "--port", "80a"))
    assert "INKSTREAM_PORT has value 'x'" in refusal(inkstream(environ | {"INKSTREAM_PORT": "x"}, "serve"))
    (tmp_path / "inkstream.toml").write_text("prot = 80\n")
    assert "'prot'" in refusal(inkstream(environ, "serve", folder=tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patience-seconds", "inf"),
        ("data-dir", ""),
        ("data-dir", "a\0b"),
        ("data-dir", "~nobody-of-this-name/data"),
        ("port", 80.5),
        ("port", float("inf")),
        ("hosts", {}),
    ],
)
def test_what_only_looks_like_a_value_is_refused(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"--{name} has value .* Not a valid"):
        config.load({name.replace("-", "_"): value})


@pytest.mark.parametrize("name", ["public_url", "traces"])
def test_an_address_is_one_with_its_scheme(name: str) -> None:
    with pytest.raises(ConfigError, match=r"'chat\.example\.org'\. Not an http:// or https:// address"):
        config.load({name: "chat.example.org"})


def test_a_settings_file_may_begin_with_the_mark_that_windows_editors_write(tmp_path: Path) -> None:
    (tmp_path / "inkstream.toml").write_bytes(b"\xef\xbb\xbfport = 81\n")
    assert config.load({}, {}, tmp_path).port == 81


def test_a_working_folder_that_is_gone_is_no_settings_file(environ: dict[str, str], tmp_path: Path) -> None:
    command = f"mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} -m inkstream users list"
    answer = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_listening_beyond_loopback_without_a_key_is_refused_with_a_key_to_use(
    environ: dict[str, str],
) -> None:
    said = refusal(inkstream(environ, "serve", "--host", "0.0.0.0"))
    command = re.search(r"inkstream serve --host 0\.0\.0\.0 --key [0-9a-f]{32}", said)
    assert command is not None
    findings = findings_of(inkstream(environ, "doctor", "--json", *command[0].split()[2:]))
    assert findings["access"]["level"] == "ok"


def test_a_taken_port_is_refused_with_a_free_one(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(inkstream(environ, "serve", "--port", str(port)))
    assert f"127.0.0.1:{port} is taken" in said
    offered = re.search(r"--port (\d+)", said)
    assert offered is not None
    socket.create_server(("127.0.0.1", int(offered[1]))).close()


def test_a_data_folder_that_cannot_be_written_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = refusal(inkstream(environ, "serve", "--data-dir", str(tmp_path / "file" / "data")))
    assert str(tmp_path / "file") in said
    assert "--data-dir" in said


def test_the_doctor_looks_further_than_a_data_folder_that_is_a_file(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "data").write_text("")
    findings = findings_of(inkstream(environ, "doctor", "--json"))
    assert findings["folder"]["level"] == "fail"
    assert "mirrors" in findings


def test_a_refusal_without_a_command_to_run_points_at_none(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "data" / "accounts.db").mkdir(parents=True)
    assert "→" not in refusal(inkstream(environ, "serve"))


def findings_of(answer: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    report = json.loads(answer.stdout)
    assert answer.returncode == (0 if report["ok"] else 1)
    return {finding["check"]: finding for finding in report["findings"]}


def test_the_doctor_says_what_to_do_about_everything_that_is_not_well(environ: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        findings = findings_of(inkstream(environ, "doctor", "--json", "--port", str(taken.getsockname()[1])))
    assert findings["port"]["level"] == "fail"
    assert all(finding["fix"] for finding in findings.values() if finding["level"] != "ok")
    assert findings["llama"]["level"] == "ok"


def test_the_doctor_finds_a_variable_with_a_slip_in_its_name(environ: dict[str, str]) -> None:
    assert "settings" not in findings_of(inkstream(environ, "doctor", "--json"))
    finding = findings_of(inkstream(environ | {"INKSTREAM_USR_RUNS": "4"}, "doctor", "--json"))["settings"]
    assert (finding["level"], finding["text"]) == ("warn", "INKSTREAM_USR_RUNS is no setting")
    assert "INKSTREAM_USER_RUNS" in finding["fix"]


def test_the_doctor_prints_the_same_findings_for_people(environ: dict[str, str]) -> None:
    told = inkstream(environ, "doctor").stdout
    for check in findings_of(inkstream(environ, "doctor", "--json")):
        assert re.search(rf"^(ok|warn|fail) +{check} ", told, re.M)


def test_the_doctor_prints_no_credentials(environ: dict[str, str]) -> None:
    secrets = {"http_proxy": "http://ada:hunter2@proxy:1", "HF_ENDPOINT": "https://ada:hunter2@mirror"}
    answer = inkstream(environ | secrets, "doctor", "--key", "hunter2")
    assert re.search("^ok +proxies .*http", answer.stdout, re.M)
    assert "hunter2" not in answer.stdout + answer.stderr


def test_a_terminal_without_han_characters_gets_question_marks(environ: dict[str, str]) -> None:
    narrow = {"INKSTREAM_LANG": "zh", "PYTHONIOENCODING": "latin-1"}
    answer = inkstream(environ | narrow, "--help")
    assert answer.returncode == 0
    assert "???" in answer.stdout
    told = findings_of(inkstream(environ | narrow, "doctor", "--json"))["locale"]
    assert told["level"] == "warn"
    assert "iso8859-1" in told["text"]
    assert findings_of(inkstream(environ, "doctor", "--json"))["locale"]["level"] == "ok"


def test_an_interrupt_before_the_command_is_loaded_leaves_no_traceback(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "webbrowser.py").write_text("raise KeyboardInterrupt\n")
    path = os.pathsep.join([str(tmp_path), environ.get("PYTHONPATH", "")])
    answer = inkstream(environ | {"PYTHONPATH": path}, "doctor")
    assert (answer.returncode, answer.stdout, answer.stderr) == (130, "", "")


def test_a_reader_that_has_seen_enough_causes_no_complaint(environ: dict[str, str]) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        command = [sys.executable, "-m", "inkstream", "doctor", "--json"]
        answer = subprocess.run(command, env=environ, stdout=closed, stderr=subprocess.PIPE, check=False)
    assert (answer.returncode, answer.stderr) == (141, b"")


@pytest.mark.parametrize(("to", "code"), [(">&-", 0), (">/dev/full", 1), (">&- 2>&-", 0)])
def test_output_that_goes_nowhere_leaves_no_traceback(environ: dict[str, str], to: str, code: int) -> None:
    command = f"exec {sys.executable} -m inkstream users list {to}"
    answer = subprocess.run(
        ["/bin/sh", "-c", command], env=environ, capture_output=True, text=True, check=False
    )
    assert answer.returncode == code
    assert "Traceback" not in answer.stderr
    assert ("No space left" in answer.stderr) == (code == 1)


def test_the_settings_page_is_up_to_date() -> None:
    script = ROOT / "scripts" / "settings_page.py"
    page = subprocess.run([sys.executable, script], capture_output=True, encoding="utf-8", check=True).stdout
    assert page == (ROOT / "docs" / "settings.md").read_text(encoding="utf-8"), "run: make docs"


def test_say_chooses_by_language() -> None:
    assert (Words("en")("yes", "是"), Words("zh")("yes", "是")) == ("yes", "是")
