"""Looks that an earlier w2w embedded, whose default encoder was another: refused where nothing names the encoder."""

import pytest

import w2w
from tests.unit.style.conftest import NUM, Posts
from w2w.errors import UsageError
from w2w.models.config import DEFAULT, LITE0
from w2w.nightly import job as nightly

OLD, NEW = {"name": LITE0}, {"name": DEFAULT}
INDEX = (
    rf"^encoder\.name is not set, and the published index 'looks' is of {LITE0}, .* \({NUM} vectors; {{}} of .*"
    rf"encoder\.name={DEFAULT} to change to it$"  # no bridge leads from looks
)
VECTORS = rf"most of the store's vectors of looks are of {LITE0}, .* \({NUM} vectors; {{}} of "


def stocked(posts: Posts, **encoder) -> None:
    for n in range(NUM):
        posts.post(n)
    posts.detected(list(range(NUM)))
    posts.embed(encoder=OLD | encoder)


@pytest.mark.parametrize("before", [{}, {"colour": 0.7, "store_dtype": "float16"}])
def test_looks_of_an_earlier_default_are_not_embedded_anew_unasked(posts, before):
    stocked(posts, **before)
    for job in (posts.embed, posts.index):
        with pytest.raises(UsageError, match=VECTORS.format(0)):
            job()
    posts.index(encoder=OLD | before)
    for job in (posts.embed, posts.index):
        with pytest.raises(UsageError, match=INDEX.format(0)):
            job()
    with pytest.raises(UsageError, match="most of the store's vectors are"):
        w2w.embed(store=posts.store)


def test_looks_go_over_to_todays_default_and_need_no_name_from_then_on(posts):
    stocked(posts)
    posts.index(encoder=OLD)
    posts.detected([0], "d2")
    assert posts.embed(encoder=NEW).counts.out == 1
    posts.detected(list(range(1, NUM)), "d2")
    posts.embed(encoder=NEW)
    with pytest.raises(UsageError, match=INDEX.format(NUM)):
        posts.index()
    posts.index(encoder=NEW)
    assert posts.embed().pending == 0
    assert posts.index().unchanged
    assert posts.index(dry_run=True).model_version == posts.embed(dry_run=True).model_version


def test_where_there_are_no_looks_yet_the_catalog_tells(posts):
    for n in range(NUM):
        posts.post(n)
    w2w.embed(store=posts.store, encoder=OLD, pool={"workers": 1})
    with pytest.raises(UsageError, match=rf"most of the store's vectors are of {LITE0}, .* \({NUM + 1} vectors; 0 of "):
        posts.embed()


def test_the_catalog_says_nothing_of_looks_that_are_there(posts):
    """Its index, which is of today's default, does not keep looks of an earlier one from being asked for; nor the other way."""
    stocked(posts)
    w2w.embed(store=posts.store, encoder=NEW, pool={"workers": 1})
    w2w.index(store=posts.store, encoder=NEW)
    with pytest.raises(UsageError, match=VECTORS.format(0)):
        posts.embed()
    assert w2w.embed(store=posts.store).pending == 0
    assert w2w.index(store=posts.store).unchanged
    with pytest.raises(UsageError, match=VECTORS.format(0)):
        nightly.main(nightly.Config(store=posts.store, looks=True, dry_run=True))
    posts.embed(encoder=NEW)
    assert posts.embed().pending == 0
