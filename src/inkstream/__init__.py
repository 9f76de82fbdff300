"""Self-hosted streaming chat: prompt → run → engine → token log → SSE → browser."""

__version__ = "0.1.0"
