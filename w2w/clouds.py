"""The filesystems of S3, Google Cloud Storage (``gs://``) and Azure Blob Storage (``az://``), each as its own variables say.

S3 is configured only by the standard AWS variables (``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, ``AWS_REGION``, a profile, an
instance role), so that pyarrow, botocore and Delta Lake see the same settings on every machine of a cluster. Throttling,
timeouts and lost connections are retried with back-off for about two minutes; after that, ``w2w.storage``
names what could not be read or written. Google's and Azure's own variables say who reads there:
``GOOGLE_APPLICATION_CREDENTIALS``, or ``STORAGE_EMULATOR_HOST``; ``AZURE_STORAGE_ACCOUNT_NAME`` and, on a machine without an
identity, ``AZURE_STORAGE_ACCOUNT_KEY`` or ``AZURE_STORAGE_SAS_TOKEN``.
"""

import functools
import os
import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pyarrow as pa
from pyarrow import fs

from w2w.errors import Changed, UsageError

# of a request; pauses double from about half a second to 20 s
_ATTEMPTS = 14
_PAUSE_S, _MAX_PAUSE_S = 0.5, 20
_CONNECT_S, _ANSWER_S = 10, 60
_PATIENCE = timedelta(minutes=2)


class _Throttled:
    """A file of S3, read again where the server throttles and pyarrow does not know it.

    The SDK writes the text of a 503 where the content would go, a buffer of just the asked size: of a small read the text is
    cut off, and with it the reason to try again.
    """

    def __init__(self, file: pa.NativeFile):
        self._file = file
        self.seek, self.tell, self.size, self.close = file.seek, file.tell, file.size, file.close
        self.read, self.read_buffer = (functools.partial(self._again, read) for read in (file.read, file.read_buffer))

    @property
    def closed(self) -> bool:
        return self._file.closed

    @staticmethod
    def _again(read: Callable, size: int | None = None) -> Any:
        for tried in range(_ATTEMPTS - 1):
            try:
                return read(size)  # a read that failed has not moved
            except OSError as e:
                if "Failed to flush response stream" not in str(e):
                    raise
            time.sleep(min(_PAUSE_S * 2**tried, _MAX_PAUSE_S) * random.uniform(0.5, 1))
        return read(size)


class _S3(fs.S3FileSystem):
    """Pickled, it is pyarrow's: what crosses processes is the URI."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_Throttled(super().open_input_file(path)), mode="r")

    def open_input_stream(self, path: str, compression: str | None = "detect", buffer_size: int | None = None) -> pa.NativeFile:
        file = pa.PythonFile(_Throttled(super().open_input_stream(path, compression=None)), mode="r")
        return self._wrap_input_stream(file, path, compression, buffer_size)


def _s3() -> fs.FileSystem:
    return _S3(
        endpoint_override=endpoint_url(),
        region=region(),
        allow_delayed_open=False,
        connect_timeout=_CONNECT_S,
        request_timeout=_ANSWER_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
    )


def _gcs() -> fs.FileSystem:
    return _gcs_of(os.environ.get("STORAGE_EMULATOR_HOST", ""))


@functools.cache  # each would ask for a token of its own
def _gcs_of(emulator: str) -> fs.FileSystem:
    name, _, host = emulator.rpartition("://")
    where = {"anonymous": True, "scheme": name or "http", "endpoint_override": host} if emulator else {}
    return fs.GcsFileSystem(retry_time_limit=_PATIENCE, **where)


def _azure() -> fs.FileSystem:
    account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not account:
        raise UsageError("az://: set AZURE_STORAGE_ACCOUNT_NAME to the storage account that has the container")
    key, token = (os.environ.get(f"AZURE_STORAGE_{name}") for name in ("ACCOUNT_KEY", "SAS_TOKEN"))
    return _azure_of(account, key, None if key else token)


@functools.cache
def _azure_of(account: str, key: str | None, token: str | None) -> fs.FileSystem:
    return fs.AzureFileSystem(account, account_key=key, sas_token=token)


def endpoint_url() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ("us-east-1" if endpoint_url() else None)


def put_if(uri: str, data: bytes, expected: bytes | None) -> None:
    """``w2w.storage.replace_if`` of an object of S3, by a conditional PUT."""
    # imported here: the only place that needs more than pyarrow's filesystem
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    endpoint = endpoint_url()
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    config = Config(
        connect_timeout=_CONNECT_S,
        read_timeout=_ANSWER_S,
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
        s3={"addressing_style": "path" if endpoint else "auto"},
    )
    session = botocore.session.get_session()
    try:
        s3 = session.create_client("s3", region_name=region(), endpoint_url=endpoint, config=config)
        found = _get(s3, bucket, key)
        if (found and found[0]) != expected:
            raise Changed(f"{uri} was written by another run at the same time")
        condition = {"IfMatch": found[1]} if found else {"IfNoneMatch": "*"}
        try:
            s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except ClientError as e:
            about = e.response["ResponseMetadata"]
            if about["HTTPStatusCode"] not in (404, 409, 412):
                raise
            # a first attempt may have succeeded and its answer been lost
            now = _get(s3, bucket, key) if about["RetryAttempts"] else None
            if now is None or now[0] != data:
                raise Changed(f"{uri} was written by another run at the same time") from None
    except (BotoCoreError, ClientError) as e:
        raise OSError(str(e)) from e


def _get(s3, bucket: str, key: str) -> tuple[bytes, str] | None:
    """Content and ETag."""
    try:
        found = s3.get_object(Bucket=bucket, Key=key)
        return found["Body"].read(), found["ETag"]
    except s3.exceptions.NoSuchKey:
        return None


SYSTEMS: dict[str, Callable[[], fs.FileSystem]] = {"s3://": _s3, "gs://": _gcs, "az://": _azure}
