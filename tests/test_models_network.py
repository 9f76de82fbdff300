"""Downloads go the way that the user's environment names: proxies, SOCKS, certificates of their own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest

from inkstream.errors import ModelError
from inkstream.models import Model, fetch
from inkstream.models.network import proxy_for
from tests.fake_hub import FakeHub, fake_hub, http_proxy, socks_proxy
from tests.models_world import HASTE, NAME, REPO, TINY, WEIGHTS


async def fetch_through(folder: Path, environ: dict[str, str]) -> Model:
    quiet = {"HOME": str(folder / "home"), "MODELSCOPE_ENDPOINT": "http://127.0.0.1:9"}
    return await fetch(
        "tiny",
        folder / "models",
        on_progress=lambda _: None,
        environ={**quiet, **environ},
        patience=HASTE,
        aliases={"tiny": TINY},
    )


def move(hub: FakeHub, scheme: str = "http") -> str:
    """Let the hub live under names that no resolver knows: only a proxy can reach it."""
    hub.add(REPO, NAME, WEIGHTS)
    hub.cdn_url = f"{scheme}://cdn.hub.invalid"
    return f"{scheme}://hub.invalid"


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
async def test_an_http_proxy_carries_hub_and_cdn(tmp_path: Path, variable: str) -> None:
    async with fake_hub() as hub, http_proxy(hub.port) as proxy:
        environ = {"HF_ENDPOINT": move(hub), variable: f"http://127.0.0.1:{proxy.port}"}
        model = await fetch_through(tmp_path, environ)
    assert model.path.read_bytes() == WEIGHTS
    assert proxy.seen == ["hub.invalid", "hub.invalid", "cdn.hub.invalid"]


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
async def test_a_socks_proxy_carries_hub_and_cdn_and_resolves_their_names(
    tmp_path: Path, scheme: str
) -> None:
    async with fake_hub() as hub, socks_proxy(hub.port) as proxy:
        environ = {"HF_ENDPOINT": move(hub), "all_proxy": f"{scheme}://127.0.0.1:{proxy.port}"}
        model = await fetch_through(tmp_path, environ)
    assert model.path.read_bytes() == WEIGHTS
    assert set(proxy.seen) == {"hub.invalid:80", "cdn.hub.invalid:80"}


async def test_a_hub_on_loopback_is_reached_without_the_proxy(tmp_path: Path) -> None:
    async with fake_hub() as hub, http_proxy(hub.port) as proxy:
        hub.add(REPO, NAME, WEIGHTS)
        address = f"http://127.0.0.1:{proxy.port}"
        await fetch_through(tmp_path, {"HF_ENDPOINT": hub.url, "http_proxy": address, "all_proxy": address})
    assert proxy.seen == []


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("", False),
        ("*", True),
        ("hub.invalid", True),
        (".hub.invalid", True),
        ("invalid", True),
        ("other.invalid, hub.invalid", True),
        ("hub.invalid:8080", True),
        ("hub.invalid:80", False),
        ("ub.invalid", False),
        ("cdn.hub.invalid", False),
    ],
)
def test_no_proxy_exempts_names_and_their_subdomains(no_proxy: str, is_direct: bool) -> None:
    environ = {"http_proxy": "http://proxy.invalid", "no_proxy": no_proxy}
    assert (proxy_for(httpx.URL("http://hub.invalid:8080/x"), environ) is None) == is_direct


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_loopback_never_uses_a_proxy(host: str) -> None:
    environ = {"http_proxy": "http://proxy.invalid", "ALL_PROXY": "socks5://proxy.invalid"}
    assert proxy_for(httpx.URL(f"http://{host}:8000/"), environ) is None


def test_no_proxy_exempts_networks() -> None:
    environ = {"http_proxy": "http://proxy.invalid", "NO_PROXY": "10.0.0.0/8,fd00::/8"}
    assert proxy_for(httpx.URL("http://10.1.2.3/"), environ) is None
    assert proxy_for(httpx.URL("http://[fd00::1]/"), environ) is None
    assert proxy_for(httpx.URL("http://11.1.2.3/"), environ) == "http://proxy.invalid"


def test_each_scheme_has_its_own_proxy_and_a_bare_address_is_http() -> None:
    environ = {"https_proxy": "proxy.invalid:3128", "all_proxy": "socks5h://socks.invalid:1080"}
    assert proxy_for(httpx.URL("https://hub.invalid/"), environ) == "http://proxy.invalid:3128"
    assert proxy_for(httpx.URL("http://hub.invalid/"), environ) == "socks5h://socks.invalid:1080"


@pytest.mark.parametrize("value", ["ftp://user:secret@proxy.invalid", "http://", "socks4://proxy.invalid"])
async def test_an_unusable_proxy_is_named_without_its_password(tmp_path: Path, value: str) -> None:
    with pytest.raises(ModelError) as caught:
        await fetch_through(tmp_path, {"HTTPS_PROXY": value})
    assert caught.value.code == "bad_proxy"
    assert "HTTPS_PROXY" in caught.value.message
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "MODELSCOPE_ENDPOINT"])
async def test_an_unusable_endpoint_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        await fetch_through(tmp_path, {name: "hub.invalid"})
    assert caught.value.code == "bad_endpoint"
    assert name in caught.value.message


# Certificates


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate of the fake hub with its key, in one file: nobody trusts it by itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the openssl program")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = "subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:hub.invalid,DNS:cdn.hub.invalid"
    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=hub.invalid", "-addext", names]
    subprocess.run([openssl, *new, *files], check=True, capture_output=True)
    return certificate


def context_of(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_a_certificate_of_the_users_is_trusted(
    tmp_path: Path, certificate: Path, variable: str
) -> None:
    async with fake_hub(tls=context_of(certificate)) as hub:
        hub.add(REPO, NAME, WEIGHTS)
        model = await fetch_through(tmp_path, {"HF_ENDPOINT": hub.url, variable: str(certificate)})
    assert model.path.read_bytes() == WEIGHTS


@pytest.fixture(scope="module")
def certificate_folder(certificate: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as OpenSSL wants it: the files are found by the hash of their names."""
    folder = tmp_path_factory.mktemp("certificates")
    shutil.copy(certificate, folder)
    subprocess.run(["openssl", "rehash", str(folder)], check=True, capture_output=True)
    return folder


async def test_a_folder_of_certificates_is_trusted(
    tmp_path: Path, certificate: Path, certificate_folder: Path
) -> None:
    async with fake_hub(tls=context_of(certificate)) as hub:
        hub.add(REPO, NAME, WEIGHTS)
        await fetch_through(tmp_path, {"HF_ENDPOINT": hub.url, "SSL_CERT_DIR": str(certificate_folder)})


async def test_a_certificate_that_nobody_vouches_for_is_refused_with_the_way_out(
    tmp_path: Path, certificate: Path
) -> None:
    async with fake_hub(tls=context_of(certificate)) as hub:
        hub.add(REPO, NAME, WEIGHTS)
        with pytest.raises(ModelError) as caught:
            await fetch_through(tmp_path, {"HF_ENDPOINT": hub.url})
    assert "SSL_CERT_FILE" in caught.value.message


async def test_tls_goes_through_proxies_too(tmp_path: Path, certificate: Path) -> None:
    async with (
        fake_hub(tls=context_of(certificate)) as hub,
        http_proxy(hub.port) as tunnel,
        socks_proxy(hub.port) as socks,
    ):
        here = {"HF_ENDPOINT": move(hub, "https"), "SSL_CERT_FILE": str(certificate)}
        tunnelled = {**here, "https_proxy": f"http://127.0.0.1:{tunnel.port}"}
        await fetch_through(tmp_path / "tunnel", tunnelled)
        await fetch_through(tmp_path / "socks", {**here, "all_proxy": f"socks5://127.0.0.1:{socks.port}"})
    assert set(tunnel.seen) == set(socks.seen) == {"hub.invalid:443", "cdn.hub.invalid:443"}


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_unusable_certificates_are_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(ModelError) as caught:
        await fetch_through(tmp_path, {"SSL_CERT_FILE": str(file)})
    assert caught.value.code == "bad_certificates"
    assert str(file) in caught.value.message
