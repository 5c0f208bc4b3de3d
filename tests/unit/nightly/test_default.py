"""A store that an earlier w2w filled, whose default encoder was another: refused where nothing names the encoder."""

from pathlib import Path

import pytest

import w2w
from tests.unit.nightly.test_morning import run_night
from w2w import schema
from w2w.engine.job import start
from w2w.errors import UsageError
from w2w.models import job as embed
from w2w.models.config import DEFAULT, LITE0, EncoderConfig
from w2w.models.encoder import model_version
from w2w.table import delta

SAID = (
    rf"^encoder\.name is not set, and this store has 20 vectors of {LITE0}, the default of an earlier w2w, "
    rf"and 0 of {DEFAULT}, .*: set encoder\.name={LITE0} to go on as before, or encoder\.name={DEFAULT} to embed all pictures "
    "anew; 'w2w bridge"
)


def num_vectors(store: str) -> dict[str, int]:
    opened = delta.open_table(store, schema.EMBEDDINGS)
    names = (LITE0, DEFAULT)
    return {n: delta.count_rows(opened, model_version=model_version(EncoderConfig(n))) for n in names}


def test_nothing_is_embedded_anew_unasked(store, shop, clock, tmp_path):
    before = run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    shop.say("p4", price="7.50")
    with pytest.raises(UsageError, match=SAID):
        run_night(store, shop)
    with pytest.raises(UsageError, match=SAID):
        run_night(store, shop, dry_run=True)
    assert delta.existing(store, schema.PRODUCTS).version() == 1, "the feed has not been read"
    feed = {"uri": shop.write()}
    for job, options in (
        (w2w.embed, {}),
        (w2w.embed, {"encoder": {"threads": 2}}),
        (w2w.embed, {"encoder": {"colour": 0.0}}),
        (w2w.index, {}),
        (w2w.similar, {}),
        (w2w.recommend, {}),
        (w2w.export, {"vectors": True}),
        (w2w.search, {"feed": feed}),
    ):
        with pytest.raises(UsageError, match=SAID):
            job(store=store, **options)
    assert num_vectors(store) == {LITE0: 20, DEFAULT: 0}
    found = w2w.find(store=store, photos=[str(next(shop.folder.glob("*.jpg")))], whole=True, out=str(tmp_path / "found"))
    assert found.encoder == LITE0, "find takes the index's"
    same = run_night(store, shop, encoder=EncoderConfig(LITE0))
    assert (same.embed.pending, same.index.model_version) == (0, before.index.model_version)


def test_who_names_the_default_gets_it_and_need_not_name_it_from_then_on(store, shop, clock):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    clock.sleep()
    assert run_night(store, shop, encoder=EncoderConfig(DEFAULT)).embed.counts.out == 20
    clock.sleep()
    assert run_night(store, shop).embed.pending == 0
    assert num_vectors(store) == {LITE0: 20, DEFAULT: 20}


def test_colours_beside_the_earlier_default(store, shop):
    run_night(store, shop, encoder=EncoderConfig(LITE0, colour=0.7))
    with pytest.raises(UsageError, match=SAID):
        w2w.embed(store=store, encoder={"colour": 0.7})


def test_it_is_wrong_usage(store, shop, monkeypatch, capsys):
    run_night(store, shop, encoder=EncoderConfig(LITE0))
    monkeypatch.setattr("sys.argv", ["w2w embed", store])
    with pytest.raises(SystemExit) as left:
        start(embed.main, embed.Config)
    assert left.value.code == 2
    assert f"encoder.name={LITE0} to go on as before" in " ".join(capsys.readouterr().err.split())
    assert not list(Path(store).glob("reports/embed*"))
