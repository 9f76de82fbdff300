"""What a source can fail with, in words for people, and how often it is asked again."""

from __future__ import annotations

import email.utils
import random
import re
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx


@dataclass(frozen=True, slots=True)
class Patience:
    """How long is waited for what. A source that has used it up is left for the next one."""

    probe_seconds: float = 4.0
    stall_seconds: float = 20.0
    attempts: int = 6
    backoff_seconds: float = 0.5
    longest_wait_seconds: float = 120.0
    package_seconds: float = 180.0

    def pause(self, failures: int) -> float:
        """Doubles with every failure; the random half keeps many machines from coming back at once."""
        longest = min(self.backoff_seconds * 2.0 ** (failures - 1), self.longest_wait_seconds)
        return longest * random.uniform(0.5, 1.0)


PATIENCE = Patience()
CLOSED = re.compile("peer closed|disconnected")
CLOSED_EARLY = ("the connection was closed early", "连接提前断开")


class SourceFailed(Exception):
    """This source cannot give the file; another may. ``code`` is one of ModelError's."""

    def __init__(self, reason: str, *, code: str = "model_unreachable") -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


class Interrupted(Exception):
    """This attempt ended early; the next may succeed, after ``retry_after_seconds`` where that is told."""

    def __init__(self, reason: str, reason_zh: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.reason, self.reason_zh = reason, reason_zh
        self.retry_after_seconds = retry_after_seconds

    def pause(self, failures: int, patience: Patience) -> float:
        """Seconds to wait: what the server asks for, else more with every failure."""
        return patience.pause(failures) if self.retry_after_seconds is None else self.retry_after_seconds


def check_status(response: httpx.Response) -> None:
    """Translate a refusal. Raises SourceFailed, or Interrupted where trying again may help."""
    status, host = response.status_code, response.url.host
    if status < 400:
        return
    if status == 403 and response.history:
        # The address that the hub sent us to has expired; the hub gives a new one.
        raise Interrupted(f"{host} answered 403", f"{host} 返回 403")
    if status in (401, 403, 407):
        raise _denied(response)
    if status in (404, 410):
        raise SourceFailed(f"{host} does not have it ({status})", code="model_not_found")
    if status in (408, 416, 425, 429) or status >= 500:
        raise Interrupted(f"{host} answered {status}", f"{host} 返回 {status}", retry_after(response.headers))
    raise SourceFailed(f"{host} answered {status}")


def retry_after(headers: httpx.Headers) -> float | None:
    """``Retry-After`` in seconds, given as a number or as a date (RFC 9110, section 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def describe(error: httpx.HTTPError) -> tuple[str, str]:
    """An error of the network in English and in Chinese: httpx leaves the text of timeouts empty."""
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return "its name cannot be resolved (no network?)", "域名无法解析（没有网络？）"
    if any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes):
        return (
            f"{error}. Where a proxy opens TLS, let SSL_CERT_FILE name its certificate",
            f"{error}。如果代理会解密 TLS，请用 SSL_CERT_FILE 指定它的证书",
        )
    match error:
        case httpx.ConnectTimeout():
            return "no connection within the time limit", "连接超时"
        case httpx.TimeoutException():
            return "no bytes within the time limit", "太久没有收到数据"
        case httpx.RemoteProtocolError() if CLOSED.search(str(error)):
            return CLOSED_EARLY
    words = str(error) or type(error).__name__
    return words, f"无法连接（{words}）" if isinstance(error, httpx.ConnectError) else words


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _denied(response: httpx.Response) -> SourceFailed:
    host, reason = response.url.host, response.headers.get("X-Error-Code", "")
    if response.status_code == 407:
        return SourceFailed(
            "the proxy asks for a password: write it into its address, http://USER:PASSWORD@HOST"
        )
    if reason == "RepoNotFound":
        return SourceFailed(
            f"{host} has no such repository, or it is private: then set HF_TOKEN", code="model_not_found"
        )
    return SourceFailed(
        f"{host} gives it to known users only ({response.status_code}): accept the terms there, set HF_TOKEN",
        code="model_gated",
    )
