import numpy as np

from w2w.training.lookbook.page import Found, lookbook_report
from w2w.training.page import Curve


def test_the_page_shows_ours_beside_the_reports_and_escapes_names(tmp_path):
    picture = np.full((20, 20, 3), 200, np.uint8)
    seed = {"of": "The report", "precision": 0.652741, "recall": 0.910954, "F1": 0.760528, "accuracy": 0.713163}
    ours = {"of": "<b>ours</b>", "number": 40, "precision": 0.5, "recall": 0.25, "F1": 0.3333, "accuracy": 0.625}
    ours |= {"true positives": 5, "false positives": 5, "false negatives": 15, "true negatives": 15}
    top = [{"of": "The report", "products": 50, "k": k, "value": v} for k, v in ((1, 0.06), (5, 0.36))]
    top += [
        {"of": "<b>ours</b>", "products": 7, "k": k, "value": v, "ci_low": 0.125, "ci_high": 0.875}
        for k, v in ((1, 0.5), (5, 0.75))
    ]
    shown = [(picture, [(picture, False), (picture, True)])]
    page = tmp_path / "page.html"
    curves = {"Loss": [Curve("pairs", [(1, 2.0), (2, 1.0)])], "Held out": []}
    lookbook_report(
        str(page), "Siamese", "note", {"F1": "0.333"}, {"data": "<i>x"}, curves, Found([seed, ours], top, shown, [])
    )
    text = page.read_text()
    for part in ("0.653", "0.713", "0.625", "Experiment 1", "Experiment 2: which of 7", "0.125 to 0.875"):
        assert part in text
    assert "<b>ours" not in text
    assert "<i>x" not in text
    assert text.count('class="picture right"') == 1
    assert "Held out" not in text
    assert "drawn" not in text
    lookbook_report(str(page), "Gan", "note", {}, {}, {}, Found([], top, shown, [picture]))
    text = page.read_text()
    assert "Experiment 3: which of 7" in text
    assert "Experiment 1" not in text
    assert 'alt="drawn"' in text
