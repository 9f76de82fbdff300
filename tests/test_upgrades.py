"""Data folders of earlier versions, killed in mid-answer, under the server of now.

``upgrades/make.py`` has made them with the code of the commit that each is named after.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import tarfile
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from inkstream.accounts import schema as accounts
from inkstream.events import text_of
from inkstream.history import schema as history
from inkstream.log import schema as log
from tests.test_serving import address_of, finished, inkstream

pytestmark = pytest.mark.real

ARCHIVES = sorted((Path(__file__).parent / "upgrades").glob("*.tar.xz"))
NEWEST = {log.FILE: log.VERSION, history.FILE: history.VERSION, accounts.FILE: accounts.VERSION}


def unpacked(archive: Path, folder: Path) -> dict[str, Any]:
    """What was seen of it before the kill."""
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    told: dict[str, Any] = json.loads((folder / "told.json").read_text(encoding="utf-8"))
    return told


async def ended(http: httpx.AsyncClient, chat: str) -> dict[str, Any]:
    """The conversation, when its answer has ended."""
    while True:
        found: dict[str, Any] = (await http.get(f"/api/chats/{chat}")).raise_for_status().json()
        if found["messages"][-1]["state"] not in ("queued", "running"):
            return found
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("archive", ARCHIVES, ids=lambda path: path.name.partition(".")[0])
async def test_chats_users_and_answers_in_the_making_outlive_an_upgrade(
    archive: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    told = unpacked(archive, data)
    script = json.dumps(told["script"] | {"tokens_per_second": 0})
    headers = {"Authorization": f"Bearer {told['key']}"} if told["key"] else {}
    arguments = ("serve", "--engine", "scripted", "--script", script, "--port", "0")
    async with inkstream(tmp_path, *arguments) as server:
        address = await address_of(server)
        async with httpx.AsyncClient(base_url=address, trust_env=False, headers=headers) as http:
            for before in told["chats"]:
                now = await ended(http, before["chat"]["id"])
                question, answer = before["messages"][-2:]
                assert now["chat"]["title"] == before["chat"]["title"]
                assert now["messages"][0]["parts"] == question["parts"]
                after = now["messages"][1]
                assert after["id"] == answer["id"]
                assert after["state"] == "done"
                assert text_of(after["parts"]).startswith(text_of(answer["parts"]))
                found = await http.get("/api/chats", params={"query": text_of(question["parts"])})
                assert [chat["id"] for chat in found.json()["chats"]] == [before["chat"]["id"]]
                again = await http.post(
                    f"/api/chats/{before['chat']['id']}/messages",
                    json={"regenerate": after["id"], "sampling": {"temperature": 0}},
                )
                assert again.status_code == 202
    for file, version in NEWEST.items():
        with closing(sqlite3.connect(data / file)) as db:
            assert db.execute("PRAGMA user_version").fetchone() == (version,)
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


@pytest.mark.parametrize("file", NEWEST)
async def test_files_of_a_newer_version_are_refused_with_the_reason_and_left_alone(
    file: str, tmp_path: Path
) -> None:
    unpacked(ARCHIVES[0], tmp_path / "data")
    with closing(sqlite3.connect(tmp_path / "data" / file)) as db:
        db.execute("PRAGMA user_version = 99")
    code, _, said = await finished(tmp_path, "serve", "--engine", "scripted", "--port", "0")
    assert code == 2
    assert f"{tmp_path / 'data' / file} was written by a newer inkstream" in said
    assert "Update inkstream" in said
    with closing(sqlite3.connect(tmp_path / "data" / file)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)
