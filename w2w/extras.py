"""Optional packages: each comes with an extra, ``pip install 'w2w[EXTRA]'``."""

import importlib.util

from w2w.errors import UsageError

EXTRAS = {  # module -> extra
    "ultralytics": "yolo",
    "segment_anything": "sam",
    "open_clip": "open_clip",
    "tensorboardX": "tracking",
    "mlflow": "tracking",
    "wandb": "tracking",
    "psycopg": "postgres",
    "lancedb": "lancedb",
    "openlineage": "openlineage",
}


def installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def need(module: str, option: str) -> None:
    """Raises UsageError naming the extra to install if the package that ``option`` needs is missing."""
    if not installed(module):
        raise UsageError(f"{option}: needs the package {module}: pip install 'w2w[{EXTRAS[module]}]'")
