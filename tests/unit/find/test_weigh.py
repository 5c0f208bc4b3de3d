"""Searching by some parts of a vector more than by others: exact, by the query alone, and told where it cannot be."""

import json
from pathlib import Path

import numpy as np
import pytest

import w2w
from tests.unit.nights.nights import without_ray
from w2w.errors import UsageError
from w2w.models.config import FASHION, LITE0, EncoderConfig
from w2w.models.parts import part_weights, weighed
from w2w.wardrobe.shop import write_shop

ENDS = (160, 192)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory) -> tuple[str, Path]:
    """A store whose vectors have parts, and the shop's folder."""
    folder = tmp_path_factory.mktemp("fashion")
    write_shop(folder / "shop", 3, 14, 2)
    store = str(folder / "store")
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        feed = {"uri": str(folder / "shop" / "products.csv")}
        w2w.nightly(store=store, feed=feed, encoder={"name": FASHION}, pool={"workers": 1})
    return store, folder / "shop"


@pytest.mark.parametrize("weigh", [{"colour": 2.0}, {"colour": 0.0, "kind": 0.5}, {"shape": 0.0, "kind": 0.0}])
def test_a_weighed_query_is_the_weighed_sum_of_the_parts(weigh):
    rng = np.random.default_rng(0)
    query, products = rng.normal(size=(1, 256)).astype(np.float32), rng.normal(size=(50, 256)).astype(np.float32)
    found = weighed(query, part_weights(EncoderConfig(FASHION), weigh, "weigh"))
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    parts = zip(("shape", "kind", "colour"), *(np.split(v, ENDS, axis=1) for v in (query, products)))
    expected = sum(weigh.get(name, 1.0) * (q @ p.T)[0] for name, q, p in parts)
    scores = (found @ products.T)[0]
    np.testing.assert_allclose(scores / np.linalg.norm(scores), expected / np.linalg.norm(expected), atol=1e-5)
    assert weighed(query, part_weights(EncoderConfig(FASHION), {}, "weigh")) is query


def test_colours_of_any_encoder_are_what_comes_last():
    vectors = np.ones((1, 100), np.float32)
    found = weighed(vectors, part_weights(EncoderConfig(LITE0, colour=0.5), {"colour": 3}, "weigh"))
    assert found[0, 36:] / found[0, 0] == pytest.approx(np.full(64, 3.0))
    assert found[0, :36] == pytest.approx(np.full(36, found[0, 0]))


@pytest.mark.parametrize(
    ("encoder", "weigh", "said"),
    [
        (EncoderConfig(FASHION), {"color": 2}, r"--weigh\.color: no such part; .*shape, kind, colour.*'colour'"),
        (EncoderConfig(FASHION), {"colour": -1}, r"--weigh\.colour=-1: must be 0"),
        (EncoderConfig(FASHION), {"colour": float("nan")}, r"--weigh\.colour=nan: must be 0"),
        (EncoderConfig(FASHION), {"colour": float("inf")}, r"--weigh\.colour=inf: must be 0"),
        (EncoderConfig(FASHION), {"colour": 1e30}, r"--weigh\.colour=1e\+30: must be 0 .* or from 1e-06 to 1e\+06"),
        (EncoderConfig(FASHION), {"colour": 1e-30}, r"--weigh\.colour=1e-30: must be 0"),
        (EncoderConfig(FASHION), {"colour": 0, "kind": 0, "shape": 0}, "nothing to search by"),
        (EncoderConfig(LITE0), {"colour": 2}, "efficientnet-lite0 have no parts to weigh"),
        (EncoderConfig(LITE0, colour=0.7), {"kind": 2}, r"--weigh\.kind: no such part; .*shape, colour"),
    ],
)
def test_mistakes(encoder, weigh, said):
    with pytest.raises(UsageError, match=said):
        part_weights(encoder, weigh, "weigh")


def test_find_weighs_by_the_index_that_is_there(fashion):
    store, folder = fashion
    photo, weigh = str(next((folder / "posts").glob("*.jpg"))), {"colour": 3.0, "kind": 0.0}
    plain = w2w.find(photos=[photo], store=store, whole=True, k=14)
    found = w2w.find(photos=[photo], store=store, whole=True, k=14, weigh=weigh)
    assert (plain.encoder, found.encoder) == (FASHION, FASHION)
    assert plain.search_version != found.search_version
    encoder = w2w.load_encoder(FASHION)
    images = sorted((folder / "images").glob("*.jpg"))
    query, products = encoder([photo]), encoder(images)
    expected = dict(zip((i.stem for i in images), (weighed(query, ((160, 1), (32, 0), (64, 3))) @ products.T)[0]))
    lines = [json.loads(line) for line in Path(found.lines).read_text().splitlines()]
    told = {p["product_id"]: p["score"] for p in lines[0]["garments"][0]["products"]}
    assert len(told) >= 10
    for product, score in told.items():
        assert score == pytest.approx(expected[product], abs=0.03)
    by_plain = [p.product_id for p in plain.answers[0].garments[0].products]
    assert list(told) != by_plain


def test_search_weighs_as_find_does(fashion, monkeypatch):
    store, folder = fashion
    without_ray(monkeypatch)
    feed = {"uri": str(folder / "products.csv")}
    plain, found = (
        w2w.search(store=store, feed=feed, encoder={"name": FASHION}, pool={"workers": 1}, shown=0, search={"k": 5}, weigh=w)
        for w in ({}, {"shape": 0.0, "kind": 0.0})
    )
    assert plain.search_version != found.search_version
    encoder = w2w.load_encoder(FASHION)
    for line in map(json.loads, Path(found.neighbours).read_text().splitlines()):
        files = [folder / "images" / f"{p['product_id']}.jpg" for p in line["neighbours"]]
        colours = encoder([folder / "images" / f"{line['query_id']}.jpg", *files])[:, 192:]
        # a part has a length of its own, so the score of colours alone is their cosine times that
        cosines = colours[1:] @ colours[0] / np.linalg.norm(colours[0])
        assert [p["score"] for p in line["neighbours"]] == pytest.approx(cosines.tolist(), abs=2e-3)
    with pytest.raises(UsageError, match=r"--weigh\.size: no such part"):
        w2w.search(store=store, feed=feed, encoder={"name": FASHION}, weigh={"size": 2})
    with pytest.raises(UsageError, match=r"--weigh\.size: no such part"):
        w2w.find(store=store, photos=[str(folder)], weigh={"size": 2}, dry_run=True)
