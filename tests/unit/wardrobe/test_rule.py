import numpy as np

from tests.unit.training.outfits.planted import SLOTS, goes_together, planted_outfits, shows_style
from w2w.mining.sets.street import LookBook
from w2w.training.lookbook.pictures import Pictures, read_products
from w2w.wardrobe.garment import make_garment
from w2w.wardrobe.lookbook import write_lookbook

GARMENTS = [g for g in (make_garment(8, i) for i in range(700)) if g.category in SLOTS]


def test_planted_outfits_keep_the_rule_and_modified_ones_break_it():
    worn, modified = planted_outfits(GARMENTS, 40, 3, np.random.default_rng(0))
    assert worn.shape == (40, 3)
    assert modified.shape == (40, 3, 3)
    for row, others in zip(worn, modified):
        assert [GARMENTS[i].category for i in row] == list(SLOTS)
        assert goes_together([GARMENTS[i] for i in row])
        for other in others:
            assert [GARMENTS[i].category for i in other] == list(SLOTS)
            assert not goes_together([GARMENTS[i] for i in other])
            assert (other == row).sum() in (1, 2)  # a random garment may be the very one
    again = planted_outfits(GARMENTS, 40, 3, np.random.default_rng(0))
    assert (again[0] == worn).all()
    assert (again[1] == modified).all()


def test_among_garments_that_show_it_the_pattern_tells_the_style():
    telling = [g for g in GARMENTS if shows_style(g)]
    styles = {}
    for g in telling:
        styles.setdefault(g.pattern, set()).add(g.style)
    assert all(len(s) == 1 for s in styles.values())
    assert "solid" not in styles
    assert {s for found in styles.values() for s in found} == {g.style for g in GARMENTS}
    assert 0.3 < len(telling) / len(GARMENTS) < 0.6


def test_the_rule_is_about_style_and_hue():
    a = next(g for g in GARMENTS if g.colour_name == "red")
    same = next(g for g in GARMENTS if g.style == a.style and g.colour_name == "black")
    other_hue = next(g for g in GARMENTS if g.style == a.style and g.colour_name == "blue")
    other_style = next(g for g in GARMENTS if g.style != a.style and g.colour_name == "red")
    assert goes_together([a, a, same])
    assert not goes_together([same, a])  # the first gives the hue: red does not go with black shoes' hue
    assert not goes_together([a, other_hue])
    assert not goes_together([a, other_style])


def test_the_wardrobe_in_lookbooks_layout(tmp_path):
    assert write_lookbook(tmp_path / "a", 3, 2, worn_each=2, size_px=64) == 6
    write_lookbook(tmp_path / "b", 3, 2, worn_each=2, size_px=64)
    names = sorted(f.name for f in (tmp_path / "a").iterdir())
    assert names[:3] == [f"PID000000_CLEAN{c}_IID00000{i}.jpg" for c, i in ((0, 1), (0, 2), (1, 0))]
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)
    products = read_products(tmp_path / "a", least_worn=2)
    assert len(products) == 2
    seen = Pictures(32).read([products[0].clean, *products[0].worn])
    assert seen[0, 0, 0].min() > 230
    assert seen[1, 0, 0].min() < 230
    reader = LookBook(tmp_path / "a", 0, 0.5)
    assert len(list(reader.shops())) == 2
    assert len(list(reader.photos())) == 4
