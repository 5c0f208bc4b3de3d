"""What a published index was made with, read without the room that writes it."""

import json

import pytest

from w2w import storage
from w2w.table import published
from w2w.table.published import MadeBy, catalog_made_by, made_by

VERSION = "20261130T151045521416-336322b9"
TOLD = {"encoder": "efficientnet-lite0", "model_version": "8179f7ae2d3be86d", "dim": 256}


def written(store: str, current: str = VERSION, told: bytes = json.dumps(TOLD).encode(), name: str = published.NAME) -> None:
    uri = published.uri_of(store, name)
    storage.write_bytes(published.current_uri(uri), current.encode())
    storage.write_bytes(published.manifest_uri(uri, current.strip() if current > VERSION else VERSION), told)


def test_what_is_published_is_told(tmp_path):
    store = str(tmp_path)
    assert made_by(store) is None
    written(store, f"{VERSION}\n")
    written(store, told=json.dumps(TOLD | {"encoder": "w2w-fashion"}).encode(), name="looks")
    assert made_by(store) == MadeBy(TOLD["encoder"], TOLD["model_version"], published.NAME, VERSION)
    assert made_by(store, "looks").encoder == "w2w-fashion"


@pytest.mark.parametrize("current", ["", "withdrawn: nothing is on sale", f"../generations/{VERSION}", VERSION[:-1], "\xff"])
def test_a_current_that_names_no_version(tmp_path, current):
    written(str(tmp_path), current)
    assert made_by(str(tmp_path)) is None


@pytest.mark.parametrize("told", [b"", b"\xff", b"[]", b"7", b"[" * 100_000, b"{}", b'{"encoder": 1, "model_version": "a"}'])
def test_a_manifest_that_cannot_be_read(tmp_path, told):
    written(str(tmp_path), told=told)
    assert made_by(str(tmp_path)) is None


def test_a_manifest_that_is_gone(tmp_path):
    written(str(tmp_path))
    storage.delete(published.manifest_uri(published.uri_of(str(tmp_path), published.NAME), VERSION))
    assert made_by(str(tmp_path)) is None


def test_an_index_of_the_catalog_under_another_name(tmp_path):
    store, later = str(tmp_path), VERSION.replace("2026", "2027")
    assert catalog_made_by(store) is None
    written(store, later, name="looks")
    assert catalog_made_by(store) is None
    written(store, name="shop")
    written(store, "withdrawn", name="gone")
    assert catalog_made_by(store).name == "shop"
    written(store, later, name="new")
    assert catalog_made_by(store).name == "new"
    written(store)
    assert catalog_made_by(store).name == "default", "the default one, whatever else is newer"
