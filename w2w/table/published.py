"""Which version of an index is published, and what it was made with: for rooms below `index`, which writes both files.

``<store>/index/<name>/CURRENT`` names the version, ``generations/<version>/manifest.json`` says the rest.
"""

import json
import re
from dataclasses import dataclass

from w2w import storage

NAME, LOOKS = "default", "looks"  # of products, and of looks, where the options name no other
VERSION = re.compile(r"\d{8}T\d{12}-[0-9a-f]{8}")


@dataclass(frozen=True)
class MadeBy:
    """What a published index was made with."""

    encoder: str
    model_version: str
    name: str = NAME
    version: str = ""


def uri_of(store: str, name: str) -> str:
    return storage.join(storage.absolute(store), "index", name)


def current_uri(uri: str) -> str:
    return storage.join(uri, "CURRENT")


def manifest_uri(uri: str, version: str) -> str:
    return storage.join(uri, "generations", version, "manifest.json")


def made_by(store: str, name: str = NAME) -> MadeBy | None:
    """Which encoder the store's published index is of; None where there is none, or it cannot be read."""
    uri = uri_of(store, name)
    try:
        version = storage.read_bytes(current_uri(uri)).decode("utf-8", "replace").strip()
        if not VERSION.fullmatch(version):
            return None
        told = json.loads(storage.read_bytes(manifest_uri(uri, version)))
        made = MadeBy(told["encoder"], told["model_version"], name, version)
    except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return made if isinstance(made.encoder, str) and isinstance(made.model_version, str) else None


def catalog_made_by(store: str) -> MadeBy | None:
    """The same of the index of products: the default one or, where that is not published, the newest other one."""
    others = (
        name for name in storage.list_folders(storage.join(storage.absolute(store), "index")) if name not in (NAME, LOOKS)
    )
    found = [made for name in others if (made := made_by(store, name))]
    return made_by(store) or max(found, key=lambda made: made.version, default=None)
