"""Nights that change to another model: in one go beside the old one, and over a bridge."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.unit.nightly.test_morning import run_night
from w2w import schema
from w2w.errors import UsageError
from w2w.export.job import ExportConfig
from w2w.gallery.flow import served_vectors
from w2w.index import job as index
from w2w.index.flow import check_bridge
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.models.job import Upgrade
from w2w.similar.flow import SimilarConfig
from w2w.stage import Budget
from w2w.table import bridges, delta

NEW = EncoderConfig(store_dtype="float16")  # another version of the same model
DIM = 256  # of the default encoder
OLD_VERSION, NEW_VERSION = model_version(EncoderConfig()), model_version(NEW)


def num_vectors(store: str, version: str) -> int:
    return delta.read(store, schema.EMBEDDINGS, [schema.OWNER_ID], model_version=version).num_rows


def test_the_next_model_is_computed_last_while_the_old_one_serves(store, shop, clock):
    upgrade = Upgrade(NEW, Budget(minutes=5))
    first = run_night(store, shop, upgrade=upgrade)
    assert (first.index.model_version, first.embed.counts.out) == (OLD_VERSION, 20)
    assert (first.upgrade.model_version, first.upgrade.counts.out, first.upgrade.left) == (NEW_VERSION, 20, None)
    assert first.notices[-1].startswith(f"every picture has been computed with {NEW.name} now")
    clock.sleep()
    second = run_night(store, shop, upgrade=upgrade)
    assert (second.upgrade.pending, second.notices) == (0, ())
    assert run_night(store, shop, upgrade=upgrade, dry_run=True).upgrade.pending == 0
    assert run_night(store, shop, upgrade=upgrade, until="index").upgrade is None
    with pytest.raises(UsageError, match="no such file"):
        run_night(store, shop, upgrade=Upgrade(EncoderConfig(bridge="nowhere")))


def test_over_a_bridge_and_back(store, shop, clock):
    run_night(store, shop)
    uri = bridges.uri_of(store, "b")
    bridge = bridges.Bridge(OLD_VERSION, NEW_VERSION, np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32))
    bridges.write(uri, bridge)
    clock.sleep()
    shop.draw("21.jpg", 21)
    shop.items["p21"] = replace(shop.items["p1"], image="21.jpg")
    over = replace(NEW, bridge=uri)

    second = run_night(store, shop, encoder=over)
    assert (second.embed.counts.out, second.embed.model_version) == (1, NEW_VERSION)
    assert (second.index.bridged, second.index.model_version, second.index.cut_over) == (1, bridge.version, None)
    assert second.index.counts.out == 21
    assert read_manifest(index_uri(store, "default")).bridged_from == NEW_VERSION
    assert (num_vectors(store, OLD_VERSION), num_vectors(store, NEW_VERSION)) == (20, 1)
    pictures = delta.read(store, schema.IMAGES, [schema.IMAGE_ID]).column(0)
    named = pa.chunked_array([c for names, _ in served_vectors(store, pictures, bridge.version) for c in names.chunks])
    assert sorted(named.to_pylist()) == sorted(pictures.to_pylist())

    clock.sleep()
    third = run_night(store, shop, encoder=over, upgrade=Upgrade())
    assert (third.embed.pending, third.index.unchanged, third.upgrade.counts.out) == (0, True, 20)
    clock.sleep()
    fourth = run_night(store, shop, encoder=over)
    assert (fourth.index.unchanged, fourth.index.bridged) == (True, 1)
    assert fourth.index.cut_over.startswith(f"all pictures have vectors of {NEW.name}")

    cut = index.main(index.Config(store=store, encoder=NEW))
    assert (cut.model_version, cut.counts.out, cut.bridged) == (NEW_VERSION, 21, None)
    clock.sleep()
    assert run_night(store, shop, encoder=over).index.published == cut.published
    back = index.main(index.Config(store=store, rollback=True))
    assert back.published == second.index.published
    clock.sleep()
    last = run_night(store, shop, encoder=over)
    assert (last.index.published, last.index.unchanged) == (back.published, True)


def test_an_index_takes_a_bridge_of_its_own_store_alone(store, shop, clock, tmp_path):
    run_night(store, shop, until="embed")
    bridge = bridges.Bridge(OLD_VERSION, NEW_VERSION, np.eye(DIM, dtype=np.float32), np.zeros(DIM, np.float32))
    bridges.write(str(tmp_path / "b.safetensors"), bridge)
    with pytest.raises(UsageError, match=r"encoder\.bridge=.*: is none of this store's"):
        index.main(index.Config(store=store, encoder=replace(NEW, bridge=str(tmp_path / "b.safetensors"))))
    with pytest.raises(UsageError, match="looks have no bridge"):
        check_bridge(store, "looks", replace(NEW, bridge=str(tmp_path / "b.safetensors")))


def test_what_compares_stored_vectors_of_one_model_does_not_go_over_a_bridge(store, shop, clock):
    uri = bridges.uri_of(store, "b")
    bridges.write(uri, bridges.Bridge(OLD_VERSION, NEW_VERSION, np.eye(2, dtype=np.float32), np.zeros(2, np.float32)))
    with pytest.raises(UsageError, match=r"encoder\.bridge: similar of this config compare stored vectors"):
        run_night(store, shop, encoder=replace(NEW, bridge=uri), similar=SimilarConfig())
    with pytest.raises(UsageError, match=r"encoder\.bridge: export\.vectors of this config"):
        run_night(store, shop, encoder=replace(NEW, bridge=uri), export=ExportConfig(vectors=True))
    with pytest.raises(UsageError, match="is from model version"):
        run_night(store, shop, encoder=EncoderConfig(bridge=uri))
    assert delta.open_table(store, schema.PRODUCTS) is None
