"""How the archives beside this are made: ``python tests/upgrades/make.py COMMIT``, with COMMIT's code.

A server of that version, killed in the midst of three answers: one being written, one waiting, one complete;
where the version knows users, there is one with a key. ``told.json`` in the archive says what was seen of it.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from inkstream.probe import free_port

HERE = Path(__file__).parent
SCRIPT = {"answer_tokens": 120, "tokens_per_second": 20, "slots": 1}
GREEDY = {"temperature": 0, "seed": 7}


def main(commit: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        subprocess.run(["git", "worktree", "add", "--detach", "--quiet", work / "code", commit], check=True)
        try:
            (work / "data").mkdir()
            told = _killed_in_mid_answer(work)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", work / "code"], check=True)
        (work / "data" / "told.json").write_text(json.dumps(told, ensure_ascii=False, indent=1))
        with tarfile.open(HERE / f"{commit}.tar.xz", "w:xz") as archive:
            for path in sorted((work / "data").iterdir()):
                if path.suffix in (".db", ".db-wal", ".json"):
                    archive.add(path, path.name)


def _killed_in_mid_answer(work: Path) -> dict[str, Any]:
    port = free_port("127.0.0.1")
    environ = os.environ | {
        "PYTHONPATH": str(work / "code" / "src"),
        "INKSTREAM_DATA_DIR": str(work / "data"),
        "INKSTREAM_ENGINE": "scripted",
        "INKSTREAM_SCRIPT": json.dumps(SCRIPT),
        "INKSTREAM_PORT": str(port),
    }
    command = [sys.executable, "-m", "inkstream"]
    key = _key(command, environ) if (work / "code/src/inkstream/accounts").exists() else None
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    server = subprocess.Popen([*command, "serve"], env=environ, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, headers=headers) as http:
            chats = _asked(http)
            return {"key": key, "script": SCRIPT, "chats": chats}
    finally:
        children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
        for pid in (server.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        server.wait()


def _key(command: list[str], environ: dict[str, str]) -> str:
    _said([*command, "users", "add", "ada", "--admin", "--local"], environ)
    said = _said([*command, "keys", "add", "ada"], environ)
    found = re.search(r"^(ink_\S+)$", said, re.MULTILINE)
    assert found is not None, said
    return found[1]


def _said(command: list[str], environ: dict[str, str]) -> str:
    return subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout


def _asked(http: httpx.Client) -> list[dict[str, Any]]:
    """The conversations as they were seen last, the waiting one behind the one that is being written."""
    _until(lambda: http.get("/readyz").status_code == 200)
    chats = []
    for question, tokens in (("complete 完整", 20), ("being written 流式", 120), ("waiting 排队", 120)):
        chat = http.post("/api/chats", json={}).json()["id"]
        body = {"content": question, "sampling": {**GREEDY, "max_tokens": tokens}}
        http.post(f"/api/chats/{chat}/messages", json=body).raise_for_status()
        chats.append(chat)
        if tokens == 20:
            _until(lambda: _answer(http, chats[0])["state"] == "done")
    _until(lambda: len(_answer(http, chats[1])["parts"]) > 0)
    time.sleep(1)  # some more of it
    return [http.get(f"/api/chats/{chat}").json() for chat in chats]


def _answer(http: httpx.Client, chat: str) -> dict[str, Any]:
    answer: dict[str, Any] = http.get(f"/api/chats/{chat}").json()["messages"][-1]
    return answer


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            if condition():
                return
        time.sleep(0.05)
    raise TimeoutError


if __name__ == "__main__":
    main(sys.argv[1])
