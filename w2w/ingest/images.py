"""Where a feed's images are: resolving its values below one root, their fingerprints from one listing, and their bytes."""

import os.path
import posixpath
import re
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs

from w2w import storage
from w2w.errors import Reject, RejectCode, UsageError, attempt
from w2w.ingest import digests
from w2w.ingest.archives import MEMBER
from w2w.ingest.cells import is_cell, read_cell

_WEB = r"(?i)^https?://"
_MAX_KEY_BYTES = 1024  # of an object on S3
_SECRET = r"(?i)^https?://([^/?#]*@|[^/?#:@\[]*:[0-9]*[^0-9/?#].*@)"  # also matches a password that contains a slash
# values that need more than a root prefix: a scheme, a leading slash, an empty, "." or ".." segment
_UNUSUAL = r"^[A-Za-z][A-Za-z0-9+.-]+:|(^|/)\.{0,2}(/|$)"


def is_web(uri: str) -> bool:
    return re.match(_WEB, uri) is not None


def is_web_each(uris: pa.ChunkedArray) -> pa.ChunkedArray:
    """bool, shape (n,): ``is_web`` of each; False for null."""
    return pc.fill_null(pc.match_substring_regex(uris, _WEB), False)


class ImageRoot:
    """The folder, prefix or web address that a feed's image values are relative to, and that local ones must stay below.

    Fingerprints come from one listing, made when the first row needs it: 32 bytes per file, and briefly about 400 (1M files:
    400 MB, so point ``image_root`` at the images, not at a disk). Symbolic links below the root are followed: whoever placed
    them owns the root, and a feed cannot create one.
    """

    def __init__(self, root: str):
        if is_web(root) or storage.scheme(root):
            self.uri = root.rstrip("/")
        else:
            self.uri = os.path.normpath(storage.absolute(root))
        self._listing: tuple[digests.Digests, np.ndarray, np.ndarray] | None = None

    def resolve(self, values: pa.Array) -> tuple[pa.Array, list[tuple[int, RejectCode, str]]]:
        """Image URIs for image values (no nulls), "" for each refused row, and (row, code, reason) for those."""
        web = pc.match_substring_regex(values, _WEB)
        usual = pc.invert(pc.match_substring_regex(values, _UNUSUAL))
        uris = pc.if_else(web, values, pc.binary_join_element_wise(self.uri.rstrip("/"), values, "/"))
        rest = pc.or_(pc.and_not(pc.invert(usual), web), pc.match_substring_regex(values, _SECRET))
        at = np.flatnonzero(rest.to_numpy(zero_copy_only=False))
        if len(at) == 0:
            return uris, []
        refused, replaced = [], []
        for row, value in zip(at.tolist(), values.take(pa.array(at)).to_pylist()):
            try:
                replaced.append(self._resolve(value))
            except Reject as e:
                replaced.append("")
                refused.append((row, e.code, e.detail))
        return pc.replace_with_mask(uris, rest, pa.array(replaced, pa.string())), refused

    def _resolve(self, value: str) -> str:
        if is_web(value):
            raise Reject(RejectCode.BLOCKED_URL, "a URL with a user name or password is not fetched")
        mine, named = storage.scheme(self.uri), storage.scheme(value)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", value) and not named:
            scheme = value.partition(":")[0]
            raise Reject(RejectCode.BLOCKED_URL, f"{scheme}: not a scheme for images; use http, https, s3, gs, az or a path")
        if is_web(self.uri):
            start = len(self.uri) - len(re.sub(_WEB, "", self.uri))
            scheme, root = self.uri[:start], self.uri[start:]
        else:
            scheme, root = mine, self.uri.removeprefix(mine)
        absolute = bool(named) or (value.startswith("/") and not scheme)
        if mine and named in ("", mine) and "//" in value.removeprefix(mine):  # not the normalised key: no guessing
            raise Reject(RejectCode.BAD_VALUE, f"{value[:200]!r} is a key with an empty part, which cannot be fetched")
        if named and named != mine:
            path = ""
        else:
            path = posixpath.normpath(value.removeprefix(named) if absolute else f"{root}/{value.lstrip('/')}")
        if not path.startswith(root.rstrip("/") + "/"):
            raise Reject(
                RejectCode.BLOCKED_URL,
                f"{value[:200]!r} is outside image_root={self.uri}: feed.image_root says where pictures are",
            )
        return scheme + path

    def fingerprints(self, uris: pa.Array) -> pa.Array:
        """Size and modification time of each image; "" for web addresses and missing files."""
        local = pc.invert(pc.match_substring_regex(uris, _WEB))
        if is_web(self.uri) or not pc.any(local).as_py():
            return pa.array([""] * len(uris), pa.string())
        run, sizes, times = self._listing = self._listing or self._list()
        found = digests.find(run, digests.digests(uris))
        mask = pa.array(found < 0)
        if len(sizes) == 0:
            return pa.array([""] * len(uris), pa.string())
        size, time = (pa.array(column[found]).cast(pa.string()) for column in (sizes, times))
        return pc.if_else(mask, "", pc.binary_join_element_wise(size, time, "-"))

    def _list(self) -> tuple[digests.Digests, np.ndarray, np.ndarray]:
        try:
            files = storage.list_files(self.uri)
        except (PermissionError, NotADirectoryError) as e:
            raise UsageError(f"feed.image_root={self.uri}: cannot be listed: {e}") from None
        prefix = storage.scheme(self.uri)
        run, order = digests.sort(digests.digests(pa.array([prefix + f.path for f in files], pa.string())))
        sizes, times = (np.array([getattr(f, name) for f in files], np.int64) for name in ("size", "mtime_ns"))
        return run, sizes[order], times[order]


def load_image(
    image_uri: str,
    offset: int | None = None,
    size: int | None = None,
    *,
    max_bytes: int,
    fetch: Callable[[str], bytes] | None = None,
) -> bytes:
    """The encoded bytes of one image that ``read_feed`` listed; ``fetch`` gets those on the web, under its own limits.

    Raises Reject: NOT_FOUND, FORBIDDEN, BAD_VALUE (an impossible name), TOO_MANY_BYTES, TRUNCATED (the archive ends inside it),
    BLOCKED_URL, or what ``fetch`` rejects; StorageFailed if the disk or bucket is at fault rather than the name.
    """
    if is_web(image_uri):
        if fetch is None:
            raise Reject(RejectCode.BLOCKED_URL, "images on the web are not fetched in this run")
        return fetch(image_uri)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", image_uri) and not storage.scheme(image_uri):
        raise Reject(RejectCode.BLOCKED_URL, f"{image_uri.partition(':')[0]}: not a scheme for images")
    uri = image_uri
    if offset is not None:
        assert size is not None, image_uri
        if size > max_bytes:
            raise Reject(RejectCode.TOO_MANY_BYTES, f"{image_uri}: {size} bytes, more than {max_bytes}")
        shard, found, _ = image_uri.partition(MEMBER)
        assert found, image_uri
        uri = shard + ".tar"
    with storage.named("read", uri):
        inside = is_cell(uri)
        found = attempt(read_cell, uri, max_bytes) if inside else attempt(_read, uri, offset, size, max_bytes)
    if isinstance(found, Reject):
        raise Reject(found.code, found.detail if uri in found.detail else f"{uri}: {found.detail}")
    return found


def _read(uri: str, offset: int | None, size: int | None, max_bytes: int) -> bytes:
    system, path = storage.filesystem(uri)
    if storage.scheme(uri):
        if len(path.partition("/")[2].encode()) > _MAX_KEY_BYTES:  # S3 answers 400, as for other faults
            raise Reject(RejectCode.NOT_FOUND, f"a key of more than {_MAX_KEY_BYTES} bytes")
    elif system.get_file_info(path).type not in (fs.FileType.File, fs.FileType.NotFound):
        raise Reject(RejectCode.NOT_FOUND, f"{uri}: not a plain file")  # opening a pipe would block
    with system.open_input_file(path) as file:
        if offset is None or size is None:
            if file.size() > max_bytes:
                raise Reject(RejectCode.TOO_MANY_BYTES, f"{uri}: {file.size()} bytes, more than {max_bytes}")
            return file.read()
        data = file.read_at(size, offset)
    if len(data) < size:
        raise Reject(RejectCode.TRUNCATED, f"{uri}: ends {size - len(data)} bytes early")
    return data
