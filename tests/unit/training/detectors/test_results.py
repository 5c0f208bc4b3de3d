"""What is said of a detector that found nothing, or had nothing to find."""

import json

import numpy as np
import pytest

from w2w.garments.detector import DetectorConfig
from w2w.metrics.detection import Judged
from w2w.results import words
from w2w.training.detectors import flow_results
from w2w.training.detectors.job_judge import Result

NONE = np.empty((0, 4), np.float32)


@pytest.mark.parametrize(("truths", "says", "recall"), [(1, "nothing was found, 0.000", 0.0), (0, "nothing is there", None)])
def test_what_is_none_is_no_figure(tmp_path, monkeypatch, truths, says, recall):
    boxes = np.array([[0, 0, 9, 9]] * truths, np.float32).reshape(-1, 4)
    judged = Judged("s", boxes, ["top"] * truths, NONE, ["top", "bag"], NONE, [], np.empty(0, np.float32))
    monkeypatch.setattr(flow_results, "judge_photos", lambda *_: ([judged], []))
    detector = DetectorConfig(f"{tmp_path}/my-detector/", threshold=0.5)
    told = flow_results.measure(None, ["k"], detector, 0, str(tmp_path), {"detector": "mine"})
    assert (told["precision"], told["recall"]) == (None, recall)
    page = (tmp_path / "report.html").read_text()
    assert says in page
    assert "<title>Detector my-detector</title>" in page
    assert str(tmp_path) not in page
    result = Result(
        job="judge", run_id="r", detector="d", detector_version="v", split="test", photos=1, table_version=1, **told
    )
    assert "nan" not in str(words(result)) + page + (tmp_path / "metrics.json").read_text().lower()
    values = {row["value"] for row in json.loads((tmp_path / "metrics.json").read_text())}
    assert values == ({0.0} if truths else {None})
