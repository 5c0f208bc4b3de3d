"""The further pictures of a feed's products: read off the feed here, loaded in ``more.py``."""

import json
import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from w2w import schema
from w2w.ingest.images import ImageRoot

MORE = "more"  # the pictures of a feed row besides its front, in the order of the feed
MORE_TYPE = pa.list_(pa.struct([(c, pa.string()) for c in (schema.URI, schema.ROLE, schema.FINGERPRINT)]))
_SRC = ("src", "url", "link", "href", "image", "file")  # of a picture that is an object
_NAMED = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_BETWEEN_URLS, _BETWEEN = re.compile(r"\s*[,|;]\s*(?=[A-Za-z][A-Za-z0-9+.-]*://)|\s+"), re.compile(r"\s*[,|;\n]\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def listed(text: str) -> list[tuple[str, str]]:
    """(value, role) of each picture in a list: in JSON, of texts or objects; otherwise parted by commas, bars or semicolons,
    between URLs only where the next one begins."""
    if text.startswith("["):
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, list):
            return [one for one in map(_picture, values) if one[0]]
    parts = (_BETWEEN_URLS if _NAMED.match(text) else _BETWEEN).split(text)
    return [(part.strip(" ,|;"), schema.ADDITIONAL) for part in parts if part.strip(" ,|;")]


def _picture(value: object) -> tuple[str, str]:
    if isinstance(value, dict):
        src = next((value[name] for name in _SRC if isinstance(value.get(name), str)), "")
        return src.strip(), schema.VARIANT if value.get(schema.ROLE) == schema.VARIANT else schema.ADDITIONAL
    return (value.strip() if isinstance(value, str) else ""), schema.ADDITIONAL


def more_of(
    lists: pa.Array, fronts: pa.Array, root: ImageRoot, most: int
) -> tuple[pa.Array, list[tuple[int, str, str]], np.ndarray]:
    """MORE of each row, the pictures that are no place of one (row, code, why), and how many each row has beyond ``most``.

    ``lists``: the feed's text; ``fronts``: its value for the front picture, which is not listed again. Null without any.
    """
    count = len(lists)
    dropped = np.zeros(count, np.int64)
    if lists.null_count == count:
        return pa.nulls(count, MORE_TYPE), [], dropped
    rows: list[int] = []
    values: list[str] = []
    roles: list[str] = []
    bad: list[tuple[int, str, str]] = []
    for row, (text, front) in enumerate(zip(lists.to_pylist(), fronts.to_pylist())):
        once: dict[str, str] = {}
        for value, role in listed(text or ""):
            once.setdefault(value, role)
        wanted = [one for one in once.items() if one[0] != front]
        dropped[row] = max(0, len(wanted) - most)
        for value, role in wanted[:most]:
            if _CONTROL.search(value):
                bad.append((row, "bad_value", f"control character in picture: {value[:80]!r}"))
                continue
            rows.append(row)
            values.append(value)
            roles.append(role)
    uris, refused = root.resolve(pa.array(values, pa.string()))
    bad += [(rows[at], code.value, why) for at, code, why in refused]
    gone = {at for at, *_ in refused}
    found = zip(rows, uris.to_pylist(), roles, root.fingerprints(uris).to_pylist())
    return _grouped(((r, u, o, f) for at, (r, u, o, f) in enumerate(found) if at not in gone), count), bad, dropped


def _grouped(found: Iterable[tuple[int, str, str, str]], count: int) -> pa.Array:
    lists: dict[int, list[dict]] = {}
    for row, uri, role, fingerprint in found:
        lists.setdefault(row, []).append({schema.URI: uri, schema.ROLE: role, schema.FINGERPRINT: fingerprint})
    return pa.array([lists.get(row) for row in range(count)], MORE_TYPE) if lists else pa.nulls(count, MORE_TYPE)


def as_text(lists: pa.Array) -> pa.Array:
    """Each list as JSON; null where there is none."""
    if lists.null_count == len(lists):
        return pa.nulls(len(lists), pa.string())
    return pa.array([None if one is None else json.dumps(one, sort_keys=True) for one in lists.to_pylist()], pa.string())
