"""Look whether the data set is there, before anything is computed.

reads  params.yaml, data/raw/<dataset>
writes data/dataset.json

With the name of a data set as argument, only prints what is expected where.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from stages.command import command
from stages.datasets import LAYOUTS, RAW, card, find_videos
from stages.io.files import replacing
from stages.params import load

CARD = Path("data/dataset.json")


@command
def main() -> str:
    """Check the data set that params.yaml names, and write its card."""
    params = load()
    if params.dataset != "demo":  # which is made by the stage `demo`
        find_videos(params.dataset, params.frames.partial)
    content = {
        "name": params.dataset,
        "layout": LAYOUTS.get(params.dataset, "folder"),
        "partial": params.frames.partial,
        **asdict(card(params.dataset)),
    }
    del content["tree"]
    if params.dataset not in LAYOUTS:  # one's own videos are called as their owner calls them
        content["title"] = params.dataset
    with replacing(CARD) as path:
        path.write_text(json.dumps(content, indent=2) + "\n")
    return f"{RAW / params.dataset} -> {CARD}"


def describe(dataset: str) -> None:
    """Print what a data set must hold and where its makers offer it."""
    print(card(dataset).describe(dataset))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        describe(sys.argv[1])
    else:
        main()
