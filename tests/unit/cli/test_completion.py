"""The script that `w2w completion` prints, run by the shell that it is for."""

import shutil
import subprocess

import pytest

from w2w.cli import completion
from w2w.config import parse
from w2w.errors import UsageError


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    import shtab

    file = tmp_path_factory.mktemp("completion") / "w2w.bash"
    file.write_text(shtab.complete(completion.command(), "bash"))
    return file


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        (["w2w", "ingest", "--feed.ful"], ["--feed.full"]),
        (["w2w", "nigh"], ["nightly"]),
        (["w2w", "detect", "--of", "p"], ["posts"]),
        (["w2w", "completion", "z"], ["zsh"]),
        (["w2w", "train", "det"], ["detector"]),
        (["w2w", "train", "--recipe", "sia"], ["siamese"]),
        (["w2w", "embed", "--encoder.nam"], ["--encoder.name"]),
    ],
)
def test_bash_completes(script, typed, completed):
    words = " ".join(f"'{word}'" for word in typed)
    ask = (
        f"source {script}; COMP_WORDS=({words}); COMP_CWORD={len(typed) - 1}; _shtab_w2w; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "--norc", "-c", ask], capture_output=True, text=True)
    assert done.stdout.split() == completed, done.stderr


def test_a_shell_that_is_not_known_is_a_sentence():
    with pytest.raises(UsageError, match="option --shell: 'csh' is not one of bash, zsh, fish"):
        parse(completion.Config, ["csh"], "w2w completion")


@pytest.mark.parametrize(("shell", "said"), [("bash", "complete -o"), ("zsh", "#compdef w2w"), ("fish", "complete -c w2w")])
def test_every_shell_has_a_script(shell, said, capsys):
    completion.main(completion.Config(shell))
    text = capsys.readouterr().out
    assert said in text
    assert "train-detector" in text
    assert "feed.columns" in text
