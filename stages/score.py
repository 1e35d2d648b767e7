"""Score every test frame: data/frames, data/videos.parquet, models/<method> -> data/scores/<method>.parquet, .json.

    python -m stages.score METHOD

The table has a row a scored frame, object or snippet, and a column a raw component, before any normalisation; where a
method predicts or reconstructs frames, also where it errs (`stages.io.maps`). The JSON beside it says what scoring
costs, without the extractors, and what it rests on.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from stages import params
from stages.command import command
from stages.cost import parameters_and_gmac
from stages.device import device_name, peak_memory
from stages.io.files import replacing
from stages.io.models import load_trained
from stages.run import running


@command
def main(method: str) -> str:
    """Score the data set's test videos, and as many training videos as the honest normalisation needs."""
    settings = params.load()
    module = import_module(f"stages.methods.{method}")
    models, recipe, descriptions = load_trained(method, settings.recipe(method), params.trainings(method))
    chosen = recipe.model_dump(exclude={"fuse"})
    hashes = [description["hash"] for description in descriptions]
    with running(settings, "score", method, chosen, settings.score.train_frames, hashes) as run:
        scores, speed = module.score(run, recipe, *models)
        origins = dict.fromkeys(description["origin"] for description in descriptions)
        cost = {
            "method": method,
            "seed": settings.seed,
            "device": device_name(run.device),
            "frames_per_second": round(speed, 1),
            "peak_memory_gb": round(peak_memory(run.device), 2),
            **(parameters_and_gmac(*module.cost_input(recipe, *models)) if models else {"parameters": 0, "gmac": 0.0}),
            "model": ", ".join(origins) or "none: nothing is trained",
        }
        if rests_on := settings.rests_on(method):
            cost["rests_on"] = rests_on
        table = Path(f"data/scores/{method}.parquet")
        with replacing(table) as temporary:
            scores.to_parquet(temporary, index=False)
        with replacing(table.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(cost, indent=2) + "\n")
    return f"{scores.video.nunique()} videos of {settings.dataset} -> {len(scores)} rows in {table}"


if __name__ == "__main__":
    main(sys.argv[1])
