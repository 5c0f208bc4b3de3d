"""The night and its steps as OpenLineage events (https://openlineage.io/spec/2-0-2/OpenLineage.json): which run read which
version of which table, and what it wrote. They are sent in the morning, all at once; a night that was killed sends none."""

import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2w import __version__, schema, storage
from w2w.errors import UsageError
from w2w.extras import need
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.table import delta

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

OPTION = "tell.openlineage"
_PRODUCER = f"urn:w2w:{__version__}"
_COMMITS = 500  # of a table in which a step's are looked for


def check(where: str) -> None:
    """Raises UsageError where nothing could be sent."""
    need("openlineage", OPTION)
    if re.match(r"https?://", where):
        if "@" in where.split("/")[2]:
            raise UsageError(f"{OPTION}: leave credentials out of the URL: a token belongs into OPENLINEAGE_API_KEY")
    elif "://" in where or not Path(where).parent.is_dir():
        raise UsageError(f"{OPTION}={where}: neither an http or https URL nor a file in a folder that exists")


def send(where: str, wait_s: float, store: str, night: Mapping[str, Any]) -> None:
    """``where``: a server such as Marquez, or a file to which the events are appended, a line each. Raises OSError."""
    from openlineage.client import OpenLineageClient

    if "://" in where:
        key = os.environ.get("OPENLINEAGE_API_KEY")
        auth = {"auth": {"type": "api_key", "apiKey": key}} if key else {}
        transport = {"type": "http", "url": where, "timeout": wait_s, "retry": {"total": 1}} | auth
    else:
        transport = {"type": "file", "log_file_path": where, "append": True}
    client = OpenLineageClient(config={"transport": transport})
    for event in events(store, night):
        client.emit(event)


def events(store: str, night: Mapping[str, Any]) -> list["RunEvent"]:
    """``night``: the result as it is told to all, of which the steps are fields. A step's start is that of the night and the
    seconds of those before it."""
    from openlineage.client import event_v2 as e
    from openlineage.client import facet_v2 as f

    space, _ = dataset_name(store)
    ended = float(night["ended"])
    begun, at, failed = list(night.get("began") or ()), ended - float(night.get("seconds") or 0), night.get("error")
    whole = e.Run(_uuid(store, night["run_id"]))
    job = e.Job(space, _job_name(store, "nightly"))
    parent = f.parent_run.ParentRunFacet(f.parent_run.Run(whole.runId), f.parent_run.Job(job.namespace, job.name))
    about: dict[str, Any] = {"jobType": f.job_type_job.JobTypeJobFacet("BATCH", "W2W", "JOB")}
    found = [_event(e.RunState.START, at, whole, job)]
    for number, name in enumerate(begun):
        step = night.get(name) if isinstance(night.get(name), dict) else None
        run = e.Run(_uuid(store, step["run_id"] if step else f"{night['run_id']} {name}"), {"parent": parent})
        of = e.Job(space, _job_name(store, f"nightly.{name}"), about)
        found.append(_event(e.RunState.START, at, run, of))
        at += float(step["seconds"]) if step else 0.0
        if failed and number == len(begun) - 1:
            found.append(_event(e.RunState.FAIL, ended, _failed(run, failed), of))
        elif step:
            read, wrote = _datasets(store, step, night["indexes"].get(name))
            found.append(_event(e.RunState.COMPLETE, at, run, of, read, wrote))
        else:  # it has no result of its own, such as tidy
            found.append(_event(e.RunState.COMPLETE, ended, run, of))
    end = (
        _event(e.RunState.FAIL, ended, _failed(whole, failed), job)
        if failed
        else _event(e.RunState.COMPLETE, ended, whole, job)
    )
    return [*found, end]


def _event(state: Any, at: float, run: Any, job: Any, read: Sequence[Any] = (), wrote: Sequence[Any] = ()) -> "RunEvent":
    from openlineage.client.event_v2 import RunEvent

    when = datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
    return RunEvent(
        eventTime=when, producer=_PRODUCER, run=run, job=job, eventType=state, inputs=list(read), outputs=list(wrote)
    )


def _failed(run: Any, why: str) -> Any:
    from openlineage.client.event_v2 import Run
    from openlineage.client.facet_v2 import error_message_run

    return Run(run.runId, {**run.facets, "errorMessage": error_message_run.ErrorMessageRunFacet(why, "python")})


def _datasets(store: str, step: Mapping[str, Any], index: str | None) -> tuple[list["InputDataset"], list["OutputDataset"]]:
    """What a step read and wrote, from the lineage in the commits of its tables and from the ``index`` that it published."""
    read, wrote = dict[str, int | None](), []
    for table in step.get("versions") or {}:
        rows = None
        for lineage in _commits(store, table, step["run_id"]):
            rows = (rows or 0) + (lineage.get("rows") or 0)
            read |= {_table_uri(store, one): version for one, version in (lineage.get("inputs") or {}).items()}
            if uri := ((lineage.get("config") or {}).get("feed") or {}).get("uri"):
                read[uri if "://" in uri else storage.source(uri)] = None
        wrote.append(_output(_table_uri(store, table), step["versions"][table], rows))
    if index and step.get("published") and not step.get("unchanged") and not step.get("held_back"):
        uri = index_uri(store, index)
        try:
            tables = read_manifest(uri, step["published"]).tables
        except UsageError:  # a later night has published meanwhile, and deleted it
            tables = {}
        read |= {_table_uri(store, table): version for table, version in tables.items()}
        wrote.append(_output(uri, step["published"], (step.get("counts") or {}).get("out")))
    return [_input(uri, version) for uri, version in read.items()], wrote


def _commits(store: str, table: str, run_id: str) -> Iterator[Mapping[str, Any]]:
    opened = delta.open_table(store, schema.TABLES.get(table) or delta.own_tables(store)[table])
    for entry in delta.history(opened, _COMMITS) if opened else ():
        if entry["w2w"] and entry["w2w"].get("run_id") == run_id:
            yield entry["w2w"]


def _table_uri(store: str, table: str) -> str:
    return storage.join(storage.absolute(store), table)


def _version(version: int | str | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {} if version is None else {"version": dataset_version_dataset.DatasetVersionDatasetFacet(str(version))}


def _input(uri: str, version: int | None) -> "InputDataset":
    from openlineage.client.event_v2 import InputDataset

    return InputDataset(*dataset_name(uri), facets=_version(version))


def _output(uri: str, version: int | str, rows: int | None) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    told: dict[str, Any] = (
        {} if rows is None else {"outputStatistics": statistics.OutputStatisticsOutputDatasetFacet(rowCount=rows)}
    )
    return OutputDataset(*dataset_name(uri), outputFacets=told, facets=_version(version))


def dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name, by OpenLineage's naming of files and of objects in a bucket."""
    scheme, _, rest = uri.partition("://")
    if not rest:
        return "file", storage.absolute(uri)
    host, _, path = rest.partition("/")
    return f"{scheme}://{host}", path or "/"


def _job_name(store: str, job: str) -> str:
    return f"{dataset_name(store)[1].strip('/').replace('/', '.')}.{job}"


def _uuid(store: str, run_id: str) -> str:
    """OpenLineage knows runs by UUID: always the same one of a run."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{storage.absolute(store)}#{run_id}"))
