"""The stage that loads images from outside the store, shared by every job that does."""

import functools
from dataclasses import dataclass

import pyarrow as pa

from w2w import schema
from w2w.errors import Reject, RejectCode, UsageError
from w2w.ingest.stage import LOAD_GIVES, LOAD_NEEDS, load
from w2w.stage import Pool, Stage, with_rejects
from w2w.table.erased import Erased
from w2w.web.answers import Validators
from w2w.web.fetch import FetchConfig, Fetcher, ListedFetchConfig
from w2w.web.hosts import Hosts
from w2w.web.permission import Asked

_BETWEEN = "\n"  # separates the two validators in a fingerprint


@dataclass(frozen=True)
class FeedFetchConfig(ListedFetchConfig):
    """How, and how often, the images of a feed are fetched."""

    recheck_nights: int = 1
    """Check every image on the web again after this many nights, by ETag and Last-Modified; 0: never. Not with --limit."""

    def __post_init__(self):
        super().__post_init__()
        if self.recheck_nights < 0:
            raise UsageError(f"fetch.recheck_nights={self.recheck_nights}: must not be negative")


@dataclass(frozen=True)
class PictureFetch:
    """Fetches a web picture if it differs from the one with the known fingerprint (``w2w.ingest.stage.Fetch``). ``run_id``: of
    a run that keeps what is said of the pictures' use, for which it asks each host once; "": of one that does not."""

    fetcher: Fetcher
    run_id: str = ""

    def __call__(self, url: str, known: str) -> tuple[bytes | None, str, Asked]:
        etag, _, last_modified = known.partition(_BETWEEN)
        answer = self.fetcher.get(url, Validators(etag or None, last_modified or None))
        says = [answer.headers.get(name, "") for name in ("etag", "last-modified")]
        rules, agent = None, self.fetcher.config.user_agent
        if self.run_id:
            rules = _hosts(self.run_id, agent).rules(answer.url, self.fetcher.get_bytes)
        if answer.status == 304:
            return None, known, Asked(answer.said, rules, partly=True)
        return answer.body, _BETWEEN.join(says) if any(says) else "", Asked(answer.said, rules)


@functools.lru_cache(maxsize=4)
def _hosts(run_id: str, user_agent: str) -> Hosts:
    """One per process and run."""
    return Hosts(user_agent)


def load_stage(fetch: FetchConfig, pool: Pool, run_id: str = "") -> Stage:
    """image_uri -> bytes, from a disk, a bucket or the web. The first stage of a job; ``pool`` is its pool, ``run_id`` as of
    ``PictureFetch``."""
    settings = {"max_bytes": fetch.max_bytes, "fetch": PictureFetch(Fetcher(fetch), run_id), "batch_rows": pool.batch_rows}
    return Stage("load", load, tuple(LOAD_NEEDS.names), LOAD_GIVES, settings, streams=True)


def without_erased(known: Erased) -> list[Stage]:
    """After ``load_stage``: the stage that refuses pictures that were erased; none where none was."""
    if not known.knows(schema.IMAGE_ID):
        return []
    return [Stage("erased", _refuse_erased, (schema.IMAGE_ID,), pa.schema([]), {"known": known})]


def _refuse_erased(rows: pa.Table, *, known: Erased) -> pa.Table:
    gone = Reject(RejectCode.ERASED, "its picture was erased (w2w erase)")
    return with_rejects(rows, [gone if bad else None for bad in known.mask(schema.IMAGE_ID, rows.column(schema.IMAGE_ID))])
