"""What an index must meet (``IndexConfig``) and what it is made of (``Spec``, in faiss's factory notation)."""

import re
from dataclasses import dataclass, field

from w2w.config import check_name
from w2w.errors import UsageError
from w2w.table.published import NAME

_FACTORY = re.compile(
    r"(?:(?P<transform>PCAR|PCA|OPQ)(?P<first>\d+)(?:_(?P<second>\d+))?,)?"
    r"(?:IVF(?P<lists>\d+),|HNSW(?P<links>\d+),)?"
    r"(?P<codec>Flat|SQfp16|SQ8|SQ6|SQ4|RaBitQ(?P<bits>[2-8])|PQ(?P<parts>\d+)(?P<fast>x4fs)?)"
    r"(?:,Refine\((?P<refine>Flat|SQfp16|SQ8|SQ6|SQ4)\))?"
)
_RABITQ_FACTORS = 20  # bytes per row besides the bits: lengths and correction factors
_BITS = {"Flat": 32, "SQfp16": 16, "SQ8": 8, "SQ6": 6, "SQ4": 4}


PRODUCT, GROUP = "product", "group"  # what counts once among the answers


def check_one_per(one_per: str) -> None:
    """Raises UsageError unless it is PRODUCT or GROUP."""
    if one_per not in (PRODUCT, GROUP):
        raise UsageError(f"--one_per={one_per}: must be {PRODUCT} or {GROUP}")


@dataclass(frozen=True)
class SeenConfig:
    """What must hold of the answers that shoppers see, besides recall. None of it changes what is built."""

    golden: str = ""
    """CSV or JSON lines of queries with the products that they must find (columns: w2w/index/README.md)."""
    golden_judged: bool = False
    """Garments that people judged the same as a product (w2w judge-answers) are golden queries, too."""
    max_golden_fall: float = 0.1
    """Of the golden answers found last night, at most this share may be lost."""
    max_churn: float | None = None
    """Of last night's answers, at most this share may be gone though nothing about them changed. Default: .05, and twice what
    target_recall leaves out."""
    max_swapped: float = 0.02
    """Of the sampled products, at most this share may have given their picture to another product."""
    max_stock_shift: float = 0.1
    """The share of answers that are out of stock, or of which that is not known, may change by at most this in a night."""
    recall_floors: dict[str, float] = field(default_factory=dict)
    """Least recall of a category, for example {dress: 0.98}."""
    golden_floors: dict[str, float] = field(default_factory=dict)
    """Least share of golden answers found in a category."""

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("max_golden_fall", "max_churn", "max_swapped", "max_stock_shift")}
        for name in ("recall_floors", "golden_floors"):
            shares |= {f"{name}.{category}": least for category, least in getattr(self, name).items()}
        for name, share in shares.items():
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"index.{name}={share}: a share from 0 to 1")


@dataclass(frozen=True)
class IndexConfig(SeenConfig):
    """What the index must hold to. The planner finds the factory string; the gate refuses what misses ``target_recall``."""

    name: str = NAME
    """Folder of the index below <store>/index."""
    target_recall: float = 0.95
    """Share of the exact neighbours that the index must find to be published."""
    recall_at: int = 10
    """Neighbours counted by target_recall."""
    memory_budget_mb: float = 1024.0
    """Memory for codes, graphs and templates of all shards, in MiB; ids stay on disk."""
    latency_budget_ms: float = 2.0
    """Maximum milliseconds for one query on one thread, within its category."""
    max_rows_per_shard: int = 100_000
    """A larger category is split into 2, 4, 8 ... hash buckets."""
    exact_below_rows: int = 20_000
    """Smaller categories share one template and are searched exactly."""
    sample_rows: int = 50_000
    """Rows sampled for planning and for training templates."""
    gate_queries: int = 100
    """Queries per category that the gate compares with exact search."""
    keep_generations: int = 3
    """Published versions whose shards are kept."""
    layer_share: float = 0.1
    """Of a category's rows: as many changes are kept beside its shards, which are then built anew; 0: at once."""
    layer_from_rows: int = 20_000
    """Smaller categories are built anew at once."""
    factory: str = ""
    """Skip the planner, for example PCA256,IVF1024,SQ8."""
    nprobe: int = 0
    """With factory: inverted lists scanned per query (0: a sixteenth of them)."""
    seed: int = 0
    """Seed of the sample, the clustering and the gate's queries."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name, "index.name")
        if not 0 < self.target_recall <= 1:
            raise UsageError(f"index.target_recall={self.target_recall}: must be above 0 and at most 1")
        for option in ("memory_budget_mb", "latency_budget_ms"):
            if not getattr(self, option) > 0:
                raise UsageError(f"index.{option}={getattr(self, option)}: must be above 0")
        for option in ("recall_at", "max_rows_per_shard", "sample_rows", "gate_queries", "keep_generations"):
            if getattr(self, option) < 1:
                raise UsageError(f"index.{option}={getattr(self, option)}: must be at least 1")
        for option in ("exact_below_rows", "layer_from_rows", "nprobe"):
            if getattr(self, option) < 0:
                raise UsageError(f"index.{option}={getattr(self, option)}: cannot be negative")
        if not 0 <= self.layer_share <= 1:
            raise UsageError(f"index.layer_share={self.layer_share}: a share from 0 to 1")
        if self.factory:
            Spec(self.factory)


@dataclass(frozen=True)
class Spec:
    """``[PCAd,|PCARd,|OPQm_d,][IVFn,|HNSWm,]codec[,Refine(codec)]`` and search effort. Raises UsageError for anything else.

    PCA keeps the d leading axes of the second moment (not centred: inner products stay unbiased); PCAR rotates them at random,
    as RaBitQ's error bound requires. OPQ is the closed form of Ge et al. 2013, section 4.2: principal axes distributed so that
    the m parts carry equal products of variance.
    """

    factory: str
    nprobe: int = 0  # IVF lists scanned per query
    ef_search: int = 0  # HNSW queue length
    k_factor: int = 1  # with Refine: candidates re-ranked per hit

    def __post_init__(self) -> None:
        match = _FACTORY.fullmatch(self.factory)
        if match is None:
            raise UsageError(
                f"index factory {self.factory!r}: expected [PCA<d>,|PCAR<d>,|OPQ<m>_<d>,][IVF<n>,|HNSW<m>,]<codec>"
                "[,Refine(<codec>)] with codec Flat, SQfp16, SQ8, SQ6, SQ4, RaBitQ<2-8>, PQ<m> or PQ<m>x4fs, "
                "for example PCA256,IVF1024,SQ8"
            )
        if (match["transform"] == "OPQ") != (match["second"] is not None):
            raise UsageError(
                f"index factory {self.factory!r}: write PCA<dimensions>, PCAR<dimensions> or OPQ<parts>_<dimensions>"
            )
        if any(match[g] and int(match[g]) < 1 for g in ("first", "second", "lists", "links", "parts")):
            raise UsageError(f"index factory {self.factory!r}: every number must be at least 1")

    def _part(self, name: str) -> str:
        match = _FACTORY.fullmatch(self.factory)
        assert match, "checked when it was made"
        return match[name] or ""

    @property
    def transform(self) -> str:
        return self._part("transform")

    @property
    def base(self) -> str:
        """The factory string without transform and refinement, as faiss reads it."""
        factory = re.sub(r",Refine\(.*\)$", "", self.factory)
        return factory.split(",", 1)[1] if self.transform else factory

    @property
    def codec(self) -> str:
        return self._part("codec")

    @property
    def refine(self) -> str:
        return self._part("refine")

    @property
    def num_lists(self) -> int:
        return int(self._part("lists") or 0)

    @property
    def num_parts(self) -> int:
        return int(self._part("parts") or 0)

    @property
    def can_filter(self) -> bool:
        """Whether faiss skips rows while it scans: everywhere but in product quantization without lists or links."""
        return not self.num_parts or bool(self.num_lists or self._part("links"))

    @property
    def can_decode(self) -> bool:
        """Whether a row's score is that of a vector which its code, or the code that re-ranks it, can be turned into: not where
        scans estimate scores (RaBitQ, PQ x4fs)."""
        return bool(self.refine) or not (self._part("bits") or self._part("fast"))

    @property
    def scans_all(self) -> bool:
        """Whether each row that may be found is scored, and no other."""
        return self.can_filter and not (self.num_lists or self._part("links"))

    @property
    def is_steady(self) -> bool:
        """Whether a row's score, and whether it is scanned, depend on row, query and template alone: not in a graph, nor where
        the best of a shard are ranked again."""
        return self.can_decode and not self.refine and not self._part("links")

    def most_effort(self, num_rows: int) -> int:
        """The multiple of ``nprobe``, or of ``ef_search``, at which nothing is left out."""
        if self.num_lists:
            return -(-self.num_lists // max(1, self.nprobe))
        return -(-num_rows // max(1, self.ef_search)) if self._part("links") else 1

    def inner_dim(self, dim: int) -> int:
        """Dimensions after the transform. Raises UsageError if the transform or PQ does not fit ``dim``."""
        inner = int(self._part("second") or self._part("first") or dim)
        if inner > dim:
            raise UsageError(f"index factory {self.factory!r}: vectors have only {dim} dimensions")
        parts = (self.num_parts, int(self._part("first")) if self.transform == "OPQ" else 0)
        if any(p and inner % p for p in parts):
            raise UsageError(f"index factory {self.factory!r}: {inner} dimensions are not a multiple of the number of parts")
        return inner

    def row_bytes(self, dim: int) -> int:
        """Bytes of one vector: code, inverted-list id or graph links, refinement code."""
        inner = self.inner_dim(dim)
        if self.num_parts:
            code = -(-self.num_parts * (4 if self._part("fast") else 8) // 8)
        elif bits := self._part("bits"):
            code = -(-inner * int(bits) // 8) + _RABITQ_FACTORS
        else:
            code = -(-inner * _BITS[self.codec] // 8)
        links = int(self._part("links") or 0)
        refine = -(-inner * _BITS[self.refine] // 8) if self.refine else 0
        return code + (8 if self.num_lists else 0) + (8 * links + 16 if links else 0) + refine

    def template_bytes(self, dim: int) -> int:
        """Bytes independent of the number of rows: axes, coarse centroids, code books."""
        inner = self.inner_dim(dim)
        axes = dim * inner if self.transform else 0
        return 4 * (
            axes + self.num_lists * inner + ((16 if self._part("fast") else 256) * inner if self.num_parts else 2 * inner)
        )

    def memory_mb(self, num_rows: int, dim: int) -> float:
        return (num_rows * self.row_bytes(dim) + self.template_bytes(dim)) / 2**20
