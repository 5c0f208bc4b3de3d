"""A store that an earlier w2w filled, whose default encoder was another: refused where nothing names the encoder."""

from dataclasses import replace
from pathlib import Path

import pytest

import w2w
from tests.unit.nightly.test_morning import run_night
from tests.unit.recommend.stores import append
from w2w import schema, storage
from w2w.engine.job import start
from w2w.errors import UsageError
from w2w.models import job as embed
from w2w.models.config import DEFAULT, LITE0, EncoderConfig
from w2w.models.encoder import as_precise, model_version
from w2w.table import delta

SAID = (
    rf"^encoder\.name is not set, and {{}} of {LITE0}, the default of an earlier w2w \({{}} vectors; {{}} of "
    rf"{DEFAULT}, the default now\): set encoder\.name={LITE0} to go on as before, "
    rf"or encoder\.name={DEFAULT} to change to it; 'w2w bridge'"
)
INDEX, VECTORS = "the published index is", "most of the store's vectors are"


def num_vectors(store: str) -> dict[str, int]:
    opened = delta.open_table(store, schema.EMBEDDINGS)
    names = (LITE0, DEFAULT)
    return {n: delta.count_rows(opened, model_version=model_version(EncoderConfig(n))) for n in names}


def test_nothing_is_embedded_anew_unasked(store, shop, clock, tmp_path):
    before = run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    shop.say("p4", price="7.50")
    with pytest.raises(UsageError, match=SAID.format(INDEX, 20, 0)):
        run_night(store, shop)
    with pytest.raises(UsageError, match=SAID.format(INDEX, 20, 0)):
        run_night(store, shop, dry_run=True)
    assert delta.existing(store, schema.PRODUCTS).version() == 1, "the feed has not been read"
    feed = {"uri": shop.write()}
    for job, options in (
        (w2w.embed, {}),
        (w2w.embed, {"encoder": {"threads": 2}}),
        (w2w.embed, {"encoder": {"colour": 0.7}}),
        (w2w.embed, {"encoder": {"store_dtype": "float16"}}),
        (w2w.tag, {"learn": ["colour"], "dry_run": True}),
        (w2w.evaluate, {"protocol": "wardrobe"}),
        (w2w.index, {}),
        (w2w.similar, {}),
        (w2w.recommend, {}),
        (w2w.export, {"vectors": True}),
        (w2w.search, {"feed": feed}),
    ):
        with pytest.raises(UsageError, match=SAID.format(INDEX, 20, 0)):
            job(store=store, **options)
    assert num_vectors(store) == {LITE0: 20, DEFAULT: 0}
    found = w2w.find(store=store, photos=[str(next(shop.folder.glob("*.jpg")))], whole=True, out=str(tmp_path / "found"))
    assert found.encoder == LITE0, "find takes the index's"
    same = run_night(store, shop, encoder=EncoderConfig(LITE0))
    assert (same.embed.pending, same.index.model_version) == (0, before.index.model_version)


def test_what_is_published_decides_once_all_vectors_are_there(store, shop, clock):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    assert w2w.embed(store=store, encoder={"name": DEFAULT}, pool={"workers": 1}).counts.out == 20
    assert num_vectors(store) == {LITE0: 20, DEFAULT: 20}
    for job in (w2w.embed, w2w.index, w2w.similar):
        with pytest.raises(UsageError, match=SAID.format(INDEX, 20, 20)):
            job(store=store)
    w2w.index(store=store, encoder={"name": DEFAULT})
    assert w2w.similar(store=store, dry_run=True).products == 20
    assert w2w.embed(store=store).pending == 0
    assert run_night(store, shop).embed.pending == 0


def test_nights_and_jobs_alone_once_the_index_is_over(store, shop, clock):
    """Though more vectors are of the earlier default, such as those of garments."""
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    run_night(store, shop, encoder=EncoderConfig(DEFAULT))
    version = model_version(EncoderConfig(LITE0))
    rows = [{"owner_id": f"g{i}", "owner_kind": "garment", "model_version": version, "vector": [1.0]} for i in range(5)]
    append(store, schema.EMBEDDINGS, rows)
    assert w2w.embed(store=store).pending == 0
    with pytest.raises(UsageError, match="posts"):
        w2w.embed(store=store, of="looks")  # nothing of an encoder
    clock.sleep()
    shop.say("p4", price="7.50")
    dry = run_night(store, shop, dry_run=True)
    assert (dry.embed.pending, dry.then.split("; ")[0]) == (
        0,
        "embed: also of new pictures that the steps before them bring",
    )
    assert run_night(store, shop).embed.pending == 0


def test_over_in_one_night(store, shop, clock):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    assert run_night(store, shop, encoder=EncoderConfig(DEFAULT)).embed.counts.out == 20
    clock.sleep()
    assert run_night(store, shop).embed.pending == 0


@pytest.mark.parametrize("before", [{"colour": 0.7}, {"store_dtype": "float16"}, {"colour": 0.5, "dtype": "bfloat16"}])
def test_an_earlier_default_with_other_options(store, shop, clock, before):
    run_night(store, shop, encoder=EncoderConfig(LITE0, **before))
    with pytest.raises(UsageError, match="the published index is"):
        w2w.index(store=store)
    storage.delete(f"{store}/index")
    usual = [{}, {"encoder": {"colour": 0.7}}] if before.get("colour") != 0.5 else []  # others are told by their own options
    for options in (*usual, {"encoder": before}):
        with pytest.raises(UsageError, match=SAID.format(VECTORS, 20, 0)):
            w2w.embed(store=store, **options)


def test_todays_default_in_another_precision_beside_vectors_of_the_earlier(store, shop, clock, tmp_path):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    half = EncoderConfig(DEFAULT, store_dtype="float16")
    version = run_night(store, shop, encoder=half).index.model_version
    rows = [{"owner_id": "g", "owner_kind": "garment", "model_version": model_version(EncoderConfig(LITE0)), "vector": [1.0]}]
    append(store, schema.EMBEDDINGS, rows)
    clock.sleep()
    assert run_night(store, shop, encoder=EncoderConfig(store_dtype="float16")).embed.pending == 0
    assert w2w.embed(store=store, dry_run=True).pending == 20, "single precision is asked for, and nothing of another model"
    photo = {"photos": [str(next(shop.folder.glob("*.jpg")))], "whole": True, "out": str(tmp_path / "found")}
    assert model_version(half) == version
    assert w2w.find(store=store, **photo).encoder == DEFAULT, "find takes the index's precision, too"


def test_an_index_in_another_precision_says_what_to_set(store, shop, clock, tmp_path):
    run_night(store, shop, encoder=EncoderConfig(DEFAULT, store_dtype="float16"))
    photo = next(shop.folder.glob("*.jpg"))
    asked = {"store": store, "feed": {"uri": str(shop.folder)}, "dry_run": True}
    said = r"was made of w2w-fashion with encoder\.store_dtype=float16, and the queries would be embedded with "
    said += r"encoder\.store_dtype=float32: .*; set encoder\.store_dtype=float16, or"
    with pytest.raises(UsageError, match=said):
        w2w.search(**asked)
    with pytest.raises(UsageError, match=said):
        w2w.open(store).index().search([str(photo)])
    two = r"with encoder\.dtype=float32 and encoder\.store_dtype=float16, and .* with encoder\.dtype=bfloat16 and "
    with pytest.raises(UsageError, match=two):
        w2w.search(**asked, encoder={"dtype": "bfloat16"})
    with pytest.raises(UsageError, match="embedded by model version"):  # another model
        w2w.search(**asked, encoder={"name": LITE0})
    assert w2w.search(**asked, encoder={"store_dtype": "float16"}).pending


def test_an_index_with_another_part_for_colours_says_what_to_set(store, shop, clock):
    run_night(store, shop, encoder=EncoderConfig(LITE0, colour=0.7))
    asked = {"store": store, "feed": {"uri": str(shop.folder)}, "dry_run": True}
    said = rf"was made of {LITE0} with encoder\.colour=0\.7, and the queries would be embedded with encoder\.colour=0\.0: .*; "
    with pytest.raises(UsageError, match=said + r"set encoder\.colour=0\.7, or run 'w2w embed' and 'w2w index' with"):
        w2w.search(**asked, encoder={"name": LITE0})
    both = (
        r"encoder\.colour=0\.7 and encoder\.store_dtype=float32, and .* encoder\.colour=0\.5 and encoder\.store_dtype=float16"
    )
    with pytest.raises(UsageError, match=both):
        w2w.search(**asked, encoder={"name": LITE0, "colour": 0.5, "store_dtype": "float16"})
    with pytest.raises(UsageError, match=r"encoder\.colour=0\.7, and .* with encoder\.colour=0\.5: "):
        w2w.find(photos=[str(next(shop.folder.glob("*.jpg")))], store=store, encoder={"colour": 0.5}, dry_run=True)
    with pytest.raises(UsageError, match=f"index 'default' by .*; embed the queries with {LITE0}"):
        w2w.search(**asked, encoder={"name": DEFAULT})  # which has no weight to set
    assert w2w.search(**asked, encoder={"name": LITE0, "colour": 0.7}).pending


def test_options_decide_on_precision():
    half, single = EncoderConfig(store_dtype="float16"), EncoderConfig(threads=2)
    assert as_precise(single, model_version(half)) == replace(half, threads=2)
    assert as_precise(single, model_version(EncoderConfig(dtype="bfloat16"))).dtype == "bfloat16"
    assert as_precise(half, model_version(single)) == half
    assert as_precise(single, "another") == as_precise(single, model_version(single)) == single


def test_it_is_wrong_usage(store, shop, clock, monkeypatch, capsys):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    monkeypatch.setattr("sys.argv", ["w2w embed", store])
    with pytest.raises(SystemExit) as left:
        start(embed.main, embed.Config)
    assert left.value.code == 2
    assert f"encoder.name={LITE0} to go on as before" in " ".join(capsys.readouterr().err.split())
    assert not list(Path(store).glob("reports/embed*"))
