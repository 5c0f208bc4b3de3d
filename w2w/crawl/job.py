"""Crawl: a web site, as its profile says, into `products`, `posts` and `images`."""

from dataclasses import dataclass, field

from w2w.crawl.flow import Crawl, Crawled, CrawlSpec, has_answered, start_pages_failed, states
from w2w.crawl.frontier import RecrawlConfig
from w2w.crawl.harvest import harvest
from w2w.crawl.profile import Profile, read_profile
from w2w.crawl.stage import VisitConfig
from w2w.crawl.trial import show_trial
from w2w.engine.job import JobConfig, Run
from w2w.errors import JobFailed, UsageError
from w2w.images.decode import DecodeLimits
from w2w.results import Summary
from w2w.stage import Pool
from w2w.web.fetch import FetchConfig
from w2w.web.permission import UseConfig
from w2w.web.politeness import PolitenessConfig
from w2w.web.urls import Limits


@dataclass(frozen=True)
class CrawlConfig:
    """What is visited, and how."""

    profile: str = ""
    """YAML file that says where the site's pages are and what to read from them: see jobs/examples/profile-shop.yaml."""
    fetch: FetchConfig = FetchConfig()
    """How one URL is fetched."""
    politeness: PolitenessConfig = PolitenessConfig()
    """How a host is treated."""
    limits: Limits = Limits()
    """How far links are followed."""
    recrawl: RecrawlConfig = RecrawlConfig()
    """When a URL is visited again."""
    visit: VisitConfig = VisitConfig()
    """What a visit does."""
    use: UseConfig = UseConfig()
    """What the site's pictures may be used for, as table `permissions` records."""


@dataclass(frozen=True)
class Config(CrawlConfig, JobConfig):
    """Visit every page of a site that is due, politely, and update the tables. Run it again to resume, or to look for changes.
    --try only shows what one page gives."""

    SHOWN = "store profile try_ fetch.contact fetch.allow_private_hosts politeness.requests_per_s limit dry_run"
    PLACES = {}

    store: str = ""
    """Where the tables live: a local path or an s3:// prefix. Not needed with --try."""
    limit: int | None = None
    """Visit at most this many URLs."""
    max_reject_rate: float = 1.0
    """Not used: a page that cannot be read has a state and a reason in table `pages`."""
    try_: str = ""
    """Fetch this one URL, show its records and links, and write nothing."""
    decode: DecodeLimits = DecodeLimits()
    """Limits of an image."""
    pool: Pool = Pool(batch_rows=256)
    """Workers that fetch."""


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What the crawl knows about the site, and what has changed there."""

    site: str
    urls_known: int
    due: int
    levels: int | None = None
    states: dict[str, int] = field(default_factory=dict)
    """URLs by state and reason."""
    products_changed: int | None = None
    """New or changed; likewise posts."""
    posts_changed: int | None = None
    withdrawn: int | None = None
    permissions_written: int | None = None
    """Pictures of whose use something is said that was not said there before (table `permissions`)."""
    records_rejected: dict[str, int] = field(default_factory=dict)
    """By code."""
    warning: str | None = None
    """That its start pages could not be fetched: what was known of the site stays. Of a site of which nothing is known, this
    fails the job."""


def check(config: CrawlConfig, option: str = "--profile") -> Profile:
    """The site's profile. Raises UsageError where there is none, or it is wrong."""
    if not config.profile:
        raise UsageError(f"{option} is empty: name a site's profile, for example jobs/examples/profile-shop.yaml")
    return read_profile(config.profile)


def main(config: Config) -> Result | None:
    profile = check(config)
    if config.try_:
        show_trial(profile, config.try_, config.fetch, config.politeness)
        return None
    run = Run("crawl", config)
    spec = CrawlSpec(profile, config.fetch, config.politeness, config.limits, config.recrawl, config.visit, config.decode)
    if not config.dry_run:
        run.check_store()
    crawl = Crawl(run, spec)
    crawl.begin()
    result = run.result(Result, site=profile.name, urls_known=crawl.num_known, due=crawl.due.num_rows)
    if config.dry_run:
        return result
    skipped = crawl.num_known - crawl.due.num_rows
    if crawl.due.num_rows:
        run.begin()
        crawled = crawl.visit_all(config, config.pool)
    else:
        crawled = Crawled()
    use = config.use.told(config.fetch.respect_no_ai)
    found = harvest(run.store, profile, run.lineage(spec.version(), []), use)
    result = run.done(
        result,
        counts=crawled.counts,
        versions=crawled.versions | found.versions,
        skipped=skipped,
        urls_known=crawl.num_known,
        levels=crawled.levels,
        states=states(run.store, profile.name),
        products_changed=found.products,
        posts_changed=found.posts,
        withdrawn=found.withdrawn,
        permissions_written=found.permissions or None,
        records_rejected=found.rejects,
    )
    if failed := start_pages_failed(run.store, profile.name, run.run_id):
        reasons = ", ".join(f"{num} {reason}" for reason, num in failed.items())
        why = f"no start page of site {profile.name} could be fetched ({reasons}): is it there? The next run asks again"
        result = run.done(result, warning=why)
        if not has_answered(run.store, profile.name):
            nothing = JobFailed(why)
            nothing.result = result
            raise nothing
    return result
