"""Files of bridges: what is written is read, and what is not a bridge is a sentence."""

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save

from w2w.errors import UsageError
from w2w.table import bridges
from w2w.table.bridges import Bridge

BRIDGE = Bridge("a" * 16, "b" * 16, np.float32([[1, 0, 0], [0, 2, 0]]), np.float32([0, 0, 1]), {"sample": 7})


def test_what_is_written_is_read(tmp_path):
    uri = bridges.uri_of(str(tmp_path), "x")
    bridges.write(uri, BRIDGE)
    again = bridges.read(uri)
    assert (again.old, again.new, again.told, again.version) == (BRIDGE.old, BRIDGE.new, {"sample": 7}, BRIDGE.version)
    assert again(np.float32([[0, 1]])) == pytest.approx(np.float32([[0, 2, 1]]) / np.sqrt(5))


def test_the_version_tells_of_models_and_map_alone():
    others = [replace(BRIDGE, old="c" * 16), replace(BRIDGE, new="c" * 16), replace(BRIDGE, bias=BRIDGE.bias * 2)]
    others.append(replace(BRIDGE, matrix=BRIDGE.matrix * 2))
    assert len({BRIDGE.version, *(other.version for other in others)}) == 5
    assert replace(BRIDGE, told={}).version == BRIDGE.version


def test_what_cannot_be_computed_stays_so():
    found = BRIDGE(np.float32([[np.nan, 1], [1, 0]]))
    assert np.isnan(found[0]).any()
    assert np.isfinite(found[1]).all()


def test_what_a_strangers_file_tells_is_no_error():
    figure = {"value": 0.8, "low": 0.7, "high": 0.9, "num": 5}
    assert replace(BRIDGE, told={bridges.RECALL: {"of old": figure}}).recall["of old"].value == 0.8
    for strange in (None, [], "x", {"of old": None}, {"of old": {"value": "x"}}, {"of old": figure | {"low": []}}):
        assert replace(BRIDGE, told={bridges.RECALL: strange}).recall == {}
    numbers = replace(BRIDGE, told={"a": 3, "b": "3", "c": float("nan"), "d": -1})
    assert [numbers.number(name) for name in "abcde"] == [3, 0, 0, 0, 0]


def damaged() -> dict[str, bytes]:
    about = {"old": BRIDGE.old, "new": BRIDGE.new, "told": "{}"}
    whole = {"matrix": BRIDGE.matrix, "bias": BRIDGE.bias}
    return {
        "empty": b"",
        "text": b"a bridge",
        "cut": save(whole, about)[:-3],
        "no bias": save({"matrix": BRIDGE.matrix}, about),
        "another length": save(whole | {"bias": BRIDGE.bias[:2]}, about),
        "float64": save(whole | {"bias": BRIDGE.bias.astype(float)}, about),
        "NaN": save(whole | {"bias": BRIDGE.bias * np.float32(np.nan)}, about),
        "no metadata": save(whole),
        "a path for a version": save(whole, about | {"old": "../../x"}),
        "a list told": save(whole, about | {"told": json.dumps([1])}),
    }


@pytest.mark.parametrize("kind", damaged())
def test_other_files_are_refused_and_passed_over(tmp_path, kind):
    uri = bridges.uri_of(str(tmp_path), "bad")
    (tmp_path / "bridges").mkdir()
    (tmp_path / "bridges" / "bad.safetensors").write_bytes(damaged()[kind])
    with pytest.raises(UsageError, match=r"encoder\.bridge=.*bad\.safetensors: is no bridge, or damaged"):
        bridges.read(uri)
    bridges.write(bridges.uri_of(str(tmp_path), "good"), BRIDGE)
    found = bridges.find(str(tmp_path), BRIDGE.version)
    assert found is not None
    assert found[0] == bridges.uri_of(str(tmp_path), "good")
    assert bridges.find(str(tmp_path), BRIDGE.old) is None


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        bridges.read(str(tmp_path / "none.safetensors"))
    assert bridges.find(str(tmp_path), BRIDGE.version) is None
