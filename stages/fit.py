"""Train a method: data/frames, data/videos.parquet -> models/<method>.

python -m stages.fit METHOD
"""

import sys
from importlib import import_module

import torch

from stages import params
from stages.command import command
from stages.device import device_name
from stages.io.models import save_model
from stages.run import running


@command
def main(method: str) -> str:
    """Fit `method` with its recipe on the training videos."""
    settings = params.load()
    recipe = settings.recipe(method)
    fit = recipe.fit.model_dump()
    with running(settings, "fit", method, fit) as run:
        model = import_module(f"stages.methods.{method}").fit(run, recipe)
        description = {
            "method": method,
            "fit": fit,
            "dataset": settings.dataset,
            "seed": settings.seed,
            "origin": "trained",
            "device": device_name(run.device),
            "torch": torch.__version__,
        }
        save_model(f"models/{method}", model, description)
    return f"{len(run.videos[run.videos.split == 'train'])} training videos of {settings.dataset} -> models/{method}"


if __name__ == "__main__":
    main(sys.argv[1])
