"""The server is held to its OpenAPI description, by requests that are drawn from it at random.

``python -m tests.test_description [--seconds 300] [--seed N]`` goes on for longer.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from inkstream.accounts import Role
from inkstream.engines.scripted import Script
from tests.hostile import Target, target

NOT_HELD = (
    "positive_data_acceptance",  # a text of blanks is a string, and no question
    "ensure_resource_availability",  # what one request makes another one may delete
    "use_after_free",  # what is deleted can be restored
)
# From the first user on nobody is let in unasked.
UNKNOWN = ["--exclude-path=/api/users", f"--exclude-checks={','.join((*NOT_HELD, 'ignored_auth'))}"]
SHORT_SECONDS = 8


def test_every_route_says_what_it_answers(tmp_path: Path) -> None:
    with target(tmp_path) as found, found.client() as http:
        description = http.get("/openapi.json").json()
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    assert len(operations) > 30
    for name, operation in operations:
        said = operation["responses"]
        [success, *_] = sorted(said)
        reply = said[success].get("content", {})
        assert success == "204" or reply, f"{name} does not say what {success} carries"
        assert "schema" in reply.get("application/json", {"schema": {}}), name
        assert "422" not in said or "error" in json.dumps(said["422"]), name
        assert {"400", "403", "413"} <= set(said), name


@pytest.mark.real
@pytest.mark.parametrize(
    "is_known", [False, True], ids=["nobody signs in", "an admin with things of his own"]
)
def test_what_is_drawn_from_the_description_is_answered_as_it_says(tmp_path: Path, is_known: bool) -> None:
    drawn(tmp_path, is_known, random.SystemRandom().randrange(2**31), SHORT_SECONDS)


def drawn(folder: Path, is_known: bool, seed: int, seconds: int) -> None:
    """Draw requests for so long. Raises AssertionError with what was found, and how to have it again."""
    print(f"seed {seed}")
    with target(folder / "data", Script(answer_tokens=5), queue=10_000) as found:
        ids, options = known(found) if is_known else ({}, UNKNOWN)
        config = folder / "schemathesis.toml"
        config.write_text(toml(ids), encoding="utf-8")
        program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run"]
        limits = [f"--seed={seed}", f"--max-time={seconds}", "--no-color"]
        command = [*program, f"{found.live.url}/openapi.json", *limits, *options]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=folder, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        print(done.stdout)
        found.require_well()


def known(found: Target) -> tuple[dict[str, str], list[str]]:
    """What there is of an admin, by the name of the parameter that takes it, and how he is known."""
    accounts = found.live.services.accounts
    ada = found.portal.call(accounts.add_user, "ada", Role.ADMIN)
    bob = found.portal.call(accounts.add_user, "bob")
    _, secret = found.portal.call(accounts.add_key, ada.id)
    bearer = f"Bearer {secret}"
    with found.client(Authorization=bearer) as http:
        chat = http.post("/api/chats", json={}).json()["id"]
        asked = http.post(f"/api/chats/{chat}/messages", json={"content": "hello"}).json()
        key = http.post("/api/keys", json={}).json()["id"]
    run, message = asked["run"]["id"], asked["message"]["id"]
    ids = {"chat": chat, "run": run, "message": message, "key": key, "user": bob.id, "name": "scripted"}
    return ids, [f"--header=Authorization: {bearer}", f"--exclude-checks={','.join(NOT_HELD)}"]


def toml(ids: dict[str, str]) -> str:
    """The live feed has no end. A form has nothing but texts: ``/stream`` takes numbers written in one."""
    lines = ["request-timeout = 10", "max-stream-events = 20", "[phases.stateful]", "enabled = false"]
    lines += ["[parameters]", *(f'"path.{name}" = "{id_}"' for name, id_ in ids.items())]
    lines += ["[[operations]]", 'include-path = "/api/live"', "parameters = { wait = false }"]
    lines += ["[[operations]]", 'include-path = "/stream"', "checks.negative_data_rejection.enabled = false"]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.test_description", description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="for each of the two (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    chosen = parser.parse_args()
    for who in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            drawn(Path(folder), who, chosen.seed, chosen.seconds)
