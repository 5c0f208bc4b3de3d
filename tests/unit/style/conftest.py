"""A store with posts of the wardrobe: photos, looks as a detector left them, and two of the products that are worn."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg

import w2w
from tests.unit.nights.nights import without_ray
from tests.unit.table.test_sink import lineage
from w2w import schema
from w2w.table.parts import Output
from w2w.table.sink import append_rows
from w2w.wardrobe.garment import generator, make_garment
from w2w.wardrobe.photo import street_photo
from w2w.wardrobe.shop import outfit

NUM = 6


def filled(table: schema.Table, **values) -> dict:
    """A row with these values, and something in every other column that needs one."""
    plain = {pa.string(): "", pa.int32(): 0, pa.int64(): 0, pa.bool_(): True, schema.TIME: 0, pa.float32(): 0.0}
    return {f.name: None if f.nullable else plain.get(f.type, []) for f in table.schema} | values


@dataclass
class Posts:
    """``jpegs``: the photos, by image_id; post-N shows image-N."""

    store: str
    jpegs: dict[str, bytes]
    folder: Path
    now: int = 1
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def write(self, table: schema.Table, rows: list[dict], version: str = "1") -> None:
        append_rows(self.store, Output(table), pa.Table.from_pylist(rows, schema=table.schema), lineage(version))

    def post(self, number: int, active: bool = True, products: tuple[str, ...] = (), **more) -> None:
        self.now += 1
        known = {"post_id": f"post-{number}", "image_id": f"image-{number}", "active": active, "fetched_at": self.now}
        known |= {"product_ids": list(products), "url": f"https://style.example/{number}"}
        self.write(schema.POSTS, [filled(schema.POSTS, **known | more)])

    def detected(self, numbers: list[int], version: str = "d1", nobody: tuple[int, ...] = ()) -> None:
        rows = []
        for n in numbers:
            width, height = self.sizes[f"image-{n}"]
            box = None if n in nobody else [width * 0.2, height * 0.1, width * 0.8, height * 0.95]
            rows.append(filled(schema.LOOKS, image_id=f"image-{n}", person_box=box, stage_version=version))
        self.write(schema.LOOKS, rows, version)

    def embed(self, **options):
        return w2w.embed(store=self.store, of="looks", pool={"workers": 1}, **options)

    def index(self, **options):
        return w2w.index(store=self.store, of="looks", **options)

    def owners(self, version: str) -> set[str]:
        rows = w2w.open(self.store).table("embeddings").polars(["owner_id", "model_version"])
        return set(rows.filter(rows["model_version"] == version)["owner_id"])


@pytest.fixture
def posts(tmp_path, monkeypatch) -> Posts:
    without_ray(monkeypatch)
    return make_posts(tmp_path)


def make_posts(tmp_path: Path) -> Posts:
    garments = [make_garment(11, i) for i in range(60)]
    made = Posts(str(tmp_path / "store"), {}, tmp_path)
    rows = []
    for n in range(NUM):
        photo = street_photo(11, n, outfit(garments, generator("outfit", 11, n))).image
        data = simplejpeg.encode_jpeg(np.ascontiguousarray(photo), 92)
        (tmp_path / f"{n}.jpg").write_bytes(data)
        made.jpegs[f"image-{n}"], made.sizes[f"image-{n}"] = data, (photo.shape[1], photo.shape[0])
        size = {"width": photo.shape[1], "height": photo.shape[0]}
        rows.append(filled(schema.IMAGES, image_id=f"image-{n}", bytes=data, source_uri=f"{n}.jpg", **size))
    made.write(schema.IMAGES, [*rows, filled(schema.IMAGES, image_id="catalog", bytes=rows[0]["bytes"], **size)])
    about = {"brand": "Fjord", "price": 20.0, "currency": "EUR", "category": "top", "image_id": "catalog"}
    sold = [
        filled(schema.PRODUCTS, product_id=p, title=f"<b>{p}", active=p != "gone", **about) for p in ("coat", "hat", "gone")
    ]
    made.write(schema.PRODUCTS, sold)
    return made
