"""Which searches are tasks over shards."""

from types import SimpleNamespace

import pytest

from w2w.errors import UsageError
from w2w.ingest.feed import FeedConfig
from w2w.search.job_search import Config, _over_shards, main


@pytest.mark.parametrize("asked", [{"of": "feed"}, {"of": "garments", "filter": {"brand": "A"}}])
def test_a_feed_and_a_filter_have_no_tasks_over_shards(tmp_path, asked):
    (tmp_path / "queries.csv").write_text("product_id,image\na,a.jpg\n")
    feed = FeedConfig(uri=str(tmp_path / "queries.csv"))
    with pytest.raises(UsageError, match="--over_shards: of garments and anchors"):
        main(Config(store=str(tmp_path), feed=feed, over_shards=True, **asked))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"of": "garments"}, [False, True]),
        ({"of": "anchors"}, [False, True]),
        ({"of": "feed"}, [False, False]),
        ({"of": "garments", "filter": {"brand": "A"}}, [False, False]),
        ({"of": "garments", "over_shards": True}, [True, True]),
        ({"of": "garments", "over_shards": False}, [False, False]),
    ],
)
def test_by_default_an_index_that_no_worker_could_hold(asked, expected):
    manifests = [SimpleNamespace(memory_mb=lambda mb=mb: mb) for mb in (1000.0, 1100.0)]
    assert [_over_shards(Config(store="s", **asked), manifest) for manifest in manifests] == expected
