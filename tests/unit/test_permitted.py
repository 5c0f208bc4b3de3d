"""No job forgets to ask what a picture may be used for: what reads pictures, vectors or training data asks, or says why not."""

import ast
import re

import pytest

from tests.unit.test_structure import MODULES, ours, tree
from w2w.cli.main import JOBS, module_of

SEARCH, TRAINING = "SEARCH", "TRAINING"
# what each job does with pictures
USES = {
    **{job: {SEARCH} for job in ("index", "similar", "export", "gallery")},
    **{job: {TRAINING} for job in ("mine", "harden", "compose", "train", "classify", "tag", "bridge")},
    "recommend": {SEARCH, TRAINING},
}
NO_USE = {
    "takes in": "ingest crawl annotate convert erase tables",
    "computes what later jobs choose from": "detect segment deduplicate split represent embed",
    "shows or checks it for the shop alone": "show check audit judge-answers doctor",
    "answers from an index, which has what may be found": "find style search",
    "measures": "judge evaluate compare",
    "runs other jobs, or none": "nightly plan demo init completion apply train-detector",
}
READ = re.compile(
    r"schema\.(EMBEDDINGS|IMAGES|GARMENTS|LOOKS|CUTOUTS|DETECTIONS|PAIRS|NEGATIVES|OUTFITS|QUESTIONS)\b(?!\.(schema|fields|empty)\b)"
    r"|\b(active_pictures|list_vectors|list_served|vector_batches|look_posts|labelled_products|read_outfits)\("
)
# modules that read such tables and do not ask: the one that asks for them, or why nobody does
ASKED_BY = {
    "similar.flow_search": "similar.flow",
    "export.job": "export.flow",
    "index.flow": "index.job",
    "index.flow_rows": "index.job",
    "mining.catalog": "mining.pairs.job",
    "mining.negatives.flow": "mining.negatives.job",
    "mining.outfits.flow": "mining.outfits.job",
    "mining.pairs.flow": "mining.pairs.job",
    "mining.pairs.shown": "mining.pairs.job",
    "models.looks": "index.job",
    "recommend.job": "recommend.flow",
    "similar.job": "similar.flow",
    "gallery.job": "gallery.flow",
    "gallery.site": "gallery.flow",
    "training.classifier.job": "training.classifier.flow",
    "training.tags.job": "training.tags.flow",
    "training.detectors.flow_plan": "training.detectors.flow",
    "training.encoders.flow_plan": "training.encoders.flow",
    "training.encoders.flow_shown": "training.encoders.flow",
    "training.vectors": "training.outfits.flow",
}
NOBODY = {
    "takes in": "crawl.flow ingest.flow_load garments.job_annotate mining.sets.flow mining.sets.flow_links mining.sets.job",
    "computes": "garments.guides garments.job_detect garments.job_segment mining.duplicates.flow mining.duplicates.job "
    "mining.representatives.flow mining.representatives.job models.default models.earlier models.flow models.flow_looks "
    "models.job",
    "for the shop alone": "check.flow check.flow_vectors check.job garments.gallery garments.job_show mining.audit.flow "
    "mining.audit.job mining.audit.rules search.job_judge_answers",
    "shows what was chosen": "find.flow find.page search.flow search.pictures search.worst style.page style.stage "
    "report.variants",
    "measures": "evaluation.flow evaluation.flow_compare evaluation.flow_detectors evaluation.flow_lookbook "
    "evaluation.flow_shown evaluation.job_evaluate index.flow_golden index.flow_shown training.detectors.job_judge",
    "chooses nothing": "nightly.flow nightly.flow_steps plan.job engine.shuffle erase.flow erase.flow_index table.pictures "
    "table.sink",
}


def asks(module: str) -> set[str]:
    """The uses for which a module asks what is permitted."""
    found = set()
    for node in ast.walk(tree(MODULES[module])):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "permitted":
            found |= {arg.id for arg in node.args if isinstance(arg, ast.Name)} & {SEARCH, TRAINING}
    return found


def around(module: str) -> set[str]:
    """A job's module with those of its room that it imports, in two steps; of `train` the rooms of its recipes too."""
    room, found = module.rpartition(".")[0], {module}
    for _ in range(2):
        found |= {other for one in found for other in ours(MODULES[one]) if other.startswith(f"{room}.")}
    return found


@pytest.mark.parametrize("job", JOBS)
def test_every_job_says_what_it_does_with_pictures_and_asks(job):
    without = {name for names in NO_USE.values() for name in names.split()}
    assert (job in USES) != (job in without), f"{job}: is it for search or training? Name it in USES, or in NO_USE"
    asked = {use for module in around(module_of(job)) for use in asks(module)}
    assert USES.get(job, set()) <= asked, f"{job}: choose its pictures through w2w.table.permitted"


def test_every_recipe_that_trains_on_the_store_asks():
    for module in ("training.encoders.flow", "training.encoders.flow_looks", "training.outfits.flow_results"):
        assert TRAINING in asks(f"w2w.{module}")
    for module in ("training.detectors.flow", "training.classifier.flow", "training.tags.flow"):
        assert TRAINING in asks(f"w2w.{module}")


def test_every_reader_of_pictures_asks_or_is_known_not_to():
    nobody = {f"w2w.{name}" for names in NOBODY.values() for name in names.split()}
    by = {f"w2w.{name}": f"w2w.{other}" for name, other in ASKED_BY.items()}
    assert nobody | set(by) <= set(MODULES)
    assert not nobody & set(by)
    for module, path in MODULES.items():
        if READ.search(path.read_text(encoding="utf-8")) and not asks(module):
            assert module in nobody or asks(by.get(module, module)), f"{module}: see w2w.table.permitted"
    for module in [*nobody, *by]:
        assert READ.search(MODULES[module].read_text(encoding="utf-8")), f"{module} reads none of it any more"
