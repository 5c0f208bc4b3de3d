"""Jobs as functions: the options of the command line as keywords, the typed result returned."""

import functools
import importlib
import inspect
import logging
from collections.abc import Callable
from types import ModuleType
from typing import Any

from w2w import config as configuration
from w2w.cli.main import HERE, JOBS, module_of
from w2w.results import Summary
from w2w.shown import quiet
from w2w.usage import options

NAMES = {name.replace("-", "_"): name for name in JOBS if name not in HERE}  # function -> job
logging.getLogger("w2w").addHandler(logging.NullHandler())


@functools.cache
def function(name: str) -> Callable[..., Summary]:
    """The function that runs a job. ``verbose`` prints what the command line prints; other keywords are the job's options, a
    mapping for each group, as in a config file.

    It raises UsageError (also for an unknown or mistyped option) and JobFailed.
    """
    module = importlib.import_module(module_of(NAMES[name]))

    def run(*, verbose: bool = False, **options: Any) -> Summary:
        return _run(module, NAMES[name], verbose, options)

    run.__name__ = run.__qualname__ = name
    run.__module__ = "w2w"
    run.__doc__ = _documentation(module)
    given = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(module.Config).parameters.values()]
    said = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=bool)
    run.__signature__ = inspect.Signature([*given, said], return_annotation=getattr(module, "Result", None))  # type: ignore[attr-defined]
    return run


def _run(module: ModuleType, job: str, verbose: bool, options: dict[str, Any]) -> Summary:
    from w2w.engine import job as engine

    config = configuration.build(module.Config, options, f"w2w {job}")
    if not verbose:
        with quiet():
            return module.main(config)
    with engine.verbose():
        result = module.main(config)
        engine.show(result)
        return result


def _documentation(module: ModuleType) -> str:
    lines = [module.__doc__ or "", "", inspect.cleandoc(module.Config.__doc__ or ""), "", "Options:"]
    lines += [f"  {o.name}: {o.text}" for o in options(module.Config) if "." not in o.name]
    return "\n".join(lines)
