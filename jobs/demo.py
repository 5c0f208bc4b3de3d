"""Demo: the whole platform on a synthetic shop: three nights (the second computes nothing), a search, training."""

from collections import Counter
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from jobs import audit, compose, crawl, deduplicate, detect, embed, evaluate, index, mine, represent, segment, split, train
from w2w import storage
from w2w.crawl.fetch import FetchConfig
from w2w.crawl.frontier import RecrawlConfig
from w2w.crawl.politeness import PolitenessConfig
from w2w.errors import JobFailed, UsageError
from w2w.garments.detector import DetectorConfig
from w2w.images.decode import DecodeLimits
from w2w.index.stage import SearchConfig
from w2w.ingest.feed import FeedConfig
from w2w.mining.pairs import PairRules
from w2w.mining.splits import SplitRules
from w2w.models.encoder import EncoderConfig
from w2w.report.page import thumbnail
from w2w.report.run import run_report
from w2w.runtime.cluster import RayConfig
from w2w.runtime.job import Summary, show, start
from w2w.runtime.mining.pairing import GateConfig
from w2w.runtime.stage import Pool
from w2w.training.config import LoopConfig
from w2w.wardrobe import site
from w2w.wardrobe.shop import change_shop, write_shop

_CUT_OUT = 40  # photos
_STEPS = 300  # of training


@dataclass(frozen=True)
class Config:
    """Draw a shop and people who wear its clothes, serve them as a web site on this machine, then crawl -> embed -> index ->
    search, and detect -> segment -> mine -> train -> report. No internet, no GPU."""

    store: str = "demo-store"
    """Local folder of the shop, the tables and the report."""
    products: int = 300
    """How many the shop sells."""
    posts: int = 150
    """Street photos, from which the queries are cut."""
    seed: int = 1
    """Of the shop."""
    port: int = 0
    """Of the shop's web site on the loopback interface; 0: a free one."""
    ray: RayConfig = RayConfig()
    """Where the work runs."""


def main(config: Config) -> list[Summary]:
    if config.products < 21 or config.posts < 1:
        raise UsageError("--products: at least 21, --posts: at least 1")
    if storage.is_s3(config.store):
        raise UsageError(f"--store={config.store}: the demo draws its shop on a local disk")
    folder, console = Path(config.store).absolute(), Console(highlight=False)
    storage.check_writable(str(folder), "--store")
    console.print(f"[bold]1. A shop:[/bold] {config.products} products, {config.posts} street photos, 3 broken images")
    shop = write_shop(folder / "shop", config.seed, config.products, config.posts, num_broken=3)
    log = folder / "requests.jsonl"
    log.unlink(missing_ok=True)
    with site.serve(folder / "shop", log, port=config.port) as server:
        console.print(f"   its web site is {server.url}")
        (folder / "profile.yaml").write_text(site.PROFILE.format(url=server.url), encoding="utf-8")
        store = str(folder / "tables")
        console.print("[bold]2. First night:[/bold] everything is fetched and computed")
        first = _night(store, folder / "profile.yaml", config.ray)
        asked = len(server.requests())
        console.print("[bold]3. Second night:[/bold] nothing has changed")
        second = _night(store, folder / "profile.yaml", config.ray)
        answers = Counter(line["status"] for line in server.requests()[asked:])
        console.print(f"   the site answered {', '.join(f'{n:,} x HTTP {status}' for status, n in answers.most_common())}")
        computed = sum(sum(s.counts.stages.values()) for s in second[1:])
        if computed or second[0].facts["products new or changed"] or second[-1].facts["shards built"]:
            raise JobFailed(f"the second night computed {computed} rows, and should have computed none")
        changed = change_shop(folder / "shop", config.seed, config.products, 0.01, 1)
        console.print(f"[bold]4. Third night:[/bold] 1 % of the pictures changed: {', '.join(changed)}")
        third = _night(store, folder / "profile.yaml", config.ray)
    console.print(f"[bold]5. Search:[/bold] {shop.num_queries} garments cut from the street photos")
    found = evaluate.main(
        evaluate.Config(
            store=store,
            ray=config.ray,
            feed=FeedConfig(uri=shop.queries, columns={"product_id": "query_id"}),
            search=SearchConfig(own_category=True),
            match=["sku"],
            name="street photo to product",
            out=str(folder / "search"),
            encoder=EncoderConfig(threads=_threads(config)),
            pool=Pool(num_cpus=_threads(config)),
        )
    )
    show(found)
    console.print("[bold]6. Training data:[/bold] what the street photos show, and which product each garment is")
    mined = _mine(store, config.ray)
    console.print("[bold]7. Training:[/bold] an encoder's head learns which garment is which product")
    mined += _train(store, folder / "encoder", config, console)
    page = str(folder / "report.html")
    nights = [replace(s, job=f"{s.job}, night {n}") for n, night in ((1, first), (2, second), (3, third)) for s in night]
    pictures = sorted((folder / "shop" / "posts").glob("*.jpg"))[:5] + sorted((folder / "shop" / "images").glob("*0.jpg"))[:5]
    run_report(
        page,
        "w2w demo",
        "The web site of a synthetic shop was crawled, embedded and indexed three times: first new, then unchanged, then with "
        "1 % of its pictures changed. Garments cut from street photos were then looked up in it. At last the photos became "
        "training data, garments, cut-outs, splits, pairs of a garment and its product, outfits, and a head was trained on the "
        "pairs.",
        [_row(s) for s in [*nights, found, *mined]],
        first[-1].facts["plans"],
        [{"label": p.stem, "image": thumbnail(p.read_bytes())} for p in pictures],
        {
            "contact sheet": "search/report.html",
            "metrics": "search/evaluation.html",
            "pairs": "tables/mining.html",
            "outfits": "tables/outfits.html",
            "leak audit": "tables/audit.html",
            **({"training": "encoder/report.html"} if (folder / "encoder" / "report.html").exists() else {}),
        },
    )
    console.print(f"\nDone. Open [bold]{page}[/bold]")
    return []


def _threads(config: Config) -> int:
    return 2 if config.ray.num_cpus is None or config.ray.num_cpus > 1 else 1


def _night(store: str, profile: Path, ray: RayConfig) -> list[Summary]:
    summaries = [
        crawl.main(
            crawl.Config(
                store=store,
                ray=ray,
                profile=str(profile),
                fetch=FetchConfig(allow_private_hosts=("127.0.0.1",)),
                politeness=PolitenessConfig(requests_per_s=None, concurrency=16),
                recrawl=RecrawlConfig(after_s=0, retry_after_s=0),
            )
        ),
        embed.main(embed.Config(store=store, ray=ray)),
        index.main(index.Config(store=store, ray=ray)),
    ]
    for summary in summaries:
        show(summary)
    return summaries


def _mine(store: str, ray: RayConfig) -> list[Summary]:
    common = {"store": store, "ray": ray}
    unsure = DetectorConfig(threshold=0.1, nms_per_class=True)  # what tags may confirm; cut-outs are guided by what is sure
    summaries = [
        detect.main(detect.Config(of="posts", limit=_CUT_OUT, **common)),
        segment.main(segment.Config(max_reject_rate=0.5, limit=_CUT_OUT, **common)),
        detect.main(detect.Config(of="posts", detector=unsure, **common)),
        embed.main(embed.Config(of="garments", decode=DecodeLimits(min_side_px=8), **common)),
        deduplicate.main(deduplicate.Config(**common)),
        split.main(split.Config(split=SplitRules(train=0.5, val=0.1, test=0.4), **common)),  # so few pairs need a test
        represent.main(represent.Config(**common)),
        mine.main(mine.Config(rules=PairRules(sure_score=0.3, nms_per_class=True), gate=GateConfig("all"), **common)),
        compose.main(compose.Config(**common)),
        audit.main(audit.Config(**common)),
    ]
    for summary in summaries:
        show(summary)
    return summaries


def _train(store: str, out: Path, config: Config, console: Console) -> list[Summary]:
    loop = LoopConfig(steps=_STEPS, measure_every=_STEPS // 3, threads=_threads(config))
    try:
        trained = train.main(train.Config(store=store, ray=config.ray, recipe="head", train=loop, out=str(out)))
    except UsageError as e:  # a shop too small for three splits
        console.print(f"   nothing was trained: {e}")
        return []
    show(trained)
    return [trained]


def _row(summary: Summary) -> dict:
    facts = {k: v for k, v in summary.facts.items() if k not in ("plans", "neighbours", "report", "evaluation", "page")}
    return {
        "job": summary.job,
        "rows_in": summary.counts.read,
        "rows_out": summary.counts.out,
        "rejects": asdict(summary.counts)["rejects"],
        "skipped": summary.skipped,
        "seconds": summary.seconds,
        "rows_per_s": summary.rows_per_s,
        "facts": facts,
    }


if __name__ == "__main__":
    start(main, Config)
