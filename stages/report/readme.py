"""The paper's figures against ours, as a table of a Markdown file, between two comments that name the data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stages.command import VigilError
from stages.io.files import replacing
from stages.report.evaluations import Evaluation
from stages.report.published import PUBLISHED
from stages.report.results import COLUMNS, blocks, cell, interval, label_sets, percent, rows

SHOWN = ("auc", "paper", "macro", "ap", "eer", "rbdc", "tbdc")
HEADS = ["method", "published", "ours, paper's rule", "ours, honest", "macro", "AP", "EER", "RBDC", "TBDC"]
LAST = "recipe: what is not as published"


def markdown(evaluations: Sequence[Evaluation], dataset: str) -> str:
    """The table, a row a method and recipe, in percent; for each label set one, and for other test videos another."""
    found = rows(evaluations)
    columns = {column.key: column for column in COLUMNS if column.key in SHOWN}
    parts = []
    for label_set in label_sets(evaluations):
        for block in blocks(found, label_set):
            frames = block[0].first.frames
            lines = [
                f"{dataset}, labels `{label_set}`, {frames['video'].nunique()} test videos, {len(frames):,} frames.",
                "",
                "| " + " | ".join([*HEADS, LAST]) + " |",
                "|" + "---|" * len([*HEADS, LAST]),
            ]
            for row in block:
                texts = {key: cell(row, column, label_set) for key, column in columns.items()}
                values = {key: f"{one.text} {one.more}".strip() for key, one in texts.items()}
                if ends := interval(row, label_set):
                    values["auc"] += f" ({percent(ends[0])} to {percent(ends[1])})"
                published, _ = PUBLISHED.get(row.first.method, {}).get(label_set, ("–", ""))
                seeds = f"{len(row.runs)} seeds" if len(row.runs) > 1 else f"seed {row.first.metrics['seed']}"
                cells = [
                    f"`{row.first.method}`",
                    str(published),
                    values["paper"],
                    values["auc"],
                    *(values[key] for key in SHOWN[2:]),
                    ", ".join([*differing(row.first), seeds]),
                ]
                lines.append("| " + " | ".join(cells) + " |")
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


def differing(one: Evaluation) -> list[str]:
    """Where the recipe is not the published one, such as "size 64 (256)", and what extractors were chosen."""
    parts = [
        f"{path.removeprefix('fit.')} {_short(own)} ({_short(theirs)})"
        for path, (own, theirs) in one.differences.items()
    ]
    rests_on = one.metrics["cost"].get("rests_on", {})
    parts += [f"{name.rsplit('.', 1)[0]} `{choice}`" for name, choice in rests_on.items()]
    return parts


def write(path: Path, dataset: str, table: str) -> None:
    """Put the table between the comments of the data set. Raises VigilError where the file has none."""
    start, stop = f"<!-- results of {dataset} -->", "<!-- end of results -->"
    text = path.read_text() if path.exists() else ""
    if start not in text or stop not in text.split(start, 1)[1]:
        raise VigilError(f"{path}: no lines {start} and {stop}, between which the table belongs: add them")
    before, rest = text.split(start, 1)
    after = rest.split(stop, 1)[1]
    with replacing(path) as temporary:
        temporary.write_text(f"{before}{start}\n\n{table}\n\n{stop}{after}")


def _short(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
