"""Six exports of one catalog go in by one command with nothing but their name, and come out field by field."""

import pytest

from tests.unit.nights.exports import EXPORTS, Piece, pieces
from tests.unit.nights.nights import Clock, without_ray
from tests.unit.nights.nights import products as active
from w2w import ids, schema
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig, check_feed, read_feed
from w2w.stage import Pool

NO_LINK = ("products_export.csv", "wc-products.csv")
NO_GENDER = ("wc-products.csv",)


def expected(name: str, each_size: bool, piece: Piece, size: str) -> dict:
    """Columns of `products`, of one piece or of one size of it."""
    reduced = bool(piece.sale)
    stock = piece.stock.replace(" ", "_")
    return {
        "product_id": f"{piece.id}-{size}" if each_size else piece.id,
        "title": f"{piece.title} für Größe {size}" if name == "artikel.csv" else piece.title,
        "brand": piece.brand,
        "price": float(piece.sale or piece.price),
        "sale_price": float(piece.sale) if reduced else None,
        "regular_price": float(piece.price) if reduced else None,
        "currency": "EUR",
        "category": piece.path.lower(),
        "url": None if name in NO_LINK else piece.url,
        "group_id": piece.id if each_size or (name == "wc-products.csv" and len(piece.sizes) > 1) else None,
        "availability": stock,
        "gender": None if name in NO_GENDER else piece.gender,
        "colour": piece.colour,
        "size": size if each_size else ", ".join(piece.sizes),
    }


@pytest.fixture
def catalog(real_images, tmp_path) -> list[Piece]:
    (tmp_path / "images").symlink_to(real_images / "catalog" / "images")
    return pieces(real_images / "catalog")


def rows_of(name: str, catalog: list[Piece]) -> dict[str, tuple[dict, Piece]]:
    each_size = EXPORTS[name][1]
    wanted = {}
    for piece in catalog:
        for size in piece.sizes if each_size else piece.sizes[:1]:
            row = expected(name, each_size, piece, size)
            wanted[row["product_id"]] = row, piece
    return wanted


@pytest.mark.parametrize("name", EXPORTS)
def test_an_export_is_read_field_by_field(name, catalog, tmp_path):
    text, _, options = EXPORTS[name]
    (tmp_path / name).write_bytes(text(catalog))
    config = FeedConfig(uri=str(tmp_path / name), **options)
    check_feed(config)
    batches = list(read_feed(config))
    assert [r for b in batches for r in b.rejects.to_pylist()] == []
    assert sum((b.unread.total() for b in batches), 0) == 0
    wanted = rows_of(name, catalog)
    rows = {r["product_id"]: r for b in batches for r in b.rows.to_pylist()}
    assert set(rows) == set(wanted)
    for product_id, (row, piece) in wanted.items():
        assert {column: rows[product_id][column] for column in row} == row
        pictures = [rows[product_id]["image_uri"], *(p["uri"] for p in rows[product_id]["more"])]
        assert pictures == [str(tmp_path / picture) for picture in piece.pictures]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "google.tsv" else [pytest.mark.slow]) for name in EXPORTS]
)
def test_an_export_goes_in_by_one_command(name, catalog, real_images, tmp_path, monkeypatch):
    without_ray(monkeypatch)
    Clock(monkeypatch)
    text, _, options = EXPORTS[name]
    (tmp_path / name).write_bytes(text(catalog))
    feed = FeedConfig(uri=str(tmp_path / name), **options)
    done = ingest.main(ingest.Config(store=str(tmp_path / "store"), feed=feed, pool=Pool(workers=1)))
    wanted = rows_of(name, catalog)
    assert (done.counts.read, done.counts.out, done.counts.rejected) == (len(wanted), len(wanted), 0)
    stored = active(str(tmp_path / "store"))
    known = {one: ids.image_id((real_images / "catalog" / one).read_bytes()) for piece in catalog for one in piece.pictures}
    for product_id, (row, piece) in wanted.items():
        assert {column: stored[product_id][column] for column in row} == row
        assert [p[schema.IMAGE_ID] for p in stored[product_id][schema.IMAGE_LIST]] == [known[one] for one in piece.pictures]
        assert stored[product_id][schema.IMAGE_ID] == known[piece.pictures[0]]
