"""`w2w similar` on workers gives the lists that it gives in one process."""

from tests.unit.recommend.stores import append, fill, product
from tests.unit.similar.test_job import config, rows
from w2w import schema
from w2w.similar import flow_search
from w2w.similar.job import main


def test_workers_make_the_same_lists(tmp_path, monkeypatch):
    here, workers = str(tmp_path / "here"), str(tmp_path / "workers")
    night = [
        product(3, fetched_at=1, active=False),
        product(7, fetched_at=1, category="bag"),
        product(8, fetched_at=1, price=1.0),
    ]
    for store in (here, workers):
        fill(store, range(60), pictures=False)
        if store == workers:
            monkeypatch.setattr(flow_search, "_PAIRS_HERE", -1)
        assert main(config(store)).computed == 60
        append(store, schema.PRODUCTS, night, "night")
        result = main(config(store))
        assert (result.gone, result.whole, result.skipped + result.computed) == (1, False, 59)
    assert rows(workers) == rows(here)
