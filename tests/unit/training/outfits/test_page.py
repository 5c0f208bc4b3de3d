from dataclasses import replace

import numpy as np
import pytest

from w2w.training.outfits.flow_results import similarity, thresholds
from w2w.training.outfits.page import Judged, PublishedTable, compatibility_report


def test_the_page_shows_both_kinds_and_escapes_names(tmp_path):
    rows = [{"threshold": 0.7, "worn": 0.75, "modified": 0.125, "told": 0.8125}]
    rng = np.random.default_rng(0)
    cosines = Judged("<b>mine</b>", "says", {"AUC": 0.9876, "FITB": 0.5}, rng.uniform(0, 1, 50), rng.uniform(-1, 0, 50), rows)
    page = tmp_path / "page.html"
    compatibility_report(str(page), "outfits", ["a <note>"], {"outfits": 50}, [cosines])
    text = page.read_text()
    assert "<b>mine" not in text
    assert "a &lt;note&gt;" in text
    for shown in ("0.988", "0.812", "polygon", "mean cosine"):
        assert shown in text
    worn, modified = (
        [float(p.split(",")[0]) for p in text.split(f'class="{kind}"><polygon points="')[1].split('"')[0].split()]
        for kind in ("worn", "modified")
    )
    assert len(worn) == len(modified) == 2 + 2 * 40
    assert "http://" not in text.replace("http://www.w3.org", "")
    chance = Judged("set", "says", {"AUC": 0.5}, np.ones(3), np.full(3, 0.5), rows, probability=True)
    compatibility_report(str(page), "outfits", [], {}, [cosines, chance])
    text = page.read_text()
    assert "probability of going together" in text
    assert text.count("<svg") == 2
    theirs = PublishedTable(
        [{"threshold": 0.7, "original": 0.25, "modified": 0.125, "pair": 0.375}],
        {0.7: (0.4, 0.3, 0.2)},
        rng.uniform(0, 1, 9),
        0.334,
    )
    compatibility_report(str(page), "outfits", [], {}, [replace(cosines, published=theirs)])
    text = page.read_text()
    assert text.count("<svg") == 2
    for shown in ("0.250 (0.400)", "0.125 (0.300)", "0.375 (0.200)", "33.4 %", "outfit to modified outfit"):
        assert shown in text


def test_shares_and_spreads_are_told_as_numbers():
    rows = [{"threshold": 0.5, "worn": 1.0, "modified": 0.0, "told": 1.0}]
    source = PublishedTable([{"threshold": 0.7, "original": 0.25}], {}, np.ones(1), 1 / 3)
    judged = [
        Judged("raw", "says", {}, np.array([0.2, 0.4]), np.array([0.1]), rows, published=source),
        Judged("ours", "says", {}, np.array([1.0]), np.empty(0), rows),
    ]
    assert thresholds(judged) == {"raw": rows, "ours": rows, "what2wear": [{"threshold": 0.7, "original": 0.25}]}
    assert thresholds(judged[1:]) == {"ours": rows}
    assert similarity(judged) == {
        "raw": {
            "worn": pytest.approx(0.3),
            "modified": pytest.approx(0.1),
            "worn_deviation": pytest.approx(0.1),
            "modified_deviation": 0.0,
        },
        "ours": {"worn": 1.0, "worn_deviation": 0.0},
    }
