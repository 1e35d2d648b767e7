"""The schema of `params.yaml`: every key, its type and its limits, in one place.

`load` reads and checks the whole file, so that a wrong value stops the first stage, not the last one.
A method's or an extractor's own section is described in `stages/recipes/<name>.py`.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.command import VigilError

T = TypeVar("T")
Published = Literal["published"] | T
"""A value, or the word `published`: what the authors published for the data set."""

EXTRACTORS = ("boxes", "dictionary", "features", "flow", "objects", "segments")
"""Stages between frames and methods whose sections, like a method's, hold published values."""

Protocol = Literal["honest", "paper"]
"""`paper`: the authors' own evaluation rule. `honest`: no test label and no normalisation by test frames."""


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no changes after reading, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Demo(Section):
    """The made data set: sizes in videos, frames and pixels."""

    seed: Annotated[int, Field(ge=0)]
    train_videos: Annotated[int, Field(ge=1)]
    test_videos: Annotated[int, Field(ge=1)]
    frames: Annotated[int, Field(ge=30)]
    height: Annotated[int, Field(ge=64)]
    width: Annotated[int, Field(ge=64)]


class Frames(Section):
    """Reading the raw data set."""

    partial: bool


class Score(Section):
    """What every method's scoring shares."""

    train_frames: Annotated[int, Field(ge=1)]


class Evaluate(Section):
    """From raw components to metrics."""

    smooth: Annotated[float, Field(ge=0)]
    quantile: Annotated[float, Field(gt=0, lt=1)]


class Params(BaseModel):
    """params.yaml, checked. `sections`: each method's and extractor's, as its recipe module describes it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    method: str
    dataset: Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w.-]*$")]
    seed: Annotated[int, Field(ge=0)]
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    workers: Annotated[int, Field(ge=0)]
    protocol: Protocol
    demo: Demo
    frames: Frames
    score: Score
    evaluate: Evaluate
    sections: dict[str, Section]

    def recipe(self, name: str) -> Any:
        """A method's or extractor's section, each `published` replaced by the published value for the data set."""
        return resolve(self.sections[name], recipe_module(name).PUBLISHED, self.dataset, name)

    def rests_on(self, method: str) -> dict[str, str]:
        """Which extractors a method rests on: choice in params.yaml -> its value. What is imported has no others."""
        paths = [path.split(".") for path in getattr(recipe_module(method), "RESTS_ON", {})]
        found: dict[tuple, Any] = {tuple(path): reduce(getattr, path[1:], self.sections[path[0]]) for path in paths}
        imported = {path[0] for path, choice in found.items() if choice == "imported"}
        return {
            ".".join(path): choice for path, choice in found.items() if choice == "imported" or path[0] not in imported
        }


def recipes() -> list[str]:
    """Names of all sections with published values: the modules of `stages.recipes`, in alphabetical order."""
    import stages.recipes

    return sorted(module.name for module in pkgutil.iter_modules(stages.recipes.__path__))


def methods() -> list[str]:
    """Names of all methods, in alphabetical order."""
    return [name for name in recipes() if name not in EXTRACTORS]


def recipe_module(name: str) -> ModuleType:
    """The module that describes a section, its published values, and, for a method, its fusion."""
    return importlib.import_module(f"stages.recipes.{name}")


def trainings(method: str) -> dict[str, str]:
    """Part of the recipe -> folder of the model, for each of a method's trainings in their order; often one, `fit`."""
    parts = [part for part in recipe_module(method).Recipe.model_fields if part not in ("score", "fuse")]
    return {part: f"models/{method}" if part == "fit" else f"models/{method}-{part}" for part in parts}


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml. Raises VigilError naming each wrong key, what it holds and what it should."""
    try:
        content = YAML(typ="safe", pure=True).load(Path(path).read_text())
    except FileNotFoundError:
        raise VigilError(f"{path} not found: run from the repository's root, where params.yaml lies") from None
    except YAMLError as error:
        raise VigilError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise VigilError(f"{path} has no keys: take the one in the repository (git checkout params.yaml)")
    names = methods()
    sections = {name: content.pop(name, None) for name in recipes()}
    problems: list[str] = []
    for name, section in sections.items():
        if section is None:
            problems.append(f"the section of {'method ' if name in names else ''}{name} is missing")
        else:
            sections[name] = _validated(recipe_module(name).Recipe, section, f"{name}.", problems)
    checked = _validated(Params, {**content, "sections": {}}, "", problems, known=recipes())
    if content.get("method") not in names:
        problems.append(
            f"method: found {content.get('method')!r}, expected one of {', '.join(names)}"
            + _nearest(str(content.get("method")), names)
        )
    if problems:
        raise VigilError(f"{path} is wrong in {len(problems)} place(s):\n  " + "\n  ".join(problems))
    return checked.model_copy(update={"sections": sections})


def resolve(section: Section, table: dict, dataset: str, name: str) -> Any:
    """Replace `published` by the table's value for `dataset`; a value written in params.yaml wins.

    `table` maps "part.key", or "key" where the section has no parts, to {data set or "default": (value, source)}.
    Raises VigilError where nothing is published for the data set.
    """

    def resolved(values: Section, path: str) -> Section:
        update = {}
        for key, value in values:
            if isinstance(value, Section):
                update[key] = resolved(value, f"{path}{key}.")
            elif value == "published":
                entry = table[f"{path}{key}"]
                if dataset not in entry and "default" not in entry:
                    raise VigilError(
                        f"{name}.{path}{key}: nothing is published for data set {dataset!r} "
                        f"(only for {', '.join(entry)}): write a number in params.yaml"
                    )
                update[key] = entry.get(dataset, entry.get("default"))[0]
        return values.model_copy(update=update)

    return resolved(section, "")


def _validated(
    schema: type[BaseModel], content: Any, prefix: str, problems: list[str], known: Sequence[str] = ()
) -> Any:
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        for item in error.errors():
            # the tags of a union's branches are not keys that a user wrote
            path = [str(step) for step in item["loc"] if step in _keys(schema) or item["type"] == "extra_forbidden"]
            where = prefix + ".".join(path)
            if item["type"] == "extra_forbidden":
                siblings = _keys(schema) | set(known)
                problem = f"{where}: unknown key" + _nearest(path[-1], siblings)
            elif item["type"] == "missing":
                problem = f"{where}: missing"
            else:
                problem = f"{where}: found {item['input']!r}; {item['msg'].lower()}"
            if not (problems and problems[-1].startswith(f"{where}: found")):
                problems.append(problem)
            else:
                problems[-1] += f", or {item['msg'].lower()}"
        return None


def _keys(schema: type[BaseModel]) -> set[str]:
    """All key names of a schema and of the sections in it."""
    found = set(schema.model_fields)
    for field in schema.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _keys(field.annotation)
    return found


def _nearest(word: str, choices) -> str:
    near = difflib.get_close_matches(word, sorted(choices), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
