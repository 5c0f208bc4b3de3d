"""Recipes by name."""

from collections.abc import Sequence

from w2w.training.detectors.config import OURS, TrainConfig, kind_of, start_folder
from w2w.training.detectors.photos import Photo
from w2w.training.loop import Recipe


def make_recipe(recipe: str, config: TrainConfig, val: Sequence[Photo] = ()) -> Recipe:
    """The recipe with its network loaded; it evaluates on ``val``. Raises UsageError for missing weights."""
    kind, named = kind_of(recipe)
    if kind == OURS:
        from w2w.training.detectors.ours import Ours

        return Ours(config, start_folder(recipe) if named else None, val)
    from w2w.training.detectors.pretrained import Pretrained

    return Pretrained(config, start_folder(recipe), val)
