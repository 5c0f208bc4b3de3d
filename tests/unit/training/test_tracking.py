"""Where curves are shown: told once each, gone on with after a restart, and a missing package is named."""

import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from w2w.errors import UsageError
from w2w.training.tracking import LogConfig, Trackers


def report(step: int, val: float | None = None) -> dict:
    found = {"step": step, "steps": 30, "rate": 0.1, "losses": {"loss": 1 / step}}
    return found | ({"val": {"Recall@10": val}} if val is not None else {})


HISTORY = [report(10), report(20, 0.5), report(30, 0.75)]


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run: (step, value) by name, later files hiding what earlier ones said of their steps."""
    from tensorboardX.proto.event_pb2 import Event

    found: dict[str, dict[int, list[float]]] = {}
    for file in sorted(folder.glob("events.*"), key=lambda p: p.stat().st_mtime_ns):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = Event.FromString(data[12 : 12 + length]), data[16 + length :]
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                for values in found.values():
                    for step in [s for s in values if s >= event.step]:
                        del values[step]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    found.setdefault(value.tag, {}).setdefault(event.step, []).append(value.simple_value)
    return {tag: [(s, v) for s in sorted(values) for v in values[s]] for tag, values in found.items()}


def test_tensorboard_shows_each_step_once_through_a_restart(tmp_path):
    config, place = LogConfig(tensorboard=str(tmp_path / "curves")), str(tmp_path / "run")
    first = Trackers(config, place, "r1", {"recipe": "head"})
    first.tell(HISTORY[:1])
    first.tell(HISTORY[:2])
    first._trackers["tensorboard"].tell({"val/Recall_10": 9.0}, 30)  # told, and dead before it was remembered
    second = Trackers(config, place, "r1", {"recipe": "head"})
    second.tell(HISTORY)
    second.tell(HISTORY)
    second.close()
    found = scalars(tmp_path / "curves" / "r1")
    assert found["val/Recall_10"] == [(20, 0.5), (30, 0.75)]
    assert [step for step, _ in found["loss/loss"]] == [10, 20, 30]
    assert [step for step, _ in found["train/rate"]] == [10, 20, 30]


class Server:
    """A stand-in for mlflow and wandb that keeps what it is told, as strictly as they are."""

    __spec__ = SimpleNamespace()  # as a module has one

    def __init__(self):
        self.runs: dict[str, dict] = {}

    # mlflow
    def MlflowClient(self, tracking_uri):
        assert tracking_uri == "file:///runs"
        return self

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id="7") if self.runs else None

    def create_experiment(self, name):
        return "7"

    def create_run(self, experiment, run_name):
        self.runs[f"id-{run_name}"] = {"params": {}, "metrics": [], "ended": 0}
        return SimpleNamespace(info=SimpleNamespace(run_id=f"id-{run_name}"))

    def log_param(self, run, name, value):
        assert name.replace(" ", "").replace("_", "").isalnum(), name
        self.runs[run]["params"][name] = value

    def log_metric(self, run, name, value, step):
        assert "@" not in name
        self.runs[run]["metrics"].append((name, step, value))

    def set_terminated(self, run):
        self.runs[run]["ended"] += 1

    # wandb
    def init(self, project, id, name, config, resume):
        assert (project, resume) == ("fashion", "allow")
        run = self.runs.setdefault(id, {"params": config, "metrics": [], "ended": 0})
        return SimpleNamespace(
            log=lambda figures, step: run["metrics"].extend((k, step, v) for k, v in figures.items()),
            finish=lambda: run.update(ended=run["ended"] + 1),
        )


@pytest.mark.parametrize(
    ("package", "options", "run"),
    [("mlflow", {"mlflow": "file:///runs"}, "id-r1"), ("wandb", {"wandb": "fashion"}, "r1")],
)
def test_the_other_two_are_told_the_same(tmp_path, monkeypatch, package, options, run):
    server = Server()
    monkeypatch.setitem(sys.modules, package, server)
    for history in (HISTORY[:2], HISTORY):
        trackers = Trackers(LogConfig(**options), str(tmp_path), "r1", {"table `pairs`": "version 3"})
        trackers.tell(history)
        trackers.close()
    (found,) = server.runs.values()
    assert list(server.runs) == [run]
    assert [m for m in found["metrics"] if m[0] == "val/Recall_10"] == [("val/Recall_10", 20, 0.5), ("val/Recall_10", 30, 0.75)]
    assert [step for name, step, _ in found["metrics"] if name == "loss/loss"] == [10, 20, 30]
    assert list(found["params"].values()) == ["version 3"]
    assert found["ended"] == 2


def test_a_server_that_is_not_there_is_named(tmp_path, monkeypatch):
    def refuse(tracking_uri):
        raise ConnectionError("refused")

    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace(__spec__=SimpleNamespace(), MlflowClient=refuse))
    with pytest.raises(UsageError, match=r"--log\.mlflow=http://x: ConnectionError: refused"):
        Trackers(LogConfig(mlflow="http://x"), str(tmp_path), "r1", {})
