"""The closed list of reject codes, and the three ways in which a job can fail.

Exit codes: 0 done, 1 failed (``JobFailed``), 2 wrong usage (``UsageError``): options and configs that cannot be. A feed that is
not what it should be is 1, on a disk as on the web (``BadInput``). Any other exception is a bug, with a traceback.
"""

import errno
import os
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

Result = TypeVar("Result")


class UsageError(ValueError):
    """The user asked for something impossible; the message says what is wrong and what is allowed (exit code 2)."""


class JobFailed(RuntimeError):
    """The job ran but could not finish as promised: too many rejects, a failed gate, a lost race (exit code 1).

    ``result`` is the outcome so far, if the job can tell: for a night, its finished steps.
    """

    result: Any = None


class BadInput(JobFailed):
    """What was to be read is at fault, not how it was asked for; the message names the file and the record."""


class StorageFailed(JobFailed, OSError):
    """A job's input or output could not be read or written; the message names it."""


class TooManyRejects(JobFailed):
    """More rows were rejected than the job tolerates; the others are committed."""


class Changed(JobFailed):
    """Another process wrote the file since it was read (``w2w.storage.replace_if``)."""


class Reject(Exception):
    """One row cannot be processed. Raised by row-level code and recorded by the stage; it never ends a job."""

    def __init__(self, code: "RejectCode", detail: str):
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail

    def __reduce__(self):
        return Reject, (self.code, self.detail)


class RejectCode(StrEnum):
    """Why a row was rejected. A code is never reused for another meaning; add new ones at the end of their group."""

    # feeds
    MALFORMED_ROW = "malformed_row"  # the wrong number of columns, or not JSON
    MISSING_FIELD = "missing_field"  # a required column is empty
    BAD_VALUE = "bad_value"  # a price that is not a number, an id that is too long
    DUPLICATE_KEY = "duplicate_key"  # the same key twice in one feed: the first is kept
    # getting the bytes
    NOT_FOUND = "not_found"  # no such file or object, HTTP 404 or 410
    FORBIDDEN = "forbidden"  # permission denied, HTTP 401 or 403
    BLOCKED_URL = "blocked_url"  # scheme, host or address that w2w refuses to contact
    FETCH_FAILED = "fetch_failed"  # any other HTTP status or network error, after the retries
    TOO_SLOW = "too_slow"  # the whole-request deadline passed
    TOO_MANY_BYTES = "too_many_bytes"  # the body is over the byte cap
    DISALLOWED = "disallowed"  # the owner does not allow it: robots.txt, or a noai mark
    WRONG_TYPE = "wrong_type"  # the content type is not one that was asked for
    HOST_BUSY = "host_busy"  # the host asked for more time than the run has
    ROBOTS_UNREACHABLE = "robots_unreachable"  # robots.txt could not be fetched, so nothing may be (RFC 9309, 2.3.1.4)
    OVER_LIMIT = "over_limit"  # a link beyond the depth, count or repetition that the crawl allows
    ERASED = "erased"  # w2w erase took it out of the store, and it is not to come back
    # decoding
    EMPTY = "empty"  # zero bytes
    NOT_AN_IMAGE = "not_an_image"  # no known image signature: HTML, text, an archive ...
    UNSUPPORTED = "unsupported"  # an image format, or a variant of one, that this machine cannot decode
    TRUNCATED = "truncated"  # the image ends before its last pixel
    CORRUPT = "corrupt"  # the decoder gave up
    TOO_MANY_PIXELS = "too_many_pixels"  # width x height in the header is over the pixel cap
    TOO_SMALL = "too_small"  # a side is under the minimum
    # models and indexes
    UNKNOWN_CATEGORY = "unknown_category"  # the query asks for a category that the index does not have
    NOT_FINITE = "not_finite"  # the model gave NaN or infinity for this row
    MODEL_FAILED = "model_failed"  # the model raised on this image alone, and not on others
    OUT_OF_MEMORY = "out_of_memory"  # the image alone does not fit into the device's memory
    # annotations and masks
    BAD_BOX = "bad_box"  # a box without area, or outside its photo
    NO_PERSON = "no_person"  # nobody was found in the photo
    BAD_MASK = "bad_mask"  # too small, unstable, or the model itself does not trust it
    CROPPED_PERSON = "cropped_person"  # the person is cut off by the photo's edges
    # pairs and outfits
    UNKNOWN_QUERY = "unknown_query"  # the judgement is of a garment that the store does not have
    UNKNOWN_PRODUCT = "unknown_product"  # the tag names a product that the catalog does not have
    NO_PHOTO = "no_photo"  # the image of the post or product is not in `images`
    NOT_DETECTED = "not_detected"  # no garment of the tag's category was found in the photo
    AMBIGUOUS = "ambiguous"  # several garments, or several tags, of one category: no telling which belongs to which
    DISSIMILAR = "dissimilar"  # garment and product look too different to be the same item
    NO_CATEGORY = "no_category"  # the product's class is not mined, or is too uncertain
    CROSSES_SPLIT = "crosses_split"  # the post and the product are in different splits
    MISSING_SLOT = "missing_slot"  # an outfit without top, bottom or shoes
    NO_SPLIT = "no_split"  # the post or the product is newer than the splits
    NO_VECTOR = "no_vector"  # similarity has to decide, but garment or product has no embedding
    REPEATED = "repeated"  # the same photo and product came from another post
    NO_NEGATIVE = "no_negative"  # no other product is similar to the anchor and yet clearly farther than its own
    JUDGED_OTHER = "judged_other"  # judged by a person: the garment is another product, or none of the shop's
    NOT_PERMITTED = "not_permitted"  # a picture that training may not use: table `permissions` says why


# Transient failures: rows rejected for these reasons are retried by the next run. All others are final for the same bytes and
# stage version.
TRANSIENT = frozenset(
    {
        RejectCode.NOT_FOUND,
        RejectCode.FORBIDDEN,
        RejectCode.BLOCKED_URL,
        RejectCode.FETCH_FAILED,
        RejectCode.TOO_SLOW,
        RejectCode.HOST_BUSY,
        RejectCode.ROBOTS_UNREACHABLE,
        RejectCode.OUT_OF_MEMORY,  # another device may have more
    }
)


# errors about the name that a row gives, as opposed to the disk or bucket that holds it
_NAMES_OWN = {
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL, errno.ENXIO, errno.ENODEV),
        RejectCode.NOT_FOUND,
    ),
    **dict.fromkeys((errno.EACCES, errno.EPERM), RejectCode.FORBIDDEN),
}


def fault_of(error: Exception) -> Reject | None:
    """The reject that an error means for the current row. None if no row is at fault: lost storage, which ends a run, and bugs
    (TypeError, KeyError, AssertionError ...), which must not be hidden."""
    if isinstance(error, Reject):
        return Reject(error.code, error.detail)  # without the traceback, which would hold the row's bytes
    if isinstance(error, UsageError | JobFailed):
        return None
    line = (str(error).strip().splitlines() or [""])[0][:300]
    if isinstance(error, OSError):
        if "ACCESS_DENIED" in line:  # how pyarrow words S3's 403
            return Reject(RejectCode.FORBIDDEN, "access denied")
        return Reject(_NAMES_OWN[error.errno], os.strerror(error.errno)) if error.errno in _NAMES_OWN else None
    if isinstance(error, MemoryError):
        return Reject(RejectCode.OUT_OF_MEMORY, line or "memory ran out")
    if isinstance(error, ValueError | ArithmeticError | EOFError | RecursionError):
        return Reject(RejectCode.BAD_VALUE, f"{type(error).__name__}: {line}")
    return None


def attempt(work: Callable[..., Result], *args: object, **kwargs: object) -> Result | Reject:
    """``work(...)`` for one row of a stage, or the reject instead of a result: errors that are the row's fault (``fault_of``)
    are not raised."""
    try:
        return work(*args, **kwargs)
    except Exception as e:
        fault = fault_of(e)
        if fault is None:
            raise
        return fault
