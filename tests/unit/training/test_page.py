import io

import numpy as np
from PIL import Image

from w2w.garments.page import Box, Seen
from w2w.metrics.detection import AP_SCHEMA
from w2w.training.page import Curve, detector_report


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
