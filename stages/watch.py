"""Score a video, a folder of images or a camera, frame by frame as they come: VIDEO -> data/watch/<method>/<name>.

    python -m stages.watch street.mp4
    python -m stages.watch rtsp://192.168.0.7/stream --method state --out data/watch/door
    python -m stages.watch /dev/video0 --no-overlay

Takes the trained model, and normalisation and threshold from its scores of normal training frames; `dvc repro` makes
both. Writes
    scores.parquet/  frame, seconds, score, alarm, and the raw components where a frame has one row; in files of a
                     thousand frames, which pandas.read_parquet reads as one table
    overlay.mp4      the video with the running score, and with what is anomalous on it
    alarms.csv       runs of alarmed frames: first, last, start and end in seconds, highest score
    curve.png        the score over time, and the alarms
    watch.json       what it was made with, and what it came to
Ctrl-C and SIGTERM end it as the end of the video does. Until then all of it lies in <name>.<process>.partial, which a
process that is killed leaves behind, readable.
"""

import argparse
import difflib
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from av.error import FFmpegError
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from tqdm import tqdm

from stages import params, streams
from stages.command import VigilError, command
from stages.device import device, device_name
from stages.evaluation.alarms import threshold
from stages.evaluation.fusion import fuse, of_checkpoint
from stages.evaluation.regions import hot
from stages.io.files import remove, replacing
from stages.io.frames import ImageError
from stages.io.maps import unpacked
from stages.io.models import Model, load_trained
from stages.overlay import Scale, curve_figure, drawn, encoder
from stages.recipes import Fusion
from stages.sources import Images, Source, opened, without_password
from stages.videos import DATA, prefetched, read_videos

PART = 1000  # frames a file of scores
POINTS = 4000  # of the curve, about
SHOWN = 20  # alarms that are printed
RUNNING = 10  # seconds of the curve below the picture
USUAL = 25.0  # frames a second of the overlay where nobody knows


@dataclass(frozen=True)
class Normal:
    """What normal training frames are like.

    Attributes:
        fusion: the honest one.
        train: of each component two values with the mean and the standard deviation of all.
        lowest: score of a frame without an object; NaN for methods that score no objects.
        frames: how many there are.
        scale: the threshold, and what else is drawn.
    """

    fusion: Fusion
    train: dict[str, Float[np.ndarray, "2"]]
    lowest: float
    frames: int
    scale: Scale


@dataclass(frozen=True)
class Seen:
    """One frame and what is known of it: its rows' columns and scores, its own score (NaN where there is none)."""

    number: int
    seconds: float
    image: UInt8[np.ndarray, "H W *C"]
    columns: dict[str, np.ndarray]
    scores: Float[np.ndarray, " rows"]
    score: float
    alarm: bool


@dataclass(frozen=True)
class Alarm:
    """A run of alarmed frames: the first and the last of them, their times in seconds, and the highest score."""

    first: int
    last: int
    start: float
    end: float
    highest: float


@dataclass
class Tally:
    """Frames, alarmed ones, alarms, and the first few of these."""

    frames: int = 0
    alarmed: int = 0
    alarms: int = 0
    shown: list[Alarm] = field(default_factory=list)


@dataclass
class Reading:
    """How reading goes: whether it shall stop, why it broke off, and the seconds spent in waiting for frames."""

    stop: threading.Event = field(default_factory=threading.Event)
    broken: str = ""
    waited: float = 0.0


@command
def main(
    video: str, method: str | None = None, out: Path | None = None, fps: float = np.nan, overlay: bool = True
) -> str:
    """Watch `video` to its end with `method`, the one of params.yaml if None."""
    settings = params.load()
    method = method or settings.method
    check_method(method)
    lag = streams.lag(method, settings)
    models, recipe, hashes = trained(method, settings)
    normal = normality(method, recipe, settings.evaluate.quantile)
    on, network = device(settings.device), import_module(f"stages.methods.{method}")

    def stream(frames: Iterator[UInt8[np.ndarray, "H W *C"]]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        return network.stream(streams.inputs(method, frames, settings, on), recipe, models, on)

    reading, shown = Reading(), "stdin" if video == "-" else without_password(video)
    with (
        opened(video, fps) as source,
        kept(out or DATA / "watch" / method / source.name) as (folder, made),
        closing(prefetched(source.images)) as images,  # pyright: ignore[reportArgumentType]
        stopped_by_signals(reading.stop),
    ):
        known = source.fps > 0
        learnt = f"{method}, {f'trained on {settings.dataset}' if models else 'which learns nothing'}"
        origin = f"the {settings.evaluate.quantile:g} quantile of {normal.frames} normal training frames"
        print(
            f"{shown}: {f'{source.fps:.4g} frames a second' if known else 'frames a second unknown'}",
            f"{learnt}, on {device_name(on)}",
            f"lag: a score waits for {lag} later frames" + (f" ({lag / source.fps:.2f} s)" if known else ""),
            f"alarm above {normal.scale.threshold:.4g}: {origin} of {settings.dataset}",
            *["evaluate.smooth is not applied: it looks ahead"] * (settings.evaluate.smooth > 0),
            f"until the end, results are in {made}",
            sep="\n",
            flush=True,
        )
        begin = time.perf_counter()
        tally = write_results(made, source, judged(read(images, reading), stream, normal), normal, overlay)
        spent = time.perf_counter() - begin - (reading.waited if source.live else 0.0)
        if not tally.frames:
            raise VigilError(f"{shown}: no frames{f', {reading.broken}' if reading.broken else ''}")
        figure = curve(made, normal.scale.threshold, f"{source.name}: {learnt}")
        figure.savefig(made / "curve.png", dpi=100, metadata={"Software": None})
        record = {
            "video": shown, "frames": tally.frames, "fps": source.fps if known else None,
            "broken": reading.broken or None, "method": method, "dataset": settings.dataset, "models": hashes,
            "device": device_name(on), "lag": lag, "threshold": normal.scale.threshold,
            "quantile": settings.evaluate.quantile, "train_frames": normal.frames,
            "frames_per_second": round(tally.frames / spent, 2), "alarms": tally.alarms, "alarmed": tally.alarmed,
        }  # fmt: skip
        (made / "watch.json").write_text(json.dumps(record, indent=2) + "\n")

    print(*said_at_the_end(tally, tally.frames / spent, source), sep="\n", flush=True)
    if reading.broken:
        raise VigilError(f"{shown}: {reading.broken}; the {tally.frames} frames before are scored, see {folder}")
    ended = "stopped: " if reading.stop.is_set() else ""
    return f"{ended}{shown} ({tally.frames} frames) -> {folder}"


def check_method(method: str) -> None:
    """Raise VigilError where there is no such method."""
    if method not in params.methods():
        near = difflib.get_close_matches(method, params.methods(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise VigilError(f"no method {method!r}: expected one of {', '.join(params.methods())}{hint}")


def trained(method: str, settings: params.Params) -> tuple[list[Model], Any, list[list[str]]]:
    """A method's models, its recipe with what they were trained by, and the hashes of each model's tensors.

    Raises VigilError where models or scores are missing, or of another data set than params.yaml names.
    """
    folders = params.trainings(method)
    make = f"dvc repro stages/dvc.yaml:score-{method}"
    for path in [*(Path(folder, "model.json") for folder in folders.values()), scores_of(method)]:
        if not path.exists():
            raise VigilError(f"{path} not found: a video is watched with a trained and scored method; run {make}")
    models, recipe, descriptions = load_trained(method, settings.recipe(method), folders)
    for folder, description in zip(folders.values(), descriptions, strict=True):
        if description["dataset"] != settings.dataset:
            raise VigilError(
                f"{folder} was trained on {description['dataset']}, params.yaml names {settings.dataset}: "
                f"write dataset: {description['dataset']}, or run {make}"
            )
    return models, recipe, [description["hash"] for description in descriptions]


def scores_of(method: str) -> Path:
    """The table of a method's scores."""
    return DATA / "scores" / f"{method}.parquet"


def normality(method: str, recipe: Any, quantile: float) -> Normal:
    """What the scores of the training frames say. Raises VigilError where there are none."""
    fusion = next(iter(params.recipe_module(method).ladder(recipe.fuse).values()))
    train = of_checkpoint(pd.read_parquet(scores_of(method), filters=[("split", "==", "train")]), fusion.checkpoint)
    lengths = read_videos().set_index("video")["frames"].to_dict()
    unknown = set(train["video"]) - set(lengths)
    bar = None if unknown else threshold(train, fusion, 0.0, lengths, quantile)
    if bar is None:
        what = f"of {min(unknown)}, which is no video here" if unknown else "without a training frame"
        raise VigilError(
            f"{scores_of(method)} has scores {what}: a threshold takes scores of the training videos; "
            f"run dvc repro stages/dvc.yaml:score-{method}"
        )
    values = {component: train[component].to_numpy(float) for component in fusion.weights}
    scores = fuse(fusion, values, values)
    return Normal(
        fusion,
        {name: two_like(value) for name, value in values.items()},
        float(scores.min()) if fusion.frames == "objects" else np.nan,
        sum(lengths[video] for video in set(train["video"])),
        Scale(hot(unpacked(train["map"])) if "map" in train else np.nan, float(np.quantile(scores, 0.01)), bar),
    )


def two_like(values: Float[np.ndarray, " N"]) -> Float[np.ndarray, "2"]:
    """Two values with the mean and the standard deviation of all, so that no frame has to look at all again."""
    spread = values.std() if np.ptp(values) else 0.0  # of equal values rounding would leave some
    return values.mean() + np.array([-spread, spread])


@contextmanager
def kept(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield `folder`, and a new one beside it that takes its place at the end.

    After an error what is in the new one stays where it is. Raises VigilError where `folder` is something else than
    what this command writes.
    """
    if folder.exists() and not (folder / "watch.json").exists() and (folder.is_file() or any(folder.iterdir())):
        raise VigilError(f"{folder} holds something else, which would be lost: name another folder with --out")
    made = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
    (made / "scores.parquet").mkdir(parents=True)
    try:
        yield folder, made
        remove(folder)
        made.rename(folder)
    except BaseException:
        if any((made / "scores.parquet").iterdir()):
            print(f"what was scored before the error is in {made}", file=sys.stderr)
        else:
            remove(made)
        raise


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM set `stop`; a second one ends the process as usual."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def handle(*_: Any) -> None:
        stop.set()
        restore()

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def read(images: Images, reading: Reading) -> Images:
    """The frames until there are no more, reading shall stop, or breaks off."""
    while not reading.stop.is_set():
        start = time.perf_counter()
        try:
            item = next(images, None)
        except (ImageError, FFmpegError) as error:
            reading.broken = without_password(str(error))
            return
        reading.waited += time.perf_counter() - start
        if item is None:
            return
        yield item


def judged(
    images: Images,
    stream: Callable[[Iterator[UInt8[np.ndarray, "H W *C"]]], Iterator[tuple[int, dict[str, np.ndarray]]]],
    normal: Normal,
) -> Iterator[Seen]:
    """Every frame with its score, in order; a frame waits until `stream` has seen as many later ones as it wants."""
    waiting: deque[tuple[float, np.ndarray]] = deque()

    def frames() -> Iterator[UInt8[np.ndarray, "H W *C"]]:
        for item in images:
            waiting.append(item)
            yield item[1]

    for number, columns in stream(frames()):
        seconds, image = waiting.popleft()
        scores = fuse(normal.fusion, columns, normal.train)
        score = float(scores.max()) if len(scores) else normal.lowest
        yield Seen(number, seconds, image, columns, scores, score, score > normal.scale.threshold)


def write_results(made: Path, source: Source, frames: Iterator[Seen], normal: Normal, overlay: bool) -> Tally:
    """Write scores, alarms and overlay as the frames come; nothing is kept that grows with their number."""
    fps = source.fps if source.fps > 0 else USUAL
    running: deque[float] = deque(maxlen=max(2, round(RUNNING * fps)))
    components = [] if normal.fusion.frames == "objects" else [*normal.fusion.weights]
    rows: list[dict[str, Any]] = []
    tally = Tally()
    with ExitStack() as stack:
        add = stack.enter_context(encoder(made / "overlay.mp4", fps)) if overlay else None
        stack.callback(write_part, made, rows)
        listed = stack.enter_context(open(made / "alarms.csv", "w", buffering=1))
        listed.write("first,last,start,end,highest\n")
        bar = stack.enter_context(tqdm(total=source.frames, desc="watch", unit="frame", disable=None))
        for alarm, run in groupby(frames, key=lambda one: one.alarm):
            before, start, end, highest = tally.frames, np.nan, np.nan, -np.inf
            for one in run:
                if tally.frames == before:
                    start = one.seconds
                    if alarm and source.live:
                        tqdm.write(f"ALARM from frame {one.number}, {clock(start)}")
                tally.frames, tally.alarmed = tally.frames + 1, tally.alarmed + alarm
                end, highest = one.seconds, max(highest, one.score)
                raw = {name: one.columns[name][0] if len(one.scores) else np.nan for name in components}
                rows.append({"frame": one.number, "seconds": one.seconds, "score": one.score, "alarm": alarm} | raw)
                if len(rows) == PART:
                    write_part(made, rows)
                if add:
                    running.append(one.score)
                    text, length = f"frame {one.number}, {clock(one.seconds)}", running.maxlen or 2
                    picture = drawn(one.image, one.columns, one.scores, running, length, normal.scale, text)
                    add(picture, one.seconds if np.isfinite(one.seconds) else one.number / fps)
                bar.update()
            if alarm:
                found = Alarm(before, tally.frames - 1, start, end, highest)
                listed.write(f"{found.first},{found.last},{start:.3f},{end:.3f},{highest:.6g}\n")
                tally.alarms += 1
                if tally.alarms <= SHOWN:
                    tally.shown.append(found)
    return tally


def write_part(made: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as the next file of the table of scores, and empty the list."""
    if rows:
        table = pd.DataFrame(rows).astype({"frame": "int32", "score": "float32"})
        with replacing(made / "scores.parquet" / f"{rows[0]['frame']:010d}.parquet") as path:
            table.to_parquet(path, index=False)
        rows.clear()


def curve(made: Path, threshold: float, title: str) -> Figure:
    """The picture of all scores that are in the folder, read file by file."""
    files = sorted((made / "scores.parquet").glob("*.parquet"))
    timed = np.isfinite(pd.read_parquet(files[0], columns=["seconds"]).to_numpy()).all()
    unit = "seconds" if timed else "frame"
    parts = []
    for file in files:
        table = pd.read_parquet(file, columns=[unit, "score", "alarm"])
        edges = np.unique(np.linspace(0, len(table), max(1, POINTS // len(files)) + 1).astype(int))[:-1]
        start, score, alarm = (table[name].to_numpy() for name in (unit, "score", "alarm"))
        low, high = np.fmin.reduceat(score, edges), np.fmax.reduceat(score, edges)
        alarms = np.logical_or.reduceat(alarm, edges)
        parts.append(pd.DataFrame({"start": start[edges], "low": low, "high": high, "alarm": alarms}))
    return curve_figure(pd.concat(parts, ignore_index=True), threshold, unit, title)


def said_at_the_end(tally: Tally, rate: float, source: Source) -> Iterator[str]:
    """Lines about speed and alarms."""
    speed = f"{tally.frames} frames, {rate:.1f} a second"
    if source.fps > 0:
        speed += f": {'keeps up with' if rate >= source.fps else 'cannot keep up with'} the video's {source.fps:.4g}"
    yield speed
    yield f"{tally.alarms} alarm{'s' * (tally.alarms != 1)}"
    for alarm in tally.shown:
        times = f", {clock(alarm.start)} to {clock(alarm.end)}" if np.isfinite(alarm.start) else ""
        yield f"  frames {alarm.first} to {alarm.last}{times}, highest score {alarm.highest:.4g}"
    if tally.alarms > SHOWN:
        yield f"  and {tally.alarms - SHOWN} more, see alarms.csv"
    if tally.alarmed > tally.frames / 2:
        yield "more than half of all frames are alarmed: was it trained on enough normal videos of this very camera?"


def clock(seconds: float) -> str:
    """Hours, minutes and seconds; empty where unknown."""
    if not np.isfinite(seconds):
        return ""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Score a video, a folder of images or a camera as its frames come.")
    parser.add_argument(
        "video", help="file, folder of images, address (rtsp://...), camera (/dev/video0), or - for a pipe"
    )
    parser.add_argument("--method", help="that is trained and scored here; default: the one of params.yaml")
    parser.add_argument("--out", type=Path, help="folder; default: data/watch/<method>/<name of the video>")
    parser.add_argument("--fps", type=float, default=np.nan, help="frames a second, where the video does not say")
    parser.add_argument("--no-overlay", action="store_true", help="write no video, only scores and curve")
    chosen = parser.parse_args()
    main(chosen.video, chosen.method, chosen.out, chosen.fps, not chosen.no_overlay)
