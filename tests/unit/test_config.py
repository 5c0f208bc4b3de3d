"""Options: YAML and dotted overrides, and a sentence for every mistake."""

from dataclasses import dataclass, field

import pytest

from w2w.config import nearest, parse
from w2w.errors import UsageError


@dataclass(frozen=True)
class Model:
    """The model."""

    name: str = "lite0"
    """Which one."""
    threads: int | None = None


@dataclass(frozen=True)
class Config:
    """A job."""

    store: str
    """Where."""
    model: Model = Model()
    """What."""
    columns: dict[str, str] = field(default_factory=dict)
    dry_run: bool = False


def test_options_win_over_the_file(tmp_path):
    (tmp_path / "c.yaml").write_text("store: s3://b/x\nmodel: {name: vit, threads: 2}\ncolumns: {id: sku}\n")
    got = parse(Config, [f"--config={tmp_path}/c.yaml", "--model.threads=4", "--columns.title=name", "--dry-run"], "w2w x")
    assert got == Config("s3://b/x", Model("vit", 4), {"id": "sku", "title": "name"}, True)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--store=a", "--model.nam=x"], "option --model.nam does not exist. Did you mean 'model.name'?"),
        (["--store=a", "--model.threads=x"], "option --model.threads: 'x' is not of type int | None"),
        ([], "missing required option: store"),
        (["--store=a", "stray"], "unrecognized arguments: stray"),
        (["--config"], "--config needs the path of a YAML file"),
        (["--config=/no/such.yaml"], "--config=/no/such.yaml: No such file or directory"),
    ],
)
def test_mistakes_on_the_command_line(argv, sentence):
    with pytest.raises(UsageError) as error:
        parse(Config, argv, "w2w x")
    assert str(error.value) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("store: a\nmodel: {nme: 1}\n", "key 'model.nme' does not exist. Did you mean 'model.name'?"),
        ("store: [a\nb: 1\n", "line 2, column 2: not valid YAML"),
        ("- a\n- b\n", "expected keys and values at the top level, found list"),
        ("store: a\nmodel: {threads: many}\n", "option --model.threads: 'many' is not of type int | None"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        parse(Config, ["--config", f"{tmp_path}/c.yaml"], "w2w x")
    assert sentence in str(error.value)


def test_help_shows_every_option_with_its_text(capsys):
    with pytest.raises(SystemExit) as end:
        parse(Config, ["--help"], "w2w x")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert "--model.name NAME" in shown
    assert "Which one." in shown


@dataclass(frozen=True)
class Trial:
    """A job with an option that Python has another use for."""

    try_: str = ""
    """Which."""


@pytest.mark.parametrize("argv", [["--try", "a"], ["--try=a"]])
def test_a_field_may_be_called_like_a_keyword(argv):
    assert parse(Trial, argv, "w2w x") == Trial("a")


def test_where_nothing_is_allowed_no_empty_list_is_shown():
    assert nearest("v1", []) == " There are none."
    assert nearest("v1", ["v11"]) == " Did you mean 'v11'?"
    assert nearest("x", ["abc", "def"]) == " Allowed: abc, def."
