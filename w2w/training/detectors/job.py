"""Train-detector: the older name of `w2w train detector`, to be removed in the next release."""

from dataclasses import dataclass, field, replace

from w2w.engine.job import JobConfig, options_of
from w2w.engine.training import Workers
from w2w.training import job
from w2w.training.detectors.config import DETECTOR, OURS, TrainConfig
from w2w.training.tracking import LogConfig


@dataclass(frozen=True)
class Config(JobConfig):
    """The old name of `w2w train detector`. Its --detector.start is --recipe here, its other --detector.* are --train.*."""

    recipe: str = OURS
    """ours, ours:FOLDER (goes on from one of ours), hf:ORG/MODEL or hf:FOLDER (transformers), yolo:FILE.pt (ultralytics)."""
    sources: list[str] | None = None
    """Data sets to train and measure on. Default: all of table `detections`."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Schedule, batch and selection."""
    workers: Workers = Workers()
    """Processes."""
    log: LogConfig = LogConfig()
    """TensorBoard, MLflow, Weights & Biases."""
    out: str | None = None
    """Local folder of the model. Default: detectors/<run's digest> in the store."""
    resume: bool = True
    """Resume an interrupted run of the same options and photos. --resume=false starts over."""


Result = job.Result


def main(config: Config) -> job.Result:
    settings = replace(config.train, start=config.recipe)
    given = {name: value for name, value in options_of(config, job.Config).items() if name != "train"}
    return job.main(job.Config(**given | {"recipe": DETECTOR, "detector": settings}))
