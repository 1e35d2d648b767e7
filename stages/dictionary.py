"""What normal videos are made of: data/features, data/videos.parquet -> data/dictionary.npy, data/dictionary.json.

float64 (S slots, C = 2048 channels), learnt from the normal training videos of the weak split, or of the only split.
"Self-supervised Sparse Representation for Video Anomaly Detection" (S3R), Wu et al., ECCV 2022.

- `codes` is what S3R's code makes and its results rest on: the *channels* are the samples, a sample's values are those
  of the V videos, and what is stored are the sparse codes of the channels, transposed. So a slot is no feature: it
  holds the weights that one pattern over videos has in each channel, mostly zeros.
- `atoms` is what the paper describes (section 3.2): segments are the samples, and an atom is a feature. As many atoms
  as `codes` has slots, so that the two can be compared.
- `imported` is a file that the authors published, `data/raw/<dataset>/dictionary.npy`.

Both are learnt from the 32 segments that S3R makes of a training video, each the mean of its crops.
"""

import json
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import MiniBatchDictionaryLearning
from sklearn.utils.extmath import randomized_svd

from stages import params
from stages.command import VigilError, command
from stages.io.features import CHANNELS, SUFFIX, read_features, segments
from stages.io.files import file_hash, replacing
from stages.sparse import ksvd, omp
from stages.videos import DATA, read_videos

FEATURES = DATA / "features"
OUTPUT = DATA / "dictionary.npy"
SEGMENTS = 32  # of a video, in S3R's training
# S3R's code, for scikit-learn 0.24: MiniBatchDictionaryLearning(alpha=1, n_iter=100, batch_size=32)
STEPS, BATCH, ALPHA = 100, 32, 1


@command
def main() -> str:
    """Learn the dictionary that params.yaml describes, or check and take the authors'."""
    settings = params.load()
    recipe = settings.recipe("dictionary")
    if recipe.kind == "imported":
        source = DATA / "raw" / settings.dataset / "dictionary.npy"
        dictionary = read_codes(source, recipe.nonzeros)
        description: dict[str, Any] = {
            "hash": file_hash(source),
            "nonzeros": recipe.nonzeros,
            "never_used": np.flatnonzero(~dictionary.any(1)).tolist(),
        }
        read = str(source)
    else:
        manifest = FEATURES.with_suffix(".json")
        if not manifest.is_file():
            raise VigilError(f"{manifest} not found: run `dvc repro stages/dvc.yaml:features` first")
        made_of = json.loads(manifest.read_text())
        names = normal_videos(read_videos())
        size = slots(len(names), recipe.percentile, recipe.nonzeros)
        features = np.stack([read_segments(name) for name in names])
        learn = learn_codes if recipe.kind == "codes" else learn_atoms
        dictionary, found = learn(features, size, recipe)
        description = {
            "features": {key: value for key, value in made_of.items() if key != "videos"},
            "videos": len(names),
            "percentile": recipe.percentile,
            "nonzeros": recipe.nonzeros,
            "seed": recipe.seed,
            **found,
        }
        read = f"{FEATURES} ({len(names)} normal training videos)"
    description = {
        "kind": recipe.kind,
        "slots": len(dictionary),
        **description,
        "libraries": {name: version(name) for name in ("numpy", "scikit-learn")},
    }
    with replacing(OUTPUT) as path:
        np.save(path, dictionary)
    with replacing(OUTPUT.with_suffix(".json")) as path:
        path.write_text(json.dumps(description, indent=2) + "\n")
    return f"{read} -> {OUTPUT} ({recipe.kind}, {len(dictionary)} slots)"


def normal_videos(videos: pd.DataFrame) -> list[str]:
    """Normal training videos: of the weak split, or where the data set has none, all training videos.

    Raises VigilError where there is none.
    """
    weak = videos.query("weak_split == 'train'")
    chosen = weak[~weak.weak_abnormal.astype(bool)] if len(weak) else videos.query("split == 'train'")
    if chosen.empty:
        raise VigilError("the data set has no normal training videos to learn a dictionary from: see videos.parquet")
    return chosen.video.tolist()


def slots(videos: int, percentile: float, nonzeros: int) -> int:
    """Slots of the dictionary: `percentile` percent of the videos, halves to the even number, as S3R.

    Raises VigilError where a code of `nonzeros` would not fit.
    """
    count = round(videos * percentile / 100)
    if count < nonzeros:
        raise VigilError(
            f"dictionary: {percentile:g} percent of {videos} normal training videos are {count} slots, fewer than the "
            f"{nonzeros} non-zeros of a code: more videos, a larger `dictionary.percentile`, or fewer "
            "`dictionary.nonzeros`"
        )
    return count


def read_segments(video: str) -> Float[np.ndarray, "T C"]:
    """A video's T = 32 segments, each the mean of its crops."""
    features = read_features(FEATURES / f"{video}{SUFFIX}", crops=None)
    return segments(features, SEGMENTS).mean(0, dtype=np.float64)


def learn_codes(
    features: Float[np.ndarray, "V T C"], size: int, recipe: Any
) -> tuple[Float[np.ndarray, "S C"], dict[str, Any]]:
    """S3R's dictionary, and what to say of it: sparse codes of the channels over patterns of videos."""
    samples = np.ascontiguousarray(features.mean(1).T)
    patterns = online_dictionary(samples, size, recipe.seed)
    codes = omp(samples, patterns, recipe.nonzeros)
    return codes.T, {
        "relative_error": relative_error(samples - codes @ patterns, samples),
        "never_used": np.flatnonzero(~codes.any(0)).tolist(),
    }


def online_dictionary(samples: Float[np.ndarray, "n F"], size: int, seed: int) -> Float[np.ndarray, "S F"]:
    """Online dictionary learning (Mairal et al., ICML 2009) in 100 steps of 32 samples.

    scikit-learn's `n_iter` counted such steps and is gone; its `max_iter` counts whole passes. So the steps are made
    one by one, with the start and the order of samples that `fit` would take: singular vectors of all samples, then
    one shuffle.
    """
    random = np.random.RandomState(seed)  # scikit-learn takes no other
    _, values, vectors = randomized_svd(samples, size, random_state=random)
    shuffled = samples.copy()
    random.shuffle(shuffled)
    learner = MiniBatchDictionaryLearning(
        size,
        alpha=ALPHA,
        batch_size=BATCH,
        fit_algorithm="lars",
        dict_init=values[:, None] * vectors,
        random_state=random,
    )
    batches = [shuffled[start : start + BATCH] for start in range(0, len(shuffled), BATCH)]
    for batch in islice(cycle(batches), STEPS):
        learner.partial_fit(batch)
    return learner.components_


def learn_atoms(
    features: Float[np.ndarray, "V T C"], size: int, recipe: Any
) -> tuple[Float[np.ndarray, "S C"], dict[str, Any]]:
    """Atoms that are features, by K-SVD, and what to say of them.

    An atom is brought to the mean length of a sample and to a positive sum, so that it looks like a feature; K-SVD
    leaves both open. Raises VigilError for too few samples.
    """
    samples = features.reshape(-1, features.shape[-1])
    lengths = np.linalg.norm(samples, axis=1)
    if np.count_nonzero(lengths) < size:
        raise VigilError(
            f"dictionary: {size} atoms, but only {np.count_nonzero(lengths)} segments of the normal training videos "
            f"differ from zero: look at {FEATURES}"
        )
    learnt = ksvd(samples, size, recipe.nonzeros, recipe.rounds, recipe.seed)
    signs = np.where(learnt.atoms.sum(1, keepdims=True) < 0, -1, 1)
    return signs * learnt.atoms * lengths.mean(), {
        "rounds": recipe.rounds,
        "relative_error": relative_error(samples - learnt.codes @ learnt.atoms, samples),
        "never_used": np.flatnonzero(~learnt.codes.any(0)).tolist(),
        "replaced": learnt.replaced,
    }


def relative_error(residual: Float[np.ndarray, "n F"], samples: Float[np.ndarray, "n F"]) -> float:
    """Length of all residuals together over that of all samples."""
    return float(np.linalg.norm(residual) / np.linalg.norm(samples))


def read_codes(path: Path, nonzeros: int) -> Float[np.ndarray, "S 2048"]:
    """A dictionary that the authors published. Raises VigilError where it is missing or of another form."""
    try:
        found = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise VigilError(
            f"{path} not found: put the authors' dictionary there, such as "
            "shanghaitech_dictionaries.taskaware.omp.100iters.90pct.npy, or write `dictionary.kind: codes`"
        ) from None
    except (ValueError, EOFError) as error:
        raise VigilError(f"{path} is no array of numbers, or a damaged one: {error}: fetch it again") from None
    if found.ndim != 2 or found.shape[1] != CHANNELS:
        turned = found.ndim == 2 and found.shape[0] == CHANNELS
        raise VigilError(
            f"{path}: found shape {found.shape}, expected (slots, {CHANNELS})"
            + (": it is transposed; save it as numpy.load(file).T" if turned else "")
        )
    if not np.isfinite(found).all():
        raise VigilError(f"{path}: NaN or infinite values: fetch it again")
    counts = np.count_nonzero(found, axis=0)
    if counts.max() > nonzeros or not counts.any():
        raise VigilError(
            f"{path}: up to {counts.max()} non-zeros in a channel, expected {nonzeros}: it is no dictionary of S3R's "
            "code; if it is meant to be denser, write that as `dictionary.nonzeros`"
        )
    return found.astype(np.float64)


if __name__ == "__main__":
    main()
