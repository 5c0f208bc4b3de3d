"""The seeds' rows: their commands are understood, README's table is made of them, and a run goes on where one stopped."""

import importlib
import json

import pytest

from tests.bench.seeds import (
    FILES,
    TABLE,
    Failed,
    Line,
    beside,
    by_seed,
    read_rows,
    run_all,
    shown,
    table,
    told_commands,
    write_table,
)
from w2w.cli.main import module_of
from w2w.config import parse

ROWS = read_rows()
README = FILES / "README.md"


@pytest.mark.parametrize("name", ROWS)
def test_commands_are_understood(name):
    """Each is one of w2w, with options that its job has, or a module of ours."""
    import shlex

    for command in ROWS[name].commands.values():
        words = shlex.split(command.removesuffix("&"))
        if words[0] == "w2w":
            job = importlib.import_module(module_of(words[1]))
            assert isinstance(parse(job.Config, words[2:], "w2w"), job.Config), command
        else:
            assert words[:2] == ["python", "-m"], command
            assert importlib.util.find_spec(words[2]), command


def test_every_line_states_a_figure_of_a_command_that_it_can_see():
    for row in ROWS.values():
        near = {n for name in (*row.after, row.name) for n in ROWS[name].commands}
        for line in row.lines:
            assert line.commands, line
            assert set(line.commands) <= near, line


def test_the_table_of_the_readme_is_of_these_rows():
    """Made from the outputs of a run: what is asked, printed and run stands in the files, and every line has its figure."""
    written = [line for line in README.read_text(encoding="utf-8").partition(TABLE)[2].splitlines() if line][1:]
    cells = [[cell.strip() for cell in line.replace("\\|", "¦").strip("|").split("|")] for line in written]
    asked = [
        [" ".join(text.split()) for text in (line.seed, line.did, line.figure, told_commands(row, line, ROWS))]
        for row, line in by_seed(list(ROWS.values()))
    ]
    assert [line[:4] for line in cells] == asked
    assert all(line[4] and not line[4].startswith("not run") for line in cells)


def say(value: object) -> str:
    """A command that notes in `ran` that it has run, and says ``value``."""
    return f"""python -c 'open("ran", "a").write("x"); print("words"); print({json.dumps(json.dumps(value))})'"""


@pytest.fixture
def files(tmp_path):
    """Two rows: what the second says is of both."""
    files = tmp_path / "files"
    files.mkdir()
    write(
        files,
        "b-first",
        {"make": say({"num": 3, "figures": {"AUC": {"value": 0.5, "low": 0.4, "high": 0.6, "num": 9}}})},
        "{make[num]}",
    )
    write(files, "a-second", {"see": say([1, 2])}, "{make[figures][AUC]} | {see[1]}", after=["b-first"])
    return files


def write(files, name: str, commands: dict, here: str, after=()) -> None:
    line = {"seed": "x", "did": "a | b", "figure": "none", "here": here}
    row = {"after": list(after), "commands": commands, "lines": [line]}
    (files / f"{name}.yaml").write_text(json.dumps(row))


def ran(folder) -> int:
    return len((folder / "ran").read_text()) if (folder / "ran").exists() else 0


def test_a_table_is_made_of_what_commands_say(files, tmp_path):
    rows, kept = run_all([], tmp_path, files=files)
    cells = table(rows, kept)
    assert [line[4] for line in cells] == ["3", "0.500 [0.400, 0.600] of 9 | 2"]  # in the order in which they need each other
    out = tmp_path / "README.md"
    out.write_text(f"# Before\n\n{TABLE}\n|---|\n| old |\n")
    write_table(out, cells)
    said = out.read_text()
    assert said.startswith("# Before\n\n| seed |")
    assert "old" not in said
    assert said.splitlines()[-1].endswith("| 0.500 [0.400, 0.600] of 9 \\| 2 |")
    write_table(out, cells)
    assert out.read_text() == said


def test_what_has_been_run_is_not_run_again(files, tmp_path):
    run_all([], tmp_path, files=files)
    run_all(["a-second"], tmp_path, files=files)
    assert ran(tmp_path) == 2
    run_all(["a-second"], tmp_path, again=True, files=files)  # the row alone, not what it comes after
    assert ran(tmp_path) == 3
    write(files, "b-first", {"make": say({"num": 4, "figures": {"AUC": 1}})}, "{make[num]}")
    _, kept = run_all(["a-second"], tmp_path, files=files)  # made of other files now
    assert ran(tmp_path) == 5
    assert kept["b-first"]["results"]["make"]["num"] == 4


def test_a_row_that_fails_says_so_and_is_tried_again(files, tmp_path):
    write(files, "b-first", {"make": "python -c 'import sys; sys.exit(3)'"}, "{make[num]}")
    rows, kept = run_all([], tmp_path, files=files)
    first, second = (line[4] for line in table(rows, kept))
    assert first.startswith("not run: python -c")
    assert second == "not run: comes after b-first, which failed"
    write(files, "b-first", {"make": say({"num": 3, "figures": {"AUC": 1}})}, "{make[num]}")
    rows, kept = run_all([], tmp_path, files=files)
    assert [line[4] for line in table(rows, kept)] == ["3", "1 | 2"]


def test_a_figure_that_is_not_there_is_an_error(files, tmp_path):
    write(files, "b-first", {"make": say({"num": 3})}, "{make[recall]}")
    rows, kept = run_all(["b-first"], tmp_path, files=files)
    with pytest.raises(KeyError, match="recall"):
        table(rows, kept)


def test_what_runs_beside_a_row_ends_with_it(tmp_path):
    slow = 'python -c \'import time; open("began", "w"); print("here", flush=True); time.sleep(60); open("late", "w")\''
    with beside(tmp_path) as start:
        start(slow)
        assert (tmp_path / "began").exists()
    assert not (tmp_path / "late").exists()
    with beside(tmp_path) as start, pytest.raises(Failed, match="ended at once, with 3"):
        start("python -c 'raise SystemExit(3)'")


def test_unknown_rows_are_named(files, tmp_path):
    with pytest.raises(SystemExit, match="c-third: there is no such row, only b-first, a-second"):
        run_all(["c-third"], tmp_path, files=files)


def test_a_line_names_its_commands_once():
    line = Line("s", "d", "f", "{one[a]} {two[b.c]:.3f} {one[d]} {{three}}")
    assert line.commands == ["one", "two"]
    assert shown({"a": [{"value": 1, "low": None, "high": None, "num": None}]})["a"][0].value == 1
