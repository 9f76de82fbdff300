"""llama.cpp's own server, bare: ``llama.py MODEL CONTEXT SLOTS`` prints its URL and key."""

from __future__ import annotations

import sys
from pathlib import Path

from inkstream.engines.llama_server import Launch, LlamaServer, read_header

if __name__ == "__main__":
    path = Path(sys.argv[1])
    launch = Launch(path=path, context=int(sys.argv[2]), slots=int(sys.argv[3]))
    server = LlamaServer.start(launch, read_header(path))
    print(server.url, server.key, flush=True)
    sys.stdin.read()  # the bench holds the other end
