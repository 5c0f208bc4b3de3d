"""One place tells a row's fault from lost storage and from a bug."""

import errno
import os

import pyarrow as pa
import pytest

from w2w.errors import JobFailed, Reject, RejectCode, StorageFailed, UsageError, attempt


def failing(error: Exception):
    def work(row: str, *, more: int):
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Reject(RejectCode.TOO_SMALL, "1 x 1"), RejectCode.TOO_SMALL),
        (OSError(errno.ENAMETOOLONG, "x"), RejectCode.NOT_FOUND),
        (OSError(errno.ELOOP, "x"), RejectCode.NOT_FOUND),
        (IsADirectoryError(errno.EISDIR, "x"), RejectCode.NOT_FOUND),
        (PermissionError(errno.EACCES, "x"), RejectCode.FORBIDDEN),
        (OSError("When reading ...: AWS Error ACCESS_DENIED during HeadObject"), RejectCode.FORBIDDEN),
        (pa.ArrowInvalid("Empty path component in path b//x"), RejectCode.BAD_VALUE),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates"), RejectCode.BAD_VALUE),
        (OverflowError("too large"), RejectCode.BAD_VALUE),
        (RecursionError("too deep"), RejectCode.BAD_VALUE),
        (MemoryError(), RejectCode.OUT_OF_MEMORY),
    ],
)
def test_the_fault_of_a_row_is_a_reject(error, code):
    found = attempt(failing(error), "row", more=1)
    assert isinstance(found, Reject)
    assert found.code == code
    assert found.detail
    assert found.__traceback__ is None, "it would hold the row"


@pytest.mark.parametrize(
    "error",
    [
        *(OSError(n, os.strerror(n)) for n in (errno.EIO, errno.ENOSPC, errno.EMFILE, errno.ETIMEDOUT)),
        OSError("AWS Error NETWORK_CONNECTION during GetObject operation"),
        StorageFailed("cannot read s3://b/x: SLOW_DOWN"),
        JobFailed("lost"),
        UsageError("--option=x"),
        TypeError("a bug"),
        KeyError("a bug"),
        AssertionError("a bug"),
        AttributeError("a bug"),
        RuntimeError("nobody knows"),
    ],
)
def test_lost_storage_mistakes_and_bugs_are_raised(error):
    with pytest.raises(type(error)) as caught:
        attempt(failing(error), "row", more=1)
    assert caught.value is error


def test_what_works_is_given():
    assert attempt(int, "7f", base=16) == 127
