"""Explanations name the patches that count, on real pictures."""

import pytest

from tests.bench import explain_faithful


@pytest.mark.slow
def test_hiding_the_patches_that_count_lowers_the_cosine_more_than_hiding_others(real_images, monkeypatch):
    monkeypatch.setattr(explain_faithful, "DATA", real_images)
    for found in explain_faithful.all_three(16):
        print(found)
        assert found["low"] > 0, found
        assert found["exact"] == (found["encoder"] == "efficientnet-lite0")
