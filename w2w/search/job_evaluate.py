"""Evaluate: search with queries whose right answers are known; Recall, MRR, nDCG and class accuracy with intervals."""

import json
from dataclasses import dataclass, field, fields, replace

import numpy as np

from w2w import storage
from w2w.config import check_label
from w2w.engine.job import options_of
from w2w.errors import UsageError
from w2w.metrics import retrieval
from w2w.report.evaluation import Protocol, evaluation_report
from w2w.results import Figure
from w2w.search import job_search as search
from w2w.search import pictures as pages

KS = (1, 5, 10, 20)
NEAREST = {k: f"{k}-NN" for k in (1, 10)}  # neighbours that vote on a class


@dataclass(frozen=True)
class Config(search.Config):
    """Search as `w2w search` does, then compare with the truth; writes OUT/evaluation.html and OUT/metrics.json besides."""

    SHOWN = "store feed.uri feed.columns match classes search.k search.own_category encoder.name name out"

    classes: bool = False
    """Also (or only): accuracy of the query's category by its nearest product, and by the majority of its ten nearest."""
    name: str = "retrieval"
    """What to call it in the report."""
    seed: int = 0
    """Of the bootstrap."""


@dataclass(frozen=True, kw_only=True)
class Result(search.Result):
    """The search's, and how good it was."""

    figures: dict[str, Figure] = field(default_factory=dict)
    """By name of the metric, such as recall@1; of --classes with 1-NN or 10-NN before it."""
    evaluation: str | None = None
    """The page."""


def main(config: Config) -> Result:
    if not config.match and not config.classes:
        raise UsageError("--match: name the attributes that make a product the right answer, or set --classes")
    if config.limit:
        raise UsageError("--limit: an evaluation of some queries would be stated as one of all; use --feed.where")
    check_label(config.name, "--name")
    if config.classes and config.name in NEAREST.values():
        raise UsageError(f"--name={config.name}: is what the figures of --classes are called")
    config = replace(config, search=replace(config.search, k=max(config.search.k, KS[-1])))
    result, searched = search.search(search.Config(**options_of(config, search.Config)))
    result = Result(**{f.name: getattr(result, f.name) for f in fields(result)} | {"job": "evaluate"})
    if config.dry_run:
        return result
    out = result.neighbours.rpartition("/")[0]
    protocols = []
    if config.match:
        relevant, num_relevant, truth, _, num_without = pages.relevance(searched, config.match, config.search.k)
        table = retrieval.evaluate(relevant, num_relevant, truth, KS, np.random.default_rng(config.seed))
        said = " and ".join(config.match)
        num_asked = int((num_relevant > 0).sum())
        text = (
            f"A hit is a picture of a product with the same {said}. Left out: {len(truth) - num_asked - num_without} queries "
        )
        text += f"without one in the catalog, {num_without} whose {said} is not known."
        protocols.append(Protocol(config.name, text, table, None))
    if config.classes:
        _, num_relevant, truth, found, _ = pages.relevance(searched, ["category"], config.search.k)
        rng = np.random.default_rng(config.seed)
        asked = num_relevant > 0  # no product of that class: no neighbour could be right
        truth, found = truth[asked], found[asked]
        labels = sorted({*truth.tolist(), *found[:, :10].flatten().tolist()})
        for k, name in NEAREST.items():
            predicted = retrieval.nearest_class(found, k)
            table = retrieval.class_accuracy(truth, predicted, truth, rng)
            matrix = retrieval.confusion(truth, predicted, labels)
            text = f"The query's category, taken from its {k} nearest product{'s' if k > 1 else ''}."
            text += f" {int((~asked).sum())} queries of classes that the catalog does not have are left out."
            protocols.append(Protocol(name, text, table, (matrix, labels)))
    figures = {}
    for protocol in protocols:
        for r in (r for r in protocol.metrics.to_pylist() if r["group"] is retrieval.ALL):
            name = f"{r['metric']}@{r['k']}" if r["k"] else r["metric"]
            name = f"{protocol.name} {name}" if protocol.confusion else name
            figures[name] = Figure.of(r, r["num_queries"])
    text = json.dumps({p.name: p.metrics.to_pylist() for p in protocols}, indent=1)
    storage.write_bytes(storage.join(out, "metrics.json"), text.encode())
    page = storage.join(out, "evaluation.html")
    headline = {name: str(figure) for name, figure in figures.items()}
    evaluation_report(page, config.name[:1].upper() + config.name[1:], headline, protocols)
    return replace(result, figures=figures, evaluation=page)
