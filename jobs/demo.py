"""Demo: the whole platform on a synthetic shop, twice: the second night computes nothing. Ends with the path of a report."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from jobs import embed, evaluate, index, ingest
from w2w import storage
from w2w.errors import JobFailed, UsageError
from w2w.index.stage import SearchConfig
from w2w.ingest.feed import FeedConfig
from w2w.models.encoder import EncoderConfig
from w2w.report.page import thumbnail
from w2w.report.run import run_report
from w2w.runtime.cluster import RayConfig
from w2w.runtime.job import Summary, show, start
from w2w.runtime.stage import Pool
from w2w.wardrobe.shop import change_shop, write_shop


@dataclass(frozen=True)
class Config:
    """Draw a shop and people who wear its clothes, then ingest -> embed -> index -> search -> report. No internet, no GPU."""

    store: str = "demo-store"
    """Local folder of the shop, the tables and the report."""
    products: int = 300
    """How many the shop sells."""
    posts: int = 40
    """Street photos, from which the queries are cut."""
    seed: int = 1
    """Of the shop."""
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
    store, first = str(folder / "tables"), []
    console.print("[bold]2. First night:[/bold] everything is computed")
    first = _night(store, shop.feed, config.ray)
    console.print("[bold]3. Second night:[/bold] nothing has changed")
    second = _night(store, shop.feed, config.ray)
    computed = sum(sum(s.counts.stages.values()) for s in second)
    if computed or second[-1].facts["shards built"]:
        raise JobFailed(f"the second night computed {computed} rows, and should have computed none")
    changed = change_shop(folder / "shop", config.seed, config.products, 0.01, 1)
    console.print(f"[bold]4. Third night:[/bold] 1 % of the pictures changed: {', '.join(changed)}")
    third = _night(store, shop.feed, config.ray)
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
    page = str(folder / "report.html")
    nights = [replace(s, job=f"{s.job}, night {n}") for n, night in ((1, first), (2, second), (3, third)) for s in night]
    pictures = sorted((folder / "shop" / "posts").glob("*.jpg"))[:5] + sorted((folder / "shop" / "images").glob("*0.jpg"))[:5]
    run_report(
        page,
        "w2w demo",
        "A synthetic shop went through ingest, embed and index three times: first new, then unchanged, then with 1 % of its "
        "pictures changed. Garments cut from street photos were then looked up in it.",
        [_row(s) for s in [*nights, found]],
        first[-1].facts["plans"],
        [{"label": p.stem, "image": thumbnail(p.read_bytes())} for p in pictures],
        {"contact sheet": "search/report.html", "metrics": "search/evaluation.html"},
    )
    console.print(f"\nDone. Open [bold]{page}[/bold]")
    return []


def _threads(config: Config) -> int:
    return 2 if config.ray.num_cpus is None or config.ray.num_cpus > 1 else 1


def _night(store: str, feed: str, ray: RayConfig) -> list[Summary]:
    source = FeedConfig(uri=feed, full=True)
    summaries = [
        ingest.main(ingest.Config(store=store, ray=ray, feed=source, max_reject_rate=0.2)),
        embed.main(embed.Config(store=store, ray=ray)),
        index.main(index.Config(store=store, ray=ray)),
    ]
    for summary in summaries:
        show(summary)
    return summaries


def _row(summary: Summary) -> dict:
    facts = {k: v for k, v in summary.facts.items() if k not in ("plans", "neighbours", "report", "evaluation")}
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
