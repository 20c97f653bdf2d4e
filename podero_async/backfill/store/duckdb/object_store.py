"""An object store as the target of an export, through Arrow's file systems.

Credentials come from the places that the provider documents: environment variables, a profile, or the instance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa  # type: ignore[import-untyped]
from pyarrow import fs

from podero_async._http.origin import checked_origin
from podero_async.backfill.errors import StoreError

__all__ = ["ObjectStore", "is_object_address"]

T = TypeVar("T")

_ADDRESS = re.compile(r"(s3|gs|gcs|abfss?)://([^/]*)/?(.*)", re.DOTALL)
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
_CHUNK_BYTES = 1 << 20
_CHUNKS_PER_FLUSH = 32  # Arrow uploads in the background, and would hold the rest of the file in memory
_AWS_ERROR = re.compile(r"AWS Error ([A-Z_]+) during (\w+) operation")


def is_object_address(target: str) -> bool:
    """Return whether a target is an address in an object store, such as `s3://bucket/prefix`."""
    return _ADDRESS.match(target) is not None


class ObjectStore:
    """The objects below an address."""

    def __init__(self, address: str) -> None:
        """Connect to an object store.

        Raises:
            StoreError: The address is not valid, or the bucket does not exist.
            ConfigurationError: The endpoint in the environment is not an origin, or plain http to a remote host.
        """
        found = _ADDRESS.fullmatch(address)
        scheme, bucket, key = found.groups() if found else ("", "", "")
        user, has_user, _ = bucket.rpartition("@")
        # In abfss://container@account.dfs.core.windows.net/path, the container is in the place of a user.
        if "?" in address or (has_user and (scheme in {"s3", "gs", "gcs"} or ":" in user)):
            raise StoreError(
                "an address takes no credentials and no options: set them in the environment", f"{scheme}://"
            )
        if not bucket:
            raise StoreError("the address names no bucket", address)
        self.address = address.rstrip("/")
        self._has_key = bool(key) and not key.endswith("/")
        if scheme == "s3":
            self._files, self._root = self._call(partial(_s3, bucket)), f"{bucket}/{key}".rstrip("/")
        else:
            self._files, self._root = self._call(partial(fs.FileSystem.from_uri, self.address))

    def check_names_object(self) -> None:
        """Check that the address is that of one object.

        Raises:
            StoreError: It ends with the bucket, or with a slash.
        """
        if not self._has_key:
            raise StoreError("the address names no object", self.address)

    def names(self) -> list[str]:
        """Return the names of all objects below the address."""
        selector = fs.FileSelector(self._root, recursive=True, allow_not_found=True)
        found = self._call(partial(self._files.get_file_info, selector))
        return [each.path.removeprefix(f"{self._root}/") for each in found if each.is_file]

    def read(self, name: str) -> bytes:
        """Return the content of a small object."""
        with self._call(partial(self._files.open_input_stream, self._path(name))) as stream:
            return self._call(stream.read)  # type: ignore[no-any-return]

    def write(self, name: str, content: bytes) -> None:
        """Replace a small object."""

        def write() -> None:
            with self._files.open_output_stream(self._path(name)) as stream:
                stream.write(content)

        self._call(write)

    def upload(self, file: Path, name: str) -> None:
        """Replace an object by the content of a complete file; if that fails, the object stays as it was.

        It runs to its end, also if the export is cancelled: Arrow can give up an upload only by completing it.
        """

        def upload() -> None:
            with file.open("rb") as source, self._files.open_output_stream(self._path(name)) as stream:
                for number, chunk in enumerate(iter(partial(source.read, _CHUNK_BYTES), b""), 1):
                    stream.write(chunk)
                    if number % _CHUNKS_PER_FLUSH == 0:
                        stream.flush()

        self._call(upload)

    def delete(self, name: str) -> None:
        """Delete an object, unless that has been done."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self._files.delete_file(self._path(name))

        self._call(delete)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _call(self, work: Callable[[], T]) -> T:
        """Do some work; its error is not the context of ours, since its text may repeat a request."""
        try:
            return work()
        except (OSError, pa.ArrowException) as error:
            reason = _reason(error)
        raise StoreError(reason, self.address)


def _s3(bucket: str) -> fs.S3FileSystem:
    for name in _ENDPOINTS:  # Arrow does not read them
        if endpoint := os.environ.get(name):
            scheme, _, host = checked_origin(endpoint, name).partition("://")
            return fs.S3FileSystem(endpoint_override=host, scheme=scheme)
    return fs.S3FileSystem(region=fs.resolve_s3_region(bucket))


def _reason(error: Exception) -> str:
    """Return what failed, without the server's own words."""
    if found := _AWS_ERROR.search(str(error)):
        return f"the object store failed: {found[2]} ended with {found[1].lower()}"
    if isinstance(error, pa.ArrowNotImplementedError):
        return "this build of pyarrow has no file system for this kind of address"
    return f"the object store failed ({type(error).__name__})"
