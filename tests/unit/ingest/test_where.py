"""Rows chosen by ``where``."""

import pytest

from w2w import schema
from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig, read_feed


@pytest.fixture
def feed(tmp_path):
    (tmp_path / "f.csv").write_text("product_id,image,view,category\na,a.jpg,main,top\nb,b.jpg,back,top\nc,c.jpg,alt,bag\n")
    return str(tmp_path / "f.csv")


def chosen(feed: str, **where: list[str]) -> list[str]:
    return [
        i for batch in read_feed(FeedConfig(uri=feed, where=where)) for i in batch.rows.column(schema.PRODUCT_ID).to_pylist()
    ]


def test_rows_are_chosen_by_attributes_and_mapped_columns(feed):
    assert chosen(feed) == ["a", "b", "c"]
    assert chosen(feed, view=["back", "alt"]) == ["b", "c"]
    assert chosen(feed, view=["back", "alt"], category=["bag"]) == ["c"]
    assert chosen(feed, view=["nothing"]) == []


def test_a_column_that_is_not_there_is_named(feed):
    with pytest.raises(UsageError, match=r"feed.where.veiw: no row has a value there. Did you mean 'view'"):
        chosen(feed, veiw=["main"])
