import io

import numpy as np
from bs4 import BeautifulSoup
from PIL import Image

from w2w.garments.page import Box, Seen
from w2w.metrics.detection import AP_SCHEMA
from w2w.training.page import Curve, Figures, detector_report, encoder_report


def test_the_page_holds_everything_and_escapes_it(tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.full((60, 40, 3), 90, np.uint8)).save(out, "JPEG")
    rows = [
        {"source": None, "category": c, "metric": m, "value": v, "num_truths": 3}
        for c, v in ((None, 0.25), ("<i>top</i>", 0.125))
        for m in ("mAP", "AP50")
    ]
    import pyarrow as pa

    page = tmp_path / "report.html"
    detector_report(
        str(page),
        "<b>mine</b>",
        {"AP50": "0.250"},
        {"photos": 1},
        {"Loss": [Curve("<u>loss</u>", [(1, 2.0), (2, 1.0)])], "Never measured": [Curve("mAP", [])]},
        pa.Table.from_pylist(rows, AP_SCHEMA),
        [Seen("<script>x", out.getvalue(), [Box("top", "top", 0.9, (4, 4, 30, 30))])],
    )
    text = page.read_text()
    for raw in ("<b>mine", "<i>top", "<u>loss", "<script>x"):
        assert raw not in text
    assert "0.125" in text
    assert "polyline" in text
    assert "data:image/jpeg;base64," in text
    assert "Never measured" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")


def test_what_got_worse_comes_first_and_a_loss_is_one_line(tmp_path):
    def row(value, low=0.0, high=1.0):
        return {"value": value, "ci_low": low, "ci_high": high}

    groups = {
        None: (0.5, 0.6, 0.1, 0.05, 0.15),
        "<i>shoes": (0.7, 0.6, -0.1, -0.2, -0.01),
        "top": (0.5, 0.45, -0.05, -0.1, 0.1),
    }
    groups["bag"] = (0.2, 0.9, 0.7, 0.6, 0.8)
    tables = [
        Figures(when, ["Recall@1"], [(g, 9, [row(v[n], *(v[3:] if n == 2 else ()))]) for g, v in groups.items()])
        for n, when in enumerate(("before", "after", "gain"))
    ]
    lines = [
        Curve("contrastive", [(1, 2.0), (2, 1.0)]),
        Curve("loss", [(1, 2.0), (2, 1.0)]),
        Curve("other", [(1, 1.0), (2, 1.0)]),
    ]
    page = tmp_path / "report.html"
    encoder_report(str(page), "t", {}, {}, {"Loss": lines}, tables)
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    assert [row.td.get_text() for row in soup.select("tr") if row.td] == ["all", "<i>shoes", "top", "bag"]
    said = " ".join(soup.h2.find_next("p").get_text().split())
    assert [name in said for name in ("<i>shoes 0.700", "top 0.500", "bag")] == [True, True, False]
    assert "Chance does not explain it for <i>shoes:" in said
    assert "0.700 \u2192 0.600 \u25bc -0.200 to -0.010" in " ".join(soup.select("tr")[2].get_text(" ").split())
    labels = [t for t in soup.select("svg text") if t.get_text().startswith(("contrastive", "loss", "other"))]
    assert [t.get_text() for t in labels] == ["contrastive 1.000", "other 1.000"]
    assert float(labels[1]["y"]) - float(labels[0]["y"]) >= 15  # at the same height, and none over the other
