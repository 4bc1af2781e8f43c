"""The way to the store leads through an HTTP proxy: a tunnel, and TLS to the store inside it."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from dockd.core.errors import AdministrativeRefusalError, TargetError, TargetUnavailableError
from dockd.target.connection import Connection
from dockd.target.tus import TusTarget
from tests.certificates import Authority
from tests.target.proxies import Proxy, proxy
from tests.target.sockets import OFFERS, chunks, head_of, saying, serving

PASSWORD = "s3cret: with a colon"
LOGIN = "Basic " + base64.b64encode(f"dock:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture
def files(authority: Authority, tmp_path: Path) -> Path:
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "password").touch(mode=0o600)
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    return tmp_path


def through(proxy: Proxy, files: Path, user: str = "dock") -> Connection:
    url = proxy.url.replace("http://", f"http://{user}@") if user else proxy.url
    return Connection(
        ca_file=files / "ca.pem",
        proxy=url,
        proxy_password_file=files / "password" if user else None,
    )


@asynccontextmanager
async def secure_store(
    authority: Authority, files: Path, heads: list[dict[str, str]], host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await head_of(reader)
            heads.append(head)
            await reader.readexactly(int(head.get("content-length", "0")))
            answer = f"{OFFERS}\nUpload-Offset: 5".replace("\n", "\r\n")
            writer.write(answer.encode() + b"\r\n\r\n")

    async with serving(serve, host=host, tls=authority.server_context(files)) as url:
        yield url


@pytest.mark.parametrize("user", ["dock", ""])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_tunnel_with_and_without_a_user(
    authority: Authority, files: Path, host: str, user: str
) -> None:
    """The proxy sees where it goes and who asks; the store sees neither name nor password."""
    heads: list[dict[str, str]] = []
    async with (
        secure_store(authority, files, heads, host) as url,
        proxy(LOGIN if user else None) as way,
        TusTarget(url, connection=through(way, files, user)) as target,
    ):
        await target.append(f"{url}1", 0, 5, chunks(5))
        await target.discover()
        await target.offset(f"{url}1")
    assert [head[""] for head in way.heads] == [f"CONNECT {url[8:-7]} HTTP/1.1"]
    assert [head[""].split(" ")[0] for head in heads] == ["PATCH", "OPTIONS", "HEAD"]
    assert all("proxy-authorization" not in head for head in heads)
    assert "upload-offset" not in way.heads[0]


async def test_a_password_that_the_proxy_does_not_take(authority: Authority, files: Path) -> None:
    """407 is for a person to lift: the dock waits without counting, and shows no password."""
    async with (
        secure_store(authority, files, []) as url,
        proxy("Basic other") as way,
        TusTarget(url, connection=through(way, files)) as target,
    ):
        with pytest.raises(AdministrativeRefusalError, match=r"another user or password") as caught:
            await target.discover()
        assert caught.value.status == 407
        with pytest.raises(AdministrativeRefusalError):
            await target.append(f"{url}1", 0, 5, chunks(5))
    error: BaseException | None = caught.value
    while error is not None:
        assert PASSWORD not in f"{error} {error!r}"
        assert LOGIN.removeprefix("Basic ") not in f"{error} {error!r}"
        error = error.__cause__


@pytest.mark.parametrize(
    ("refusal", "kind", "retry_after_s"),
    [
        ("403 Forbidden", AdministrativeRefusalError, None),
        ("502 Bad Gateway", TargetUnavailableError, None),
        ("503 Busy\r\nRetry-After: 7", TargetUnavailableError, 7),
        # What a proxy does not find is the store, never an upload.
        ("404 Not Found", TargetUnavailableError, None),
        ("409 Conflict", TargetUnavailableError, None),
    ],
)
async def test_a_proxy_that_opens_no_tunnel(
    authority: Authority,
    files: Path,
    refusal: str,
    kind: type[TargetError],
    retry_after_s: float | None,
) -> None:
    async with (
        secure_store(authority, files, []) as url,
        proxy(LOGIN, refusal) as way,
        TusTarget(url, connection=through(way, files)) as target,
    ):
        with pytest.raises(kind, match=rf"the proxy answers {refusal[:3]}") as caught:
            await target.offset(f"{url}1")
    assert caught.value.status == int(refusal[:3])
    assert caught.value.retry_after_s == retry_after_s


async def test_a_proxy_that_is_not_there(files: Path) -> None:
    connection = Connection(ca_file=files / "ca.pem", proxy="http://127.0.0.1:1")
    async with TusTarget("https://store.example/files/", connection=connection) as target:
        with pytest.raises(TargetUnavailableError, match=r"no connection to the proxy"):
            await target.discover()


async def test_a_proxy_that_never_answers(files: Path) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(serve) as url:
        connection = Connection(ca_file=files / "ca.pem", proxy=url.removesuffix("/files/"))
        store = "https://store.example/files/"
        async with TusTarget(store, connection=connection, connect_timeout_s=0.1) as target:
            with pytest.raises(TargetUnavailableError, match=r"no connection in time"):
                await target.discover()


async def test_the_store_behind_a_proxy_must_have_the_right_certificate(files: Path) -> None:
    async with (
        secure_store(Authority.new("the proxy's own"), files, []) as url,
        proxy(LOGIN) as way,
        TusTarget(url, connection=through(way, files)) as target,
    ):
        with pytest.raises(TargetUnavailableError, match=r"no authority that this dock trusts"):
            await target.discover()


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("all_proxy", "http://127.0.0.1:1")
    async with serving(saying(OFFERS)) as url, TusTarget(url) as target:
        await target.discover()
