"""What the index job reads where the tables' logs tell what has changed."""

from types import SimpleNamespace

from tests.unit.recommend.stores import append, fill, product
from w2w import schema
from w2w.index.flow import Inputs, read_rows
from w2w.index.flow_rows import seek_rows
from w2w.index.publish import Published
from w2w.models.config import EncoderConfig
from w2w.models.encoder import model_version
from w2w.table.permitted import Permitted
from w2w.table.pictures import active_pictures

VERSION = model_version(EncoderConfig())
COLUMNS = [schema.PRODUCT_ID, schema.IMAGE_ID, schema.CATEGORY, schema.AVAILABILITY]


def test_changed_products_are_read_alone_also_where_a_clock_was_behind(tmp_path):
    store, uri = str(tmp_path / "store"), str(tmp_path / "index")
    fill(store, range(20), pictures=False)
    append(store, schema.PRODUCTS, [product(5, fetched_at=10)], "first")
    standing = Inputs.now(store).standing
    inputs = Inputs({}, {}, standing)
    whole = read_rows(store, VERSION, active_pictures(store, COLUMNS), Published(None, None), inputs, by_logs=False)
    whole.to_store.write(uri)
    served = SimpleNamespace(model_version=VERSION, standing=standing | {"rows": whole.to_store.told, "without": []})

    def seek():
        return seek_rows(store, uri, VERSION, served, Inputs.now(store).standing, Permitted())

    assert seek().rows.num_rows == 20
    assert not len(seek().touched)
    told = [product(3, fetched_at=11, category="bag"), product(4, fetched_at=11, active=False), product(21, fetched_at=12)]
    for late in (told, [product(5, fetched_at=9, category="bag")]):
        append(store, schema.PRODUCTS, late, f"night{len(late)}")
        found, now = seek(), read_rows(store, VERSION, active_pictures(store, COLUMNS), Published(None, None), inputs, False)
        assert (found.rows.all.to_pylist(), found.rows.total) == (now.rows.all.to_pylist(), now.rows.total)
        assert (found.missing, found.without) == (now.missing, now.without)
    assert sorted(found.touched.to_pylist()) == ["p003", "p004", "p005", "p021"]
    assert found.missing == 1
