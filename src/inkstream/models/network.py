"""The HTTP client for the hubs: proxies and certificates as the user's environment names them.

Routing is ours and not httpx's for two reasons: httpx sends loopback addresses through ``http_proxy`` where
``no_proxy`` is unset, and it reads the process's environment only.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import httpx

import inkstream
from inkstream.errors import ModelError

CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
# Desktop settings write socks:// where they mean SOCKS 5 with names resolved by the proxy.
SCHEMES = {"http": "http", "https": "https", "socks5": "socks5", "socks5h": "socks5h", "socks": "socks5h"}


def client(environ: Mapping[str, str], timeout: httpx.Timeout) -> httpx.AsyncClient:
    """A client for the hubs. Raises ModelError where a proxy or certificate variable is unusable."""
    return httpx.AsyncClient(
        transport=_Route(environ),
        timeout=timeout,
        trust_env=False,
        headers={"User-Agent": f"inkstream/{inkstream.__version__}"},
    )


def proxy_for(url: httpx.URL, environ: Mapping[str, str]) -> str | None:
    """The proxy that requests to ``url`` go through, None for a direct connection. Raises ModelError."""
    if _is_loopback(url.host) or _is_exempt(url, _variable(environ, "no_proxy")[1]):
        return None
    for name in (f"{url.scheme}_proxy", "all_proxy"):
        variable, value = _variable(environ, name)
        if value:
            return _proxy_url(variable, value)
    system = urllib.request.getproxies() if environ is os.environ else {}
    return system.get(url.scheme)


class _Route(httpx.AsyncBaseTransport):
    """Sends each request directly or through the proxy meant for its address."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._certificates = _certificates(environ)
        self._transports: dict[str | None, httpx.AsyncHTTPTransport] = {}
        for scheme in ("http", "https"):
            proxy_for(httpx.URL(f"{scheme}://hub.invalid"), environ)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = proxy_for(request.url, self._environ)
        if proxy not in self._transports:
            self._transports[proxy] = self._connect(proxy)
        return await self._transports[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._transports.values():
            await transport.aclose()

    def _connect(self, proxy: str | None) -> httpx.AsyncHTTPTransport:
        # Only an https:// proxy speaks TLS itself.
        context = self._certificates if proxy and proxy.startswith("https:") else None
        return httpx.AsyncHTTPTransport(
            verify=self._certificates, proxy=httpx.Proxy(proxy, ssl_context=context) if proxy else None
        )


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """The lower-case spelling wins, as it does for curl."""
    for spelling in (name, name.upper()):
        if environ.get(spelling, "").strip():
            return spelling, environ[spelling].strip()
    return name, ""


def _proxy_url(variable: str, value: str) -> str:
    scheme, separator, rest = value.partition("://")
    if not separator:
        scheme, rest = "http", value
    if scheme.lower() not in SCHEMES or not rest.strip("/"):
        # The value is not shown: it may hold a password.
        raise ModelError(
            f"{variable} is not a proxy address that can be used. Write http://HOST:PORT, https://HOST:PORT "
            "or socks5://HOST:PORT, or unset it.",
            code="bad_proxy",
        )
    return f"{SCHEMES[scheme.lower()]}://{rest}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_exempt(url: httpx.URL, no_proxy: str) -> bool:
    """``no_proxy`` is a list of host names (their subdomains included), addresses, networks, or ``*``."""
    return any(_matches(url, rule.strip().lower()) for rule in no_proxy.split(",") if rule.strip())


def _matches(url: httpx.URL, rule: str) -> bool:
    if rule == "*":
        return True
    try:
        return ipaddress.ip_address(url.host) in ipaddress.ip_network(rule, strict=False)
    except ValueError:
        host, _, port = rule.removeprefix("*").removeprefix(".").partition(":")
        here = url.host.lower()
        if port and port != str(url.port or {"http": 80, "https": 443}[url.scheme]):
            return False
        return here == host or here.endswith(f".{host}")


def _certificates(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The named certificates alone, as OpenSSL and curl do it; else the system's and certifi's together."""
    named = [(name, Path(environ[name])) for name in CERTIFICATES if environ.get(name)]
    if not named:
        context = httpx.create_ssl_context(trust_env=False)
        context.load_default_certs()
        return context
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for name, path in named:
        _trust(context, name, path)
    return context


def _trust(context: ssl.SSLContext, name: str, path: Path) -> None:
    try:
        if path.is_dir():
            context.load_verify_locations(capath=path)
        else:
            context.load_verify_locations(cafile=path)
    except OSError as error:
        raise ModelError(
            f"{name} names {path}, where no certificates can be read ({error}). Correct or unset it.",
            code="bad_certificates",
        ) from error
