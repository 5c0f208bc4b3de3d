"""A shop whose products, pictures, vectors and stock change from night to night, and the index job in this process."""

from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest

from w2w.index import flow, flow_golden
from w2w.index.flow import Inputs, build_index, draft_index
from w2w.index.flow_release import check_served
from w2w.index.publish import published
from w2w.index.rules_release import Release
from w2w.index.spec import IndexConfig
from w2w.models.config import EncoderConfig

DIM = 24
SIZES = {"dress": 90, "hat": 12, "shoes": 130, "top": 170}
CFG = IndexConfig(gate_queries=60, memory_budget_mb=64)


@dataclass(frozen=True)
class Item:
    category: str
    images: tuple[str, ...]
    availability: str | None = "in_stock"


@dataclass
class Vectors:
    """As engine.shuffle's: where the vectors of one model lie."""

    by_image: dict[str, np.ndarray]
    version: str = "m"
    bridge: None = None

    def __post_init__(self):
        self.places = {image: n for n, image in enumerate(self.by_image)}

    def find(self, owners) -> np.ndarray:
        return np.array([self.places.get(owner, -1) for owner in owners.to_pylist()], np.int64)


def read_vectors(vectors: Vectors, rows: np.ndarray) -> np.ndarray:
    listed = list(vectors.by_image.values())
    return np.stack([listed[n] for n in rows])


def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def gather(vectors, targets, consume, arguments, num_cpus=1, title=""):
        return [consume(*some, read_vectors(vectors, rows)) for some, rows in zip(arguments, targets)]

    for name, here in {
        "gather": gather,
        "read_vectors": read_vectors,
        "share": lambda value: value,
        "shared": lambda value: value,
        "run_task": lambda work, *args, num_cpus, title: work(*args),
    }.items():
        monkeypatch.setattr(flow, name, here)
    monkeypatch.setattr(flow_golden, "read_vectors", read_vectors)


@dataclass
class Shop:
    rng: np.random.Generator
    items: dict[str, Item] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self):
        self.centres = {c: self.rng.standard_normal((12, DIM)) for c in SIZES}

    @staticmethod
    def open(seed: int) -> "Shop":
        shop = Shop(np.random.default_rng(seed))
        for category, size in SIZES.items():
            for _ in range(size):
                shop.add(category)
        return shop

    def draw(self, near: np.ndarray, noise: float = 1.0) -> str:
        self.made += 1
        image = f"i{self.made:06d}"
        self.vectors[image] = (near + noise * self.rng.standard_normal(DIM)).astype(np.float32)
        return image

    def add(self, category: str) -> str:
        centre = self.centres[category][self.rng.integers(12)]
        front = self.draw(centre)
        more = [self.draw(self.vectors[front], 0.3)] if self.rng.random() < 0.3 else []
        product = f"{category}-{self.made:06d}"
        self.items[product] = Item(category, (front, *more), "out_of_stock" if self.rng.random() < 0.1 else "in_stock")
        return product

    def change(self, product: str, **values) -> None:
        self.items[product] = replace(self.items[product], **values)

    def some(self, share: float, category: str | None = None) -> list[str]:
        mine = [p for p, item in self.items.items() if category in (None, item.category)]
        return sorted(self.rng.choice(mine, max(1, round(share * len(mine))), replace=False).tolist())

    def sleep(self) -> None:
        """A clean night: a few products go, come, are photographed anew, change their category, sell out, come back."""
        for product in self.some(0.02):
            del self.items[product]
        for _ in range(self.rng.integers(4, 16)):
            self.add(str(self.rng.choice(list(SIZES), p=[0.25, 0.02, 0.33, 0.4])))
        for product in self.some(0.02):
            front, *more = self.items[product].images
            self.change(product, images=(self.draw(self.vectors[front], 0.4), *more))
        for product in self.some(0.004):  # another picture altogether
            self.change(product, images=(self.draw(self.centres[self.items[product].category][0]),))
        one, other = self.some(0.001)[0], self.some(0.001)[0]  # two variants share a picture
        self.change(one, images=(*self.items[one].images, self.items[other].images[0]))
        for product in self.some(0.003):
            self.change(product, category=str(self.rng.choice(["dress", "shoes", "top"])))
        for product in self.some(0.06):
            out = self.rng.random() < 0.1
            self.change(product, availability="out_of_stock" if out else "in_stock")

    @property
    def rows(self) -> pa.Table:
        listed = [
            {"product_id": p, "image_id": image, "category": item.category, "availability": item.availability}
            for p, item in sorted(self.items.items())
            for image in dict.fromkeys(item.images)
        ]
        names = ("product_id", "image_id", "category", "availability")
        return pa.Table.from_pylist(listed, schema=pa.schema([(name, pa.string()) for name in names]))


def publish(folder, shop: Shop, cfg: IndexConfig = CFG, version: str = "m", **release) -> dict:
    """One night of the job, as job.main goes about it."""
    uri, rows, vectors = str(folder / "index" / cfg.name), shop.rows, Vectors(shop.vectors, version)
    told = Release(str(folder), str(folder / "reports" / "index" / "run" / "index.html"), **release)
    draft = draft_index(uri, cfg, vectors, rows, published(uri), Inputs({"products": 1}, {}))
    if draft.base.manifest and draft.unchanged():
        found, page = check_served(told, uri, draft.base.manifest, draft.rows, vectors, EncoderConfig("tiny"), cfg)
        return {"found": found, "sheet": page}
    return build_index(draft, EncoderConfig("tiny"), 1, told)
