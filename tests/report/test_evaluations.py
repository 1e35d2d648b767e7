"""Gathering what was evaluated, and the table of it; finding it in real experiments is in tests/test_pipeline.py."""

import json
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages.command import VigilError
from stages.datasets import LAYOUTS, card
from stages.params import methods
from stages.report import evaluations, readme
from stages.report.evaluations import Evaluation, gather
from stages.report.published import PUBLISHED

LENGTHS = {"test/1": 3, "test/2": 2, "train/1": 9}


def one(method: str = "mnad", origin: str = "workspace", seed: int = 0, epochs: int = 4, **metrics) -> Evaluation:
    fit = {"size": 64, "width": 64, "items": 10, "epochs": epochs, "learning_rate": 1e-3, "batch": 4}
    fit |= {"lambda_compact": 0.1, "lambda_separate": 0.1}
    recipe = {"fit": fit, "score": {"gamma": 0.01}, "fuse": {"alpha": 0.6}}
    measures = {
        "auc_micro": 0.8 + seed / 100, "auc_micro_interval": {"low": 0.7, "high": 0.9}, "auc_macro": 0.75,
        "macro_videos": 2, "macro_skipped": 0, "ap": 0.5, "eer": 0.25, "frames": 5, "abnormal": 2,
    }  # fmt: skip
    made = {
        "method": method, "dataset": "demo", "seed": seed, "data": {"videos": 2, "frames": 5, "hash": "d"},
        "honest": measures, "paper": measures | {"auc_micro": 0.9},
        "labels": {"set": "demo", "hash": "l", "frames": 5, "abnormal": 2}, "cost": {"device": "CPU"},
    }  # fmt: skip
    frames = pd.DataFrame({"video": ["test/1"] * 3 + ["test/2"] * 2, "frame": [0, 1, 2, 0, 1]})
    empty = pd.DataFrame()
    return Evaluation(
        "", origin, made | metrics, {"dataset": "demo", "seed": seed, method: recipe}, frames, *[empty] * 4
    )


@pytest.fixture
def known(monkeypatch):
    """Let `gather` find what it is given."""

    def give(*found: Evaluation | tuple[str, str]) -> None:
        pairs = [item if isinstance(item, tuple) else (item.origin, item) for item in found]
        monkeypatch.setattr(evaluations, "_all", lambda all_commits: iter(pairs))

    return give


def test_one_of_a_kind_is_taken_and_the_first(known):
    known(one(), one(origin="again"), one(origin="other", seed=1), one("lgn_net", origin="lgn"))
    found, left_out = gather("demo", LENGTHS)
    assert [(item.name, item.origin) for item in found] == [
        ("mnad, seed 0", "workspace"), ("mnad, seed 1", "other"), ("lgn_net", "lgn"),
    ]  # fmt: skip
    assert not left_out


def test_other_recipes_have_other_names(known):
    known(one(), one(origin="b", epochs=60), one(origin="c", epochs=60, seed=1))
    found, _ = gather("demo", LENGTHS)
    assert [item.name for item in found] == ["mnad", "mnad 2, seed 0", "mnad 2, seed 1"]


def test_what_does_not_belong_is_left_out_with_the_reason(known):
    known(one(), one("state", "a", dataset="ped2"), ("b", "its files are not there"))
    found, left_out = gather("demo", LENGTHS)
    assert len(found) == 1
    assert left_out == ["a: of data set ped2", "b: its files are not there"]
    _, left_out = gather("demo", LENGTHS)
    known(one())
    with pytest.raises(VigilError, match="workspace: of other test videos than there are now"):
        gather("demo", LENGTHS | {"test/2": 7})
    with pytest.raises(VigilError, match=r"nothing has been evaluated on data set ped2: run `dvc repro`"):
        gather("ped2", LENGTHS)


def test_files_are_read_as_evaluate_writes_them(tmp_path):
    item = one()
    for name in ("tables", "plots"):
        (tmp_path / name).mkdir()
    (tmp_path / "metrics.json").write_text(json.dumps(item.metrics))
    with open(tmp_path / "recipe.yaml", "w") as file:
        YAML().dump(item.recipe, file)
    for name in ("frames", "shown", "regions"):
        item.frames.to_parquet(tmp_path / f"tables/{name}.parquet")
    judged = pd.DataFrame({"protocol": ["honest"], "label_set": ["demo"], "video": ["test/1"], "auc": [0.5]})
    judged.to_csv(tmp_path / "tables/videos.csv", index=False)
    pd.DataFrame({"label_set": ["demo"], "fpr": [0.0], "tpr": [1.0]}).to_csv(
        tmp_path / "plots/roc_paper.csv", index=False
    )
    read = evaluations._read(tmp_path, "workspace")
    assert (read.metrics, read.recipe) == (item.metrics, item.recipe)
    pd.testing.assert_frame_equal(read.frames, item.frames)
    pd.testing.assert_frame_equal(read.videos, judged)
    assert read.roc[["protocol", "tpr"]].to_numpy().tolist() == [["paper", 1.0]]


def test_differences_from_the_published_recipe():
    # on the made data set the miniature is no published recipe
    assert one().differences == {"fit.size": (64, 256), "fit.learning_rate": (1e-3, 2e-4), "fit.epochs": (4, 60)}
    other = one(dataset="shanghaitech", epochs=10)
    assert "fit.epochs" not in other.differences


def test_the_table_by_hand(known):
    rests_on = {"device": "CPU", "rests_on": {"flow.state.network": "dis"}}
    known(one(epochs=60), one(epochs=60, seed=2, origin="b"), one("lgn_net", epochs=60, cost=rests_on))
    table = readme.markdown(gather("demo", LENGTHS)[0], "demo").splitlines()
    assert table[0] == "demo, labels `demo`, 2 test videos, 5 frames."
    mnad, lgn = table[4:]
    assert mnad == (
        "| `mnad` | – | 90.0 ± 0.0 | 81.0 ± 1.4 (70.0 to 90.0) | 75.0 ± 0.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | – | – "
        "| size 64 (256), learning_rate 0.001 (0.0002), 2 seeds |"
    )
    assert lgn.startswith("| `lgn_net` | – | 90.0 | 80.0 (70.0 to 90.0) |")
    assert lgn.endswith("flow.state `dis`, seed 0 |")


def test_the_table_takes_the_place_of_the_old_one_and_nothing_else(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("a\n<!-- results of ped2 -->\nold\n<!-- end of results -->\nb\n<!-- end of results -->\n")
    readme.write(path, "ped2", "new")
    assert path.read_text() == (
        "a\n<!-- results of ped2 -->\n\nnew\n\n<!-- end of results -->\nb\n<!-- end of results -->\n"
    )
    with pytest.raises(VigilError, match="no lines <!-- results of demo -->"):
        readme.write(path, "demo", "new")
    with pytest.raises(VigilError, match="no lines"):
        readme.write(Path("absent.md"), "demo", "new")


def test_published_results_are_of_methods_and_label_sets_that_exist():
    cards = [card(dataset) for dataset in LAYOUTS]
    sets = {name for one in cards for name in (*one.abnormal, *one.weak_truths)}
    for method, results in PUBLISHED.items():
        assert method in methods()
        assert set(results) <= sets


def test_a_figure_is_quoted_on_its_own_label_set_alone(known):
    labels = {name: {"set": name, "hash": name, "frames": 5, "abnormal": 2} for name in ("avenue-hasan2016", "other")}
    measures = {name: one().metrics["honest"] for name in labels}
    known(one(labels=labels, honest=measures, paper=measures))
    hasan, other = readme.markdown(gather("demo", LENGTHS)[0], "demo").split("\n\ndemo, ")
    assert "| `mnad` | 88.5 |" in hasan
    assert "| `mnad` | – |" in other
