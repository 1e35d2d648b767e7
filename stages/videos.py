"""The video table, and the one place where work is done video by video.

`per_video` runs a task for every video, in parallel, and keeps each finished video under a key of all that its result
depends on. So a killed stage goes on where it was, one more video costs that video, and a changed parameter, source
file or line of code is never answered with an old result.
"""

import hashlib
import json
import os
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import joblib
import pandas as pd
from tqdm import tqdm

from stages.command import VigilError
from stages.io.files import remove, replacing

T = TypeVar("T")
DATA = Path("data")
VIDEOS = DATA / "videos.parquet"
FRAMES = DATA / "frames"
SHOWN = 20  # problems that an error message lists


def read_videos() -> pd.DataFrame:
    """The video table. Raises VigilError where the frames stage has not run."""
    if not VIDEOS.exists():
        raise VigilError(f"{VIDEOS} not found: run `dvc repro stages/dvc.yaml:frames` first")
    return pd.read_parquet(VIDEOS)


def one_class_videos() -> pd.DataFrame:
    """The training and test videos, without those of weak supervision alone. Raises VigilError where there are none."""
    videos = read_videos().query("split != ''")
    if videos.empty:
        raise VigilError(
            f"the data set has no training and no test videos with frames, see {VIDEOS}: of features alone only weakly "
            "supervised methods work, `method: s3r`; for others put its videos where the first stage says"
        )
    return videos


def per_video(
    task: Callable[..., Any],
    videos: dict[str, Any],
    folder: Path,
    suffix: str,
    args: tuple | dict[str, tuple] = (),
    *,
    identity: Any,
    workers: int,
    desc: str,
    sizes: dict[str, int] | None = None,
) -> dict[str, Any]:
    """Make `folder`/<video><suffix> of every video, computing only what is not there from an earlier run.

    Args:
        task: (video, path, *args) -> record. Writes one file at `path`, an absolute temporary name with the suffix,
            in a worker process of any working directory; the record is small and can be written as JSON. A task that
            returns None has nothing to write: the video gets no file.
        videos: video name -> what its result depends on, such as the hash of its frames; can be written as JSON.
        folder: what the stage makes, relative to the root; replaced as a whole when all videos are done.
        suffix: of the files, such as ".npy".
        args: further arguments of the task, the same for all videos, or by video name.
        identity: all else that results depend on: the recipe, a seed. The code is taken care of.
        workers: processes; 0: one a core; 1: in this process.
        desc: what the progress bar says.
        sizes: bytes that each file will take, about; compared with the free disk before any work.

    Returns video name -> record, in the order of `videos`.
    Raises VigilError with what the tasks of all videos had to say, after the last one; the others are kept.
    """
    task = importable(task)
    kept = (DATA / "scratch" / folder.relative_to(DATA)).absolute()
    kept.mkdir(parents=True, exist_ok=True)
    code = code_hash()
    paths = {video: kept / f"{_key(code, video, suffix, identity, on)}{suffix}" for video, on in videos.items()}
    records = {video: path.with_name(path.name + ".json") for video, path in paths.items()}
    absent = [video for video in videos if not _whole(paths[video], records[video])]
    for path in kept.glob(".*.partial*"):  # of a run that was killed
        remove(path)
    if sizes:
        check_space(sum(sizes[video] for video in absent), kept, desc)

    run = joblib.Parallel(
        n_jobs=min(workers or joblib.cpu_count(), max(len(absent), 1)), return_as="generator_unordered"
    )
    jobs = (
        joblib.delayed(_attempt)(
            task, video, paths[video], records[video], args[video] if isinstance(args, dict) else args
        )
        for video in absent
    )
    results: Any = run(jobs)
    bar = tqdm(results, desc, len(videos), initial=len(videos) - len(absent), unit="video", disable=None)
    problems = sorted(line for lines in bar for line in lines)
    if problems:
        more = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        listed = "\n  ".join(problems[:SHOWN] + more)
        raise VigilError(f"{len(problems)} problem(s), all else is done and kept:\n  {listed}")

    done = {video: json.loads(record.read_text())["made"] for video, record in records.items()}
    with replacing(folder) as temporary:
        temporary.mkdir()
        for video, path in paths.items():
            if done[video] is not None:
                target = temporary / f"{video}{suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
    for path in set(kept.iterdir()) - {*paths.values(), *records.values()}:
        remove(path)
    return done


def importable(task: Callable[..., Any]) -> Callable[..., Any]:
    """The task as a worker process finds it: a script that runs as `__main__` has another name there."""
    if task.__module__ != "__main__":
        return task
    script = sys.modules["__main__"].__spec__
    return getattr(import_module(script.name), task.__name__) if script else task


def _attempt(task: Callable[..., Any], video: str, path: Path, record: Path, args: tuple) -> list[str]:
    """Run a task and keep its result; return what is wrong with the video, a line each."""
    try:
        with replacing(path) as temporary:
            done = task(video, temporary, *args)
            if done is None:
                temporary.touch()
            temporary.chmod(0o444)  # it will be one file with the stage's output and the copy in DVC's cache
    except VigilError as error:
        return str(error).splitlines()
    with replacing(record) as temporary:
        temporary.write_text(json.dumps({"file": _state(path), "made": done}))
    return []


def _whole(path: Path, record: Path) -> bool:
    """Whether a video is done, and nobody has touched its file since."""
    return path.exists() and record.exists() and json.loads(record.read_text())["file"] == _state(path)


def _state(path: Path) -> list[int]:
    return [path.stat().st_size, path.stat().st_mtime_ns]


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def code_hash() -> str:
    """SHA-256 over the project's own modules that this process has imported: what DVC lists as a stage's deps.

    Without the recipes: reading params.yaml imports all of them, and the one that counts is part of the identity.
    """
    files = {
        name: module.__file__
        for name, module in sys.modules.items()
        if name.startswith("stages.") and not name.startswith("stages.recipes") and module.__file__
    }
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(Path(files[name]).read_bytes())
    return digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system knows no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def check_space(need: int, folder: Path, what: str) -> None:
    """Raise VigilError where `need` bytes will not fit on the disk of `folder`."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise VigilError(
            f"{what}: needs about {need / 1e9:.1f} GB, {DATA} has {free / 1e9:.1f} GB free: make room, or move "
            "the repository to a larger disk (data/raw/<dataset> alone may be a symbolic link)"
        )


def prefetched(items: Iterable[T], ahead: int = 2) -> Iterator[T]:
    """Take items in a thread, `ahead` of them in advance: frames are decoded while a network computes."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as pool:
        waiting = deque(pool.submit(next, iterator, end) for _ in range(ahead))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, iterator, end))
            yield item  # pyright: ignore[reportReturnType]
