"""The built page as it is downloaded: compressed beforehand, and kept where its name tells its content."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import httpx
import pytest

from tests.live import serving

pytestmark = pytest.mark.real
PAGE = Path(__file__).parent.parent / "src" / "inkstream" / "page"


@pytest.mark.parametrize(
    ("accepted", "encoding", "suffix"),
    [
        ("gzip, deflate, br, zstd", "br", ".br"),
        ("GZIP;q=0.5", "gzip", ".gz"),
        ("br;q=0, gzip", "gzip", ".gz"),
        ("br; q=0.0, gzip;q=0", None, ""),
        ("identity", None, ""),
        ("", None, ""),
    ],
)
@pytest.mark.parametrize("kind", ["text/html", "text/javascript"])
async def test_a_file_comes_as_small_as_its_reader_takes_it(
    tmp_path: Path, kind: str, accepted: str, encoding: str | None, suffix: str
) -> None:
    script = re.search(r'src="\./(assets/[^"]+\.js)"', (PAGE / "index.html").read_text("utf-8"))
    assert script
    is_script = kind == "text/javascript"
    name, address = (script[1], f"/{script[1]}") if is_script else ("index.html", "/")
    async with serving(tmp_path) as server, httpx.AsyncClient(base_url=server.url) as http:
        async with http.stream("GET", address, headers={"accept-encoding": accepted}) as reply:
            body = b"".join([piece async for piece in reply.aiter_raw()])
        again = {"accept-encoding": accepted, "if-none-match": reply.headers["etag"]}
        assert (await http.get(address, headers=again)).status_code == 304
    assert body == (PAGE / f"{name}{suffix}").read_bytes()
    assert reply.headers.get("content-encoding") == encoding
    assert reply.headers["content-type"].startswith(kind)
    assert reply.headers["vary"] == "accept-encoding"
    assert ("immutable" in reply.headers["cache-control"]) == is_script


def test_what_is_compressed_is_the_file() -> None:
    packed = list(PAGE.rglob("*.gz"))
    assert len(packed) > 10
    for file in packed:
        assert gzip.decompress(file.read_bytes()) == file.with_suffix("").read_bytes()
        assert file.with_suffix(".br").stat().st_size < file.with_suffix("").stat().st_size
