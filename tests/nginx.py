"""A real nginx in front of a server, configured as the test says."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from inkstream.probe import free_port

ROOT = Path(__file__).parent.parent
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:{ROOT}/.build/nginx/usr/sbin"
START_SECONDS = 10.0

# One process in the foreground, which needs no rights and leaves nothing outside its folder.
MAIN = """
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {servers}
}}
"""

# The block that the article gives, with the port that is free here.
ARTICLE = """
server {{
    listen 127.0.0.1:{front};
    server_name yourdomain.com;
    location / {{
        proxy_pass http://127.0.0.1:{back};
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
        proxy_set_header Host $host;
        proxy_cache_bypass $http_upgrade;
        proxy_buffering off;
    }}
}}
"""

PLAIN = """
server {{
    listen 127.0.0.1:{front};
    location {path} {{
        proxy_pass http://127.0.0.1:{back}{behind};
        {lines}
    }}
}}
"""


def plain(front: int, back: int, lines: str = "", *, path: str = "/", behind: str = "") -> str:
    """A server block that passes ``path`` on with these lines, and else with nginx's defaults."""
    return PLAIN.format(front=front, back=back, lines=lines, path=path, behind=behind)


def deployed(name: str, changes: dict[str, str]) -> str:
    """A file of ``deploy/``, with other ports and files than those of a real host."""
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    for written, meant in changes.items():
        assert written in text, f"{written!r} is no longer in {name}"
        text = text.replace(written, meant)
    return text


def secure(folder: Path, front: int, back: int) -> str:
    """``deploy/nginx.conf`` for a certificate that nobody has signed."""
    certificate, key = certified(folder)
    live = "/etc/letsencrypt/live/chat.example.org"
    changes = {
        "127.0.0.1:8000": f"127.0.0.1:{back}",
        "listen 80;": f"listen 127.0.0.1:{free_port('127.0.0.1')};",
        "listen 443 ssl http2;": f"listen 127.0.0.1:{front} ssl http2;",
        f"{live}/fullchain.pem": str(certificate),
        f"{live}/privkey.pem": str(key),
    }
    return deployed("nginx.conf", changes)


def certified(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout {key}"
    made += f" -out {certificate} -days 2 -subj /CN=localhost"
    made += " -addext subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(made.split(), check=True, capture_output=True)
    return certificate, key


@contextmanager
def nginx(folder: Path, servers: str, front: int) -> Iterator[None]:
    """nginx with these server blocks, from when it listens at ``front``."""
    binary = shutil.which("nginx", path=PATH)
    assert binary is not None, "nginx is not here: run scripts/nginx"
    folder.mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(MAIN.format(folder=folder, servers=servers), encoding="utf-8")
    command = [binary, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        _until_listening(process, front)
        yield
    finally:
        process.terminate()
        process.communicate(timeout=10)


def _until_listening(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, process.communicate()[1]
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "nginx does not listen"
            time.sleep(0.01)
        else:
            return
