"""An S3 server on loopback: moto's, with a look at each request, and faults."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import attrs
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from pyarrow import fs  # type: ignore[import-untyped]
from werkzeug.serving import make_server

BUCKET = "bucket"
_REFUSED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>c4n4ry %s</Message></Error>"
_WRITES = {"PUT", "POST", "DELETE"}


@attrs.define
class S3Server:
    """The server, and its log of the requests that write."""

    port: int = 0
    writes: list[str] = attrs.field(factory=list)
    """Method, path and query of each request that writes."""
    before_write: Callable[[str], bool] = lambda _: True
    """Called with a request that writes, in a thread of the server; if it returns false, the request is refused."""

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if environ["REQUEST_METHOD"] in _WRITES:
            self.writes.append(request)
            if not self.before_write(request):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start("403 Forbidden", [("Content-Type", "application/xml")])
                return [_REFUSED % str(environ.get("HTTP_AUTHORIZATION")).encode()]
        return _moto()(environ, start)  # type: ignore[no-any-return]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables of a client; no file and no instance has credentials."""
        return {
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "c4n4ry-secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nowhere",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }

    @property
    def files(self) -> fs.S3FileSystem:
        """A client of the tests."""
        address = {"endpoint_override": f"127.0.0.1:{self.port}", "scheme": "http"}
        return fs.S3FileSystem(access_key="test", secret_key="test", allow_bucket_creation=True, **address)

    def objects(self) -> dict[str, bytes]:
        """Return the content of all objects of the bucket, by their keys."""
        files = self.files
        found = files.get_file_info(fs.FileSelector(BUCKET, recursive=True))
        return {
            each.path.removeprefix(f"{BUCKET}/"): files.open_input_stream(each.path).read()
            for each in found
            if each.is_file
        }


@cache
def _moto() -> Any:
    """Return moto's application, which is made once, since that takes half a second."""
    return DomainDispatcherApplication(create_backend_app)


@contextmanager
def s3_server() -> Iterator[S3Server]:
    """Serve an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = S3Server()
    listener = make_server("127.0.0.1", 0, server, threaded=True)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        server.port = listener.port
        server.files.create_dir(BUCKET)
        server.files.delete_dir_contents(BUCKET)  # of an earlier test, since moto keeps its objects in the process
        server.writes.clear()
        yield server
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
