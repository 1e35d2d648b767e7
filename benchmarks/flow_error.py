"""How wrong is the flow that needs no weights? DIS on the demo against its true flow, at native resolution.

    python -m benchmarks.flow_error

Needs the demo (dvc repro stages/dvc.yaml:demo). Mean end-point error in pixels, over all pixels and over those that
move, next to that of saying that nothing moves; and the time a pair takes on one thread. The truth is the motion of
solid surfaces: a shadow that passes counts as still ground there, though everybody's flow follows it.
"""

import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from stages.command import VigilError
from stages.datasets import RAW
from stages.flow import dis_flow

PRESETS = {
    "DIS, ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "DIS, fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "DIS, medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


def decoded(path: Path) -> list[np.ndarray]:
    """All frames of a video, blue first."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def preset_flow(preset: int) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    dis = cv2.DISOpticalFlow.create(preset)
    return lambda one, two: dis.calc(*(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (one, two)), None)  # pyright: ignore


def main() -> None:
    cv2.setNumThreads(1)
    truths = sorted((RAW / "demo/flow").rglob("*.npy"))
    if not truths:
        raise VigilError(f"{RAW / 'demo/flow'} not found: run `dvc repro stages/dvc.yaml:demo` first")
    methods = {"nothing moves": lambda one, two: np.zeros((*one.shape[:2], 2), np.float32)}
    methods |= {name: preset_flow(preset) for name, preset in PRESETS.items()}
    methods["DIS, medium, to the finest scale (Vigil's)"] = dis_flow
    sums = {name: np.zeros(3) for name in methods}
    pixels = np.zeros(2)
    pairs = 0
    for path in truths:
        truth = np.load(path).astype(np.float32)
        frames = decoded(RAW / "demo" / path.relative_to(RAW / "demo/flow").with_suffix(".mkv"))
        for true, one, two in zip(truth, frames, frames[1:], strict=False):
            moving = np.linalg.norm(true, axis=-1) > 0
            pixels += moving.size, moving.sum()
            pairs += 1
            for name, method in methods.items():
                start = time.perf_counter()
                flow = method(one, two)
                seconds = time.perf_counter() - start
                error = np.linalg.norm(flow - true, axis=-1)
                sums[name] += error.sum(), error[moving].sum(), seconds
    print(f"{len(truths)} videos, {pairs} pairs, {pixels[1] / pixels[0]:.1%} of the pixels move")
    print(f"{'mean end-point error, pixels':44s}{'all':>8s}{'moving':>8s}{'ms':>8s}")
    for name, (everywhere, moving, seconds) in sums.items():
        print(f"{name:44s}{everywhere / pixels[0]:8.3f}{moving / pixels[1]:8.3f}{1000 * seconds / pairs:8.2f}")


if __name__ == "__main__":
    main()
