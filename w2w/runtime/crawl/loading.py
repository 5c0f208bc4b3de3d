"""The stage that gets images from wherever they are, for every job that reads them from outside the store."""

from w2w.crawl.fetch import FetchConfig, Fetcher
from w2w.ingest.stage import LOAD_GIVES, LOAD_NEEDS, load
from w2w.runtime.stage import Pool, Stage


def load_stage(fetch: FetchConfig, pool: Pool) -> Stage:
    """image_uri -> bytes: from a disk, a bucket or the web. The first stage of a job; ``pool`` is the one it works in."""
    settings = {"max_bytes": fetch.max_bytes, "fetch": Fetcher(fetch).get_bytes, "batch_rows": pool.batch_rows}
    return Stage("load", load, tuple(LOAD_NEEDS.names), LOAD_GIVES, settings, streams=True)
