"""`w2w train RECIPE`: its help, and the older name of one of the recipes."""

import pytest

from w2w.cli.main import JOBS
from w2w.config import parse
from w2w.engine.training import Workers
from w2w.errors import UsageError
from w2w.training import job as train
from w2w.training.detectors import job as train_detector
from w2w.training.detectors.config import TrainConfig

OWN = {  # recipe -> groups that others do not read, or not all of them
    "encoder": {"encoder", "learn", "train", "sources"},
    "head": {"encoder", "learn", "train", "sources"},
    "outfits": {"encoder", "outfits", "train", "sources", "published"},
    "siamese": {"encoder", "lookbook", "train", "published"},
    "pixeldtgan": {"encoder", "lookbook", "train", "published"},
    "detector": {"detector", "sources"},
}


def help_of(*argv: str, capsys) -> str:
    with pytest.raises(SystemExit) as end:
        parse(train.Config, argv, "w2w train")
    assert end.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("recipe", train.RECIPES)
@pytest.mark.parametrize("argv", [["{}", "--help"], ["{}", "--help", "all"], ["--recipe={}", "--help=all"]])
def test_the_help_of_a_recipe_is_of_its_own_options(recipe, argv, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    text = help_of(*(word.format(recipe) for word in argv), capsys=capsys)
    options = {line.split()[0].removeprefix("--").partition(".")[0] for line in text.splitlines() if line.startswith("  --")}
    assert options & set().union(*OWN.values()) == (options & OWN[recipe])
    assert {"store", "workers", "out"} <= options
    if "all" in "".join(argv):
        assert options >= OWN[recipe]
    else:
        assert len(text.splitlines()) <= 30


def test_without_a_recipe_the_help_is_of_what_all_read(capsys):
    text = help_of("--help", capsys=capsys)
    assert all(name in text for name in train.RECIPES)
    assert not any(f"--{name}." in text for name in ("encoder", "learn", "outfits", "lookbook", "detector", "train"))


def test_a_recipe_is_taken_by_its_place():
    assert parse(train.Config, ["head", "--store=S"], "w2w train") == train.Config("S", recipe="head")
    with pytest.raises(UsageError, match="option --recipe has two values: 'head' and 'outfits'"):
        parse(train.Config, ["head", "--store=S", "--recipe=outfits"], "w2w train")
    with pytest.raises(UsageError, match=r"recipe=heads: unknown\. Did you mean 'head'"):
        parse(train.Config, ["heads", "--help"], "w2w train")


def test_what_is_no_recipe_is_told_before_what_is_missing():
    with pytest.raises(UsageError, match=r"recipe=L2: unknown\. Allowed: encoder, head, .*, module:attribute"):
        parse(train.Config, ["L2"], "w2w train")
    with pytest.raises(UsageError, match="missing required option: store"):
        parse(train.Config, ["head"], "w2w train")


def test_the_older_name_of_recipe_detector(monkeypatch):
    assert "train-detector" in JOBS
    asked = []
    monkeypatch.setattr(train, "main", asked.append)
    argv = [
        "--store=S",
        "--recipe=ours:F",
        "--train.epochs=3",
        "--workers.num_workers=2",
        "--out=o",
        "--limit=5",
        "--resume=false",
    ]
    train_detector.main(parse(train_detector.Config, argv, "w2w train-detector"))
    settings = TrainConfig(start="ours:F", epochs=3)
    more = {"workers": Workers(num_workers=2), "out": "o", "limit": 5, "resume": False}
    assert asked == [train.Config("S", recipe="detector", detector=settings, **more)]
