"""The graph: each method pulls in what it needs and no more, and each stage's deps are what it imports."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages import params
from tests.conftest import set_params
from tests.imports import ROOT, files_of

DVC = (sys.executable, "-m", "dvc")
SOURCE = {"dataset", "demo", "frames"}
NEEDS = {
    "frame_difference": SOURCE | {"score-frame_difference"},
    "lgn_net": SOURCE | {"fit-lgn_net", "score-lgn_net"},
    "mama": SOURCE | {"flow-mama", "segments", "fit-mama-generator", "fit-mama-destroyer", "score-mama"},
    "mnad": SOURCE | {"fit-mnad", "score-mnad"},
    "state": SOURCE | {"flow-state", "boxes", "objects", "fit-state", "score-state"},
    "s3r": SOURCE | {"features", "dictionary", "fit-s3r", "score-s3r"},
    "mnad_recon": SOURCE | {"fit-mnad_recon", "score-mnad_recon"},
}


def stages_of(file: str) -> dict[str, dict]:
    return YAML(typ="safe").load((ROOT / file).read_text())["stages"]


UPSTREAM = stages_of("stages/dvc.yaml")


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A copy of the pipeline's description, without data."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages", ignore=shutil.ignore_patterns("__pycache__", "dvc.lock"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    subprocess.run([*DVC, "init", "--no-scm", "--quiet"], check=True)
    return tmp_path


@pytest.mark.parametrize("method", params.methods())
def test_a_method_runs_only_what_it_needs(pipeline, method):
    set_params(pipeline, method=method)
    drawn = subprocess.run([*DVC, "dag", "--mermaid", "evaluate"], check=True, capture_output=True, text=True).stdout
    nodes = set(re.findall(r'node\d+\["(?:stages/dvc\.yaml:)?([^"]+)"\]', drawn))
    assert nodes == NEEDS[method] | {"evaluate"}


def test_another_data_set_needs_no_demo(pipeline):
    set_params(pipeline, dataset="ped2")
    drawn = subprocess.run([*DVC, "dag", "--mermaid", "evaluate"], check=True, capture_output=True, text=True).stdout
    assert "demo" not in drawn


@pytest.mark.parametrize("stage", UPSTREAM)
def test_deps_are_the_imports(stage):
    described = UPSTREAM[stage]
    listed = {dep for dep in described["deps"] if dep.endswith(".py")}
    assert listed == files_of(described["cmd"])


@pytest.mark.parametrize("method", params.methods())
def test_evaluate_deps_are_the_imports(method):
    described = stages_of("dvc.yaml")["evaluate"]
    listed = {dep.replace("${method}", method) for dep in described["deps"] if dep.endswith(".py")}
    needed = files_of(described["cmd"], method)
    assert needed <= listed | {"stages/recipes/mnad.py"}  # what mnad_recon and lgn_net share with mnad
    assert listed <= needed


def test_every_part_of_a_recipe_is_tracked_by_its_stage():
    assert "${method}.fuse" in stages_of("dvc.yaml")["evaluate"]["params"]
    for method in params.methods():
        assert "fuse" in params.recipe_module(method).Recipe.model_fields
        if "score" in params.recipe_module(method).Recipe.model_fields:
            assert f"{method}.score" in UPSTREAM[f"score-{method}"]["params"]
        for part, model in params.trainings(method).items():
            stage = UPSTREAM[model.replace("models/", "fit-")]
            assert (stage["outs"], f"{method}.{part}" in stage["params"]) == ([model], True)
            assert model in UPSTREAM[f"score-{method}"]["deps"]


def test_tuning_mamas_destroyer_never_trains_its_generator_again():
    destroyer = UPSTREAM["fit-mama-destroyer"]
    assert "models/mama-generator" in destroyer["deps"]
    assert "mama.destroyer" not in UPSTREAM["fit-mama-generator"]["params"]
    assert "stages/methods/mama_destroyer.py" not in UPSTREAM["fit-mama-generator"]["deps"]


def test_a_dropped_dep_would_be_seen():
    """The walk over imports finds indirect ones, relative to the root, and the modules imported by name."""
    found = files_of("python -m stages.fit mnad_recon")
    assert {"stages/fit.py", "stages/methods/mnad.py", "stages/recipes/mnad_recon.py", "stages/io/files.py"} <= found
    assert "stages/methods/lgn_net.py" not in found


def test_every_method_has_its_stages():
    for method in params.methods():
        assert f"score-{method}" in UPSTREAM
        assert Path(f"stages/methods/{method}.py").exists()
