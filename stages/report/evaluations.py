"""What has been evaluated on a data set: in the workspace, and in the experiments that DVC knows."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML
from tqdm import tqdm

from stages.command import VigilError
from stages.params import recipe_module

METRICS = Path("metrics")
TABLES = ("tables/frames.parquet", "tables/shown.parquet", "tables/regions.parquet", "tables/videos.csv")
FILES = ("metrics.json", "recipe.yaml", *TABLES)
CURVES = ("plots/roc_honest.csv", "plots/roc_paper.csv")  # not without labels
WORKSPACE = "workspace"


@dataclass(frozen=True)
class Evaluation:
    """One method, as `stages.evaluate` left it; the tables are those of `stages.evaluation.written`.

    Attributes:
        name: of its own: the method's, with what tells it from others of the method.
        origin: "workspace", or the experiment's name.
        metrics: metrics/metrics.json.
        recipe: metrics/recipe.yaml.
        frames, shown, regions, videos: metrics/tables.
        roc: protocol, label_set, fpr, tpr; empty without labels.
    """

    name: str
    origin: str
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    frames: pd.DataFrame
    shown: pd.DataFrame
    regions: pd.DataFrame
    videos: pd.DataFrame
    roc: pd.DataFrame

    @property
    def method(self) -> str:
        """The method's name."""
        return self.metrics["method"]

    @property
    def differences(self) -> dict[str, tuple[Any, Any]]:
        """Where the recipe is not the published one for the data set: part.key -> (value, published value)."""
        recipe, dataset = self.recipe[self.method], self.metrics["dataset"]
        found = {}
        for path, values in recipe_module(self.method).PUBLISHED.items():
            # what is published for the made data set is a miniature of ours
            value, _ = values.get("default" if dataset == "demo" else dataset, values.get("default", (None, "")))
            part, key = path.split(".")
            if value is not None and recipe[part][key] != value:
                found[path] = recipe[part][key], value
        return found


def gather(dataset: str, lengths: dict[str, int], all_commits: bool = False) -> tuple[list[Evaluation], list[str]]:
    """All evaluations of the data set: the workspace's first, then those of experiments, the newest first.

    Of several with the same method, recipe, seed and test videos the first is taken.

    Args:
        dataset: as params.yaml names it.
        lengths: video -> frames, of all videos that there are now: what was made of others is left out.
        all_commits: the experiments of all commits, not of the last one alone.

    Returns the evaluations, and why experiments were left out, a line each.
    Raises VigilError where nothing is found.
    """
    found: dict[str, Evaluation] = {}
    left_out = []
    for origin, one in _all(all_commits):
        if isinstance(one, str):
            left_out.append(f"{origin}: {one}")
        elif one.metrics["dataset"] != dataset:
            left_out.append(f"{origin}: of data set {one.metrics['dataset']}")
        elif any(lengths.get(str(video)) != count for video, count in one.frames["video"].value_counts().items()):
            left_out.append(f"{origin}: of other test videos than there are now")
        else:
            found.setdefault(repr((one.recipe, one.metrics["data"])), one)
    if not found:
        raise VigilError(
            f"nothing has been evaluated on data set {dataset}: run `dvc repro`, or `dvc exp run -S method=NAME`"
            + "".join(f"\n  left out: {line}" for line in left_out)
        )
    return _named([*found.values()]), left_out


def _all(all_commits: bool) -> Iterator[tuple[str, Evaluation | str]]:
    """Origin and evaluation, or what is wrong with it, of the workspace and of all experiments."""
    if (METRICS / "tables").is_dir():
        yield WORKSPACE, _read(METRICS, WORKSPACE)
    with Repo(".") as repo:
        experiments = [one for own in repo.experiments.ls(all_commits=all_commits).values() for one in own]
    for name, revision in tqdm(experiments, "experiments", unit="experiment", disable=None if experiments else True):
        with TemporaryDirectory() as folder:
            try:
                files = DVCFileSystem(".", rev=revision)
                for file in (*FILES, *CURVES):
                    if file in FILES or files.exists(f"metrics/{file}"):
                        (Path(folder) / file).parent.mkdir(exist_ok=True)
                        files.get_file(f"metrics/{file}", str(Path(folder) / file))
            except (OSError, DvcException) as error:
                yield name, f"its files are not there ({error}): `dvc exp apply {name}` and `dvc repro` make them"
            else:
                yield name, _read(Path(folder), name)


def _read(folder: Path, origin: str) -> Evaluation:
    metrics = json.loads((folder / "metrics.json").read_text())
    recipe = YAML(typ="safe", pure=True).load((folder / "recipe.yaml").read_text())
    tables = {
        Path(name).stem: pd.read_csv(folder / name) if name.endswith(".csv") else pd.read_parquet(folder / name)
        for name in TABLES
    }
    curves = [
        pd.read_csv(folder / name).assign(protocol=Path(name).stem.removeprefix("roc_"))
        for name in CURVES
        if (folder / name).exists()
    ]
    roc = pd.concat(curves) if curves else pd.DataFrame(columns=["protocol", "label_set", "fpr", "tpr"])
    return Evaluation("", origin, metrics, recipe, **tables, roc=roc)


def _named(evaluations: list[Evaluation]) -> list[Evaluation]:
    """Each with a name of its own: the method, the experiment where recipes differ, the seed where seeds do."""
    recipes: dict[str, list[str]] = {}
    for one in evaluations:
        own = recipes.setdefault(one.method, [])
        if (recipe := repr(one.recipe[one.method])) not in own:
            own.append(recipe)
    names = []
    for one in evaluations:
        number = recipes[one.method].index(repr(one.recipe[one.method])) + 1
        names.append(one.method if number == 1 else f"{one.method} {number}")
    seeds = Counter(names)
    return [
        replace(one, name=f"{name}, seed {one.metrics['seed']}" if seeds[name] > 1 else name)
        for one, name in zip(evaluations, names, strict=True)
    ]
