"""A store of the wardrobe's clothes, made by the jobs themselves in this process, without Ray; it sells no hats and no bags."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

import w2w
from tests.unit.nights.nights import without_ray
from w2w.find import crops, finder
from w2w.recommend import flow_photo
from w2w.wardrobe.shop import write_shop

_LOADED: dict[str, object] = {}
SOLD = ["bottom", "dress", "outer", "shoes", "top"]


@dataclass(frozen=True)
class Shop:
    """``photos``: street photos, in order; ``worn``: what is worn in each, as posts.jsonl has it."""

    folder: Path
    store: str
    photos: list[str]
    worn: list[list[dict]]


@pytest.fixture(scope="package", autouse=True)
def models_are_loaded_once():
    """A second of CPU each."""

    def once(load):
        def loaded(*args):
            key = repr((load, args))
            return _LOADED[key] if key in _LOADED else _LOADED.setdefault(key, load(*args))

        return loaded

    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (crops, finder, flow_photo):
            for name in ("Detector", "load_encoder", "load_segmenter"):
                if hasattr(module, name):
                    monkeypatch.setattr(module, name, once(getattr(module, name)))
        yield


@pytest.fixture(scope="package")
def shop(tmp_path_factory) -> Shop:
    folder = tmp_path_factory.mktemp("wardrobe")
    write_shop(folder / "shop", 3, 40, 6)
    store, feed = str(folder / "store"), {"uri": str(folder / "shop" / "products.csv"), "where": {"category": SOLD}}
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_ray(monkeypatch)
        w2w.nightly(store=store, feed=feed, pool={"workers": 1})
    posts = [json.loads(line) for line in (folder / "shop" / "posts.jsonl").read_text().splitlines()]
    return Shop(folder, store, [str(folder / "shop" / p["image"]) for p in posts], [p["items"] for p in posts])
