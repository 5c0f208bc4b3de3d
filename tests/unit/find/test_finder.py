"""``w2w.load_finder``: loaded once, photos in any form, the answers of ``w2w find``; words where the encoder knows them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import w2w
from tests.unit.models.test_encoder import save
from tests.unit.models.test_text import tokenizer
from tests.unit.nights.nights import without_ray
from w2w.images.decode import decode
from w2w.models.config import EncoderConfig
from w2w.models.text import embed_words


def scores(answers) -> dict:
    return {
        (i, g.number, g.category, p.product_id): p.score for i, a in enumerate(answers) for g in a.garments for p in g.products
    }


def test_photos_in_any_form_have_the_answers_of_the_job(shop):
    finder = w2w.load_finder(shop.store, k=4)
    photos = [Path(p) for p in shop.photos[:3]]
    wanted = w2w.find(photos=photos, store=shop.store, k=4, shown=0).answers
    answers = finder(photos)
    assert [a.photo for a in answers] == [str(p) for p in photos]
    assert scores(answers).keys() == scores(wanted).keys()
    np.testing.assert_allclose(list(scores(answers).values()), list(scores(wanted).values()), atol=1e-4)
    boxes = [[g.box_xyxy for a in some for g in a.garments] for some in (answers, wanted)]
    np.testing.assert_allclose(*boxes, atol=0.5)
    data = photos[0].read_bytes()
    for one in (data, decode(data), Image.open(photos[0]), str(photos[0])):
        (again,) = finder(one)
        assert [g.category for g in again.garments] == [g.category for g in answers[0].garments]


def test_what_cannot_be_read_is_an_answer(shop):
    finder = w2w.load_finder(shop.store, garment="hat")
    bad, missing, good = finder([b"<html>", "nowhere.jpg", Path(shop.photos[0])])
    assert (bad.reject, missing.reject, good.reject) == ("not_an_image", "not_found", None)
    assert {g.says for g in good.garments} <= {"you sell no hats"}
    assert finder([]) == []
    with pytest.raises(w2w.UsageError, match=r"photos\[1\] is a int"):
        finder([b"", 1])  # type: ignore[list-item]
    with pytest.raises(w2w.UsageError, match="has no text tower"):
        finder(shop.photos[:1], text="red dress")


def test_large_photos_have_boxes_in_their_own_pixels(shop, tmp_path):
    """One that is decoded at half its size, and one that is turned."""
    photo = Image.open(shop.photos[0])
    photo.resize((photo.width * 9, photo.height * 9)).save(tmp_path / "large.jpg")
    finder = w2w.load_finder(shop.store)
    small, large = finder([shop.photos[0], tmp_path / "large.jpg"])
    assert (large.width, large.height) == (9 * small.width, 9 * small.height)
    found = [{g.category: np.array(g.box_xyxy) for g in a.garments} for a in (small, large)]
    both = found[0].keys() & found[1].keys()
    assert len(both) >= 2
    for category in both:
        np.testing.assert_allclose(found[1][category] / 9, found[0][category], atol=0.06 * small.height)


@pytest.mark.parametrize("options", [{"k": 0}, {"garmnt": "top"}, {"encoder": {"name": "nothing"}}, {"filter": {"x": "y"}}])
def test_options_are_those_of_the_job(shop, options):
    with pytest.raises(w2w.UsageError):
        w2w.load_finder(shop.store, **options)


def test_an_option_that_it_lacks_is_refused_by_what_it_takes(shop):
    """The help of the job would list what only the job has."""
    said = (
        r"w2w\.load_finder has no option 'explain': only the job has it, w2w\.find\(photos=\[\.\.\.\], store=\.\.\., explain="
    )
    with pytest.raises(w2w.UsageError, match=said):
        w2w.load_finder(shop.store, explain=2)
    with pytest.raises(
        w2w.UsageError, match=r"'zzz' does not exist\. w2w\.load_finder takes index, k, .*, encoder, detector, "
    ):
        w2w.load_finder(shop.store, zzz=1)
    with pytest.raises(w2w.UsageError, match=r"does not exist\. w2w\.load_finder \(detector\) takes name, revision, .*threads"):
        w2w.load_finder(shop.store, detector={"zzzzzzzzzzzzzzzz": 1})
    for load in (w2w.load_encoder, w2w.load_detector, w2w.load_segmenter):
        with pytest.raises(w2w.UsageError, match=rf"'zzz' does not exist\. w2w\.{load.__name__} takes name, .*threads"):
            load(zzz=1)


def test_words_alone_and_beside_a_photo(shop, tmp_path, monkeypatch):
    """In the space of a CLIP: what the index finds for the words' vector, and between words and photo by weight."""
    save(tmp_path / "clip", "clip")
    tokenizer(tmp_path / "clip")
    encoder, store = {"name": str(tmp_path / "clip")}, str(tmp_path / "store")
    with monkeypatch.context() as patch:
        without_ray(patch)
        patch.setattr("w2w.models.job.try_encoder", lambda config: None)  # in a process of its own: torch is here already
        feed = {"uri": str(shop.folder / "shop" / "products.csv")}
        w2w.nightly(store=store, feed=feed, encoder=encoder, pool={"workers": 1})
    words_D = embed_words(EncoderConfig(**encoder), "red dress")
    hits = w2w.open(store).index().search(words_D[None], k=5, category="dress")
    job = w2w.find(text="red dress", store=store, category="dress", k=2)  # of the encoder that the index names
    (answer,) = job.answers
    products = answer.garments[0].products
    assert [p.product_id for p in products] == hits["product_id"].to_pylist()[:2]
    assert (job.photos, job.garments, job.products) == (0, 0, 2)
    assert "red dress" in Path(job.report).read_text()
    finder = w2w.load_finder(store, category="dress", k=2)
    assert finder.text("red dress").garments[0].products == products
    with pytest.raises(w2w.UsageError, match="the text is empty"):
        finder.text(" ")
    photo = shop.photos[0]
    alone, with_all, mixed = (
        w2w.load_finder(store, category="dress", whole=True, k=2, text_weight=weight)(photo, text="red dress")
        for weight in (0, 1, 0.5)
    )
    assert scores(with_all).values() == pytest.approx([p.score for p in products], abs=1e-5)
    assert scores(alone) == scores(w2w.load_finder(store, category="dress", whole=True, k=2)(photo))
    assert scores(mixed) != scores(alone)
