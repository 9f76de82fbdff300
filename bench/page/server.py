"""``inkstream serve`` with a script, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from inkstream.probe import free_port

STOP_SECONDS = 15


class Server:
    """A running server; ``url`` ends with a slash."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.url = f"http://127.0.0.1:{port}/"

    def kill(self, child: str) -> None:
        """End ``gateway`` or ``engine`` the hard way; the parent starts another. Raises LookupError."""
        for children in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            for pid in children.read_text().split():
                if child in Path(f"/proc/{pid}/cmdline").read_text().split("\0"):
                    os.kill(int(pid), signal.SIGKILL)
                    return
        raise LookupError(f"no child named {child!r}")


@contextmanager
def serving(script: dict[str, Any] | None = None, **settings: str) -> Iterator[Server]:
    """Serve with the scripted engine, or with the one that ``settings`` name."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("INKSTREAM_")}
    with tempfile.TemporaryDirectory(prefix="inkstream-bench-") as folder:
        # A gateway that is started again must come back where it was, so port 0 will not do.
        port = free_port("127.0.0.1")
        given = {"DATA_DIR": folder, "PORT": str(port)} | settings
        if script is not None:
            # As it is: escaped Chinese would not fit into the environment.
            given |= {"ENGINE": "scripted", "SCRIPT": json.dumps(script, ensure_ascii=False)}
        environ |= {f"INKSTREAM_{name}": value for name, value in given.items()}
        command = [sys.executable, "-m", "inkstream", "serve"]
        process = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            _until_it_says_where(process)
            yield Server(process, port)
        finally:
            process.terminate()
            process.communicate(timeout=STOP_SECONDS)


def _until_it_says_where(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if re.search(r"http://", line):
            return
    raise RuntimeError(f"the server ended with {process.wait()} before it was ready")
