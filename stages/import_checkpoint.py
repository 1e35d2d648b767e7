"""Make the authors' published files the model that scoring uses: their files -> models/<method>.

    python -m stages.import_checkpoint mnad model.pth keys.pt
    python -m stages.import_checkpoint mama a_best_auc_ped2.pth
    python -m stages.import_checkpoint state model.npy raw_training_scores.npy of_training_scores.npy
    dvc repro

Takes MNAD's whole pickled module (`model.pth`) and LGN-Net's plain state dictionary, and the memory items beside
them (`keys.pt`); MAMA's generator and Destroyer, or the generator alone; STATE's lists of networks and of training
scores. Nothing in the files is executed: see
`stages.io.checkpoints`. The names and shapes of all parameters have to be those of the network that params.yaml
describes, which is the published one where it says `published`; afterwards DVC takes the model for the current result
of the fit stage, until a parameter changes.
"""

import argparse
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from stages import params
from stages.command import VigilError, command
from stages.io.checkpoints import load_authors_file
from stages.io.files import file_hash
from stages.io.models import Model, save_model


@command
def main(method: str, files: list[Path]) -> str:
    """Import `files` as the model of `method`, and record it as the fit stage's output."""
    settings = params.load()
    if method not in params.methods():
        raise VigilError(f"no method {method!r}: expected one of {', '.join(params.methods())}")
    module = import_module(f"stages.methods.{method}")
    if not hasattr(module, "from_authors"):
        raise VigilError(f"{method} has no published checkpoint to import")
    recipe = settings.recipe(method)
    models = module.from_authors([load_authors_file(path) for path in files], recipe)
    if isinstance(models, Model):
        check_keys(models, module.cost_input(recipe, models)[0].state_dict(), files[0])
        models = {"fit": models}
    folders = params.trainings(method)
    for part, model in models.items():
        description = {
            "method": method,
            "part": part,
            "recipe": getattr(recipe, part).model_dump(),
            "dataset": settings.dataset,
            "origin": "imported from " + ", ".join(f"{path.name} (sha256 {file_hash(path)[:16]})" for path in files),
        }
        save_model(folders[part], model, description)
        stage = folders[part].replace("models/", "fit-")
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "commit", "--force", f"stages/dvc.yaml:{stage}"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise VigilError(
                f"{folders[part]} is written, but DVC did not record it for {stage}: {done.stderr.strip()}\n"
                f"Prepare the data set first (dvc repro stages/dvc.yaml:frames), then import again"
            )
    made = ", ".join(folders[part] for part in models)
    return f"{', '.join(path.name for path in files)} -> {made}; now run: dvc repro"


def check_keys(model: Model, expected: dict, path: Path) -> None:
    """Raise VigilError at the first parameter that is missing, unknown or of another shape."""
    for key in [*expected, *model.network]:
        found = tuple(model.network[key].shape) if key in model.network else "missing"
        wanted = tuple(expected[key].shape) if key in expected else "no such parameter"
        if found != wanted:
            raise VigilError(
                f"{path}: {key}: found {found}, expected {wanted}; is the file another method's, or of "
                "another width than params.yaml gives for its data set?"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the authors' published files the model that scoring uses.")
    parser.add_argument("method")
    parser.add_argument("files", nargs="+", type=Path, help="network first, then what belongs to it")
    arguments = parser.parse_args()
    main(arguments.method, arguments.files)
