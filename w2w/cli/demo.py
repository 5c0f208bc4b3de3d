"""Demo: the whole platform on a synthetic shop: three nights, a search, training."""

import shlex
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.text import Text

from w2w import storage
from w2w.cli.demo_page import looked_up, run_report, worn_with
from w2w.crawl import job as crawl
from w2w.crawl.frontier import RecrawlConfig
from w2w.engine.cluster import RayConfig, connect
from w2w.engine.job import new_run_id
from w2w.engine.progress import Steps
from w2w.engine.tasks import collect, submit
from w2w.errors import JobFailed, UsageError
from w2w.evaluation import job_evaluate as evaluate
from w2w.garments import job_detect as detect
from w2w.garments import job_segment as segment
from w2w.garments.detector import DetectorConfig
from w2w.images.decode import DecodeLimits
from w2w.index import job as index
from w2w.index.stage import SearchConfig
from w2w.ingest.feed import FeedConfig
from w2w.mining.audit import job as audit
from w2w.mining.duplicates import job as deduplicate
from w2w.mining.outfits import job as compose
from w2w.mining.pairs import job as mine
from w2w.mining.pairs.flow import GateConfig
from w2w.mining.pairs.rules import PairRules
from w2w.mining.representatives import job as represent
from w2w.mining.splits import job as split
from w2w.mining.splits.rules import SplitRules
from w2w.models import job as embed
from w2w.models.config import EncoderConfig
from w2w.recommend import job as recommend
from w2w.recommend.answers import Recommended
from w2w.results import Summary, words
from w2w.stage import Pool
from w2w.training import job as train
from w2w.training.config import LoopConfig
from w2w.wardrobe import site
from w2w.wardrobe.shop import change_shop, write_shop
from w2w.web.fetch import FetchConfig
from w2w.web.politeness import PolitenessConfig

_CUT_OUT = 6  # photos
_STEPS = 90  # of training
_SURE = 0.3  # minimum score of a garment that counts without a tag
_POOL = Pool(workers=2)  # same batches on every machine, and so the same figures
_PHOTOS = Pool(workers=2, batch_rows=8)
# results shown in a job's line where rows out do not tell
_SAID = {
    "crawl": ("products changed", "posts changed"),
    "index": ("shards built", "shards reused", "recall"),
    "evaluate": ("recall@1", "recall@10"),
    "deduplicate": ("clusters",),
    "split": ("train", "val", "test"),
    "audit": ("leaks",),
    "train": ("Recall@1, before", "Recall@1"),
}


@dataclass(frozen=True)
class Config:
    """Draw a shop and people wearing its clothes, serve them as a web site on this machine, then crawl -> embed -> index ->
    search, and detect -> segment -> mine -> train -> report. No internet, no GPU."""

    store: str = "demo-store"
    """Local folder of the shop, the tables and the report."""
    products: int = 200
    """How many the shop sells."""
    posts: int = 80
    """Street photos, from which the queries are cut."""
    seed: int = 1
    """Seed of the shop."""
    port: int = 0
    """Port of the shop's web site on the loopback interface; 0: that of the last run, or a free one."""
    ray: RayConfig = RayConfig(lean=True)
    """Where the work runs."""


class _Steps(Steps):
    """Keeps the summaries of the jobs for the report."""

    def __init__(self):
        super().__init__()
        self.summaries: list[Summary] = []

    def job(self, name: str, job: ModuleType, /, **options) -> Any:
        self.summaries.append(replace(self.step(name, lambda: job.main(job.Config(**options)), _said), job=name))
        return self.summaries[-1]


def _said(summary: Summary) -> str:
    told = words(summary)
    facts = [f"{name} {told[name]}" for name in _SAID.get(summary.job, ()) if name in told]
    counts = summary.counts
    rejected = f", {counts.rejected:,} rejected" if counts.rejected else ""
    rows = f"{counts.out:,} rows{rejected}" if counts.read else "nothing to compute"
    return "; ".join(facts or [rows])


@dataclass(frozen=True, kw_only=True)
class Result(Summary):
    """What every job of the demo did, and the page that shows it."""

    steps: tuple[Summary, ...]
    report: str
    tables: str
    """The store, for the other commands."""

    def __rich__(self) -> Text:
        said = f"The store, for other commands: w2w gallery {shlex.quote(self.tables)}\nDone. Open {self.report}"
        return Text(said, no_wrap=True, overflow="ignore")  # a path is meant to be copied whole


def main(config: Config) -> Result:
    if config.products < 21 or config.posts < 1:
        raise UsageError("--products: at least 21, --posts: at least 1")
    if storage.is_s3(config.store):
        raise UsageError(f"--store={config.store}: the demo draws its shop on a local disk")
    folder, log, began = Path(config.store).absolute(), _Steps(), time.monotonic()
    storage.check_writable(str(folder), "--store")
    common, requests = {"store": str(folder / "tables"), "ray": config.ray}, folder / "requests.jsonl"
    requests.unlink(missing_ok=True)
    connect(config.ray)
    shop = log.step(
        "shop",
        lambda: write_shop(folder / "shop", config.seed, config.products, config.posts, num_broken=3, each=_by_workers),
        lambda _: f"{config.products} products, {config.posts} street photos, 3 broken images",
    )
    profile = folder / "profile.yaml"
    with site.serve(folder / "shop", requests, port=config.port or site.last_port(profile)) as server:
        profile.write_text(site.PROFILE.format(url=server.url), encoding="utf-8")
        visiting = {
            "profile": str(profile),
            "fetch": FetchConfig(allow_private_hosts=("127.0.0.1",)),
            "politeness": PolitenessConfig(requests_per_s=None, concurrency=16),
            "recrawl": RecrawlConfig(after_s=0, retry_after_s=0),
        }
        first = _night(log, 1, visiting, common)
        asked = len(server.requests())
        second = _night(log, 2, visiting, common)
        answers = Counter(line["status"] for line in server.requests()[asked:])
        log.say(f"  nothing changed: {', '.join(f'{n:,} x HTTP {s}' for s, n in answers.most_common())}")
        computed = sum(sum(s.counts.stages.values()) for s in second[1:])
        if computed or second[0].products_changed or second[-1].shards_built:
            raise JobFailed(f"the second night computed {computed} rows, and should have computed none")
        changed = change_shop(folder / "shop", config.seed, config.products, 0.01, 1)
        log.say(f"  {len(changed)} pictures change: {', '.join(changed)}")
        _night(log, 3, visiting, common)
    ask = {"feed": FeedConfig(uri=shop.queries, columns={"product_id": "query_id"}), "match": ["sku"], "pool": _POOL}
    ask |= {"search": SearchConfig(own_category=True), "out": str(folder / "search"), "name": "street photo to product"}
    log.job("search", evaluate, **ask, **common)
    _mine(log, common)
    _train(log, folder / "encoder", common)
    opening = looked_up(folder / "shop", folder / "search" / "neighbours.jsonl")
    if opening:
        opening["wear"] = worn_with(folder / "shop", _recommend(log, opening["garments"][0]["sku"], common))
    page = str(folder / "report.html")
    _report(page, folder, log.summaries, first[-1].plans, opening)
    log.say("")
    told: dict[str, Any] = {"steps": tuple(log.summaries), "report": page, "tables": str(folder / "tables")}
    return Result(job="demo", run_id=new_run_id("demo"), seconds=time.monotonic() - began, **told)


def _by_workers(function: Callable, chunks: Sequence) -> list:
    return collect([submit(function, chunk) for chunk in chunks], "shop")


def _night(log: _Steps, number: int, visiting: dict, common: dict) -> tuple[crawl.Result, embed.Result, index.Result]:
    encoder = EncoderConfig().named  # so that a store of an earlier w2w goes over to it
    return (
        log.job(f"crawl, night {number}", crawl, **visiting, **common),
        log.job(f"embed, night {number}", embed, pool=_POOL, encoder=encoder, **common),
        log.job(f"index, night {number}", index, encoder=encoder, **common),
    )


def _mine(log: _Steps, common: dict) -> None:
    unsure = DetectorConfig(threshold=0.2, nms_per_class=True)  # what tags may confirm
    rules = PairRules(sure_score=_SURE, nms_per_class=True)
    shares = SplitRules(train=0.6, val=0.1, test=0.3)  # so few pairs need a test
    log.job("detect", detect, of="posts", detector=unsure, pool=_PHOTOS, **common)
    log.job("segment", segment, max_reject_rate=0.5, limit=_CUT_OUT, guide_score=_SURE, pool=_PHOTOS, **common)
    log.job("embed garments", embed, of="garments", decode=DecodeLimits(min_side_px=8), pool=_POOL, **common)
    log.job("deduplicate", deduplicate, **common)
    log.job("split", split, split=shares, **common)
    log.job("represent", represent, **common)
    log.job("mine", mine, rules=rules, gate=GateConfig("all"), **common)
    log.job("compose", compose, **common)
    log.job("audit", audit, **common)


def _train(log: _Steps, out: Path, common: dict) -> None:
    try:
        loop = LoopConfig(steps=_STEPS, measure_every=_STEPS // 3)
        log.job("train", train, recipe="head", train=loop, out=str(out), **common)
    except UsageError as e:  # a shop too small for three splits
        log.say(f"  nothing was trained: {e}")


def _recommend(log: _Steps, product: str, common: dict) -> Sequence[Recommended]:
    try:
        return [
            outfit for answer in log.job("recommend", recommend, product=product, **common).outfits for outfit in answer.outfits
        ]
    except UsageError as e:  # photos too few to learn from
        log.say(f"  nothing was recommended: {e}")
        return []


def _report(page: str, folder: Path, summaries: list[Summary], plans: Any, opening: dict | None) -> None:
    links = {
        "what was found": "search/report.html",
        "how often it was right": "search/evaluation.html",
        "garments matched to products": "tables/reports/mine/latest.html",
    }
    links |= {"outfits in the photos": "tables/reports/compose/latest.html", "leak audit": "tables/reports/audit/latest.html"}
    links |= {"training: before and after": "encoder/report.html", "what to wear": "tables/reports/recommend/latest.html"}
    run_report(
        page,
        "w2w demo",
        "The web site of a synthetic shop was crawled, embedded and indexed three times: first new, then unchanged, then with "
        "1 % of its pictures changed. Garments cut from street photos were looked up in it, as in the one above. Then the "
        "photos became training data: garments, cut-outs, splits, pairs of a garment and its product, outfits; a head was "
        "trained on the pairs.",
        [_row(s) for s in summaries],
        plans,
        opening,
        {text: place for text, place in links.items() if (folder / place).exists()},
    )


def _row(summary: Summary) -> dict:
    facts = {k: v for k, v in words(summary).items() if k not in ("neighbours", "report", "evaluation", "page", "lines")}
    counts = {"rows_in": summary.counts.read, "rows_out": summary.counts.out, "rejects": asdict(summary.counts)["rejects"]}
    times = {"seconds": summary.seconds, "rows_per_s": summary.rows_per_s}
    return {"job": summary.job, "skipped": summary.skipped, "facts": facts} | counts | times
