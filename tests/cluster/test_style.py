"""`w2w embed --of=looks`, `w2w index --of=looks` and `w2w style` with a real Ray."""

from pathlib import Path

import w2w
from tests.unit.style.conftest import NUM, make_posts


def test_looks_are_embedded_by_workers_and_found(tmp_path):
    made = make_posts(tmp_path)
    for n in range(NUM):
        made.post(n, products=("coat", "hat", "gone") if n == 2 else ())
    made.detected(list(range(NUM)), nobody=(1,))
    done = made.embed(ray={"num_cpus": 2}, item_rows=2)
    assert (done.counts.read, done.counts.out, done.counts.rejects) == (NUM, NUM, {})
    assert made.embed().counts.read == 0
    assert made.index().published
    found = w2w.style(photos=[tmp_path / "2.jpg", tmp_path / "4.jpg"], store=made.store, k=3)
    assert [a.looks[0].post_id for a in found.answers] == ["post-2", "post-4"]
    assert [p.product_id for p in found.answers[0].looks[0].products] == ["coat", "hat"]
    made.post(4, active=False)
    made.index()
    (gone,) = w2w.style(photos=[tmp_path / "4.jpg"], store=made.store, k=NUM).answers
    assert [look.post_id for look in gone.looks if look.post_id == "post-4"] == []
    assert len(gone.looks) == NUM - 1
    assert Path(found.report).exists()
