"""What is shown and written down: no secret in it, and nothing that moves a terminal's cursor."""

import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from rich.table import Table

from w2w import schema
from w2w.cli import tables
from w2w.engine.job import start
from w2w.errors import JobFailed, UsageError
from w2w.shown import LogLines, Terminal, line, printable, without_secrets
from w2w.table.parts import Output
from w2w.table.sink import Lineage, append_rows

ROOT = Path(__file__).parents[2]
SECRET = "hunter2secret"


@pytest.mark.parametrize(
    "text",
    [
        f"sam:https://user:{SECRET}@host/sam_vit_b.pth",
        f"https://{SECRET}@host/x",
        f"s3://key:{SECRET}@bucket/x, and more",
        f"https://u:p@ss{SECRET}@host/x",
        f"https://user:pa/ss{SECRET}@host/x",
        f"s3://key:se/cr+et/{SECRET}@bucket/x",
        f"sam:https://u.ser:p?a#s/{SECRET}@s@host:8080/x",
        f"http://user:12/{SECRET}@host",
        f"cannot open 'https://bucket.s3.amazonaws.com/x?X-Amz-Expires=9&X-Amz-Signature={SECRET}&x=1'",
        f"https://h/x?AWSAccessKeyId={SECRET}&Signature={SECRET}",
        f"https://h/x?sv=2024&sig={SECRET}",
        f"https://h/x?X-Goog-Credential={SECRET}",
        f"https://h/x#access_token={SECRET}",
        f"https://h/x?api-key={SECRET}&sessiontoken={SECRET}",
        f"GET x: Authorization: Bearer {SECRET}",
    ],
)
def test_secrets_of_urls(text):
    assert SECRET not in line(text)
    assert "***" in line(text)
    assert SECRET not in repr(without_secrets({"a": [{"name": text}, (text,)]}))


@pytest.mark.parametrize(
    "text",
    [
        "https://shop.example/@brand/x?design=3&author=me&sigma=2",
        "a@b.example",
        "http://shop.example:8080/@brand http://localhost:80/a@b http://[::1]:8080/@x http://shop.example/a:b@c",
        "s3://bucket/a:b@c",
        "x?color=red&size=m",
        "hf:org/model",
        "50 % off",
    ],
)
def test_what_is_no_secret_stays(text):
    assert line(text) == text
    assert without_secrets({"tokenizer": text, "n": 3, "none": None}) == {"tokenizer": text, "n": 3, "none": None}


def test_options_that_are_secrets():
    assert without_secrets({"hf_token": "x", "password": "", "max_tokens": 3}) == {
        "hf_token": "***",
        "password": "",
        "max_tokens": 3,
    }


@pytest.mark.parametrize(
    "char", ["\x1b", "\x07", "\n", "\r", "\t", "\x7f", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\ud800", "\ufeff"]
)
def test_what_a_terminal_obeys_is_escaped(char):
    shown = line(f"a{char}b")
    assert char not in shown
    assert shown.startswith("a\\")
    shown.encode()


def test_letters_of_the_world_stay():
    text = "Größe 34 é 上衣 👩‍👩‍👧 می‌خواهم"
    assert printable(text) == text


def test_a_terminal_shows_cells_titles_and_lines_escaped():
    out = io.StringIO()
    table = Table("a\x1b[2J", title="t\x1b[31m")
    table.add_row(f"https://u:{SECRET}@h/\x1b]0;x\x07\nspoofed")
    terminal = Terminal(file=out, markup=False, width=100)
    terminal.print(table)
    terminal.print("w\x1b[1m")
    assert not {"\x1b", "\x07", SECRET} & {c for c in ("\x1b", "\x07", SECRET) if c in out.getvalue()}
    assert r"\nspoofed" in out.getvalue()


@dataclass(frozen=True)
class Config:
    """Options."""

    name: str = "x"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError(f"https://u:{SECRET}@h: no\x1b[2J"), 2, r"w2w: https://***@h: no\x1b[2J"),
        (JobFailed("a\nw2w: done"), 1, r"w2w: a\nw2w: done"),
        (OSError(28, "No space left on device", "/tmp/x"), 1, "No space left on device: '/tmp/x'"),
        (RuntimeError(f"a bug, https://u:{SECRET}@h"), 1, "RuntimeError: a bug, https://***@h"),
    ],
)
def test_how_a_job_ends(error, code, said, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)

    def main(config: Config):
        raise error

    with pytest.raises(SystemExit) as end:
        start(main, Config, [])
    printed = capsys.readouterr().err
    assert end.value.code == code
    assert said in printed
    assert SECRET not in printed
    assert ("Traceback" in printed) == (type(error) is RuntimeError)


def test_a_config_is_printed_without_secrets(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with pytest.raises(SystemExit):
        start(lambda config: None, Config, [f"--name=https://u:{SECRET}@h", "--print_config"])
    assert capsys.readouterr().out == "name: https://***@h\n"


def test_log_lines(capsys):
    record = logging.LogRecord("w2w", logging.INFO, "", 0, "%s\x1b[2J", (f"https://u:{SECRET}@h",), None)
    assert LogLines("%(message)s").format(record) == r"https://***@h\x1b[2J"


def test_no_secret_in_the_log_of_a_table_and_its_rejects(tmp_path):
    url = f"https://user:{SECRET}@host/x.jpg?X-Amz-Signature={SECRET}"
    row = {f.name: "x" for f in schema.REJECTS.schema} | {"detail": f"{url}: HTTP 404", "source": url, "rejected_at": 0}
    rows = pa.Table.from_pylist([row, row | {"key": "y", "source": "a\x1b[2J\nb"}], schema=schema.REJECTS.schema)
    lineage = Lineage("x", "r", "x", "v", {"segmenter": {"name": f"sam:{url}"}, "feed": {"uri": url}}, {}, "x")
    append_rows(str(tmp_path), Output(schema.REJECTS), rows, lineage)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path
    out = io.StringIO()
    Terminal(file=out, width=400).print(tables.main(tables.Config(store=str(tmp_path), rejects=True)))
    assert r"a\x1b[2J\nb: https://***@host/x.jpg?X-Amz-Signature=***: HTTP 404" in out.getvalue()


@pytest.mark.parametrize("argv", [["--help"], ["tables", "--help"]])
def test_a_reader_that_goes_away_is_no_error(argv):
    reads, writes = os.pipe()
    os.close(reads)
    with os.fdopen(writes, "w") as gone:
        done = subprocess.run(
            [sys.executable, "-m", "w2w", *argv], cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, text=True, timeout=120
        )
    assert (done.returncode, done.stderr) == (0, "")
