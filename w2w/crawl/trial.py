"""Shows what a profile reads from one page, for writing profiles."""

from urllib.parse import urlsplit

from rich.console import Group
from rich.table import Table

from w2w.crawl.extract import accepted_types, extract, kinds_of
from w2w.crawl.profile import IMAGE, PAGE, Profile
from w2w.crawl.schedule import Question, ask_all
from w2w.errors import JobFailed, Reject, UsageError
from w2w.shown import terminal
from w2w.web.answers import Response
from w2w.web.doorkeeper import Doorkeeper
from w2w.web.fetch import FetchConfig, Fetcher
from w2w.web.politeness import PolitenessConfig
from w2w.web.urls import redacted, resolve

_LINKS_SHOWN = 15


def show_trial(profile: Profile, link: str, fetch: FetchConfig, politeness: PolitenessConfig) -> None:
    """Prints the records, problems and links of one page. Raises JobFailed with the reason if it yields none."""
    url = resolve(link)
    if url is None:
        raise UsageError(f"--try={redacted(link)}: not an http or https URL without a user name")
    kind = profile.kind_of(url) or dict(profile.starts()).get(url) or PAGE
    console = terminal()
    doorkeeper = Doorkeeper(politeness, fetch.user_agent, lease_s=fetch.deadline_s)
    asked = Question(url, accept=accepted_types(profile, kind), follow=fetch.max_redirects)
    (answer,) = ask_all([asked], Fetcher(fetch), doorkeeper.exchange, threads=1, max_wait_s=politeness.max_wait_s)
    if isinstance(answer.result, Reject):
        raise JobFailed(f"{answer.result.code}: {answer.result.detail}")
    assert isinstance(answer.result, Response)
    page = answer.result
    content_type = page.headers.get("content-type", "")
    console.print(f"{redacted(page.url)}: HTTP {page.status}, {content_type or 'no content type'}, {len(page.body):,} bytes")
    console.print(f"read as: {kind}" + ("" if urlsplit(page.url).netloc == urlsplit(url).netloc else " (redirected)"))
    if kind == IMAGE:
        return
    try:
        found = extract(profile, kind, page.url, content_type, page.body, fetch.respect_no_ai)
    except Reject as e:
        raise JobFailed(f"{e.code}: {e.detail}") from None
    if found.refused:
        raise JobFailed(f"{redacted(url)}: its robots meta tag says noai; see fetch.respect_no_ai")
    for record in found.records:
        shown = Table("field", "value", title=record.record, title_justify="left")
        for name, values in record.fields.items():
            shown.add_row(name, Group(*values))
        console.print(shown)
    for name, links in kinds_of(found.links).items():
        shown = Table(f"{len(links)} links to {name}", title_justify="left")
        for one in links[:_LINKS_SHOWN]:
            shown.add_row(one)
        if len(links) > _LINKS_SHOWN:
            shown.add_row("...")
        console.print(shown)
    if not found.links:
        console.print("no links that a rule follows")
    if found.problems:
        raise JobFailed("; ".join(found.problems[:5]))
