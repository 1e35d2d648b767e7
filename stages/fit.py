"""Train a method: data/frames, data/videos.parquet, and what else it needs -> models/<method>.

    python -m stages.fit METHOD [PART]

A method with several trainings has a part of its recipe and a module, stages/methods/<method>_<part>.py, for each; a
later one is given the models of those before it. Their models are in models/<method>-<part>.
"""

import sys
from importlib import import_module
from itertools import takewhile

import torch

from stages import params
from stages.command import command
from stages.device import device_name
from stages.io.models import load_trained, save_model
from stages.run import running


@command
def main(method: str, part: str = "fit") -> str:
    """Fit `method` with its recipe on the training videos."""
    settings = params.load()
    recipe = settings.recipe(method)
    folders = params.trainings(method)
    chosen = getattr(recipe, part).model_dump()
    before = {name: folders[name] for name in takewhile(lambda name: name != part, folders)}
    models, recipe, descriptions = load_trained(method, recipe, before)
    with running(settings, "fit", method, part, chosen, [one["hash"] for one in descriptions]) as run:
        module = import_module(f"stages.methods.{method}" if part == "fit" else f"stages.methods.{method}_{part}")
        model = module.fit(run, recipe, *models)
        description = {
            "method": method,
            "part": part,
            "recipe": chosen,
            "dataset": settings.dataset,
            "seed": settings.seed,
            "origin": "trained",
            "device": device_name(run.device),
            "torch": torch.__version__,
        }
        save_model(folders[part], model, description)
    return f"{len(run.videos[run.videos.split == 'train'])} training videos of {settings.dataset} -> {folders[part]}"


if __name__ == "__main__":
    main(*sys.argv[1:])
