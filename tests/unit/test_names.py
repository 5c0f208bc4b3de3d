"""Free text of options that becomes a part of keys, folders' names and tables."""

import pytest

from w2w.crawl.profile import Profile
from w2w.errors import UsageError
from w2w.evaluation import job_evaluate as evaluate
from w2w.garments.formats import AnnotationsConfig
from w2w.index.spec import IndexConfig
from w2w.ingest.feed import FeedConfig, check_feed
from w2w.mining.sets import SetConfig

BAD_NAMES = ["", " ", "a/b", "..", ".x", "a\0b", "a\n", "a b", "ä", "x" * 101, "%2e"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_becomes_a_part_of_keys_and_folders_is_a_plain_name(name):
    makers = {
        "feed.id": lambda: check_feed(FeedConfig(uri="x", id=name)),
        "index.name": lambda: IndexConfig(name=name),
        "the profile's name": lambda: Profile(name=name, start=["https://a.test/"]),
        "annotations.source": lambda: AnnotationsConfig(source=name),
        "set.source": lambda: SetConfig(source=name),
    }
    for option, make in makers.items():
        with pytest.raises(UsageError, match=f"^{option}='.*letters, digits"):
            make()


@pytest.mark.parametrize("label", ["", " \t", "a\0b", "a\nb", "x" * 101, "\x1b[2J"])
def test_what_becomes_the_name_of_a_class_or_figure_is_a_line_of_text(label):
    makers = {
        "feed.category_default": lambda: check_feed(FeedConfig(uri="x", category_default=label)),
        "feed.category_map.shirt": lambda: check_feed(FeedConfig(uri="x", category_map={"shirt": label})),
        "profile a: category_default": lambda: Profile(name="a", start=["https://a.test/"], category_default=label),
        "--name": lambda: evaluate.main(evaluate.Config(store="s", match=["sku"], name=label)),
    }
    for option, make in makers.items():
        with pytest.raises(UsageError, match=f"^{option}='.*printable"):
            make()


def test_a_set_is_not_called_what_the_stores_own_pairs_are():
    with pytest.raises(UsageError, match="the store's own"):
        SetConfig(source="own")
