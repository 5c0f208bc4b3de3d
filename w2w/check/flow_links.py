"""Asks the shop's servers for the pages that its products link to, as a crawl would."""

from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc

from w2w import schema
from w2w.crawl.schedule import Question, ask_all
from w2w.engine.progress import Progress
from w2w.engine.snapshot import replace_rows
from w2w.errors import Reject, RejectCode
from w2w.table import delta
from w2w.table.sink import Lineage
from w2w.web.doorkeeper import Doorkeeper
from w2w.web.fetch import FetchConfig, Fetcher
from w2w.web.politeness import PolitenessConfig
from w2w.web.robots import Robots
from w2w.web.urls import redacted, resolve

_PAGES = ("text/html", "application/xhtml+xml", "")
_MOST_BYTES = 1 << 20  # of a page: more is a page, too
_AT_ONCE, _THREADS = 256, 16
_LEASE_MARGIN_S = 30.0


def due_links(store: str, goods: pa.Table, most: int) -> list[str]:
    """At most so many of the products' links: those never asked, then those asked longest ago; each link once."""
    links = pc.unique(goods.column(schema.URL).drop_null())
    asked = delta.read(store, schema.LINKS_ASKED, [schema.URL, schema.CHECKED_AT])
    at = pc.index_in(links, value_set=asked.column(schema.URL))
    when = pc.fill_null(asked.column(schema.CHECKED_AT).take(at), pa.scalar(0, schema.TIME))
    rows = pa.table([links, when], names=[schema.URL, schema.CHECKED_AT])
    rows = rows.sort_by([(schema.CHECKED_AT, "ascending"), (schema.URL, "ascending")])
    return rows.column(schema.URL).slice(0, most).to_pylist()


def ask_links(
    store: str, goods: pa.Table, links: list[str], fetch: FetchConfig, politeness: PolitenessConfig, lineage: Lineage
) -> dict[str, int]:
    """Brings table `links` up to date; returns its version. robots.txt, rates and private addresses: as for `w2w crawl`."""
    fetch = replace(fetch, max_bytes=min(fetch.max_bytes, _MOST_BYTES), respect_no_ai=False)  # nothing of a page is kept
    doorkeeper = Doorkeeper(politeness, fetch.user_agent, lease_s=fetch.deadline_s + _LEASE_MARGIN_S)
    fetcher, rows = Fetcher(fetch), []
    with Progress("links", len(links), unit="links") as progress:
        for start in range(0, len(links), _AT_ONCE):
            some = links[start : start + _AT_ONCE]
            good = [link for link in some if resolve(link)]
            questions = [Question(resolve(link) or "", accept=_PAGES, follow=fetch.max_redirects) for link in good]
            answers = ask_all(questions, fetcher, doorkeeper.exchange, _THREADS, politeness.max_wait_s)
            told = dict(zip(good, (_outcome(link, one.result) for link, one in zip(good, answers))))
            now = datetime.now(UTC)
            for link in some:
                code, detail = told.get(link, (RejectCode.BLOCKED_URL, "not an http or https URL"))
                rows.append({schema.URL: link, schema.REJECT_CODE: code, schema.REJECT_DETAIL: detail, schema.CHECKED_AT: now})
            progress.update(start + len(some), sum(row[schema.REJECT_CODE] is not None for row in rows))
    fetcher.close()
    fresh = pa.Table.from_pylist(rows, schema=schema.LINKS_ASKED.schema)
    before = delta.read(store, schema.LINKS_ASKED, schema.LINKS_ASKED.schema.names)
    known = before.column(schema.URL)
    stays = pc.and_(pc.is_in(known, value_set=goods.column(schema.URL)), pc.invert(pc.is_in(known, value_set=fresh.column(0))))
    return replace_rows(store, schema.LINKS_ASKED, [fresh, before.filter(stays)], lineage)[1]


def _outcome(link: str, result: object) -> tuple[str | None, str | None]:
    if isinstance(result, Reject):
        return (None, None) if result.code == RejectCode.TOO_MANY_BYTES else (result.code, result.detail)
    end = getattr(result, "url", link)
    if not isinstance(result, Robots) and urlsplit(end).path in ("", "/") and urlsplit(link).path not in ("", "/"):
        return RejectCode.NOT_FOUND, f"{redacted(link)} leads to the front page"
    return None, None
