"""The one local connection between a gateway and an engine process: one frame per step for all runs.

``Host`` offers an engine on a port from before the engine exists, so that a gateway sees weights
download and load. ``LinkEngine`` is that engine at the other end; it connects again for as long as it lives.

A frame is JSON behind its length in four big-endian bytes. The first three are the handshake, whose shape
is the same in every version:

    host     {"version", "nonce"}
    gateway  {"version", "nonce", "proof"}
    host     {"proof"}, or {"refused": {"code", "message"}} and the end

A proof is an HMAC over both nonces with the shared key. A stranger who connects can ask nothing, and one
who took the port of a dead engine learns neither the key nor a prompt. Until its proof a peer may send small
frames only. Then:

    gateway  ["generate", call, request, emitted] · ["render", call, messages] · ["cancel", call] · ["ping"]
    host     {"chunks": [[call…], [text…], [tokens…], [ids…], [logprobs…]?], "progress"?: [[call, share]…],
              "ends"?: [[call, kind, value]…], "status"?, "capabilities"?, "pong"?, "cache"?}

Calls are numbered by the gateway; a connection never uses a number twice. Nothing queues per token and no
task is woken for one: the host merges per call what its socket does not take, so a stall costs the length of
the answers and no more, and the gateway hands on what a frame brings while it reads it.
"""

from inkstream.engines.link.gateway import LinkEngine
from inkstream.engines.link.host import Host

__all__ = ["Host", "LinkEngine"]
