"""How a bench begins that keeps what it computes in a folder, and computes in one thread."""

import argparse
import tempfile
from pathlib import Path

import torch

from w2w.memory import keep_memory


def parser_of(about: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="of what is computed once; default: one for this run")
    return parser


def begin(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, Path]:
    """The options as given, and the folder, which is there."""
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    return options, folder
