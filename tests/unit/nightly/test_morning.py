"""The page of the morning, who is told, and what is tidied."""

import http.server
import json
import os
import re
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from bs4 import BeautifulSoup

from tests import chromium
from tests.unit.nights.nights import Shop
from tests.unit.recommend.stores import append
from w2w import schema, storage
from w2w.check.job import CheckConfig
from w2w.cli import tables
from w2w.errors import JobFailed, UsageError
from w2w.export.job import ExportConfig
from w2w.index import job as index
from w2w.index.manifest import index_uri
from w2w.index.publish import read_manifest
from w2w.index.spec import IndexConfig
from w2w.ingest import job as ingest
from w2w.ingest.feed import FeedConfig
from w2w.ingest.permits import permission
from w2w.models import job as embed
from w2w.nightly import flow, rules
from w2w.nightly import job as nightly
from w2w.nightly.page import differences, morning_page
from w2w.nightly.rules import Rows, changes
from w2w.nightly.tell import Tell
from w2w.nightly.tidy import Tidy
from w2w.recommend.job import Wanted
from w2w.results import Summary, words
from w2w.similar import job as similar
from w2w.similar.flow import SimilarConfig
from w2w.stage import Pool
from w2w.table import delta, maintain
from w2w.web.permission import Headers, Statement, UseConfig


def run_night(store, shop: Shop, feed: dict | None = None, **options) -> nightly.Result:
    source = FeedConfig(**({"uri": shop.write(), "full": True, "grace_nights": 1} | (feed or {})))
    return nightly.main(nightly.Config(store=str(store), feed=source, pool=Pool(workers=1), **options))


def page(result: nightly.Result) -> str:
    return storage.read_bytes(result.report).decode()


def told(result: nightly.Result) -> dict:
    return json.loads(storage.read_bytes(result.report.replace("index.html", flow.NIGHT)))


def test_nights_say_what_is_new_changed_gone_back_and_rejected(store, shop, clock):
    first = run_night(store, shop)
    assert "20 new; index published." in first.says
    assert "What shoppers see" not in page(first)  # there is nothing to compare with
    clock.sleep()
    assert run_night(store, shop).says.endswith(": nothing changed; the published index stays as it was.")
    clock.sleep()
    gone = shop.items.pop("p3")
    shop.say("p4", price="7.50")
    shop.say("p5", title="a <red> shirt")
    shop.draw("other.jpg", 77)
    shop.say("p6", image="other.jpg", price="12.00")
    shop.draw("21.jpg", 21)
    shop.items["p21"] = type(gone)("21.jpg", title="quite new")
    shop.items["p22"] = type(gone)("missing.jpg")
    third = run_night(store, shop)
    said = r"1 new, 3 changed, 1 withdrawn, 1 rejected; [1-9]\d* answers in 1,000 changed, index published\."
    assert re.search(said, third.says)
    shown = page(third)
    assert "price 10.00" in shown
    assert "7.50" in shown
    assert "quite new" in shown
    assert "a &lt;red&gt; shirt" in shown
    assert "Another price: 2, title: 1, picture: 1." in shown
    assert "missing.jpg" in shown
    assert storage.read_bytes(f"{store}/reports/nightly/latest.html") == storage.read_bytes(third.report)
    clock.sleep()
    shop.items["p3"] = gone
    del shop.items["p22"]
    assert re.search(r": 1 back; .*index published\.$", run_night(store, shop).says)
    assert told(third)["told"] == {"new": 1, "back": 0, "changed": 3, "withdrawn": 1, "rejected": 1}


def test_a_night_that_fails_has_a_page_and_the_next_one_shows_it(store, shop, clock, monkeypatch):
    run_night(store, shop)
    clock.sleep()
    shop.say("p1", price="3.00")
    with monkeypatch.context() as broken:
        broken.setattr(embed, "main", lambda config: (_ for _ in ()).throw(JobFailed("the GPU is gone")))
        with pytest.raises(JobFailed) as failed:
            run_night(store, shop)
    result = failed.value.result
    assert "the night stopped at embed; the published index stays as it was. Until then: 1 changed." in result.says
    assert "the GPU is gone" in page(result)
    assert "embed: failed" in page(result)
    row = BeautifulSoup(page(result), "html.parser").find("b", string="embed: failed").find_parent("tr")
    assert [cell.get_text() for cell in row.select(".n")] == ["", "", ""]  # how many rows it did before is not known
    assert not row.select(".bar-line")
    assert (told(result)["exit"], told(result)["error"]) == (1, "the GPU is gone")
    clock.sleep()
    after = page(run_night(store, shop))
    assert '<b class="no">failed</b>' in after
    assert "Until then: 1 changed" in after


def test_what_the_release_gate_refused_is_on_the_page(store, shop, clock, monkeypatch):
    run_night(store, shop)
    clock.sleep()
    refused = JobFailed("not published")
    figures = {"compared": 5.0, "churn": 0.25, "nearer": 0.0625, "gone": 0.0125, "changed": 0.05, "swapped": 0.02}
    told = {"refused": ("tops <are> shuffled",), "sheet": "sheet.html", "shoppers_see": figures, "published": "20260101"}
    refused.result = index.Result(job="index", run_id="index-1", **told)
    monkeypatch.setattr(index, "main", lambda config: (_ for _ in ()).throw(refused))
    with pytest.raises(JobFailed) as failed:
        run_night(store, shop)
    result = failed.value.result
    assert (
        "the night stopped at index; 375 answers in 1,000 would have changed, the published index stays as it was"
        in result.says
    )
    assert result.index.refused == told["refused"]
    shown = page(result)
    assert "tops &lt;are&gt; shuffled" in shown
    assert 'href="../../index/index-1/index.html">Answers before and after' in shown
    for said in ('gone for no reason that is known</td><td class="n">25.0 %', 'has left the index</td><td class="n">1.2 %'):
        assert said in shown
    assert 'has another picture or category</td><td class="n">5.0 %' in shown
    assert 'sampled products whose picture is now another product&#39;s</td><td class="n">2.0 %' in shown
    latest = storage.read_bytes(f"{store}/reports/nightly/latest.html").decode()
    assert 'href="../index/index-1/index.html">Answers before and after' in latest


class Killed(BaseException):
    """Nothing of the process goes on."""


def test_what_a_killed_night_did_is_told_by_the_next(store, shop, clock, monkeypatch):
    run_night(store, shop)
    clock.sleep()
    shop.say("p1", price="3.00")
    with monkeypatch.context() as killed:
        killed.setattr(index, "main", lambda config: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run_night(store, shop)
    clock.sleep()
    assert "1 changed; " in run_night(store, shop).says
    clock.sleep()
    assert "nothing changed" in run_night(store, shop).says


def test_a_first_night_that_was_killed_is_told_too(store, shop, clock, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(embed, "main", lambda config: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            run_night(store, shop)
    assert "20 new; index published" in run_night(store, shop).says


def test_a_night_whose_feed_is_gone_is_told_and_hides_nothing(store, shop, clock, hook, tmp_path):
    tell = Tell(webhook_env="W2W_HOOK", metrics=str(tmp_path / "w2w.prom"))
    with pytest.raises(UsageError):
        run_night(store, shop, {"uri": str(tmp_path / "gone.csv")}, tell=tell)
    assert [message["exit"] for message in hook.got] == [2]
    assert not os.path.exists(store)
    run_night(store, shop, tell=tell)
    shop.say("p1", price="3.00")
    clock.sleep()
    ingest.main(ingest.Config(store=store, feed=FeedConfig(uri=shop.write(), full=True), pool=Pool(workers=1)))
    clock.sleep()
    with pytest.raises(UsageError):
        run_night(store, shop, {"uri": str(tmp_path / "gone.csv")}, tell=tell)
    assert "the night did not begin" in hook.got[-1]["text"]
    assert "w2w_night_exit_code 2.0" in (tmp_path / "w2w.prom").read_text()
    assert b"the night did not begin" in storage.read_bytes(f"{store}/reports/nightly/latest.html")
    assert "1 changed; " in run_night(store, shop).says


def test_merging_between_nights_is_no_change(store, shop, clock):
    for price in ("1.00", "2.00"):
        shop.say("p1", price=price)
        run_night(store, shop)
        clock.sleep()
    # 0 hours: of the parts that the last page told of none is left
    tables.main(tables.Config(store=store, compact=True, vacuum=True, vacuum_hours=0))
    shop.say("p2", price="4.00")
    shop.draw("moved.jpg", 3)
    shop.say("p3", image="moved.jpg")  # the same picture in another place
    result = run_night(store, shop)
    assert ": 1 changed; " in result.says
    assert "1 more product was written anew with all of this as before" in page(result)


def test_nothing_changed_is_not_said_of_what_cannot_be_read(store, shop, clock, monkeypatch, caplog):
    run_night(store, shop)
    monkeypatch.setattr(flow, "since", lambda *args: 1 / 0)
    assert run_night(store, shop).says.endswith(": what changed could not be read; the published index stays as it was.")
    assert "cannot tell what changed: division by zero" in caplog.text


def test_an_unexpected_end_is_told_as_well(store, shop, clock, monkeypatch):
    monkeypatch.setattr(index, "main", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run_night(store, shop)
    assert b"the night stopped at index" in storage.read_bytes(f"{store}/reports/nightly/latest.html")


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("cannot write there"), 2), (KeyboardInterrupt(), 130), (MemoryError("no room"), 1)]
)
def test_however_a_night_ends_its_page_has_what_was_done_before(store, shop, clock, monkeypatch, tmp_path, error, code):
    """The steps before have results of their own, of which the page, the sentence and the metrics tell."""
    shop.stock(4)
    monkeypatch.setattr(similar, "main", lambda config: (_ for _ in ()).throw(error))
    tell = Tell(metrics=str(tmp_path / "w2w.prom"), openlineage=str(tmp_path / "lineage.jsonl"))
    with pytest.raises(type(error)):
        run_night(store, shop, similar=SimilarConfig(), tell=tell)
    [folder] = storage.list_folders(storage.join(store, "reports", "nightly"))
    where = Path(store, "reports", "nightly", folder)
    night = json.loads((where / "night.json").read_text())
    assert night["says"].split(": ", 1)[1].startswith("the night stopped at similar; index published. Until then: ")
    assert (night["exit"], night["index"]["published"]) == (code, read_manifest(index_uri(store, "default")).version)
    assert "the night stopped at similar" in (where / "index.html").read_text()
    assert f"w2w_night_exit_code {float(code)}" in (tmp_path / "w2w.prom").read_text()
    wrote = {d["name"].rpartition("/")[2] for e in events(tmp_path / "lineage.jsonl") for d in e["outputs"]}
    assert {"products", "embeddings", "default"} <= wrote


def test_what_an_earlier_run_has_published_is_told(store, shop, clock):
    run_night(store, shop)
    clock.sleep()
    shop.draw("new.jpg", 77)
    shop.say("p3", image="new.jpg")
    source = FeedConfig(uri=shop.write(), full=True, grace_nights=1)
    for job in (ingest, embed, index):  # as a night that was killed behind them
        more = {"feed": source} if job is ingest else {}
        job.main(job.Config(store=str(store), **more | ({} if job is index else {"pool": Pool(workers=1)})))
    clock.sleep()
    assert "an index that an earlier run has published." in run_night(store, shop).says
    clock.sleep()
    assert "the published index stays as it was." in run_night(store, shop).says


def test_a_page_that_cannot_be_made_never_fails_the_night(store, shop, clock, monkeypatch, caplog):
    monkeypatch.setattr(nightly, "morning_page", lambda *args: 1 / 0)
    result = run_night(store, shop)
    assert (result.report, result.index.unchanged) == (None, False)
    assert "the page of the morning was not written: division by zero" in caplog.text


def test_steps_from_and_until(store, shop, clock):
    until = run_night(store, shop, until="embed")
    assert until.embed is not None
    assert until.index is None
    assert delta.count_rows(delta.open_table(store, schema.EMBEDDINGS)) == 20
    shop.items.clear()  # an empty feed is not even read
    later = nightly.main(nightly.Config(store=store, from_="index", check=CheckConfig(), pool=Pool(workers=1)))
    assert later.ingest is None
    assert later.index.published
    assert later.check is not None
    dry = nightly.main(nightly.Config(store=store, from_="index", check=CheckConfig(), dry_run=True))
    assert dry.index is not None
    assert dry.check is not None
    assert dry.then is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"from_": "embedd"}, "--from=embedd: is no step of a night. Steps that are on: ingest, embed, index"),
        ({"until": "export"}, "--until=export: is not on in this config"),
        ({"from_": "index", "until": "embed"}, "--until=embed comes before --from=index"),
        ({"tell": Tell(command=["no-such-program"])}, "tell.command='no-such-program': there is no such program"),
        ({"tell": Tell(webhook_env="W2W_NO_HOOK")}, "tell.webhook_env=W2W_NO_HOOK: the environment has no such variable"),
        ({"tell": Tell(metrics="/nowhere/w2w.prom")}, "tell.metrics=/nowhere/w2w.prom: there is no such folder"),
        ({"tell": Tell(metrics="w2w.txt")}, "only files that end in .prom"),
        ({"tell": Tell(openlineage="/nowhere/l.jsonl")}, "neither an http or https URL nor a file in a folder that exists"),
        ({"tell": Tell(openlineage="https://me:pass@host")}, "leave credentials out of the URL"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_done(store, shop, options, says):
    with pytest.raises(UsageError) as refused:
        run_night(store, shop, **options)
    assert says in str(refused.value)
    assert not os.path.exists(store)


class _Hook(http.server.BaseHTTPRequestHandler):
    got: list[dict] = []
    status = 200

    def do_POST(self):
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def hook(monkeypatch):
    _Hook.got, _Hook.status = [], 200
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("W2W_HOOK", f"http://127.0.0.1:{server.server_port}/secret-path")
    yield _Hook
    server.shutdown()
    server.server_close()


def test_a_webhook_a_command_and_prometheus_are_told(store, shop, clock, hook, tmp_path, caplog):
    script = tmp_path / "tell.sh"
    script.write_text(f'#!/bin/sh\ncat > {tmp_path}/night.json\necho "$W2W_EXIT $W2W_SAYS" > {tmp_path}/said\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    tell = Tell(command=[str(script)], webhook_env="W2W_HOOK", metrics=str(tmp_path / "w2w.prom"))
    result = run_night(store, shop, tell=tell)
    [message] = hook.got
    assert (message["text"], message["exit"], message["night"]["told"]["new"]) == (result.says, 0, 20)
    assert (tmp_path / "said").read_text() == f"0 {result.says}\n"
    assert json.loads((tmp_path / "night.json").read_text())["ingest"]["counts"]["out"] == 20
    lines = (tmp_path / "w2w.prom").read_text().splitlines()
    assert "w2w_night_exit_code 0.0" in lines
    assert 'w2w_night_rows{kind="rejected"} 0' in lines
    assert any(line.startswith('w2w_night_step_seconds{step="embed"} ') for line in lines)
    assert any(line.startswith("w2w_index_shoppers_see{figure=") for line in lines)
    hook.status = 500
    clock.sleep()
    run_night(store, shop, tell=Tell(webhook_env="W2W_HOOK"))
    assert "tell.webhook_env: nobody was told: HTTP 500" in caplog.text
    assert "secret-path" not in caplog.text
    assert "secret-path" not in page(result)


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_openlineage_hears_which_step_read_and_wrote_what(store, shop, clock, hook, monkeypatch, tmp_path):
    where = tmp_path / "lineage.jsonl"
    result = run_night(store, shop, tell=Tell(openlineage=str(where)))
    got = events(where)
    assert [(e["job"]["name"].rpartition("nightly")[2], e["eventType"]) for e in got] == [
        ("", "START"),
        *[(f".{step}", state) for step in ("ingest", "embed", "index") for state in ("START", "COMPLETE")],
        ("", "COMPLETE"),
    ]
    night = got[0]["run"]["runId"]
    assert {e["run"]["facets"]["parent"]["run"]["runId"] for e in got[1:-1]} == {night} == {got[-1]["run"]["runId"]}
    assert sorted(e["eventTime"] for e in got) == [e["eventTime"] for e in got]
    ingested, embedded, indexed = (e for e in got[1:-1] if e["eventType"] == "COMPLETE")
    names = {kind: {d["name"]: d for d in embedded[kind]} for kind in ("inputs", "outputs")}
    assert set(names["inputs"]) == {f"{store}/images"}
    assert set(names["outputs"]) == {f"{store}/embeddings"}
    wrote = names["outputs"][f"{store}/embeddings"]
    assert (wrote["namespace"], wrote["outputFacets"]["outputStatistics"]["rowCount"]) == ("file", 20)
    assert wrote["facets"]["version"]["datasetVersion"] == str(result.embed.versions["embeddings"])
    assert shop.write() in [d["name"] for d in ingested["inputs"]]
    [made] = indexed["outputs"]
    assert (made["name"], made["facets"]["version"]["datasetVersion"]) == (f"{store}/index/default", result.index.published)
    assert {d["name"] for d in indexed["inputs"]} == {f"{store}/products", f"{store}/embeddings"}

    monkeypatch.setattr(index, "main", lambda config: (_ for _ in ()).throw(JobFailed("no room")))
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "a-secret")
    clock.sleep()
    url = os.environ["W2W_HOOK"].rpartition("/")[0]
    with pytest.raises(JobFailed):
        run_night(store, shop, tell=Tell(openlineage=url))
    assert [(e["job"]["name"].rpartition(".")[2], e["eventType"]) for e in hook.got[-2:]] == [
        ("index", "FAIL"),
        ("nightly", "FAIL"),
    ]
    assert hook.got[-1]["run"]["facets"]["errorMessage"]["message"] == "no room"
    assert hook.got[0]["run"]["runId"] != night


def test_a_lineage_server_that_fails_fails_no_night(store, shop, clock, hook, caplog):
    hook.status = 500
    url = os.environ["W2W_HOOK"].rpartition("/")[0]
    assert run_night(store, shop, tell=Tell(openlineage=url)).index.published
    assert "tell.openlineage: nobody was told" in caplog.text


def test_on_failure_alone(store, shop, clock, hook, monkeypatch):
    tell = Tell(webhook_env="W2W_HOOK", on="failure")
    run_night(store, shop, tell=tell)
    assert not hook.got
    monkeypatch.setattr(index, "main", lambda config: (_ for _ in ()).throw(JobFailed("no room")))
    with pytest.raises(JobFailed):
        run_night(store, shop, tell=tell)
    assert [message["exit"] for message in hook.got] == [1]


def test_an_index_that_is_held_back_is_told_each_morning(store, shop, clock, hook):
    tell = Tell(webhook_env="W2W_HOOK", on="notice")
    first = run_night(store, shop, tell=tell)
    assert (first.notices, hook.got) == ((), [])
    clock.sleep()
    shop.items.pop("p3")
    second = run_night(store, shop, tell=tell)
    back = index.main(index.Config(store=str(store), rollback=True))
    assert (back.published, back.held_back_versions) == (first.index.published, (second.index.published,))
    assert "tell.on=failure does not hear" in back.then
    for _ in range(2):
        clock.sleep()
        held = run_night(store, shop, tell=tell)
        now, was = first.index.published, second.index.published
        notice = (
            f"{now} stays the published index, as {was} was rolled back from; w2w index --release {was} lets it be published"
        )
        assert held.notices == (notice,)
        assert held.says.endswith(f": nothing changed; index held back. {notice[0].upper()}{notice[1:]}.")
        assert hook.got.pop()["text"] == held.says
        text = page(held)
        assert text.count(f"as {was} was rolled back from") == 1, "not in the line of the night before"
        assert told(held)["notices"] == [notice]
    run_night(store, shop, tell=Tell(webhook_env="W2W_HOOK", on="failure"))
    assert not hook.got
    free = index.main(index.Config(store=str(store), release=second.index.published))
    assert (free.released, free.published) == (second.index.published, first.index.published)
    assert f"{first.index.published} stays published until the next w2w index or night" in free.then
    assert run_night(store, shop, tell=tell).notices == ()


def refuse(store: str, num: int) -> None:
    """As the hosts of the first pictures would."""
    rows = delta.read(store, schema.IMAGES, [schema.IMAGE_ID, schema.SOURCE_URI]).slice(0, num).to_pylist()
    said = Statement(Headers(robots_tag="noindex"))
    ledger = [permission(row[schema.IMAGE_ID], row[schema.SOURCE_URI], "main", said, "x") for row in rows]
    append(store, schema.PERMISSIONS, ledger)


def test_a_shop_none_of_whose_pictures_can_be_loaded_has_a_night(store, shop, clock):
    for i in shop.items:
        (shop.folder / f"{i[1:]}.jpg").write_bytes(b"")
    steps = {"similar": SimilarConfig(), "recommend": Wanted(), "export": ExportConfig(), "tidy": Tidy()}
    night = run_night(store, shop, max_reject_rate=1.0, **steps)
    assert "20 rejected; nothing is published. Nothing can be found any more: no product is active" in night.says
    assert (night.similar, night.recommend, night.export.upserts) == (None, None, 0)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_refused_pictures_leave_the_index_in_a_night_that_never_gets_to_it(store, shop, clock, monkeypatch, when):
    first = run_night(store, shop)
    clock.sleep()
    if when == "before":
        refuse(store, 3)  # a night that was killed

    def fails(config):
        if when == "meanwhile":
            refuse(store, 3)
        raise JobFailed("the model is gone")

    monkeypatch.setattr(embed, "main", fails)
    with pytest.raises(JobFailed) as e:
        run_night(store, shop)
    now = read_manifest(index_uri(store, "default"))
    assert (now.num_rows, now.version[:20]) == (17, first.index.published[:20])
    why = "the night stopped at embed; 3 pictures that search may not use any more left the published index."
    assert why in e.value.result.says
    clock.sleep()
    with pytest.raises(JobFailed) as e:
        run_night(store, shop)
    assert "the published index stays as it was" in e.value.result.says
    monkeypatch.undo()


def test_whether_pictures_are_refused_is_read_off_a_log(store, shop, clock, monkeypatch):
    run_night(store, shop, {"use": UseConfig(training="refused")})
    assert delta.count_rows(delta.open_table(store, schema.PERMISSIONS)) == 20
    with monkeypatch.context() as patched:
        patched.setattr(index, "permitted", None)
        assert index.take_out(store, "default") == 0
        maintain.compact(store, schema.PERMISSIONS)
        assert index.take_out(store, "default") == 0
    refuse(store, 1)
    assert [index.take_out(store, "default") for _ in range(2)] == [1, 0]
    monkeypatch.setattr(index, "permitted", None)
    assert index.take_out(store, "default") == 0


def test_pictures_that_search_may_not_use_are_told_each_morning(store, shop, clock):
    """As of a CDN that begins to say noindex: here its owner says what the ledger would."""
    run_night(store, shop)
    clock.sleep()
    refuse(store, 3)
    why = "search may not use 3 pictures (X-Robots-Tag: noindex), so that 3 products are not found; if they are your own, "
    why += "feed.use.search: allowed says so"
    for _ in range(2):
        night = run_night(store, shop)
        assert night.notices == (why,) == (night.index.why_not_permitted,)
        assert night.says.endswith(f" S{why[1:]}.")
        assert "so that 3 products are not found" in page(night)
        assert words(night.index)["why not permitted"] == why
        clock.sleep()
    allowed = run_night(store, shop, {"use": UseConfig(search="allowed")})
    assert (allowed.notices, allowed.index.not_permitted) == ((), None)
    clock.sleep()
    refused = run_night(store, shop, {"use": UseConfig(search="refused")}, similar=SimilarConfig())
    assert "; nothing is published any more. Nothing can be found any more: no picture of an active product may" in refused.says
    assert (refused.index.withdrawn, refused.similar.products) == (allowed.index.published, 0)
    assert (
        "; nothing is published. Nothing can be found any more"
        in run_night(store, shop, {"use": UseConfig(search="refused")}).says
    )


def test_golden_queries_of_unknown_products_are_told(store, shop, clock, tmp_path):
    (tmp_path / "golden.csv").write_text("product_id,expected\np1,p2|p3\nnobody,p2|gone\n")
    night = run_night(store, shop, index=IndexConfig(golden=str(tmp_path / "golden.csv")))
    assert night.notices == ("golden queries name products that the catalog never had: gone, nobody",)
    assert "the catalog never had: gone, nobody." in page(night)
    assert "Golden queries name products" in night.says


def test_tidying_merges_parts_and_deletes_old_files_and_pages(store, shop, clock):
    for n in range(4):
        shop.say("p1", price=f"{n + 1}.00")
        run_night(store, shop)
        clock.sleep()
    before = len(delta.parts(delta.existing(store, schema.PRODUCTS)))
    shop.say("p1", price="9.00")
    result = run_night(store, shop, tidy=Tidy(parts=3, vacuum_hours=0, reports=2))
    assert result.parts_merged["products"] == before + 1
    assert result.files_deleted >= before + 1
    assert "1 changed" in result.says  # the merged parts are nothing new
    assert len(delta.parts(delta.existing(store, schema.PRODUCTS))) == 1
    assert len(storage.list_folders(f"{store}/reports/nightly")) == 3  # two, and this night's
    clock.sleep()
    assert "nothing changed" in run_night(store, shop).says


def rows(*listed: tuple) -> Rows:
    """(id, fetched_at, active, price, title)"""
    columns = [list(column) for column in zip(*listed)]
    names = [schema.PRODUCT_ID, schema.FETCHED_AT, schema.ACTIVE, schema.PRICE, schema.TITLE]
    table = pa.table(columns, names=names)
    for name in set(rules.COMPARED) - set(names):
        table = table.append_column(name, pa.nulls(len(listed), pa.string()))
    return Rows.of(table.set_column(1, names[1], pa.array(columns[1]).cast(schema.TIME)))


def test_the_newest_row_before_and_the_newest_tonight_are_compared():
    before = rows(("a", 1, True, 1.0, "x"), ("a", 3, True, 2.0, "x"), ("b", 1, False, 1.0, "x"), ("c", 2, True, 1.0, None))
    tonight = rows(("a", 9, True, 5.0, "x"), ("a", 10, True, 2.0, "y"), ("b", 9, True, 1.0, "x"), ("c", 9, False, 1.0, None))
    found = changes(tonight, before)
    assert [list(part) for part in (found.new, found.back, found.gone, found.changed)] == [[], [2], [3], [1]]
    assert found.what == {"title": 1}
    again = changes(rows(("a", 9, True, 2.0, "x"), ("n", 9, True, 1.0, "x"), ("o", 9, False, 1.0, "x")), before)
    assert ([*again.new], [*again.changed], again.what, again.rewritten) == ([1], [], {}, 1)
    assert [len(part) for part in (changes(rows(("z", 1, True, 1.0, "")), Rows.joined([])).new,)] == [1]


def test_differences_are_said_as_a_person_would():
    then = {schema.PRICE: 12.0, schema.CURRENCY: "EUR", schema.CATEGORY: "top", schema.AVAILABILITY: "in_stock"}
    then |= {schema.TITLE: "a", schema.IMAGE_ID: "1"}
    now = then | {schema.PRICE: 9.5, schema.AVAILABILITY: "out_of_stock", schema.IMAGE_ID: "2"}
    assert differences(now, then) == ["price 12.00 EUR → 9.50 EUR", "in_stock → out_of_stock", "picture"]
    assert differences(then, then) == []


def test_what_other_nights_left_may_be_anything(store, shop, clock):
    folder = f"{store}/reports/nightly/nightly-20200101T000000-abcdef"
    for name, text in (("a", "[]"), ("b", "{"), ("c", '{"ended": "x"}'), ("d", '{"ended": 1e300, "seconds": 1}')):
        storage.write_bytes(f"{folder}{name}/{flow.NIGHT}", text.encode())
    assert run_night(store, shop).report is not None


@pytest.mark.skipif(chromium.program() is None, reason="there is no Chromium here")
def test_the_page_in_a_browser(store, shop, clock):
    run_night(store, shop)
    clock.sleep()
    shop.say("p4", price="7.50", title="long " * 60)
    shop.items["p22"] = type(shop.items["p4"])("missing-" + "x" * 120 + ".jpg")
    result = run_night(store, shop, check=CheckConfig())
    with chromium.browser() as browser:
        for width in chromium.WIDTHS:
            shown = browser.page(width)
            shown.open(f"file://{result.report}")
            assert shown.faults() == []
            shown.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
            facts = "[...document.querySelectorAll('.facts-of .facts div')]"
            size = "[e.textContent.length, e.getBoundingClientRect().height]"
            sizes: Any = shown.evaluate(f"{facts}.map((e) => {size})")
            long = [(length, height) for length, height in sizes if length > 100]
            assert long
            assert all(height < 3 * length for length, height in long), "a letter a line of 20 px"
            assert shown.faults() == []


def test_nights_of_one_day_have_their_hour(monkeypatch):
    drawn = {}
    monkeypatch.setattr("w2w.nightly.page.write_page", lambda *_, **values: drawn.update(values))
    ended = datetime(2026, 11, 30, 7, 5, tzinfo=UTC)
    before = [{"ended": (ended - timedelta(hours=h)).timestamp(), "seconds": 1.0, "says": "x: y", "exit": 0} for h in (2, 24)]
    morning_page("", "Monday: 1 new.", None, Summary(job="nightly", run_id="r"), [], flow.Told(), before, ended)
    assert [night.name for night in drawn["nights"]] == ["Mon 30 Nov 07:05", "Mon 30 Nov 05:05", "Sun 29 Nov"]


def test_words_are_those_of_compared():
    assert set(rules.COMPARED) <= set(schema.PRODUCTS.schema.names)


def test_photos_that_were_asked_about_are_no_rejects_of_the_shop(store, shop, clock):
    run_night(store, shop)
    row = {"key": "p.jpg", "stage_version": "v", "code": "truncated", "detail": "cut off", "rejected_at": 0, "run_id": "r"}
    append(store, schema.REJECTS, [row | {"stage": stage} for stage in ("find", "search", "embed")])
    clock.sleep()
    night = run_night(store, shop)
    assert told(night)["told"]["rejected"] == 1
    assert " 1 rejected" in night.says
    assert "p.jpg" in page(night)
