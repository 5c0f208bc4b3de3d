import faiss
import numpy as np
import pytest

from w2w.errors import UsageError
from w2w.index.plan import FILLED, _Bench, plan
from w2w.index.spec import IndexConfig, Spec
from w2w.index.template import Sample, Template, fill, fit, unit_vectors

from .conftest import make_catalog


def vectors(rows: int, dim: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = 1 / np.sqrt(1 + np.arange(dim, dtype=np.float32))
    centres = rng.standard_normal((64, dim)) * spread
    return unit_vectors(
        (centres[rng.integers(0, 64, rows)] + 0.5 * rng.standard_normal((rows, dim)) * spread).astype(np.float32)
    )


@pytest.mark.parametrize(
    "factory",
    ["Flat", "SQfp16", "SQ8", "SQ6", "SQ4", "PQ8", "PQ16x4fs", "IVF16,SQ8", "IVF16,RaBitQ2", "IVF16,RaBitQ5", "HNSW32,SQ8"]
    + ["PCA32,IVF16,SQfp16", "PQ16x4fs,Refine(SQ8)"],
)
def test_row_bytes_match_the_files(factory):
    """The arithmetic that prunes candidates, against what faiss writes (two sizes: constants cancel)."""
    x = vectors(3000, 64)
    spec = Spec(factory)
    template = fit(spec, Sample(x))
    sizes = []
    for n in (1024, 3000):
        codes = fill(template, x[:n])
        sizes.append(sum(len(faiss.serialize_index(i)) for i in (codes.base, codes.refine) if i is not None))
    assert (sizes[1] - sizes[0]) / (3000 - 1024) == pytest.approx(spec.row_bytes(64), rel=0.03)


def test_small_groups_are_exact_without_measuring():
    x = vectors(500, 64)
    cfg = IndexConfig()
    assert plan(x, 500, 500, cfg).spec == Spec("Flat")
    half = plan(x, 500, 500, cfg, memory_mb=Spec("Flat").memory_mb(500, 64) * 0.6)
    assert (half.spec, half.measured) == (Spec("SQfp16"), ())


def test_plan_holds_to_both_budgets_and_explains_itself():
    x = vectors(4000, 64)
    cfg = IndexConfig(memory_budget_mb=8.0, latency_budget_ms=50.0, exact_below_rows=1000, target_recall=0.9)
    made = plan(x, 60_000, 60_000, cfg)
    chosen = next(c for c in made.measured if c.spec == made.spec)
    assert chosen.memory_mb <= 8.0
    assert chosen.recall >= 0.9
    assert any(c.note.startswith("needs 15 of 8 MiB") for c in made.measured if c.spec == Spec("Flat"))
    rows = made.table()
    assert [r["factory"] for r in rows if r["chosen"]] == [made.spec.factory]
    assert Template.from_bytes(made.template).spec == made.spec


def test_a_tight_latency_budget_leaves_the_full_scans():
    x = vectors(4000, 64)
    cfg = IndexConfig(latency_budget_ms=1.0, exact_below_rows=1000, target_recall=0.9)
    made = plan(x, 500_000, 500_000, cfg)
    latency = {c.spec: c.latency_ms for c in made.measured if not c.note}
    assert made.spec.base.startswith(("IVF", "HNSW"))
    assert latency[made.spec] < latency[Spec("Flat")] / 5
    assert {c.spec.num_lists for c in made.measured} == {0, 128}  # 16 sampled rows a list


def test_a_budget_that_nothing_fits_is_refused_with_figures():
    with pytest.raises(UsageError, match=r"smallest index of its 100000 rows, .*, takes \d+\.\d; raise the budget"):
        plan(vectors(1000, 64), 100_000, 100_000, IndexConfig(), memory_mb=0.05)


def test_more_memory_never_costs_recall():
    x = vectors(3000, 96)
    cfg = IndexConfig(latency_budget_ms=1000.0, exact_below_rows=100, target_recall=1.0)
    recalls = [plan(x, 3000, 3000, cfg, memory_mb=mb).recall for mb in (0.15, 0.5, 2.0)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


def test_a_target_beyond_proof_gets_whole_vectors_and_all_the_time_there_is(monkeypatch):
    def latency_ms(bench, spec, template, codes):
        return bench.scan_rows / 1000 * (spec.nprobe / spec.num_lists if spec.num_lists else 1)

    monkeypatch.setattr(_Bench, "_latency_ms", latency_ms)
    x = vectors(4000, 64)
    cfg = IndexConfig(exact_below_rows=100, target_recall=1.0, latency_budget_ms=10.0)
    scan = plan(x, 4000, 4000, cfg)
    assert (scan.spec, scan.recall) == (Spec("Flat"), 1.0)
    lists = plan(x, 40_000, 40_000, cfg)
    assert {c.spec.codec for c in lists.measured} == {"Flat"}
    assert lists.spec.nprobe / lists.spec.num_lists == pytest.approx(FILLED * 10 / 40, abs=0.01)
    lossy = plan(x, 4000, 4000, cfg, memory_mb=0.3)
    assert lossy.recall == max(c.recall for c in lossy.measured if not c.note) < 1


@pytest.mark.parametrize(
    "factory", ["", "flat", "IVF0,Flat", "PCA16_8,Flat", "OPQ8,PQ8", "PQ8; rm", "IVF8,SQ9", "RaBitQ1", "Flat,Refine(PQ8)"]
)
def test_wrong_factories_are_refused(factory):
    with pytest.raises(UsageError, match="index factory"):
        Spec(factory)


def test_spec_checks_dimensions_and_sample():
    x = unit_vectors(np.stack(list(make_catalog({"tops": 40}).vectors.values())))
    for factory, says in (("PCA64,Flat", "only 32 dimensions"), ("PQ5", "not a multiple"), ("IVF64,Flat", "needs 64 rows")):
        with pytest.raises(UsageError, match=says):
            fit(Spec(factory), Sample(x))


@pytest.mark.parametrize(
    "wrong",
    [{"name": "../x"}, {"target_recall": 0.0}, {"target_recall": 1.1}, {"memory_budget_mb": 0.0}, {"recall_at": 0}]
    + [{"nprobe": -1}, {"factory": "nope"}, {"keep_generations": 0}],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(UsageError, match=rf"index[. ]{next(iter(wrong))}"):
        IndexConfig(**wrong)


def test_recall_estimated_from_a_tenth_of_the_rows_is_that_of_the_whole():
    x = vectors(20_000, 64)
    cfg = IndexConfig(exact_below_rows=0, latency_budget_ms=1000.0, target_recall=1.0)
    estimate = {c.spec.factory: c.recall for c in plan(x[::10], 20_000, 20_000, cfg, memory_mb=0.6).measured if not c.note}
    factory = "PCA16,SQ8"
    template = fit(Spec(factory), Sample(x[::10]))
    queries = vectors(20_500, 64)[20_000:]
    exact = faiss.knn(queries, x, 10, metric=faiss.METRIC_INNER_PRODUCT)[1]
    found = fill(template, x).base.search(template.inner(queries), 10)[1]
    whole = (found[:, :, None] == exact[:, None, :]).any(axis=1).mean()
    assert factory in estimate
    assert estimate[factory] == pytest.approx(whole, abs=0.06)
