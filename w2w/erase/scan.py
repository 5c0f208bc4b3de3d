"""Finding what names or is something erased in any file of a store: files are decoded as far as w2w writes them."""

import base64
import gzip
import html
import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2w import schema, storage
from w2w.erase.rules import COLUMNS, Kind, Marks, leaves
from w2w.ids import point_id

_PICTURE, _VECTOR = 512, 48  # bytes of one that are sought, from its middle: pictures begin alike, and flat ones go on so
_AT_ONCE = 8 << 20
_OVERLAP = 1 << 12
_IDS = (Kind.PRODUCT, Kind.POST, Kind.KEY)
PICTURE, VECTOR, NAME = "picture", "vector", "name"


@dataclass(frozen=True)
class Sought:
    """What is looked for: ``marks`` in text; ``pictures`` and ``vectors``, pieces of their bytes, in anything."""

    marks: Marks
    pictures: frozenset[bytes] = frozenset()
    vectors: frozenset[bytes] = frozenset()
    about: bool = False  # the files are about products: ids that tell little count too

    @cached_property
    def pieces(self) -> list[tuple[bytes, str]]:
        found = [(p, PICTURE) for p in self.pictures] + [(p, VECTOR) for p in self.vectors]
        for piece in self.pictures:  # in pages: three ways to fall on base64's groups of three
            found += [(base64.b64encode(piece[at:])[:-4], PICTURE) for at in range(3)]
        return found

    @cached_property
    def _other(self) -> Marks:
        """The ids as JSON, HTML and addresses spell them, where that is another way."""
        ways = (lambda t: json.dumps(t)[1:-1], html.escape, lambda t: quote(t, safe=""), quote)
        names = self.marks.products | self.marks.posts | self.marks.places
        spelled = {way(name) for name in names for way in ways} - names
        spelled |= {point_id(name) for name in self.marks.products}  # as exports call them for Qdrant
        return Marks(places=frozenset(spelled))

    def in_bytes(self, data: bytes) -> str | None:
        """What of it is in there."""
        for piece, what in self.pieces:
            if piece in data:
                return what
        return NAME if self._in_text(data.decode("utf-8", "replace")) else None

    def in_rows(self, rows: pa.Table) -> str | None:
        """The same of a table, value by value."""
        for column in rows.column_names:
            values = rows.column(column).combine_chunks()
            for name, leaf, _ in leaves(column, values):
                if pa.types.is_binary(leaf.type):
                    parts = (found for value in leaf.to_pylist() if value and (found := self._in_blob(value)))
                    if found := next(parts, None):
                        return found
                    continue
                texts = leaf.unique().drop_null().to_pylist()
                if self._has_ids(name, texts) or self._in_text("\n".join(texts)):
                    return NAME
            if self.vectors and _is_vector(values.type):
                numbers = values.flatten().to_numpy(zero_copy_only=False).astype(np.float32).tobytes()
                if any(piece in numbers for piece in self.vectors):
                    return VECTOR
        return None

    def _in_text(self, text: str) -> bool:
        return self.marks.in_any(text) or self._other.in_any(text) or (self.about and self.marks.in_text(text))

    def _has_ids(self, column: str, texts: list[str]) -> bool:
        return any(self.marks.is_in(COLUMNS[column], text) for text in texts) if COLUMNS.get(column) in _IDS else False

    def _in_blob(self, data: bytes) -> str | None:
        """A picture, or a page as it is kept."""
        if data[:1] == b"\x78":
            try:
                return self.in_bytes(zlib.decompress(data))
            except zlib.error:
                pass
        return next((what for piece, what in self.pieces if piece in data), None)


def _is_vector(kind: pa.DataType) -> bool:
    listed = pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)
    return listed and pa.types.is_floating(kind.value_type)


def piece(data: bytes, size: int = _PICTURE) -> bytes | None:
    """What stands for a picture: all of a small one; None if it is too short to be told."""
    start = max(0, len(data) // 2 - size // 2)
    return data[start : start + size] if len(data) >= _VECTOR else None


def vector_pieces(vector: np.ndarray) -> set[bytes]:
    """What stands for a vector: as it is stored, and as an index has it, of length 1."""
    length = float(np.linalg.norm(vector))
    ways = [vector, vector / length] if length else []
    found = (piece(np.ascontiguousarray(v, np.float32).tobytes(), _VECTOR) for v in ways)
    return {p for p in found if p}


def in_file(uri: str, sought: Sought) -> str | None:
    """What of it a file of whatever kind has: "picture", "vector" or "name"; None if nothing."""
    data = storage.read_bytes(uri) if not uri.endswith(".parquet") else b""
    if uri.endswith(".parquet"):
        return _in_parquet(uri, sought)
    if uri.endswith(".arrow"):
        try:
            return sought.in_rows(pa.ipc.open_file(data).read_all())
        except pa.ArrowException:
            pass
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            pass
    if uri.endswith((".npz", ".zip")):
        return next((found for part in _unpacked(data) if (found := sought.in_bytes(part))), None)
    for start in range(0, max(1, len(data)), _AT_ONCE):
        if found := sought.in_bytes(data[max(0, start - _OVERLAP) : start + _AT_ONCE]):
            return found
    return None


def _unpacked(data: bytes) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield archive.read(name)
    except zipfile.BadZipFile:
        yield data


def _in_parquet(uri: str, sought: Sought) -> str | None:
    system, path = storage.filesystem(uri)
    try:
        with storage.named("read", uri), pq.ParquetFile(path, filesystem=system) as file:
            columns = [f.name for f in file.schema_arrow if f.name != schema.BYTES]  # stored as they are
            for batch in file.iter_batches(256, columns=columns, use_threads=False):
                if found := sought.in_rows(pa.Table.from_batches([batch])):
                    return found
    except pa.ArrowException:
        pass
    with system.open_input_stream(path) as stream:  # also its footer, and what is damaged
        before = b""
        while part := stream.read(_AT_ONCE):
            data = before + part
            if found := next((what for piece, what in sought.pieces if piece in data), None):
                return found
            if any(name.encode() in data for name in sought.marks.keys):
                return NAME
            before = data[-_OVERLAP:]
    return None
