"""What an address looks like from outside: ``inkstream doctor URL``.

Between a server and its readers stand proxies, and most of what can be wrong with a stream is wrong there.
Each finding names the line that mends it, nginx's where that is the likely one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx

from inkstream.api.echo import LONGEST_SILENCE_SECONDS, SAMPLE, TICK_SECONDS, TICKS
from inkstream.api.page import SAFETY_HEADERS
from inkstream.errors import ConfigError
from inkstream.preflight import Finding, Level
from inkstream.visit import Heard, Visit
from inkstream.words import Words

WATCH_SECONDS = 15.0
"""How long the silent stream is watched: longer than the default heartbeat."""

ASSET = re.compile(r'(?:src|href)="\./(assets/[^"]+\.js)"')
STREAM_CACHING = "no-store, no-transform"
UNBUFFERED = "nginx: proxy_buffering off;  Caddy: flush_interval -1"
NOT_COMPRESSED = "nginx: gzip off;  Caddy: encode @page gzip"
SPOKEN_1_1 = 'nginx: proxy_http_version 1.1; proxy_set_header Connection "";'
HOST_KEPT = "nginx: proxy_set_header Host $http_host;"
SCHEME_TOLD = "nginx: proxy_set_header X-Forwarded-Proto $scheme;"
UTF_8 = "nginx: charset utf-8; override_charset off;"
LONGER = "nginx: proxy_read_timeout 10m;"
HEADERS_KEPT = "nginx: proxy_hide_header, proxy_ignore_headers, expires, add_header"


def watch_seconds(text: str | None) -> float:
    """From the command line. Raises ConfigError."""
    if text is None:
        return WATCH_SECONDS
    if not text.isdecimal() or int(text) > LONGEST_SILENCE_SECONDS:
        raise ConfigError(f"--seconds has value {text!r}. Write a number up to {LONGEST_SILENCE_SECONDS}.")
    return float(text)


class Reach:
    """One visit's findings, in the order in which one thing stands on another."""

    def __init__(self, visit: Visit, say: Words, watch_seconds: float = WATCH_SECONDS) -> None:
        self._visit, self._say, self._watch_seconds = visit, say, watch_seconds

    def examine(self) -> Iterator[Finding]:
        """Each finding as soon as it is known; nothing is raised for what may be wrong with an address."""
        try:
            yield from self._way()
            server = self._server()
            yield server
            if server.level != "fail":
                yield from self._page()
                yield from self._stream()
        except (httpx.RequestError, httpx.InvalidURL) as error:
            yield self._unreachable(error)

    def _way(self) -> Iterator[Finding]:
        if self._visit.goes_through_proxy():
            text = self._say(
                "through the proxy that your environment names (http_proxy, https_proxy)",
                "经由环境变量指定的代理（http_proxy、https_proxy）",
            )
            yield Finding("way", "ok", text)

    def _unreachable(self, error: Exception) -> Finding:
        reason = str(error) or type(error).__name__
        return Finding("address", "fail", f"{self._visit.base}: {reason}", self._way_there(error, reason))

    def _way_there(self, error: Exception, reason: str) -> str:
        say, base = self._say, self._visit.base
        look = f"curl -v {base}healthz"
        if "CERTIFICATE" in reason.upper():
            own = say("; signed by your company: ", "；若由公司自签，请设置 ") + "SSL_CERT_FILE=company.pem"
            fix = say("a certificate for this name, with its chain: ", "换用该域名的证书，并附完整证书链：")
            return f"{fix}nginx: ssl_certificate fullchain.pem;{own}"
        if self._visit.goes_through_proxy():
            around = say("around the proxy of your environment: ", "绕过环境变量指定的代理：")
            return f"{around}no_proxy={base.host} inkstream doctor {base}"
        if isinstance(error, httpx.TimeoutException):
            return say("a firewall, or a server that hangs: ", "防火墙拦截，或服务已卡死：") + look
        if isinstance(error, httpx.ConnectError):
            return say("on the server: ", "在服务器上运行：") + "inkstream doctor"
        return say("is it https, or another port? ", "是否应为 https 或其他端口？") + look

    # Is it inkstream that answers, and does it know where it is?

    def _server(self) -> Finding:
        say = self._say
        reply = self._visit.get("healthz", {"origin": self._visit.origin})
        if reply.status_code == 200 and _json(reply).get("status") == "ok":
            return Finding("server", "ok", say("inkstream answers", "inkstream 有应答"))
        text, fix = self._refusal(reply)
        return Finding("server", "fail", text, fix)

    def _refusal(self, reply: httpx.Response) -> tuple[str, str]:
        """Why something else than inkstream's health has come, and what to do."""
        error = _json(reply).get("error")
        error = error if isinstance(error, dict) else {}
        code = error.get("code")
        if code == "foreign_host":
            name = _quoted(error)
            text = self._say(f"the server does not go by the name {name}", f"服务器不认主机名 {name}")
            is_kept = name == self._visit.base.host
            return text, f"INKSTREAM_HOSTS={name}" if is_kept else HOST_KEPT
        if code == "foreign_origin":
            text = self._say(
                "the proxy changes the host: the page's own requests look like another site's",
                "代理改写了 Host，页面自己的请求会被当作外站请求而拒绝",
            )
            return text, HOST_KEPT
        if code == "unknown_path":
            return self._lost(_quoted(error))
        return self._foreign(reply)

    def _lost(self, path: str) -> tuple[str, str]:
        """Our server answers, and knows nothing at the path that has reached it."""
        text = self._say(f"the server was asked for {path}", f"到达服务器的路径是 {path}")
        if path.startswith("//"):
            fix = f"nginx: location {self._visit.prefix}/ {{ proxy_pass http://…/; }}"
            return text, fix + self._say(" with a slash behind both", "（两处都以斜杠结尾）")
        return text, f"INKSTREAM_BASE_PATH={path.removesuffix('/healthz')}"

    def _foreign(self, reply: httpx.Response) -> tuple[str, str]:
        say, status = self._say, reply.status_code
        if reply.has_redirect_location:
            target = reply.headers["location"].removesuffix("healthz")
            text = say(f"it leads on to {target}", f"被重定向到 {target}")
            return text, f"inkstream doctor {reply.request.url.join(target)}"
        if status in (502, 503, 504):
            text = say(
                f"a proxy answers {status}: it does not reach the server behind it",
                f"代理返回 {status}，连不上后面的服务",
            )
            return text, say("on the server: ", "在服务器上运行：") + "curl -i http://127.0.0.1:8000/healthz"
        if status == 401:
            text = say("a proxy wants a password of its own", "代理要求输入它自己的密码")
            return text, f"inkstream doctor {self._visit.base.copy_with(userinfo=b'NAME:PASSWORD')}"
        text = say(f"something else answers: status {status}", f"应答的不是 inkstream：状态码 {status}")
        return text, f"nginx: location {self._visit.base.path} {{ proxy_pass http://127.0.0.1:8000; }}"

    # The page

    def _page(self) -> Iterator[Finding]:
        reply = self._visit.get("")
        if reply.status_code != 200:
            text = self._say(f"status {reply.status_code}", f"状态码 {reply.status_code}")
            yield Finding(
                "page", "fail", text, self._say("on the server: ", "在服务器上运行：") + "inkstream doctor"
            )
            return
        kind = reply.headers.get("content-type", "")
        yield self._judged("page", kind.replace(" ", "").lower() == "text/html;charset=utf-8", kind, UTF_8)
        yield self._safety(reply)
        yield from self._assets(reply.text)
        if self._visit.prefix:
            yield self._bare()

    def _safety(self, reply: httpx.Response) -> Finding:
        wanted = {**SAFETY_HEADERS, "cache-control": "no-cache"}
        wrong = [name for name, value in wanted.items() if reply.headers.get(name) != value]
        if not wrong:
            text = self._say("those of security and caching are there", "安全与缓存相关的响应头齐全")
            return Finding("headers", "ok", text)
        text = self._say("missing or changed: ", "缺失或被改动：") + ", ".join(wrong)
        fix = self._say("pass them on as they are: ", "原样转发，检查 ") + HEADERS_KEPT
        return Finding("headers", "warn", text, fix)

    def _assets(self, document: str) -> Iterator[Finding]:
        found = ASSET.search(document)
        if found is None:
            text = self._say("the page is not inkstream's", "页面不是 inkstream 的页面")
            yield Finding(
                "assets", "fail", text, f"nginx: location {self._visit.base.path} {{ proxy_pass …; }}"
            )
            return
        reply = self._visit.get(found[1])
        is_script = reply.status_code == 200 and "javascript" in reply.headers.get("content-type", "")
        text = f"{found[1]}: {reply.status_code} {reply.headers.get('content-type', '')}"
        fix = self._say(
            "leave all paths below the page's to inkstream", "把页面之下的所有路径都转给 inkstream"
        )
        yield self._judged("assets", is_script, text, fix)
        if is_script and "immutable" not in reply.headers.get("cache-control", ""):
            text = self._say("scripts are not kept by browsers", "浏览器不会缓存脚本")
            yield Finding("headers", "warn", text, HEADERS_KEPT)

    def _bare(self) -> Finding:
        """The address without its last slash, as people type it."""
        prefix = self._visit.prefix
        reply = self._visit.get(prefix)
        target = reply.request.url.join(reply.headers.get("location", ""))
        if reply.has_redirect_location and target == self._visit.base:
            return Finding("base", "ok", f"{prefix} → {prefix}/")
        shown = target if reply.has_redirect_location else reply.status_code
        fix = f"nginx: location = {prefix} {{ return 301 {prefix}/; }} absolute_redirect off;"
        return Finding("base", "warn", f"{prefix} → {shown}", fix)

    # The stream

    def _stream(self) -> Iterator[Finding]:
        heard = self._visit.listen(0)
        if heard.status != 200 or not heard.seen:
            text = self._say(
                f"api/echo answers {heard.status}: an older inkstream, or not all paths lead to it",
                f"api/echo 返回 {heard.status}：inkstream 版本较旧，或并非所有路径都转给了它",
            )
            yield Finding("stream", "fail", text, f"curl -iN {self._visit.base}api/echo")
            return
        is_flowing = _is_flowing(heard)
        yield self._flow(heard, is_flowing)
        yield from self._body(heard)
        yield from self._told(heard)
        yield self._access(heard)
        if is_flowing and self._watch_seconds:
            yield self._idle(float(heard.seen["heartbeat_seconds"]))

    def _flow(self, heard: Heard, is_flowing: bool) -> Finding:
        say, encoding = self._say, heard.headers.get("content-encoding", "")
        if is_flowing and not encoding:
            first = f"{heard.blocks[0].at * 1000:.0f} ms"
            text = say(
                f"events come as they are sent, the first after {first}", f"事件逐个到达，首个用时 {first}"
            )
            return Finding("stream", "ok", text)
        if is_flowing:
            text = say(
                f"compressed ({encoding}), so far event by event", f"经过压缩（{encoding}），目前仍是逐个到达"
            )
            return Finding("stream", "warn", text, NOT_COMPRESSED)
        if not heard.is_whole:
            text = say(f"cut after {heard.seconds:.1f} s", f"{heard.seconds:.1f} 秒后被切断")
            return Finding("stream", "fail", text, LONGER)
        return self._held(heard.spread_seconds * 1000, encoding)

    def _held(self, milliseconds: float, encoding: str) -> Finding:
        text = self._say(
            f"held back: what is sent in half a second came within {milliseconds:.0f} ms",
            f"被缓冲：半秒内陆续发出的事件在 {milliseconds:.0f} 毫秒内一起到达",
        )
        if not encoding:
            return Finding("stream", "fail", text, UNBUFFERED)
        text += self._say(f", compressed ({encoding})", f"，且经过压缩（{encoding}）")
        return Finding("stream", "fail", text, NOT_COMPRESSED)

    def _body(self, heard: Heard) -> Iterator[Finding]:
        kind = heard.headers.get("content-type", "")
        is_utf_8 = kind.replace(" ", "").lower() == "text/event-stream;charset=utf-8"
        yield self._judged("charset", is_utf_8 and heard.seen["text"] == SAMPLE, kind, UTF_8)
        caching = heard.headers.get("cache-control", "")
        text = self._say("the stream's caching: ", "流的缓存策略：") + (caching or "–")
        yield self._judged("headers", caching == STREAM_CACHING, text, HEADERS_KEPT, "warn")

    def _told(self, heard: Heard) -> Iterator[Finding]:
        """What the proxy tells the server of the request."""
        say, seen = self._say, heard.seen
        text = say(f"the server is asked in HTTP/{seen['http']}", f"代理以 HTTP/{seen['http']} 请求服务器")
        yield self._judged("upstream", seen["http"] != "1.0", text, SPOKEN_1_1, "warn")
        if self._visit.base.scheme == "https":
            text = say(f"the server believes in {seen['scheme']}", f"服务器认为协议是 {seen['scheme']}")
            fix = f"{SCHEME_TOLD}  INKSTREAM_TRUSTED_PROXIES=127.0.0.1"
            yield self._judged("scheme", seen["scheme"] == "https", text, fix, "warn")
        known = str(seen["base_path"])
        text = say(f"the server believes to be at {known or '/'}", f"服务器认为自己位于 {known or '/'}")
        # The cookie is for that path, and a browser that is elsewhere never sends it.
        level: Level = "fail" if known else "warn"
        yield self._judged(
            "base", known == self._visit.prefix, text, f"INKSTREAM_BASE_PATH={self._visit.prefix}", level
        )

    def _access(self, heard: Heard) -> Finding:
        say = self._say
        reply = self._visit.get_signed_in("api/me")
        if reply.status_code == 401:
            return self._shut(bool(heard.seen["has_key"]))
        if _json(reply).get("by") == "nobody" and not self._visit.is_local:
            text = say(
                "whoever reaches this address is let in, as an admin",
                "能访问该地址的人都无需登录，且都是管理员",
            )
            return Finding("access", "fail", text, "inkstream users add NAME --admin --local")
        return Finding("access", "ok", say("let in", "可以访问"))

    def _shut(self, has_key_arrived: bool) -> Finding:
        say = self._say
        if not self._visit.has_key:
            return Finding("access", "ok", say("whoever comes has to sign in", "需要登录"))
        if has_key_arrived:
            text = say("the key is not accepted", "密钥不被接受")
            return Finding("access", "fail", text, "inkstream keys add NAME")
        text = say("the proxy takes the key away", "代理去掉了 Authorization 请求头")
        return Finding("access", "fail", text, "nginx: proxy_set_header Authorization $http_authorization;")

    def _idle(self, beat_seconds: float) -> Finding:
        say, patience = self._say, 2.5 * beat_seconds + 5
        heard = self._visit.listen(self._watch_seconds, patience)
        if heard.is_whole:
            text = say(
                f"open through {self._watch_seconds:g} s of silence, a comment every {beat_seconds:g} s",
                f"静默 {self._watch_seconds:g} 秒后连接仍在，每 {beat_seconds:g} 秒有一次心跳",
            )
            return Finding("idle", "ok", text)
        if not heard.fell_silent:
            text = say(
                f"cut after {heard.seconds:.1f} s, although something was said just before",
                f"{heard.seconds:.1f} 秒后被切断，而此前不久还有数据",
            )
            return Finding(
                "idle",
                "warn",
                text,
                say("a limit to the whole reply: ", "代理限制了整个响应的时长：") + LONGER,
            )
        text = say(
            f"cut after {heard.silent_seconds:.1f} s of silence; a comment comes every {beat_seconds:g} s",
            f"静默 {heard.silent_seconds:.1f} 秒后被切断，而心跳每 {beat_seconds:g} 秒才有一次",
        )
        shorter = f"INKSTREAM_HEARTBEAT_SECONDS={max(0.5, heard.silent_seconds // 2):g}"
        return Finding("idle", "fail", text, LONGER + say("  or ", "  或 ") + shorter)

    def _judged(self, check: str, is_well: bool, text: str, fix: str, level: Level = "fail") -> Finding:
        return Finding(check, "ok", text) if is_well else Finding(check, level, text, fix)


def _is_flowing(heard: Heard) -> bool:
    return heard.is_whole and heard.spread_seconds >= TICKS * TICK_SECONDS / 2


def _json(reply: httpx.Response) -> dict[str, Any]:
    try:
        body = reply.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _quoted(error: dict[str, Any]) -> str:
    """What the message of an error of ours is about."""
    return str(error.get("message")).partition("'")[2].partition("'")[0]
