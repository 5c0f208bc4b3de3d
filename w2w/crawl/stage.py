"""The stage that visits URLs: fetches a batch politely and records each outcome."""

import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from w2w import ids, schema
from w2w.crawl.extract import Extract, Link, accepted_types, extract
from w2w.crawl.frontier import MOVED, NOT_ITS_FAULT, NOT_MODIFIED, OK, SAME_CONTENT, VISIT_SCHEMA, State, state_after
from w2w.crawl.profile import IMAGE, ROBOTS, SITEMAP, Profile
from w2w.crawl.records import record_without
from w2w.crawl.schedule import Answer, Question, ask_all
from w2w.crawl.tdm import TdmFiles
from w2w.errors import Reject, RejectCode
from w2w.table.erased import Erased
from w2w.web.answers import NoAi, Redirect, Response, Validators
from w2w.web.doorkeeper import Exchange
from w2w.web.fetch import Fetcher
from w2w.web.hosts import rules_of
from w2w.web.permission import Asked, Headers, TdmFile
from w2w.web.robots import Robots
from w2w.web.urls import redacted, resolve

VISIT_GIVES = pa.schema(
    [pa.field(f.name, f.type) for f in schema.PAGES.schema]
    + [pa.field(f.name, f.type) for f in (schema.IMAGES.schema.field(c) for c in (schema.BYTES, schema.SOURCE_URI))]
)
_DIGEST_CHARS = 32  # of the body's sha256


@dataclass(frozen=True)
class VisitConfig:
    """What a visit does."""

    LEAST = {"threads": 1}

    threads: int = 32
    """Simultaneous requests of one worker."""
    keep_content: bool = False
    """Keep the pages' bodies in table `pages`, compressed."""


def visit(
    rows: pa.Table,
    *,
    profile: Profile,
    config: VisitConfig,
    give_up_after: int,
    run_id: str,
    fetcher: Fetcher,
    exchange: Exchange,
    max_wait_s: float,
    erased: Erased = Erased(),
) -> pa.Table:
    """Turns each row in VISIT_SCHEMA into a row of PAGES, with the bytes of new images beside it, without what was erased."""
    assert rows.schema.names == VISIT_SCHEMA.names, rows.schema.names
    todo = rows.to_pylist()
    read_by, agent = profile.version(), fetcher.config.user_agent
    tdm = TdmFiles([row[schema.URL] for row in todo if row[schema.KIND] == IMAGE], run_id, exchange)
    asked = [*(question(profile, row) for row in todo), *tdm.questions(fetcher.config.max_redirects)]
    answers = ask_all(asked, fetcher, exchange, config.threads, max_wait_s)
    tdm.learn(answers[len(todo) :])
    answers = answers[: len(todo)]
    visited = []
    for row, answer in zip(todo, answers, strict=True):
        outcome = _outcome(profile, row, answer, give_up_after, fetcher.config.respect_no_ai)
        if config.keep_content and isinstance(answer.result, Response) and row[schema.KIND] != IMAGE and answer.result.body:
            outcome[schema.CONTENT] = zlib.compress(answer.result.body)
        if any(erased.keys.values()):
            outcome = _without(erased, profile, row, outcome, give_up_after)
        outcome |= {
            schema.SITE: profile.name,
            schema.READ_BY: read_by,
            schema.RUN_ID: run_id,
            schema.FETCHED_AT: time.time_ns() // 1000,
        }
        if row[schema.KIND] == IMAGE:
            outcome[schema.SAID] = _said(row[schema.URL], answer, tdm.of(row[schema.URL]), agent)
        visited.append(_remembered(row, answer) | outcome)
    return pa.Table.from_pylist(visited, schema=VISIT_GIVES)


def _said(url: str, answer: Answer, tdm: TdmFile | None, agent: str) -> str | None:
    """What was said of the use of a picture; null if neither it nor its host said anything that is known."""
    result = answer.result
    rules = rules_of(url, agent, answer.robots, tdm, listed=False) if answer.robots else None
    said = result.said if isinstance(result, Response | NoAi) else None
    partly = isinstance(result, Response) and result.status == 304
    said = None if partly and said == Headers() else said
    return Asked(said, rules, partly).to_json() if said or rules else None


def _without(erased: Erased, profile: Profile, row: dict, outcome: dict, give_up_after: int) -> dict:
    """The outcome without records, links and pictures that were erased; a page that had any is not kept."""
    if erased.has(schema.IMAGE_ID, outcome.get(schema.IMAGE_ID)):
        gone = refused(row, Reject(RejectCode.ERASED, "the picture was erased (w2w erase)"), give_up_after)
        return outcome | gone | {schema.BYTES: None, schema.IMAGE_ID: None, schema.CONTENT_DIGEST: None}

    def is_gone(column: str, value: str) -> bool:
        return erased.has(column, value) or (column == schema.URL and erased.has(column, profile.key(value)))

    links = [one for one in outcome.get(schema.LINKS, []) if not is_gone(schema.URL, one[schema.URL])]
    records = [record_without(one, is_gone) for one in outcome.get(schema.RECORDS, [])]
    if links == outcome.get(schema.LINKS, []) and records == outcome.get(schema.RECORDS, []):
        return outcome
    kept = {schema.LINKS: links, schema.RECORDS: [one for one in records if one is not None]}
    return {name: value for name, value in outcome.items() if name != schema.CONTENT} | kept


def question(profile: Profile, row: dict) -> Question:
    """The question for a frontier row."""
    validators = Validators(row[schema.ETAG], row[schema.LAST_MODIFIED])
    accept = () if row[schema.KIND] == ROBOTS else accepted_types(profile, row[schema.KIND])
    return Question(row[schema.URL], validators, accept, only_robots=row[schema.KIND] == ROBOTS, key=profile.key)


def _remembered(row: dict, answer: Answer) -> dict:
    """What is carried over from the last visit, whatever the outcome: a failure forgets nothing."""
    return {
        **{name: row[name] for name in (schema.KEY, schema.URL_ID, schema.URL, schema.KIND, schema.DEPTH, schema.REDIRECTS)},
        **{name: row[name] for name in (schema.VISIT, schema.ETAG, schema.LAST_MODIFIED, schema.CONTENT_DIGEST)},
        schema.ATTEMPTS: answer.attempts,
        schema.FAILURES: 0,
        schema.UNCHANGED: 0,
        schema.NOT_BEFORE: time.time_ns() // 1000 + int(answer.wait_s * 1e6) if answer.wait_s else None,
        schema.LINKS: [],
        schema.RECORDS: [],
        schema.SOURCE_URI: row[schema.URL],
    }


def _outcome(profile: Profile, row: dict, answer: Answer, give_up_after: int, respect_no_ai: bool) -> dict:
    result = answer.result
    if isinstance(result, Reject):
        return refused(row, result, give_up_after)
    if isinstance(result, Redirect):
        return _moved(profile, row, result)
    if isinstance(result, Robots):
        links = [Link(link, SITEMAP) for text in result.sitemaps() if (link := resolve(text, row[schema.URL]))]
        followed = [link for link in links if profile.follows(link.url, link.kind)]
        content_digest = ids.digest(result.text, length=_DIGEST_CHARS)
        if content_digest == row[schema.CONTENT_DIGEST]:
            return _unchanged(row, SAME_CONTENT)
        return _done(State.FETCHED, OK) | {schema.LINKS: _rows(followed), schema.CONTENT_DIGEST: content_digest}
    validators = {schema.ETAG: result.headers.get("etag"), schema.LAST_MODIFIED: result.headers.get("last-modified")}
    status = {schema.STATUS: result.status}
    if result.status == 304:
        kept = {name: value for name, value in validators.items() if value}
        return _unchanged(row, NOT_MODIFIED) | status | kept
    content_digest = ids.image_id(result.body)[:_DIGEST_CHARS]
    if content_digest == row[schema.CONTENT_DIGEST]:
        return _unchanged(row, SAME_CONTENT) | status | validators
    known = status | validators | {schema.CONTENT_DIGEST: content_digest}
    if row[schema.KIND] == IMAGE:
        return _done(State.FETCHED, OK) | known | {schema.BYTES: result.body, schema.IMAGE_ID: ids.image_id(result.body)}
    try:
        content_type = result.headers.get("content-type", "")
        found = extract(profile, row[schema.KIND], row[schema.URL], content_type, result.body, respect_no_ai)
    except Reject as e:
        return known | refused(row, e, give_up_after)
    return known | _read(row, found, give_up_after)


def _read(row: dict, found: Extract, give_up_after: int) -> dict:
    """The outcome for a parsed page: its records and links, and the reason if a record is missing."""
    if found.refused:
        refusal = Reject(RejectCode.DISALLOWED, f"{redacted(row[schema.URL])}: its robots meta tag says noai")
        return refused(row, refusal, give_up_after)
    outcome = _done(State.FETCHED, OK)
    if found.problems:
        total = len(found.problems) + len(found.records)
        detail = found.problems[0] if total == 1 else f"{len(found.problems)} of {total}: {found.problems[0]}"
        if not found.records:
            code = RejectCode.MALFORMED_ROW if row[schema.KIND] == SITEMAP else RejectCode.MISSING_FIELD
            outcome = refused(row, Reject(code, detail), give_up_after)
        outcome[schema.DETAIL] = detail
    return outcome | {schema.LINKS: _rows(found.links), schema.RECORDS: [r.to_json() for r in found.records]}


def _moved(profile: Profile, row: dict, redirect: Redirect) -> dict:
    """A redirect is a link to its target: checked, counted and fetched once, like any other."""
    target, status = redirect.location, {schema.STATUS: redirect.status}
    kind = row[schema.KIND] if row[schema.KIND] in (IMAGE, SITEMAP) else profile.kind_of(target) or row[schema.KIND]
    followed = profile.follows(target, kind)
    detail = f"to {redacted(target)}" + ("" if followed else ", a host that the profile does not follow")
    outcome = _done(State.REDIRECTED, MOVED) | status | {schema.DETAIL: detail}
    return outcome | {schema.LINKS: _rows([Link(target, kind)] if followed else [])}


def refused(row: dict, reject: Reject, give_up_after: int) -> dict:
    """The outcome of a visit that ended with a reject code."""
    failures = row[schema.FAILURES] + (reject.code not in NOT_ITS_FAULT)
    state = state_after(reject.code, failures, give_up_after)
    outcome = _done(state, reject.code.value) | {schema.DETAIL: reject.detail}
    if state in (State.FAILED, State.GIVEN_UP):
        return outcome | {schema.FAILURES: failures}
    again = state == row[schema.STATE]
    return outcome | {schema.UNCHANGED: row[schema.UNCHANGED] + 1 if again else 0}


def _unchanged(row: dict, reason: str) -> dict:
    """Unchanged: a page that was rejected stays rejected."""
    rejected = row[schema.STATE] in (State.REJECTED, State.EXCLUDED)
    outcome = _done(State(row[schema.STATE]) if rejected else State.UNCHANGED, row[schema.REASON] if rejected else reason)
    return outcome | {schema.UNCHANGED: row[schema.UNCHANGED] + 1}


def _done(state: State, reason: str) -> dict:
    return {schema.STATE: state.value, schema.REASON: reason}


def _rows(links: Sequence[Link]) -> list[dict]:
    return [{schema.URL: link.url, schema.KIND: link.kind} for link in links]
