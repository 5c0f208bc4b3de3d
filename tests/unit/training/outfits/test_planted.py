"""The wardrobe's planted rule from the default encoder's vectors, on products that were not trained on."""

from pathlib import Path

import pytest

from tests.unit.training.outfits.planted import garments, outfits, rule_blanks, vectors
from w2w.models.compatibility import load_scorer
from w2w.training.config import LoopConfig
from w2w.training.loop import Training, fit
from w2w.training.outfits.config import OutfitsConfig
from w2w.training.outfits.measure import figures
from w2w.training.outfits.recipe import Compatibility, batches


@pytest.mark.soak
def test_a_rule_that_shows_is_learnt_for_products_never_seen(tmp_path):
    shops = {}
    for name, seed, num, count in (("train", 11, 1000, 4000), ("test", 13, 300, 1500)):
        chosen = garments(seed, num, only_telling=True)
        made = outfits(chosen, vectors(chosen), count, 4 if name == "train" else 1, seed)
        shops[name] = (made, rule_blanks(chosen, made, seed))
    loop = LoopConfig(steps=370, average=0.98, measure_every=370, checkpoint_every=370, select="AUC")
    config, (train, _) = OutfitsConfig(), shops["train"]
    fit(Training(Compatibility(config, train), batches(config, loop, train), loop), lambda _, write: write(Path(tmp_path)))
    found = figures(load_scorer(tmp_path / "model")[0], *shops["test"])
    assert found["AUC"] >= 0.95
    assert found["FITB"] >= 0.85
