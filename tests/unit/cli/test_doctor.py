"""The doctor's checks leave nothing behind, and say what an optional package is for."""

import os
from pathlib import Path

import pytest
from huggingface_hub import constants

from w2w.cli import checks
from w2w.errors import UsageError
from w2w.extras import EXTRAS
from w2w.garments.detector import DetectorConfig
from w2w.garments.segmenter import SegmenterConfig
from w2w.models.config import EncoderConfig
from w2w.storage import cache_folder


def found(store: str | None = None) -> dict:
    return dict(checks.checks(EncoderConfig(), DetectorConfig(), SegmenterConfig(), store))


def test_caches_are_read_and_not_written(tmp_path, monkeypatch):
    monkeypatch.setenv("W2W_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    kept = tmp_path / "cache" / "openvino" / "a.xml"
    kept.parent.mkdir(parents=True)
    kept.write_text("converted")
    before = dict(os.environ)

    def converts(name: str) -> str:
        assert (cache_folder() / "openvino" / "a.xml").read_text() == "converted"
        (cache_folder() / "openvino" / name).write_text("new")
        (Path.home() / "stats").write_text("new")
        assert constants.HF_HUB_OFFLINE
        raise UsageError(str(cache_folder()))

    with pytest.raises(UsageError) as e:
        checks._untouched(converts, "b.xml")
    assert not Path(str(e.value)).exists()
    assert list(tmp_path.rglob("*.xml")) == [kept]
    assert dict(os.environ) == before
    assert not constants.HF_HUB_OFFLINE


def test_a_store_that_is_not_there_is_not_made(tmp_path):
    assert found(str(tmp_path / "a" / "b"))["store can be written"]() == f"{tmp_path}/a/b, which does not exist yet"
    assert found(str(tmp_path))["store can be written"]() == str(tmp_path)
    (tmp_path / "file").write_text("")
    for place, why in (("file", "no folder"), ("file/x", "no folder")):
        with pytest.raises(UsageError, match=f"cannot write there: {tmp_path}/file is {why}"):
            found(str(tmp_path / place))["store can be written"]()
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="lost is no folder"):
        found(str(tmp_path / "lost" / "x"))["store can be written"]()
    assert {p.name for p in tmp_path.iterdir()} == {"file", "lost"}


@pytest.mark.parametrize("there", [True, False])
def test_every_extra_is_told_with_its_use(monkeypatch, there):
    monkeypatch.setattr(checks, "installed", lambda module: there)
    said = {name.removeprefix("extra "): check() for name, check in found().items() if name.startswith("extra ")}
    assert set(said) == set(EXTRAS.values())
    for extra, text in said.items():
        assert f"(pip install 'w2w[{extra}]')" not in text if there else f"not installed (pip install 'w2w[{extra}]')" in text
        assert text.endswith(f": for {checks._FOR[extra]}")
    assert said["sam"].startswith("segment_anything")


def test_weights_are_looked_for():
    said = {name: check() for name, check in found().items() if name in ("detector", "segmenter")}
    assert said["detector"].startswith("w2w-lite0: its weights are there")
    assert said["segmenter"].startswith("u2netp: its weights are there")
    missing = dict(checks.checks(EncoderConfig(), DetectorConfig(name="/no/such"), SegmenterConfig(), None))
    with pytest.raises(UsageError, match=r"detector\.name=/no/such: "):
        missing["detector"]()
