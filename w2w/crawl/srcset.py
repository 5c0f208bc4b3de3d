"""The srcset attribute (HTML standard, section 4.8.4.3.5): URLs may contain commas."""

import re

_URL = re.compile(r"[\s,]*(\S+)")
_DESCRIPTORS = re.compile(r"(?:\([^)]*(?:\)|\Z)|[^,(])*")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?)([wx])\Z")


def largest(srcset: str) -> str:
    """The URL of the widest or densest candidate, the first on ties; "" if there is none."""
    best, best_size = "", (-1, -1.0)
    at = 0
    while match := _URL.match(srcset, at):
        url, at = match[1], match.end()
        descriptors: list[str] = []
        if url.endswith(","):
            url = url.rstrip(",")
        elif said := _DESCRIPTORS.match(srcset, at):
            descriptors, at = said[0].split(), said.end()
        sizes = [(m[2] == "w", float(m[1])) for one in descriptors if (m := _SIZE.match(one))]
        size = max(sizes, default=(False, 1.0))
        if size > best_size and url and (sizes or all(one.endswith("h") for one in descriptors)):
            best, best_size = url, size
    return best
