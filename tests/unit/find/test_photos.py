"""What is named on the command line becomes photos that can be loaded."""

import os

import pytest

from w2w.errors import UsageError
from w2w.find.photos import LISTED, listed
from w2w.find.watch import appearing, present
from w2w.ingest.feed import FeedConfig


def names(*places: str, **feed) -> list[tuple[str, str | None]]:
    rows, without = listed(places, FeedConfig(**feed))
    assert bool(without) >= (not rows.num_rows)
    assert rows.schema == LISTED
    return list(zip(rows["query_id"].to_pylist(), rows["code"].to_pylist()))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jpg", "b.PNG", "notes.md", "deep/c.webp", ".hidden.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_photos_folders_and_urls_in_their_order(folder):
    assert names("https://shop.example/x.jpg?w=1", "a.jpg", "b.PNG", "a.jpg") == [
        ("https://shop.example/x.jpg?w=1", None), ("a.jpg", None), ("b.PNG", None),
    ]  # fmt: skip
    assert names("./") == [("./a.jpg", None), ("./b.PNG", None), ("./deep/c.webp", None)]
    assert names(f"{folder}/deep") == [(f"{folder}/deep/c.webp", None)]
    assert names("notes.md") == [("notes.md", None)]  # which is told when it is looked at


def test_an_empty_folder_is_an_answer(tmp_path):
    assert names(str(tmp_path)) == []
    assert listed([str(tmp_path)], FeedConfig())[1] == (f"there is no photo in {tmp_path}",)


def test_a_feed_names_its_photos_and_its_broken_rows(folder):
    (folder / "photos.csv").write_text("id,image\nx,a.jpg\n,b.PNG\nx,b.PNG\ny,../out.jpg\nz,deep/c.webp\n")
    rows, _ = listed(["photos.csv"], FeedConfig(columns={"product_id": "id"}))
    found = dict(names("photos.csv", columns={"product_id": "id"}))
    assert {found["x"], found["z"]} == {None}
    assert sorted(filter(None, found.values())) == ["blocked_url", "duplicate_key", "missing_field"]
    assert rows.num_rows == 5
    assert [os.path.relpath(uri) for uri in rows["image_uri"].drop_null().to_pylist()] == ["a.jpg", "deep/c.webp"]


def test_a_table_without_names_names_each_photo_by_its_file(folder):
    (folder / "photos.csv").write_text("image,who\na.jpg,ann\nb.PNG,bob\na.jpg,cat\n")
    assert names("photos.csv")[:2] == [("a.jpg", None), ("b.PNG", None)]
    (folder / "named.csv").write_text("photo,who\na.jpg,ann\n")
    assert names("named.csv", columns={"image": "photo"}) == [("a.jpg", None)]
    with pytest.raises(UsageError, match="product_id"):
        names("named.csv")


def test_a_changed_photo_is_another_key(folder):
    before = listed(["a.jpg"], FeedConfig())[0]["key"][0]
    (folder / "a.jpg").write_bytes(b"longer than before")
    assert listed(["a.jpg"], FeedConfig())[0]["key"][0] != before


@pytest.mark.parametrize("place", ["nothing.jpg", "no/folder", "", "x" * 5000, "a\0b.jpg"])
def test_what_is_not_there_is_a_mistake(folder, place):
    with pytest.raises(UsageError):
        names(place)


def test_a_photo_appears_once_it_is_whole(folder):
    """The clock is this list of what happens between two looks."""
    growing = folder / "new.jpg"
    steps = iter(
        [
            lambda: growing.write_bytes(b"1"),
            lambda: growing.write_bytes(b"12"),
            lambda: None,
            lambda: (folder / "deep" / "d.jpg").write_bytes(b"1"),
            lambda: (folder / "a.jpg").write_bytes(b"another picture"),
            lambda: None,
        ]
    )
    seen = appearing(str(folder), present(str(folder)), lambda _: next(steps)())
    assert next(seen)["query_id"].to_pylist() == [f"{folder}/new.jpg"]
    assert next(seen)["query_id"].to_pylist() == [f"{folder}/deep/d.jpg"]
    assert next(seen)["query_id"].to_pylist() == [f"{folder}/a.jpg"]
    with pytest.raises(RuntimeError):  # nothing else was there before, or came
        next(seen)


def test_what_comes_before_the_first_look_is_new(tmp_path):
    there = present(str(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"x")
    seen = appearing(str(tmp_path), there, lambda _: None)
    assert next(seen)["query_id"].to_pylist() == [f"{tmp_path}/a.jpg"]
