"""Which files of this project a stage's command runs: the closure of its imports, read from the source."""

import ast
import shlex
from pathlib import Path

from stages.datasets import LAYOUTS
from stages.params import EXTRACTORS

ROOT = Path(__file__).resolve().parents[1]
PARTS = {"fit": ("methods", "recipes"), "score": ("methods", "recipes"), "evaluate": ("recipes",)}


def files_of(command: str, method: str | None = None) -> set[str]:
    """Files that `python -m stages.<stage> [METHOD] [PART]` imports, paths from the root.

    Methods' modules, recipes, and the data sets' layouts are imported by name, hence not in the source: they are added
    for the stages that do so.
    Package files that hold nothing but a docstring do not count.
    """
    _, _, module, *arguments = shlex.split(command)
    stage = module.removeprefix("stages.")
    method = arguments[0] if arguments else method
    found: set[str] = set()
    layouts = [f"stages.datasets.{name}" for name in {*LAYOUTS.values(), "folder"}]
    if stage in ("dataset", "frames"):
        by_name = layouts
    elif stage in EXTRACTORS:
        by_name = [f"stages.recipes.{stage}"]
    else:
        by_name = [f"stages.{part}.{method}" for part in PARTS.get(stage, ())]
        if stage == "fit" and arguments[1:]:
            by_name = [f"stages.methods.{method}_{arguments[1]}", f"stages.recipes.{method}"]
    for start in [module, *by_name]:
        _follow(start, found)
    return {path for path in found if _has_code(ROOT / path)}


def _follow(module: str, found: set[str]) -> None:
    path = _path(module)
    if path is None or path in found:
        return
    found.add(path)
    if "." in module:
        _follow(module.rpartition(".")[0], found)
    tree = ast.parse((ROOT / path).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name and name.split(".")[0] == "stages":
                _follow(name, found)


def _path(module: str) -> str | None:
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / path).is_file():
            return str(path)
    return None


def _has_code(path: Path) -> bool:
    body = ast.parse(path.read_text()).body
    return any(not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)) for node in body)
