"""The pipeline as a user drives it, in a fresh clone, on a small demo data set."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.methods import memory, mnad
from stages.params import EXTRACTORS
from tests.conftest import set_params
from tests.imports import ROOT
from tests.test_graph import UPSTREAM

pytestmark = pytest.mark.slow


class Clone:
    """A repository of its own with this tree's files, and commands run in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        for name in listed.stdout.splitlines():
            if (ROOT / name).is_file() and not name.endswith("dvc.lock"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, folder / name)
        set_params(folder, demo__train_videos=2, demo__test_videos=2, demo__frames=40, method="mnad", device="cpu")
        for method in ("mnad", "mnad_recon", "lgn_net"):
            set_params(folder, **{f"{method}__fit__{key}": n for key, n in (("size", 32), ("width", 2), ("epochs", 1))})
        self("git", "init", "--quiet")
        self.commit("start")

    def __call__(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(
            command,
            cwd=self.folder,
            capture_output=True,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    def dvc(self, *arguments: str, fails: bool = False) -> str:
        return self(sys.executable, "-m", "dvc", *arguments, fails=fails)

    def commit(self, message: str) -> None:
        self("git", "add", "--all")
        self("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", message)

    def ran(self, *arguments: str) -> set[str]:
        """Names of the stages that a DVC command ran."""
        return set(re.findall(r"Running stage '(?:stages/dvc\.yaml:)?([^']+)'", self.dvc(*arguments)))


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    return Clone(tmp_path_factory.mktemp("clone"))


def test_a_fresh_clone_runs_and_then_has_nothing_to_do(clone):
    assert clone.ran("repro") == {"demo", "dataset", "frames", "fit-mnad", "score-mnad", "evaluate"}
    metrics = clone.dvc("metrics", "show")
    assert "honest.auc_micro" in metrics
    assert {path.name for path in (clone.folder / "metrics/plots").iterdir()} >= {"roc.png", "scores.png"}
    assert clone.ran("repro") == set()
    clone.commit("mnad")


def test_another_method_runs_only_its_own_stages(clone):
    assert clone.ran("exp", "run", "-S", "method=lgn_net") == {"fit-lgn_net", "score-lgn_net", "evaluate"}
    assert "lgn_net" in clone.dvc("metrics", "diff")
    assert "lgn_net" in clone.dvc("params", "diff")
    assert "lgn_net" in clone.dvc("exp", "show", "--csv")
    assert "html" in clone.dvc("plots", "diff")


def test_a_weight_re_runs_no_network_and_tuning_one_method_no_other(clone):
    assert clone.ran("exp", "run", "-S", "lgn_net.fuse.alpha=0.3") == {"evaluate"}
    assert clone.ran("exp", "run", "-S", "lgn_net.score.gamma=0.5") == {"score-lgn_net", "evaluate"}
    assert clone.ran("exp", "run", "-S", "mnad.fit.epochs=2") == set()


def test_the_report_compares_the_workspace_with_the_experiments(clone):
    assert clone.ran("exp", "run", "-S", "method=mnad", "-S", "mnad.fit.epochs=1", "-S", "seed=1") > {"fit-mnad"}
    clone.dvc("exp", "run", "-S", "seed=0")
    said = clone(sys.executable, "-m", "stages.report")
    assert re.search(r"5 evaluation\(s\) of mnad, lgn_net -> metrics/report/index.html", said), said
    page = (clone.folder / "metrics/report/index.html").read_text()
    assert "lgn_net" in page
    (clone.folder / "TABLE.md").write_text("before\n<!-- results of demo -->\nold\n<!-- end of results -->\nafter\n")
    clone(sys.executable, "-m", "stages.report", "--readme", "TABLE.md")
    table = (clone.folder / "TABLE.md").read_text()
    assert table.startswith("before\n")
    assert table.endswith("after\n")
    assert re.search(r"\| `mnad` \| .*\| size 32 \(256\), width 2 \(64\), .*epochs 1 \(60\), 2 seeds \|", table), table


def test_going_back_runs_nothing_but_the_evaluation_at_most(clone):
    assert clone.ran("exp", "run", "-S", "method=mnad", "-S", "mnad.fit.epochs=1") <= {"evaluate"}


def test_wrong_values_stop_before_any_work(clone):
    said = clone.dvc("exp", "run", "-S", "mnad.fit.epocs=3", fails=True)
    assert "epocs" in said
    said = clone.dvc("exp", "run", "-S", "method=mnda", fails=True)
    assert "mnda" in said
    set_params(clone.folder, method="mnad")
    said = clone.dvc("exp", "run", "-S", "dataset=ped3", fails=True)
    assert "did you mean 'ped" in said
    set_params(clone.folder, dataset="demo")
    said = clone.dvc("exp", "run", "-S", "dataset=ped2", fails=True)
    assert "svcl.ucsd.edu" in said
    assert "fit-" not in said
    set_params(clone.folder, dataset="demo")


def test_an_imported_checkpoint_is_what_gets_scored(clone):
    clone.dvc("repro")
    torch.save(mnad.Network(width=2).state_dict(), clone.folder / "model.pth")
    torch.save(memory.initial_items(10, 16)[0], clone.folder / "keys.pt")
    clone(sys.executable, "-m", "stages.import_checkpoint", "mnad", "model.pth", "keys.pt")
    assert clone.ran("repro") == {"score-mnad", "evaluate"}
    assert "imported from model.pth" in clone.dvc("metrics", "show", "--json")


def test_the_extractors_run_and_then_have_nothing_to_do(clone):
    set_params(clone.folder, features__short_side=32, features__crop=32, features__crops=1)
    stages = {name for name in UPSTREAM if name.split("-")[0] in EXTRACTORS}
    targets = [f"stages/dvc.yaml:{name}" for name in sorted(stages)]
    assert stages <= clone.ran("repro", *targets)
    for out in (out for name in stages for out in UPSTREAM[name]["outs"]):
        assert (clone.folder / out).exists(), out
    assert clone.ran("repro", *targets) == set()


def test_methods_that_rest_on_extractors_run_in_their_stages(clone):
    for part in ("generator", "destroyer"):
        set_params(clone.folder, **{f"mama__{part}__{key}": 2 for key in ("width", "iterations", "validate_every")})
    set_params(clone.folder, s3r__fit__width=8, s3r__fit__batch=2, s3r__fit__steps=2, s3r__fit__test_every=1)
    set_params(clone.folder, state__fit__width=4, state__fit__epochs=1)
    for method in ("mama", "state", "s3r"):
        set_params(clone.folder, method=method)
        own = {name for name in UPSTREAM if method in name and not name.startswith("flow")}
        assert clone.ran("repro") == own | {"evaluate"}
        assert "honest.auc_micro" in clone.dvc("metrics", "show")
        assert (clone.folder / "metrics/plots/highlights.png").exists()
        assert clone.ran("repro") == set()
    set_params(clone.folder, method="mama", mama__destroyer__background=0.0)
    assert clone.ran("repro") == {"fit-mama-destroyer", "score-mama", "evaluate"}
    set_params(clone.folder, method="mnad")


def test_one_more_video_costs_that_video(clone):
    raw = clone.folder / "data/raw"
    for folder, name in (("train", "01"), ("test", "01")):
        (raw / "own" / folder).mkdir(parents=True)
        shutil.copy(raw / f"demo/{folder}/{name}.mkv", raw / "own" / folder)
    set_params(clone.folder, dataset="own")
    target, kept = "stages/dvc.yaml:segments", clone.folder / "data/scratch"
    clone.dvc("repro", target)
    before = {path: path.stat().st_mtime_ns for part in ("frames", "segments") for path in (kept / part).iterdir()}
    shutil.copy(raw / "demo/test/02.mkv", raw / "own/test")
    assert clone.ran("repro", target) == {"frames", "segments"}
    after = {path: path.stat().st_mtime_ns for part in ("frames", "segments") for path in (kept / part).iterdir()}
    assert before.items() <= after.items()
    assert len(before) == 8  # of two stages and two videos, a result and its record
    assert len(after) == 12
    assert (clone.folder / "data/segments/test/02.npy").exists()
    set_params(clone.folder, dataset="demo")
