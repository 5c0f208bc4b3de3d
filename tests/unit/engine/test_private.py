"""What w2w takes of Ray without Ray's promise is there in the version that the tests run with, and nowhere else asked for."""

from pathlib import Path

import ray

from w2w.engine import private

W2W = Path(private.__file__).parents[1]
NAMES = (
    *private.CHATTY,
    *(f"{owner}.{name}" if ":" in owner else f"{owner}:{name}" for owner, name, _ in private._INSTEAD),
    "ray.train.torch:TorchTrainer._create_default_callbacks",
    *(f"ray.train.v2.api.data_parallel_trainer:{name}" for name in private._UNUSED_CALLBACKS),
)


def test_the_installed_ray_has_every_name():
    gone = [name for name in NAMES if private._found(name) is None]
    assert not gone, f"Ray {ray.__version__} has no {', '.join(gone)}: local clusters start slowly. See {private.__file__}"


def test_no_other_file_names_what_is_private_to_ray():
    named = {
        p for p in W2W.rglob("*.py") if any(n in p.read_text(encoding="utf-8") for n in ("ray._", "ray.train.v2", "_internal"))
    }
    assert named == {Path(private.__file__)}


def test_names_are_replaced_for_a_start_and_given_back():
    from ray._private import utils
    from ray._private.node import Node

    before = Node.start_monitor, Node.start_api_server, utils.get_dashboard_dependency_error
    with private.only_what_is_used():
        assert Node.start_monitor is Node.start_log_monitor
        assert isinstance(utils.get_dashboard_dependency_error(), ImportError)
    assert before == (Node.start_monitor, Node.start_api_server, utils.get_dashboard_dependency_error)


def test_a_ray_without_the_names_is_left_alone(monkeypatch):
    from ray._private.node import Node

    others = [("ray._private.node:Node", "start_gone", None), ("ray._private.gone:Node", "start_monitor", None)]
    monkeypatch.setattr(private, "_INSTEAD", others)
    before = dict(vars(Node))
    with private.only_what_is_used():
        assert dict(vars(Node)) == before


def test_a_light_trainer_leaves_two_callbacks_out(monkeypatch):
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api import data_parallel_trainer as ray_has

    names = ["DatasetsCallback", "BackendSetupCallback", "PlacementGroupCleanerCallback"]
    made = [object.__new__(getattr(ray_has, name)) for name in names]
    monkeypatch.setattr(TorchTrainer, "_create_default_callbacks", lambda self: made)
    light = private.light_trainer()
    assert issubclass(light, TorchTrainer)
    assert object.__new__(light)._create_default_callbacks() == made[1:2]
