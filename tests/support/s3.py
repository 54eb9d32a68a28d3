"""An S3-compatible server on loopback, with one bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

__all__ = ["s3"]


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, Any]]:
    """fsspec's options for a server with an empty bucket ``bucket``."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"key": "test", "secret": "test", "endpoint_url": f"http://{host}:{port}"}
    s3fs.S3FileSystem(**options).mkdir("bucket")
    yield options
    server.stop()


@pytest.fixture
def bucket(
    s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> str:
    """The address of an empty folder there, which fsspec's own settings lead to."""
    from fsspec.config import conf

    monkeypatch.setitem(conf, "s3", s3)
    return f"s3://bucket/{request.node.name.replace('[', '-').replace(']', '')}"
