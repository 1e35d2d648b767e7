"""Fusion and AUC against the authors' own scoring of made errors and distances (MNAD; LGN-Net's is the same)."""

from zlib import crc32

import numpy as np
import pytest

from stages.evaluation.fusion import fuse
from stages.evaluation.roc import measure
from stages.recipes import lgn_net, mnad
from tests.golden import assert_golden, golden, needs_golden

FRAMES = {"test/1": 14, "test/2": 9, "test/3": 21}

# the authors' normality, alpha * psnr + (1 - alpha) * (1 - distance), at frames 0, 1, 14, 22, 43 of all videos
SOME = [0, 1, 14, 22, 43]
NORMALITY = {
    0.6: [0.42156371424375155, 0.45560887890219115, 0.6827301884207648, 0.7080270166764153, 0.6126696717733573],
    0.3: [0.7107818571218757, 0.6193095533966644, 0.6186765362976705, 0.8540135083382075, 0.6617115749481717],
}
AUC = {0.6: 0.4099378881987577, 0.3: 0.4285714285714286}


def made(name: str, frames: int, low: float, high: float) -> np.ndarray:
    random = np.random.Generator(np.random.PCG64(crc32(f"score-mnad/{name}".encode())))
    return random.uniform(low, high, frames).astype(np.float32).astype(float)


def components(number: int, frames: int) -> dict[str, np.ndarray]:
    return {
        "psnr_carried": 10 * np.log10(1 / made(f"mse_{number}", frames, 0.0005, 0.02)),
        "feature_distance_carried": made(f"dist_{number}", frames, 0.001, 0.004),
    }


def labels(number: int, frames: int) -> np.ndarray:
    return (
        np.random.Generator(np.random.PCG64(crc32(f"score-mnad/label_{number}".encode()))).integers(0, 2, frames) == 1
    )


@pytest.fixture(params=[0.6, 0.3])
def alpha(request) -> float:
    return request.param


@pytest.fixture(params=[mnad, lgn_net])
def score(request, alpha) -> np.ndarray:
    fusion = [*request.param.ladder(mnad.Fuse(alpha=alpha)).values()][-1]
    return np.concatenate([fuse(fusion, components(n, frames), {}) for n, frames in enumerate(FRAMES.values())])


def test_score_is_the_authors_normality_reversed(score, alpha):
    np.testing.assert_allclose((1 - alpha) - score[SOME], NORMALITY[alpha], atol=1e-9)


def test_auc_is_the_authors(score, alpha):
    abnormal = np.concatenate([labels(n, frames) for n, frames in enumerate(FRAMES.values())])
    video = np.repeat(list(FRAMES), list(FRAMES.values()))
    assert measure(score, abnormal, video)["auc_micro"] == pytest.approx(AUC[alpha], abs=1e-9)


@needs_golden
def test_score_and_auc_are_the_golden_ones(score, alpha):
    file = golden("score-mnad")
    assert_golden(file, {f"score_alpha{alpha}": (1 - alpha) - score})
    assert file.values[f"auc_alpha{alpha}"] == [AUC[alpha]]
