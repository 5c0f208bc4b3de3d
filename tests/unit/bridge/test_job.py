"""`w2w bridge` over a store that has all vectors: what it writes, refuses and says, without Ray."""

import numpy as np
import pytest

from tests.unit.recommend.stores import append, fill, picture, vector
from w2w import ids, schema
from w2w.bridge.job import Config, main
from w2w.engine.cluster import RayConfig
from w2w.errors import JobFailed, UsageError
from w2w.models.config import DEFAULT, LITE0, EncoderConfig
from w2w.models.default import standing_default
from w2w.models.encoder import model_version
from w2w.table import bridges

NEW = EncoderConfig(store_dtype="float16")  # another version of the same model
NUM = 240


def add_new(store: str, numbers, seed: int = 0) -> None:
    """New vectors: the old ones turned, and a little different."""
    rng = np.random.default_rng(seed)
    turned, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(16, 16)))
    told = {"owner_kind": "image", "model_version": model_version(NEW)}
    rows = []
    for n in numbers:
        mapped = vector(n) @ turned + rng.normal(0, 0.01, 16)
        rows.append(told | {"owner_id": ids.image_id(picture(n)), "vector": (mapped / np.linalg.norm(mapped)).tolist()})
    append(store, schema.EMBEDDINGS, rows)


@pytest.fixture
def store(tmp_path):
    fill(str(tmp_path), range(NUM), pictures=False)
    return str(tmp_path)


def config(store: str, **more) -> Config:
    return Config(store=store, encoder=NEW, ray=RayConfig(num_cpus=2), **more)


def test_it_is_written_once_with_what_it_keeps(store):
    add_new(store, range(NUM))
    dry = main(config(store, dry_run=True))
    assert (dry.sample, dry.to_embed, dry.bridge) == (NUM, 0, None)
    made = main(config(store))
    assert made.recall["of old"].value > 0.8
    assert made.recall["of old"].low < made.recall["of old"].value < made.recall["of old"].high
    read = bridges.read(made.bridge)
    assert (read.version, read.old, read.new) == (made.bridge_version, model_version(EncoderConfig()), model_version(NEW))
    assert (read.told["sample"], read.told["map"], read.told["new_encoder"]) == (NUM, made.map, NEW.name)
    mapped = read(np.stack([vector(n) for n in range(5)]))
    assert mapped.shape == (5, 16)
    again = main(config(store))
    assert (again.unchanged, again.bridge, again.recall) == (True, made.bridge, made.recall)
    with pytest.raises(JobFailed, match="--min_recall=1"):
        main(config(store, min_recall=1.0))
    named = main(config(store, name="upgrade"))
    assert named.bridge == bridges.uri_of(store, "upgrade")
    with pytest.raises(UsageError, match="--name=upgrade: is another bridge"):
        main(config(store, name="upgrade", seed=1))


def test_the_old_model_is_the_default_that_filled_the_store(tmp_path):
    store = str(tmp_path)
    before, now = EncoderConfig(LITE0), EncoderConfig()
    append(
        store,
        schema.EMBEDDINGS,
        [{"owner_kind": "image", "owner_id": "i", "model_version": model_version(before), "vector": [1.0]}],
    )
    assert standing_default(store, now) == before
    with pytest.raises(UsageError, match=f"no picture of an active product .* version {model_version(before)}"):
        main(Config(store=store))
    for named in (EncoderConfig(DEFAULT), EncoderConfig(bridge="b.safetensors"), EncoderConfig(LITE0, colour=0.7)):
        assert standing_default(store, named) == named
    append(
        store,
        schema.EMBEDDINGS,
        [{"owner_kind": "image", "owner_id": "i", "model_version": model_version(now), "vector": [1.0]}],
    )
    assert standing_default(store, now) == now


def test_a_bridge_that_keeps_too_little_is_not_written(store, tmp_path):
    rng = np.random.default_rng(0)
    told = {"owner_kind": "image", "model_version": model_version(NEW)}
    rows = [told | {"owner_id": ids.image_id(picture(n)), "vector": rng.normal(size=8).tolist()} for n in range(NUM)]
    append(store, schema.EMBEDDINGS, rows)
    with pytest.raises(JobFailed, match=r"find 0\.\d+ \[.*\] of .* of the ten neighbours .* --min_recall=0.7") as failed:
        main(config(store))
    assert failed.value.result.recall["of old"].value < 0.3
    assert not (tmp_path / "bridges").exists()


def test_what_the_sample_lacks_is_to_be_embedded(tmp_path):
    store = str(tmp_path)
    fill(store, range(NUM))
    add_new(store, range(0, NUM, 2))
    whole, some = (main(config(store, dry_run=True, sample=size)) for size in (NUM, 150))
    assert (whole.sample, whole.to_embed, whole.skipped) == (NUM, NUM // 2, NUM // 2)
    assert (some.sample, some.to_embed + some.skipped) == (150, 150)
    assert 40 < some.to_embed < 110


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encoder": EncoderConfig()}, "--encoder and --old are the same model"),
        ({"old": EncoderConfig(dtype="bfloat16")}, "no picture of an active product .* has a vector of model version"),
        ({"name": "../x"}, "name="),
        ({"min_recall": 1.5}, "--min_recall=1.5: a share"),
        ({"limit": 5}, "--limit: use --sample"),
        ({"encoder": EncoderConfig(bridge="x")}, "a bridge leads from a model itself"),
    ],
)
def test_mistakes_are_sentences(store, options, said):
    with pytest.raises(UsageError, match=said):
        main(Config(store=store, **({"encoder": NEW} | options)))


def test_a_catalog_that_is_too_small(tmp_path):
    fill(str(tmp_path), range(40), pictures=False)
    with pytest.raises(UsageError, match="at least 120 pictures"):
        main(config(str(tmp_path)))
