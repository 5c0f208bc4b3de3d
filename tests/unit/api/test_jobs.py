"""``import w2w``: light, with every job as a function."""

import ast
import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from ray import cloudpickle

import w2w
from tests.unit.nights.nights import Shop, without_ray
from w2w.api.jobs import NAMES
from w2w.cli.main import HERE, JOBS
from w2w.models.config import EncoderConfig

ROOT = Path(w2w.__file__).parent


@pytest.fixture
def here(monkeypatch):
    without_ray(monkeypatch)


@pytest.fixture
def feed(tmp_path) -> str:
    shop = Shop(tmp_path / "shop")
    shop.folder.mkdir()
    shop.stock(3)
    return shop.write()


def alone(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT.parent).stdout


def test_importing_it_is_light():
    loaded = alone("import sys, w2w\nprint(w2w.__version__, *sys.modules)").split()
    assert not {"ray", "torch", "numpy", "pyarrow", "polars", "jsonargparse", "yaml"} & set(loaded)
    assert loaded[0] == w2w.__version__


def test_a_module_of_its_own_is_found_before_a_job_is_looked_for():
    """A worker begins with ``from w2w import schema``, when nothing is loaded yet."""
    loaded = alone("import sys\nfrom w2w import schema\nfrom w2w.index import search\nprint(*sys.modules)").split()
    assert not {"w2w.api.jobs", "ray", "torch"} & set(loaded)


def test_models_and_stores_start_no_ray():
    code = "import sys, w2w\nw2w.load_encoder, w2w.load_detector, w2w.load_segmenter, w2w.load_scorer, w2w.open('x').tables()\n"
    loaded = alone(code + "w2w.load_detector(); w2w.load_segmenter(); w2w.load_encoder()\nprint(*sys.modules)").split()
    assert "ray" not in loaded


def test_all_names_are_there_and_the_stub_has_them():
    assert set(w2w.__all__) == {name for name in dir(w2w) if not name.startswith("_")}
    assert {JOBS[job] for job in NAMES.values()} == {module for name, module in JOBS.items() if name not in HERE}
    stub = ast.parse((ROOT / "__init__.pyi").read_text(encoding="utf-8"))
    functions = {n.name for n in stub.body if isinstance(n, ast.FunctionDef)}
    others = {a.asname for n in stub.body if isinstance(n, ast.ImportFrom) for a in n.names} & set(w2w.__all__)
    assert (functions, functions | others) == (set(NAMES), set(w2w.__all__))
    assert all(callable(getattr(w2w, name)) for name in w2w.__all__)
    both = {name for name in NAMES if (ROOT / name).is_dir()}
    assert both == set(vars(w2w)["_BOTH"])
    assert (ROOT / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'embedd'"):
        getattr(w2w, "embed" + "d")


def test_a_function_says_what_it_takes_and_gives():
    signature = inspect.signature(w2w.embed)
    assert {p.kind for p in signature.parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert signature.parameters["encoder"].default == EncoderConfig()
    assert signature.return_annotation.__module__ == "w2w.models.job"
    assert "encoder: The model." in w2w.embed.__doc__


def test_a_package_that_has_a_jobs_name_is_both(tmp_path):
    import w2w.index.search as searching

    assert vars(w2w.index)["search"] is searching
    with pytest.raises(w2w.UsageError, match="run 'w2w ingest' first"):
        w2w.index(store=str(tmp_path))


def test_a_function_that_names_w2w_can_be_sent_to_a_worker():
    found = cloudpickle.loads(cloudpickle.dumps(lambda: (w2w, w2w.index)))()
    assert found == (w2w, w2w.index)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"encodr": {}}, "option 'encodr' does not exist. Did you mean 'encoder'?"),
        ({"encoder": {"nam": "x"}}, "option 'encoder.nam' does not exist. Did you mean 'encoder.name'?"),
        ({"encoder": {"threads": "x"}}, "option encoder.threads: 'x' is not of type int"),
        ({"encoder": "efficientnet-lite0"}, "option 'encoder': 'efficientnet-lite0' is not a mapping of its options"),
        ({"gpu_pool": {"num_gpu": 1}}, "option 'gpu_pool.num_gpu' does not exist. Did you mean 'gpu_pool.num_gpus'?"),
        ({"gpu_pool": {"num_gpus": 1}}, "there is no table"),
        ({"limit": "many"}, "option limit: 'many' is not of type int | None"),
        ({"limit": 0}, "limit=0: must be at least 1"),
        ({"store": None}, "missing required option: store"),
        ({"encoder": {"engine": "cuda"}}, "encoder.engine=cuda: must be one of auto, torch, openvino"),
        ({}, "there is no table"),
    ],
)
def test_mistakes_are_sentences(tmp_path, options, said):
    with pytest.raises(w2w.UsageError) as error:
        w2w.embed(**{"store": str(tmp_path)} | options)
    assert said in str(error.value)


def test_a_job_without_its_store_says_so():
    with pytest.raises(w2w.UsageError, match="missing required option: store"):
        w2w.embed()


def test_nothing_is_printed_unless_asked(here, feed, tmp_path, capsys):
    store = tmp_path / "store"  # a path does as well
    done = w2w.ingest(store=store, feed={"uri": feed}, pool={"workers": 1})
    assert (done.job, done.counts.out, done.feed_rows, done.versions["products"]) == ("ingest", 3, 3, 1)
    assert w2w.nightly(store=store, feed={"uri": feed}, dry_run=True).embed.pending == 3
    assert capsys.readouterr() == ("", "")
    level = logging.getLogger("w2w").level
    asked = w2w.embed(store=store, encoder=EncoderConfig(), pool={"workers": 1}, verbose=True)
    assert (asked.pending, asked.counts.out) == (3, 3)
    assert "model version" in capsys.readouterr().out
    assert logging.getLogger("w2w").level == level
    assert w2w.tables(store=store).tables[0].rows == 3
    with pytest.raises(w2w.JobFailed, match="3 of 3 rows were rejected"):
        w2w.ingest(store=store, feed={"uri": feed, "id": "other"}, pool={"workers": 1})
    assert capsys.readouterr() == ("", "")
