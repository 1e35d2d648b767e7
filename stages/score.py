"""Score every test frame: data/frames, data/videos.parquet, models/<method> -> data/scores/<method>.parquet, .json.

    python -m stages.score METHOD

The table has a row a scored frame and a column a raw component, before any normalisation. The JSON beside it says
what scoring costs.
"""

import json
import sys
from importlib import import_module
from pathlib import Path

from stages import params
from stages.command import VigilError, command
from stages.cost import parameters_and_gmac
from stages.device import device_name
from stages.io.files import file_hash, replacing
from stages.io.models import load_model
from stages.run import running


@command
def main(method: str) -> str:
    """Score the data set's test videos, and as many training videos as the honest normalisation needs."""
    settings = params.load()
    recipe = settings.recipe(method)
    module = import_module(f"stages.methods.{method}")
    model, description, hashes = None, {}, []
    if hasattr(module, "fit"):
        model, description = load_model(f"models/{method}")
        hashes = [file_hash(path) for path in sorted(Path(f"models/{method}").glob("*.safetensors"))]
        recipe = trained_recipe(recipe, description, method)
    chosen = recipe.model_dump(exclude={"fuse"})
    with running(settings, "score", method, chosen, settings.score.train_frames, hashes) as run:
        scores, speed = module.score(run, recipe, model)
        cost = {
            "method": method,
            "seed": settings.seed,
            "device": device_name(run.device),
            "frames_per_second": round(speed, 1),
            **(parameters_and_gmac(*module.cost_input(recipe, model)) if model else {"parameters": 0, "gmac": 0.0}),
            "model": description.get("origin", "none: nothing is trained"),
        }
        table = Path(f"data/scores/{method}.parquet")
        with replacing(table) as temporary:
            scores.to_parquet(temporary, index=False)
        with replacing(table.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps(cost, indent=2) + "\n")
    return f"{scores.video.nunique()} videos of {settings.dataset} -> {len(scores)} rows in {table}"


def trained_recipe(recipe, description: dict, method: str):
    """The recipe with the `fit` part that made the model. Raises VigilError if it is another method's."""
    if description.get("method") != method:
        raise VigilError(f"models/{method} holds a model of {description.get('method')}: run fit-{method} again")
    return recipe.model_copy(update={"fit": type(recipe.fit)(**description["fit"])})


if __name__ == "__main__":
    main(sys.argv[1])
