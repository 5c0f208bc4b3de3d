"""Recipes by name."""

from w2w.training.config import OURS, TrainConfig, kind_of, start_folder
from w2w.training.loop import Recipe


def make_recipe(recipe: str, config: TrainConfig) -> Recipe:
    """The recipe with its network loaded. Raises UsageError for weights that are not there."""
    kind, _ = kind_of(recipe)
    if kind == OURS:
        from w2w.training.ours import Ours

        return Ours(config, start_folder(recipe))
    from w2w.training.pretrained import Pretrained

    return Pretrained(config, start_folder(recipe))
