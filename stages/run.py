"""What a method is given to work with: videos, device, seed, and a scratch folder to resume from."""

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from stages.command import VigilError
from stages.device import device
from stages.io.files import remove, replacing
from stages.io.frames import open_pixels
from stages.params import Params, recipe_module
from stages.videos import FRAMES, read_videos


@dataclass(frozen=True)
class Run:
    """One fit or one scoring of a method on the prepared data set."""

    videos: pd.DataFrame  # the video table
    device: torch.device
    seed: int
    workers: int
    train_frames: int  # how many training frames to score, at least, for the honest normalisation
    scratch: Path  # kept when the process dies, removed when the stage is done

    def split(self, name: str) -> pd.DataFrame:
        """The videos of a split, in their natural order. Raises VigilError where it has none."""
        videos = self.videos.query("split == @name")
        if videos.empty:
            raise VigilError(f"the data set has no {name} videos: see data/videos.parquet")
        return videos

    def pixels(self, videos: pd.DataFrame, size: int) -> dict[str, np.ndarray]:
        """Videos as memory-mapped uint8 (frames, size, size, C)."""
        return open_pixels(videos, FRAMES, size, self.workers)

    def keyed_by(self, files: Iterable[Path]) -> "Run":
        """The run with a scratch folder for these files as they are now: with other ones it begins anew.

        They are too large to be read for their hash; a file that is written again has another time. One that is missing
        is an error where it is read.
        """
        states = [(file.stat().st_size, file.stat().st_mtime_ns) if file.exists() else None for file in files]
        scratch = self.scratch / hashlib.sha256(repr(states).encode()).hexdigest()[:16]
        scratch.mkdir(exist_ok=True)
        return replace(self, scratch=scratch)

    def score_videos(
        self,
        load: Callable[[pd.DataFrame], Mapping[str, Any]],
        score: Callable[..., tuple[pd.DataFrame, Any]],
        state: Any = None,
        splits: tuple[str, ...] = ("train", "test"),
    ) -> tuple[pd.DataFrame, float]:
        """Score part of the training videos, then all test videos in their natural order.

        A scoring that was killed goes on after the last video that it finished.

        Args:
            load: videos -> what each video is scored by, such as its pixels.
            score: (what `load` gave, split, state) -> (rows of `frame` and the components, state for the next video).
            state: what the first video is given: a tensor or None.
            splits: without "train" only test videos are scored.

        Returns:
            Rows of video, split, frame and components, and how many frames of these videos `score` took a second,
            in an interrupted scoring too.
        """
        train = evenly_chosen(self.videos.query("split == 'train'"), self.train_frames)
        test = self.videos.query("split == 'test'")
        videos = pd.concat([train, test] if "train" in splits else [test])
        inputs = load(videos)
        parts, total = [], 0.0
        with tqdm(total=int(videos.frames.sum()), desc="score", unit="frame", disable=None) as bar:
            for i, (video, split, frames) in enumerate(zip(videos.video, videos.split, videos.frames, strict=True)):
                done, after = self.scratch / f"{i}.parquet", self.scratch / f"{i}.pt"
                if done.exists():
                    state, seconds = torch.load(after, map_location=self.device)
                else:
                    start = time.perf_counter()
                    rows, state = score(inputs[video], split, state)
                    seconds = time.perf_counter() - start
                    rows.insert(0, "video", video)
                    rows.insert(1, "split", split)
                    with replacing(after) as temporary:
                        torch.save((state, seconds), temporary)
                    with replacing(done) as temporary:
                        rows.to_parquet(temporary, index=False)
                parts.append(pd.read_parquet(done))
                total += seconds
                bar.update(frames)
        return pd.concat(parts, ignore_index=True), int(videos.frames.sum()) / total

    def autocast(self):
        """Mixed precision (bfloat16) on a GPU, full precision on the CPU."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()


@contextmanager
def running(params: Params, kind: str, method: str, *identity: Any) -> Iterator[Run]:
    """Prepare a run; its scratch folder is named by everything that the result depends on.

    The videos' `split` is the method's: a weakly supervised one has `SPLIT = "weak_split"` beside its recipe.
    `identity` is what distinguishes this run beside kind, method, seed and data: the recipe, the model's hashes.
    """
    videos = read_videos()
    videos["split"] = videos[getattr(recipe_module(method), "SPLIT", "split")]
    data = videos[["video", "split", "hash"]].to_numpy().tolist()
    key = json.dumps([kind, method, params.seed, data, *identity], sort_keys=True)
    scratch = Path("data/scratch") / f"{kind}-{method}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    scratch.mkdir(parents=True, exist_ok=True)
    yield Run(videos, device(params.device), params.seed, params.workers, params.score.train_frames, scratch)
    remove(scratch)


def evenly_chosen(videos: pd.DataFrame, frames: int) -> pd.DataFrame:
    """Whole videos, evenly spread over the table, that together hold at least `frames` frames (or all)."""
    for count in range(1, len(videos) + 1):
        chosen = videos.iloc[np.linspace(0, len(videos) - 1, count).round().astype(int)]
        if chosen.frames.sum() >= frames:
            return chosen
    return videos


def held_out(videos: pd.DataFrame, fraction: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split training videos into those to train on and those, evenly spread over the table, to choose a checkpoint by.

    At least one is held out where `fraction` is above 0 and there are two; none otherwise.
    """
    count = max(1, round(fraction * len(videos))) if fraction > 0 and len(videos) > 1 else 0
    places = ((np.arange(count) + 0.5) * len(videos) / max(count, 1)).astype(int)
    held = np.isin(np.arange(len(videos)), places)
    return videos.loc[~held], videos.loc[held]
