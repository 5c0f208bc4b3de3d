import pytest

from tests.unit.garments.models import save_detector
from w2w.errors import UsageError
from w2w.garments.own import DEFAULT_FOLDER
from w2w.training.detectors.config import TrainConfig, check_recipe, filled


@pytest.mark.parametrize("recipe", ["ours", f"ours:{DEFAULT_FOLDER}", "ours:w2w-lite0", "yolo:yolo11n.yaml"])
def test_recipes(recipe):
    check_recipe(recipe)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("our", "must be ours, ours:FOLDER"),
        ("hf:", "must be ours"),
        ("yolo:nowhere.pt", "no such file"),
        ("ours:/nowhere", "neither a folder"),
        (f"hf:{DEFAULT_FOLDER}", "is a detector of ours"),
    ],
)
def test_a_recipe_that_is_not_there_is_named(recipe, said):
    with pytest.raises(UsageError, match=said):
        check_recipe(recipe)


def test_weights_of_another_kind(tmp_path):
    save_detector(tmp_path, "yolos")
    check_recipe(f"hf:{tmp_path}")
    with pytest.raises(UsageError, match="is not a detector of ours"):
        check_recipe(f"ours:{tmp_path}")


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"height_px": 100}, {"val_share": 1.0}, {"learning_rate": 0.0}, {"average": 1.0}, {"threads": 0}]
)
def test_settings_out_of_range(wrong):
    with pytest.raises(UsageError, match=f"detector.{next(iter(wrong))}"):
        TrainConfig(**wrong)


def test_the_rate_follows_the_recipe():
    assert filled(TrainConfig(), "ours").learning_rate == 1.5e-3
    assert filled(TrainConfig(), "hf").learning_rate == 5e-5
    assert filled(TrainConfig(learning_rate=0.1), "hf").learning_rate == 0.1
