"""Options: YAML and dotted overrides, and a sentence for every mistake."""

import dataclasses
import importlib
import re
from dataclasses import dataclass, field

import pytest

from w2w.cli.main import JOBS, module_of
from w2w.config import build, check_name, in_file, nearest, parse
from w2w.engine.job import start
from w2w.errors import JobFailed, UsageError
from w2w.usage import options


@dataclass(frozen=True)
class Model:
    """The model."""

    LEAST = {"threads": -2}

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


@dataclass(frozen=True)
class Lists:
    """Lists."""

    PLACES = {"FILE": "files"}

    files: list[str] = field(default_factory=list)
    """Positional."""
    extras: tuple[str, ...] = ()
    """Words."""
    match: list[str] | None = None
    """Words, or none."""
    sizes: list[int] | None = None
    """Numbers."""


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--extras", "outer"], Lists(extras=("outer",))),
        (["--extras=outer, bag", "--match", "sku"], Lists(extras=("outer", "bag"), match=["sku"])),
        (["--extras=[outer, bag]", "--match=null", "--sizes=[1]"], Lists(extras=("outer", "bag"), sizes=[1])),
        (["--extras=", "--files", "a,b.jpg"], Lists(files=["a,b.jpg"])),
        (["a,b.jpg", "c.jpg"], Lists(files=["a,b.jpg", "c.jpg"])),
        (["--match=a", "--match+=b"], Lists(match=["a", "b"])),
    ],
)
def test_words_may_be_listed_with_commas(argv, expected):
    assert parse(Lists, argv, "w2w x") == expected


def test_a_word_in_place_of_a_list_in_a_file_is_told(tmp_path):
    (tmp_path / "c.yaml").write_text("extras: outer\n")
    with pytest.raises(UsageError, match=r"extras: 'outer' is not a list of words, such as \[a, b\]"):
        parse(Lists, [f"{tmp_path}/c.yaml"], "w2w x")


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--store=a", "--model.nam=x"], "option --model.nam does not exist. Did you mean 'model.name'?"),
        (["--store=a", "--model.threads=x"], "option --model.threads: 'x' is not of type int | None"),
        ([], "missing required option: store; give it here or in a FILE.yaml: see w2w x --help"),
        (["--store=a", "stray"], "option --store has two values: 'a' and 'stray'"),
        (["a", "--store=b"], "option --store has two values: 'a' and 'b'"),
        (["--store=a", "--store=b"], "option --store has two values: 'a' and 'b'"),
        (["a", "b"], "'b' is not expected here: only --store can go without a name; see w2w x --help"),
        (["--store"], "option --store needs a value"),
        (["--store", "--dry-run"], "option --store needs a value"),
        (["a", "--zzz=1"], "option --zzz does not exist. See w2w x --help all."),
        (["-q"], "option --q does not exist. See w2w x --help all."),
        (["--help", "modle"], "--help modle: there is no such option. Did you mean 'model'?"),
        (["--config"], "--config needs the path of a YAML file"),
        (["--config=/no/such.yaml"], "--config=/no/such.yaml: No such file or directory"),
        (["/no/such.yaml"], "--config=/no/such.yaml: No such file or directory"),
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
        ("", "expected keys and values at the top level, found nothing"),
        ("store: a\nstore: b\n", "line 2, column 1: not valid YAML: duplicate key 'store'"),
        ("store: a\nmodel: {name: a, name: b}\n", "duplicate key 'name'"),
        ("store: " + 3000 * "[", "nested too deeply"),
        ("store: a\nmodel: {threads: many}\n", "option --model.threads: 'many' is not of type int | None"),
    ],
)
def test_mistakes_in_the_file(tmp_path, text, sentence):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError) as error:
        parse(Config, ["--config", f"{tmp_path}/c.yaml"], "w2w x")
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("argv", "message", "told"),
    [
        (["a.yaml"], "--model.threads=-9: too few", "a.yaml: model.threads=-9: too few"),
        (["a.yaml"], "option --model.threads: 'x' is not a number", "a.yaml: model.threads: 'x' is not a number"),
        (["a.yaml"], "columns: none of them", "a.yaml: columns: none of them"),
        (["a.yaml"], "columns.id=sku: not there", "a.yaml: columns.id=sku: not there"),
        (["a.yaml"], "--model.name=lite0: cannot be", "--model.name=lite0: cannot be"),  # the default
        (["a.yaml"], "store of another w2w", "store of another w2w"),
        (["a.yaml", "--model.threads=3"], "--model.threads=3: no", "--model.threads=3: no"),
        (["a.yaml", '--model={"threads": 3}'], "--model.threads=3: no", "--model.threads=3: no"),
        (["a.yaml", "--columns+={'x': 'y'}"], "columns.id=sku: no", "a.yaml: columns.id=sku: no"),
        (["a.yaml", "--config=b.yaml"], "--model.threads=3: no", "b.yaml: model.threads=3: no"),
        (["--config", "a.yaml", "c.yaml"], "--store=s: no", "--store=s: no"),  # c.yaml is no file
        (["--store=s"], "--store=s: no", "--store=s: no"),
    ],
)
def test_a_value_from_a_file_is_told_with_the_file(tmp_path, monkeypatch, argv, message, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("store: s\nmodel: {threads: -9}\ncolumns: {id: sku}\n")
    (tmp_path / "b.yaml").write_text("model: {threads: 3}\n")
    assert in_file(message, Config, argv, "w2w x") == told
    assert in_file(told, Config, argv, "w2w x") == told


def test_a_job_tells_where_the_value_stands_that_it_refuses(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)

    def main(config):
        raise UsageError(f"model.name={config.model.name}: unknown") if config.store == "s" else JobFailed("store=t: full")

    def run(text: str) -> tuple[int, str]:
        (tmp_path / "a.yaml").write_text(text)
        with pytest.raises(SystemExit) as end:
            start(main, Config, ["--json", "said.json", "a.yaml"], "w2w x")
        return end.value.code, capfd.readouterr().err

    assert run("store: s\nmodel: {name: y}\n") == (2, "w2w: a.yaml: model.name=y: unknown\n")
    assert run("store: s\nmodel: {threads: -9}\n") == (2, "w2w: a.yaml: model.threads=-9: must be at least -2\n")
    assert run("store: t\n") == (1, "w2w: store=t: full\n")


def test_places_and_files_need_no_name(tmp_path):
    (tmp_path / "c.yaml").write_text("store: s3://b/x\nmodel: {threads: 2}\n")
    (tmp_path / "d.yml").write_text("model: {threads: 3}\n")
    assert parse(Config, [f"{tmp_path}/c.yaml", "--dry-run", "a"], "w2w x") == Config("a", Model(threads=2), dry_run=True)
    assert parse(Config, [f"{tmp_path}/c.yaml", f"{tmp_path}/d.yml"], "w2w x").model == Model(threads=3)  # one over the other
    assert parse(Config, ["--model.threads", "-1", "a"], "w2w x") == Config("a", Model(threads=-1))
    assert parse(Config, ["a", "--dry_run", "false"], "w2w x") == Config("a")
    assert parse(Config, ["--dry_run", "a"], "w2w x") == Config("a", dry_run=True)


@pytest.mark.parametrize(
    ("argv", "said", "unsaid"),
    [
        (["--help"], ["--store PATH   Where. (required)", "--model.*", "all 6 options"], ["--model.name", "--config PATH"]),
        (["-h"], ["--store PATH"], ["--model.name"]),
        (["a", "--help", "all"], ["--model.name TEXT    Which one. [lite0]", "--model.threads INT", "--config PATH"], []),
        (["--help=model"], ["--model.name TEXT    Which one. [lite0]"], ["--store PATH", "--config PATH"]),
    ],
)
def test_help(argv, said, unsaid, capsys):
    with pytest.raises(SystemExit) as end:
        parse(Config, argv, "w2w x")
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert [text for text in said if text not in shown] == []
    assert [text for text in unsaid if text in shown] == []


@dataclass(frozen=True)
class Trial:
    """A job with an option that Python has another use for."""

    try_: str = ""
    """Which."""


@pytest.mark.parametrize("argv", [["--try", "a"], ["--try=a"]])
def test_a_field_may_be_called_like_a_keyword(argv):
    assert parse(Trial, argv, "w2w x") == Trial("a")


def test_names_have_a_length_and_its_limit_is_allowed():
    check_name("x" * 64, "feed.id", 64)
    check_name("x", "feed.id", 1)
    for name in ("x" * 65, "", ".x", "a/b"):
        with pytest.raises(UsageError, match=r"feed\.id=.*at most 64"):
            check_name(name, "feed.id", 64)


def test_where_nothing_is_allowed_no_empty_list_is_shown():
    assert nearest("v1", []) == " There are none."
    assert nearest("v1", ["v11"]) == " Did you mean 'v11'?"
    assert nearest("x", ["abc", "def"]) == " Allowed: abc, def."
    assert nearest("x", [f"{i:03}" for i in range(100)]).endswith(" 098, 099.")
    assert nearest("x", [f"{i:04}" for i in range(1000)]) == " Allowed: 1,000 others, for example 0000, 0001, 0002, 0003, 0004."


@dataclass(frozen=True)
class Sizes:
    """Numbers."""

    LEAST = {"rows": 1, "cosine": -1}

    rows: int = 8
    """How many."""
    cosine: float = 0.0
    share: float | None = None
    model: Model = Model()
    """What."""


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--rows=0"], "--rows=0: must be at least 1"),
        (["--rows=-3"], "--rows=-3: must be at least 1"),
        (["--cosine=-1.5"], "--cosine=-1.5: must be at least -1"),
        (["--share=-0.1"], "--share=-0.1: must not be negative"),
        (["--model.threads=-3"], "--model.threads=-3: must be at least -2"),
    ],
)
def test_numbers_have_a_least_value(argv, sentence):
    with pytest.raises(UsageError, match=f"^{sentence}$"):
        parse(Sizes, argv, "w2w x")


def test_numbers_from_python_have_it_too():
    with pytest.raises(UsageError, match=r"^rows=0: must be at least 1$"):
        build(Sizes, {"rows": 0}, "w2w x")
    with pytest.raises(UsageError, match=r"^model\.threads=-3: must be at least -2$"):
        build(Sizes, {"model": {"threads": -3}}, "w2w x")


@pytest.mark.parametrize("argv", [["--rows=1"], ["--cosine=-1"], ["--share=0"], ["--model.threads=0"]])
def test_the_least_value_itself_is_allowed(argv):
    parse(Sizes, argv, "w2w x")


def test_least_values_are_of_options_and_below_zero_only_for_cosines():
    signed = set()
    for name in JOBS:
        config_class = importlib.import_module(module_of(name)).Config
        for one in {o.group for o in options(config_class) if o.is_group} | set(config_class.__mro__[:-1]):
            least = vars(one).get("LEAST", {})
            assert set(least) <= {field.name for field in dataclasses.fields(one)}, one
            signed |= {option for option, bound in least.items() if bound < 0}
    assert signed == {"min_cosine", "least_similarity", "threshold", "min_score"}


@pytest.mark.parametrize(
    ("given", "meant"),
    [("{a:b}", "{a: b}"), ("{id: sku, a:b}", "{a: b}"), ("{a:b:c}", "{a: b:c}"), ("{'a:': }", "{a: }")],
)
def test_a_mapping_without_its_blanks_is_told(tmp_path, given, meant):
    said = f"is a name without a value: write a blank behind the colon, {meant}"
    with pytest.raises(UsageError, match=re.escape(said)) as typed:
        parse(Config, ["--store=s", f"--columns={given}"], "w2w x")
    assert str(typed.value).startswith("option --columns: {")
    (tmp_path / "c.yaml").write_text(f"store: s\ncolumns: {given}\n")
    with pytest.raises(UsageError, match=re.escape(said)) as filed:
        parse(Config, [f"{tmp_path}/c.yaml"], "w2w x")
    assert str(filed.value).startswith(f"{tmp_path}/c.yaml: key 'columns': {{")


@pytest.mark.parametrize("given", ["a:b", "[a]", "{a: b", "{a:"])
def test_what_is_no_mapping_is_told(given):
    with pytest.raises(UsageError, match=r"is not a mapping, such as '\{a: b\}'"):
        parse(Config, ["--store=s", f"--columns={given}"], "w2w x")


def test_colons_in_names_and_values_are_fine():
    assert parse(Config, ["--store=s", "--columns={https://x: y, id: 'a:b'}"], "").columns == {"https://x": "y", "id": "a:b"}


@dataclass(frozen=True)
class Step(Config):
    """A job with a group that is off."""

    more: Model | None = None
    """A step."""


def test_a_group_that_is_off_is_switched_on_by_its_options():
    assert parse(Step, ["--store=s"], "").more is None
    assert parse(Step, ["--store=s", "--more.threads=3"], "").more == Model(threads=3)
    assert parse(Step, ["--store=s", "--more", "{name: vit}"], "").more == Model("vit")
    with pytest.raises(UsageError, match=r"Did you mean 'more\.threads'"):
        parse(Step, ["--store=s", "--more.thread=3"], "")
    with pytest.raises(UsageError, match="--more: 'x' is not what it or one of its options takes: see --help more"):
        parse(Step, ["--store=s", "--more.threads=x"], "")
