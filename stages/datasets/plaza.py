"""The demo's scene: a fixed camera over a plaza, its walkers, and what should not be there.

Everything that moves is made of flat textured parts, each under an affine map a frame; so the image, the pixel
masks, the boxes and the optical flow all follow from the same numbers.

T frames, H, W height and width in pixels, P parts. Colours are blue, green, red, 0..255. An actor's own frame has
its feet at (0, 0), the top of a person's head at (0, -1), x to where it faces. Textures are premultiplied by alpha.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, UInt8

Color = tuple[float | int, float | int, float | int]
"""Blue, green, red."""

Path = tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]
"""Feet: x and y in pixels, a value a frame."""

DETAIL = 96  # texture pixels a person's height
HORIZON = -0.12  # image heights; where a person's size would be zero
NEAR = 0.29  # image heights; a person's size at the lower edge of the image
NEAREST = 0.97  # image heights; where the nearest feet are
LANE = (0.40, 0.50)  # image heights; of the one-way walk, to the right
WALKERS = 7  # on the plaza and in the lane, at all times
PACE = (0.045, 0.08)  # a walker's speed in person's heights a frame
NOISE = 2.5  # grey levels, standard deviation
DRIFT = 0.05  # of the brightness, amplitude
MUTED: list[Color] = [
    (36, 30, 26), (28, 29, 34), (92, 84, 76), (60, 74, 88), (150, 150, 150),
    (238, 240, 236), (82, 54, 34), (44, 58, 52), (120, 132, 142), (214, 222, 228),
]  # fmt: skip
VIVID: list[Color] = [(76, 92, 246), (36, 150, 248), (224, 104, 232), (244, 168, 52), (80, 214, 96), (24, 190, 230)]
SKIN: list[Color] = [(150, 180, 222), (120, 152, 200), (84, 112, 160), (56, 76, 112)]
HAIR: list[Color] = [(28, 30, 36), (34, 52, 80), (52, 88, 132), (150, 156, 160)]

SCENARIOS = [
    [("cyclist", 0.35)],
    [("vehicle", 0.50)],
    [],
    [("patrol", 0.0)],
    [("runner", 0.05), ("cyclist", 0.75)],
    [("fall", 0.0)],
    [("left_object", 0.15)],
    [("wrong_way", 0.5), ("vehicle", 0.65)],
    [("loiterer", 0.55)],
    [("cyclist", 0.1), ("vehicle", 0.6)],
]
"""What happens in test videos, in turn: (what, when as a part of the video). The third has nothing abnormal, the
fourth nothing normal."""


@dataclass
class Part:
    """A textured patch and where it is.

    Attributes:
        texture: the patch.
        pose: maps texture pixels to image pixels, T + 1 times.
        solid: a shadow is not: it darkens, and is neither mask nor flow.
        step: maps an image pixel (x, y, 1) of the part to its flow.
        corners: x1, y1, x2, y2 of the image pixels that it may touch, upper ends excluded.
    """

    texture: Float32[np.ndarray, "h w 4"]
    pose: Float[np.ndarray, "T 2 3"]
    solid: bool = True

    def __post_init__(self):
        whole = np.zeros((len(self.pose), 3, 3))
        whole[:, :2], whole[:, 2, 2] = self.pose, 1
        self.step = (whole[1:] @ np.linalg.inv(whole[:-1]) - np.eye(3))[:, :2]
        h, w = self.texture.shape[:2]
        ends = self.pose @ np.array([[-0.5, w - 0.5, w - 0.5, -0.5], [-0.5, -0.5, h - 0.5, h - 0.5], [1, 1, 1, 1]])
        self.corners = np.hstack([np.floor(ends.min(2)), np.ceil(ends.max(2)) + 1]).astype(int)


@dataclass
class Actor:
    """Something that moves: parts from back to front, and from which frame on it is abnormal (None: never)."""

    kind: str
    depth: Float[np.ndarray, " T"]
    parts: list[Part] = field(default_factory=list)
    abnormal_from: int | None = None
    appears: int = 0


@dataclass(frozen=True)
class Film:
    """A rendered video with its truth.

    Attributes:
        frames: pixels.
        mask: pixels of abnormal actors.
        flow: pixels to the right and down, from frame i to i + 1; of a pixel's visible surface. The last frame
            has the motion that would follow.
        tracks: frame, track, x1, y1, x2, y2 (pixels, upper ends excluded), kind, abnormal.
    """

    frames: UInt8[np.ndarray, "T H W 3"]
    mask: Bool[np.ndarray, "T H W"]
    flow: Float16[np.ndarray, "T H W 2"]
    tracks: list[tuple]


def film(
    background: Float32[np.ndarray, "H W 3"], frames: int, scenario: list[tuple[str, float]], rng: np.random.Generator
) -> Film:
    """Walkers on the plaza for some frames, with the scenario's anomalies, the light's drift and the sensor's noise."""
    height, width = background.shape[:2]
    stage = Stage(height, width, frames, rng)
    actors = [walker for slot in range(WALKERS) for walker in walkers(stage, in_lane=slot < 2)]
    for kind, when in scenario:
        actors += ANOMALIES[kind](stage, int(when * frames))
    images = np.repeat(background[None], frames, 0)
    owner = np.full((frames, height, width), -1, np.int16)
    flow = np.zeros((frames, height, width, 2), np.float32)
    tracks = []
    for frame in range(frames):
        for track in sorted(range(len(actors)), key=lambda track: actors[track].depth[frame]):
            actor = actors[track]
            if frame < actor.appears:
                continue
            box = [width, height, 0, 0]
            for part in actor.parts:
                draw(part, frame, track, images[frame], owner[frame], flow[frame], box)
            if box[0] < box[2]:
                abnormal = actor.abnormal_from is not None and frame >= actor.abnormal_from
                tracks.append((frame, track, *map(float, box), actor.kind, abnormal))
    since = np.array([frames if actor.abnormal_from is None else actor.abnormal_from for actor in actors])
    mask = (owner >= 0) & (np.arange(frames)[:, None, None] >= since[owner])
    return Film(exposed(images, rng), mask, flow.astype(np.float16), tracks)


def exposed(images: Float32[np.ndarray, "T H W 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "T H W 3"]:
    """What the sensor makes of the light: slow drift of brightness, noise, whole numbers."""
    time = np.arange(len(images)) / 100
    drift = 1 + DRIFT * np.sin(2 * np.pi * (rng.uniform(0.4, 0.9) * time + rng.uniform()))
    noise = rng.standard_normal(images.shape, np.float32) * np.float32(NOISE)
    exposed = images * drift[:, None, None, None].astype(np.float32) + noise
    return np.clip(np.rint(exposed), 0, 255).astype(np.uint8)


def draw(
    part: Part,
    frame: int,
    track: int,
    image: Float32[np.ndarray, "H W 3"],
    owner: np.ndarray,
    flow: Float32[np.ndarray, "H W 2"],
    box: list[int],
) -> None:
    """Draw one part over the image; where it is opaque, set the pixel's owner and flow, and widen the box."""
    x1, y1, x2, y2 = part.corners[frame].tolist()
    x1, y1, x2, y2 = max(x1, 0), max(y1, 0), min(x2, image.shape[1]), min(y2, image.shape[0])
    if x1 >= x2 or y1 >= y2:
        return
    pose = part.pose[frame].copy()
    pose[:, 2] -= x1, y1
    patch = cv2.warpAffine(part.texture, pose, (x2 - x1, y2 - y1), flags=cv2.INTER_LINEAR)
    here = image[y1:y2, x1:x2]
    here *= 1 - patch[..., 3:]
    here += patch[..., :3]
    if not part.solid:
        return
    ys, xs = np.nonzero(patch[..., 3] > 0.5)
    if not len(ys):
        return
    ys, xs = ys + y1, xs + x1
    owner[ys, xs] = track
    step = part.step[frame]
    flow[ys, xs] = xs[:, None] * step[:, 0] + ys[:, None] * step[:, 1] + step[:, 2]
    x1, y1, x2, y2 = int(xs.min()), int(ys[0]), int(xs.max()) + 1, int(ys[-1]) + 1
    box[:] = min(box[0], x1), min(box[1], y1), max(box[2], x2), max(box[3], y2)


@dataclass(frozen=True)
class Stage:
    """Where actors move: the image's height and width in pixels, the number of frames, and the video's dice."""

    height: int
    width: int
    frames: int
    rng: np.random.Generator

    def size(self, y: Float[np.ndarray, " T"]) -> Float[np.ndarray, " T"]:
        """A person's height in pixels whose feet are at y."""
        return NEAR * self.height * (y / self.height - HORIZON) / (1 - HORIZON)

    def pick(self, choices: list) -> tuple:
        """One of some colours, at random, in a shade of its own."""
        return tuple(np.array(choices[self.rng.integers(len(choices))]) * self.rng.uniform(0.85, 1.15))

    def crossing(self, start: int, pace: float, y: tuple[float, float], right: bool, margin: float = 0.5) -> Path:
        """Feet (x, y), T + 1 of them, of somebody who walks through the image from side to side.

        Args:
            start: frame at which the image's edge is reached; may be negative.
            pace: person's heights a frame.
            y: image heights at the start and at the end of the way.
            right: direction.
            margin: person's heights outside the image at the start.
        """
        time = np.arange(self.frames + 1)
        middle = float(self.size(np.array([np.mean(y) * self.height]))[0])
        way = (time - start) * pace * middle - margin * middle
        x = way if right else self.width - way
        part = np.clip(way / self.width, 0, 1)
        sway = 0.012 * np.sin(2 * np.pi * (1.5 * part + self.rng.uniform()))
        return x, (y[0] + (y[1] - y[0]) * part * part * (3 - 2 * part) + sway) * self.height


def walkers(stage: Stage, in_lane: bool) -> list[Actor]:
    """One walker after the other, so that there is always one on the way: to the right in the lane, else freely."""
    found, start = [], -stage.rng.uniform(0, 1)
    while True:
        pace, right = stage.rng.uniform(*PACE), in_lane or stage.rng.uniform() < 0.5
        bounds = (LANE[0] + 0.02, LANE[1] - 0.02) if in_lane else (LANE[1] + 0.06, NEAREST)
        y = stage.rng.uniform(*bounds)
        y = y, float(np.clip(y + stage.rng.uniform(-0.2, 0.2) * (not in_lane), *bounds))
        middle = float(stage.size(np.array([np.mean(y) * stage.height]))[0])
        duration = (stage.width / middle + 1) / pace  # frames
        start = start * duration if not found else start
        if start >= stage.frames:
            return found
        path = stage.crossing(int(start), pace, y, right)
        found.append(person(stage, "walker", path, right, pace, MUTED))
        start += duration


def person(
    stage: Stage,
    kind: str,
    path: Path,
    right: bool,
    pace: float,
    colors: list[Color],
    tilt: Float[np.ndarray, " T"] | None = None,
) -> Actor:
    """A person: legs and arms swing as far as the pace says; `tilt` (radians) is the fall of the whole body."""
    x, y = path
    size = stage.size(y) * stage.rng.uniform(0.88, 1.12)
    moved = np.hypot(np.gradient(x), np.gradient(y)) / size
    phase = np.cumsum(moved) * 2 * np.pi / 0.75 + stage.rng.uniform(0, 2 * np.pi)
    swing = np.sin(phase) * min(0.25 + 4 * pace, 0.75)
    base = placed(x, y, size, right, tilt)
    still = np.zeros_like(x)
    shirt, trousers = stage.pick(colors), stage.pick(MUTED)
    skin, hair = stage.pick(SKIN), stage.pick(HAIR)
    limb, sleeve = leg(trousers), arm(shirt, skin)
    swung = -0.7 * swing
    hip, shoulder = (0.0, -0.47), (0.0, -0.80)
    actor = Actor(kind, y, [shadow(x, y, size)])
    actor.parts += [
        jointed(sleeve * SHADE, base, shoulder, (0.5, 0.08), -swung, size),
        jointed(limb * SHADE, base, hip, (0.5, 0.05), -swing, size),
        jointed(limb, base, hip, (0.5, 0.05), swing, size),
        jointed(torso(stage.rng, shirt, skin, hair), base, hip, (0.5, 1.0), still, size),
        jointed(sleeve, base, shoulder, (0.5, 0.08), swung, size),
    ]
    return actor


SHADE = np.array([0.78, 0.78, 0.78, 1], np.float32)  # the limbs on the far side


def cyclist(stage: Stage, start: int) -> list[Actor]:
    """A cyclist in bright clothes, at two to four times a walker's speed."""
    right, pace = bool(stage.rng.uniform() < 0.5), stage.rng.uniform(0.15, 0.18)
    y = stage.rng.uniform(0.55, 0.90)
    x, y = stage.crossing(start, pace, (y, y + stage.rng.uniform(-0.06, 0.06)), right)
    size = stage.size(y)
    base, still = placed(x, y, size, right), np.zeros_like(x)
    turned = np.cumsum(np.abs(np.gradient(x)) / size) / 0.26
    color, shirt = stage.pick(VIVID), stage.pick(VIVID)
    skin, limb = stage.pick(SKIN), leg(stage.pick(VIVID))
    push = 0.55 * np.sin(turned * 0.6)
    actor = Actor("cyclist", y, [shadow(x, y, size, 1.9)], abnormal_from=0)
    actor.parts += [
        jointed(wheel(0.26), base, (-0.42, -0.26), (0.5, 0.5), turned, size),
        jointed(wheel(0.26), base, (0.42, -0.26), (0.5, 0.5), turned, size),
        jointed(limb * SHADE, base, (-0.12, -0.62), (0.5, 0.05), -0.35 - push, size),
        jointed(bicycle(color), base, (0.0, -0.26), (0.5, 1.0), still, size),
        jointed(limb, base, (-0.12, -0.62), (0.5, 0.05), -0.35 + push, size),
        jointed(torso(stage.rng, shirt, skin, color), base, (-0.12, -0.58), (0.5, 1.0), still + 0.55, size),
        jointed(arm(shirt, skin), base, (0.1, -0.84), (0.5, 0.08), still - 0.75, size),
    ]
    return [actor]


def vehicle(stage: Stage, start: int) -> list[Actor]:
    """A van that drives through."""
    right, pace = bool(stage.rng.uniform() < 0.5), stage.rng.uniform(0.12, 0.15)
    y = stage.rng.uniform(0.62, 0.80)
    x, y = stage.crossing(start, pace, (y, y + stage.rng.uniform(-0.05, 0.05)), right, margin=1.1)
    return [van(stage, x, y, placed(x, y, stage.size(y), right), 1 if right else -1)]


def patrol(stage: Stage, start: int) -> list[Actor]:
    """A van that drives to and fro and never leaves the image."""
    time = np.arange(stage.frames + 1)
    x = stage.width * (0.5 + 0.2 * np.sin(2 * np.pi * time / 90 + stage.rng.uniform(0, 2 * np.pi)))
    y = stage.height * (0.72 + 0.05 * np.sin(2 * np.pi * time / 110))
    return [van(stage, x, y, placed(x, y, stage.size(y), True), 1)]


def van(stage: Stage, x: np.ndarray, y: np.ndarray, base: Float[np.ndarray, "T 3 3"], sign: int) -> Actor:
    """A van on its wheels; `sign` is 1 where it faces the right."""
    size = stage.size(y)
    turned = sign * np.cumsum(np.gradient(x) / size) / 0.2
    actor = Actor("vehicle", y, [shadow(x, y, size, 3.2)], abnormal_from=0)
    actor.parts += [
        jointed(van_body(stage.rng, stage.pick(VIVID)), base, (0.0, -0.14), (0.5, 1.0), np.zeros_like(x), size),
        jointed(wheel(0.2, solid=True), base, (-0.58, -0.2), (0.5, 0.5), turned, size),
        jointed(wheel(0.2, solid=True), base, (0.6, -0.2), (0.5, 0.5), turned, size),
    ]
    return actor


def runner(stage: Stage, start: int) -> list[Actor]:
    """Somebody who runs."""
    right, pace, y = bool(stage.rng.uniform() < 0.5), stage.rng.uniform(0.13, 0.16), stage.rng.uniform(0.6, 0.92)
    path = stage.crossing(start, pace, (y, y - stage.rng.uniform(0, 0.1)), right)
    actor = person(stage, "runner", path, right, pace, VIVID)
    actor.abnormal_from = 0
    return [actor]


def wrong_way(stage: Stage, start: int) -> list[Actor]:
    """Two who walk to the left in the lane, one behind the other."""
    found = []
    for behind in (0, int(stage.rng.integers(8, 14))):
        pace, y = stage.rng.uniform(*PACE) * 1.3, stage.rng.uniform(LANE[0] + 0.02, LANE[1] - 0.02)
        path = stage.crossing(start + behind, pace, (y, y), right=False)
        actor = person(stage, "wrong_way", path, False, pace, VIVID)
        actor.abnormal_from = 0
        found.append(actor)
    return found


def fall(stage: Stage, start: int) -> list[Actor]:
    """A walker who falls in the middle of the plaza, lies for a while, and turns from side to side."""
    time, when = np.arange(stage.frames + 1), start + int(stage.frames * 0.55)
    right, y = bool(stage.rng.uniform() < 0.5), stage.rng.uniform(0.66, 0.9)
    pace = stage.rng.uniform(*PACE)
    x, y = stage.crossing(when - stage.frames, pace, (y, y), right)
    shift = stage.width * stage.rng.uniform(0.4, 0.6) - x[when]
    x, y = x[np.minimum(time, when)] + shift, y[np.minimum(time, when)]
    down = np.clip((time - when) / 6, 0, 1) ** 2
    tilt = down * (1.45 + 0.12 * np.sin(0.5 * time))
    actor = person(stage, "fall", (x, y), right, pace, MUTED, tilt)
    actor.abnormal_from = when
    return [actor]


def loiterer(stage: Stage, start: int) -> list[Actor]:
    """Somebody who walks in, then paces to and fro on the spot."""
    time, y = np.arange(stage.frames + 1), stage.rng.uniform(0.6, 0.85)
    pace = PACE[1]
    x, y = stage.crossing(start - stage.frames, pace, (y, y), True)
    stop, spot = start, stage.width * stage.rng.uniform(0.25, 0.75)
    shift = spot - x[stop]
    to_and_fro = 3.0 * np.sin(0.35 * np.maximum(time - stop, 0))
    x = x[np.minimum(time, stop)] + shift + to_and_fro
    actor = person(stage, "loiterer", (x, y[np.minimum(time, stop)]), True, pace, MUTED)
    actor.abnormal_from = stop
    return [actor]


def left_object(stage: Stage, start: int) -> list[Actor]:
    """A walker who puts down a suitcase in the middle of the plaza and walks on; the suitcase stays."""
    time, when = np.arange(stage.frames + 1), start + int(stage.frames * 0.4)
    right, pace, y = bool(stage.rng.uniform() < 0.5), stage.rng.uniform(*PACE), stage.rng.uniform(0.66, 0.88)
    x, y = stage.crossing(when - stage.frames, pace, (y, y), right)
    x = x + stage.width * stage.rng.uniform(0.35, 0.65) - x[when]
    owner = person(stage, "walker", (x, y), right, pace, MUTED)
    held = np.minimum(time, when)
    cx, cy = x[held], y[held] + 1
    size = stage.size(y)[held]
    case = Actor("left_object", cy, [shadow(cx, cy, size, 0.8)], abnormal_from=when, appears=when)
    base, still = placed(cx, cy, size, right), np.zeros_like(x)
    case.parts.append(jointed(suitcase(stage.rng, stage.pick(VIVID)), base, (0.0, 0.0), (0.5, 1.0), still, size))
    return [owner, case]


ANOMALIES: dict[str, Callable[[Stage, int], list[Actor]]] = {
    "cyclist": cyclist,
    "vehicle": vehicle,
    "patrol": patrol,
    "runner": runner,
    "wrong_way": wrong_way,
    "fall": fall,
    "loiterer": loiterer,
    "left_object": left_object,
}


def placed(
    x: np.ndarray, y: np.ndarray, size: np.ndarray, right: bool, tilt: np.ndarray | None = None
) -> Float[np.ndarray, "T 3 3"]:
    """An actor's frame in the image: feet at (x, y), `size` pixels a unit, mirrored to face the left."""
    turned = rotation(np.zeros_like(x) if tilt is None else tilt)
    scale = np.zeros((len(x), 3, 3))
    scale[:, 0, 0], scale[:, 1, 1], scale[:, 2, 2] = size * (1 if right else -1), size, 1
    scale[:, 0, 2], scale[:, 1, 2] = x, y
    return scale @ turned


def rotation(angle: Float[np.ndarray, " T"]) -> Float[np.ndarray, "T 3 3"]:
    """Turn by an angle in radians, from x to y (clockwise in the image)."""
    matrix = np.zeros((len(angle), 3, 3))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angle)
    matrix[:, 1, 0] = np.sin(angle)
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    matrix[:, 2, 2] = 1
    return matrix


def jointed(
    texture: np.ndarray,
    base: Float[np.ndarray, "T 3 3"],
    joint: tuple[float, float],
    pivot: tuple[float, float],
    angle: Float[np.ndarray, " T"],
    size: Float[np.ndarray, " T"],
) -> Part:
    """A part that turns about a joint.

    Args:
        texture: at DETAIL pixels a unit.
        base: the actor's frame.
        joint: in the actor's frame.
        pivot: the point of the texture that lies on the joint, as parts of its width and height.
        angle: radians.
        size: pixels a unit; a small actor gets a coarser texture, which does not flicker.
    """
    coarser = 2 ** max(0, int(np.log2(DETAIL / size.mean())))
    h, w = (max(2, round(side / coarser)) for side in texture.shape[:2])
    reduced = cv2.resize(texture.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA)
    reduced = cv2.copyMakeBorder(reduced, 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    unit_w, unit_h = texture.shape[1] / DETAIL, texture.shape[0] / DETAIL
    to_unit = np.array(
        [
            [unit_w / w, 0, unit_w * (-0.5 / w - pivot[0])],
            [0, unit_h / h, unit_h * (-0.5 / h - pivot[1])],
            [0, 0, 1],
        ]
    )
    to_joint = rotation(angle)
    to_joint[:, :2, 2] = joint
    return Part(reduced, (base @ to_joint @ to_unit)[:, :2])


def shadow(x: np.ndarray, y: np.ndarray, size: np.ndarray, wide: float = 0.75) -> Part:
    """A soft shadow on the ground, towards the lower right."""
    h, w = round(DETAIL * 0.22), round(DETAIL * wide)
    ys, xs = np.mgrid[-1 : 1 : h * 1j, -1 : 1 : w * 1j]
    alpha = np.clip(1.2 * (1 - np.hypot(xs, ys)), 0, 0.42)
    base = placed(x + 0.12 * size, y, size, True)
    flat = np.dstack([alpha * 30, alpha * 24, alpha * 20, alpha])
    part = jointed(flat, base, (0.0, 0.0), (0.5, 0.5), np.zeros_like(x), size)
    part.solid = False
    return part


def painted(height: float, width: float, *shapes: tuple[str, Color, list]) -> Float32[np.ndarray, "h w 4"]:
    """A texture from polygons, ellipses and lines in units of a person's height, smooth at the edges.

    A shape is ("polygon", color, points), ("ellipse", color, [centre, radii]) or ("line", color, [from, to, [width]]).
    """
    fine = 4
    k = DETAIL * fine
    canvas = np.zeros((round(height * k), round(width * k), 4), np.float32)
    for kind, color, points in shapes:
        paint = (*map(float, color), 1.0)
        pixels = [tuple(round(value * k) for value in point) for point in points]
        if kind == "polygon":
            cv2.fillPoly(canvas, [np.array(pixels)], paint)
        elif kind == "ellipse":
            cv2.ellipse(canvas, pixels[0], pixels[1], 0, 0, 360, paint, -1)
        else:
            cv2.line(canvas, pixels[0], pixels[1], paint, pixels[2][0])
    return cv2.resize(canvas, None, fx=1 / fine, fy=1 / fine, interpolation=cv2.INTER_AREA)


def woven(texture: Float32[np.ndarray, "h w 4"], rng: np.random.Generator, strength: float) -> np.ndarray:
    """The texture with stripes, checks or mottling of its own, so that it has something to follow."""
    h, w = texture.shape[:2]
    ys, xs = np.mgrid[:h, :w]
    wave, kind = rng.uniform(9, 16), rng.integers(4)
    pattern = [
        np.sign(np.sin(2 * np.pi * ys / wave)),
        np.sign(np.sin(2 * np.pi * ys / wave)) * np.sign(np.sin(2 * np.pi * xs / wave)),
        np.sin(2 * np.pi * (xs + ys) / wave),
        cv2.resize(rng.uniform(-1, 1, (h // 8 + 1, w // 8 + 1)), (w, h), interpolation=cv2.INTER_CUBIC),
    ][kind]
    shaded = texture.copy()
    shaded[..., :3] *= (1 + strength * pattern)[..., None].astype(np.float32)
    light = np.linspace(1.12, 0.85, w, dtype=np.float32)[None, :, None]
    shaded[..., :3] = np.clip(shaded[..., :3] * light, 0, 255 * shaded[..., 3:])
    return shaded


def torso(rng: np.random.Generator, shirt: Color, skin: Color, hair: Color) -> np.ndarray:
    """Chest and head; 0.54 high, the hips at the lower edge."""
    cloth = painted(0.55, 0.34, ("ellipse", shirt, [(0.17, 0.36), (0.115, 0.2)]),
                    ("polygon", shirt, [(0.07, 0.36), (0.27, 0.36), (0.25, 0.55), (0.09, 0.55)]))  # fmt: skip
    head = painted(0.55, 0.34, ("line", skin, [(0.17, 0.12), (0.17, 0.2), (0.07, 0)]),
                   ("ellipse", hair, [(0.165, 0.09), (0.083, 0.09)]),
                   ("ellipse", skin, [(0.195, 0.105), (0.055, 0.07)]))  # fmt: skip
    cloth = woven(cloth, rng, 0.22)
    return cloth * (1 - head[..., 3:]) + head


def leg(color: Color) -> np.ndarray:
    """A leg with its shoe; 0.5 high, the hip at the top."""
    shoe = (34, 32, 34)
    return painted(0.5, 0.26, ("polygon", color, [(0.06, 0.0), (0.2, 0.0), (0.17, 0.46), (0.09, 0.46)]),
                   ("polygon", shoe, [(0.09, 0.45), (0.17, 0.45), (0.24, 0.5), (0.09, 0.5)]))  # fmt: skip


def arm(color: Color, skin: Color) -> np.ndarray:
    """An arm; 0.4 high, the shoulder at the top."""
    return painted(0.4, 0.12, ("line", color, [(0.06, 0.05), (0.06, 0.3), (0.08, 0)]),
                   ("ellipse", skin, [(0.06, 0.36), (0.038, 0.04)]))  # fmt: skip


def wheel(radius: float, solid: bool = False) -> np.ndarray:
    """A wheel with spokes, or a solid one with a hub; its centre in the middle."""
    r, dark, grey = radius, (64, 64, 68), (170, 172, 176)
    spokes = [("line", grey, [(r + 0.85 * r * np.cos(a), r + 0.85 * r * np.sin(a)), (r, r), (0.016, 0)])
              for a in np.arange(5) * 2 * np.pi / 5]  # fmt: skip
    if solid:
        hub = ("ellipse", grey, [(r, r), (r * 0.5, r * 0.5)])
        return painted(2 * r, 2 * r, ("ellipse", dark, [(r, r), (r, r)]), hub, ("line", dark, spokes[0][2]))
    rim = painted(2 * r, 2 * r, ("ellipse", dark, [(r, r), (r, r)]))
    hole = painted(2 * r, 2 * r, ("ellipse", dark, [(r, r), (0.82 * r, 0.82 * r)]))
    over = painted(2 * r, 2 * r, *spokes)
    return rim * (1 - hole[..., 3:]) * (1 - over[..., 3:]) + over


def bicycle(color: Color) -> np.ndarray:
    """A bicycle's frame, saddle and handlebar; 0.46 high, the axles at the lower edge."""
    back, crank, seat, front, bar = (0.09, 0.44), (0.42, 0.44), (0.36, 0.1), (0.93, 0.44), (0.8, 0.06)
    tubes = [(back, crank), (crank, seat), (back, seat), (seat, bar), (crank, bar), (bar, front)]
    lines = [("line", color, [start, end, (0.05, 0)]) for start, end in tubes]
    dark = (28, 28, 30)
    lines += [("line", dark, [(0.28, 0.07), (0.44, 0.07), (0.05, 0)]), ("line", dark, [(0.74, 0.04), (0.86, 0.04),
              (0.04, 0)])]  # fmt: skip
    return painted(0.46, 1.02, *lines)


def van_body(rng: np.random.Generator, color: Color) -> np.ndarray:
    """A van seen from its side, with windows, a stripe, lights and a lettered flank; 1.15 high, 2 long."""
    glass, dark, pale = (176, 150, 116), (84, 80, 84), (226, 230, 232)
    body = painted(1.15, 2.0, ("polygon", color, [(0.04, 0.06), (1.4, 0.03), (1.62, 0.1), (1.84, 0.52), (1.97, 0.62),
                                                  (1.97, 1.1), (0.03, 1.1)]))  # fmt: skip
    body = woven(body, rng, 0.06)
    letters = [("polygon", pale, [(left, 0.3), (left + width, 0.3), (left + width, 0.48), (left, 0.48)])
               for left, width in zip(0.2 + np.arange(6) * 0.16, rng.uniform(0.05, 0.12, 6), strict=True)]  # fmt: skip
    detail = painted(
        1.15,
        2.0,
        ("polygon", glass, [(1.3, 0.18), (1.56, 0.18), (1.74, 0.54), (1.3, 0.54)]),
        ("polygon", pale, [(0.03, 0.7), (1.97, 0.7), (1.97, 0.8), (0.03, 0.8)]),
        ("polygon", dark, [(0.03, 1.0), (1.97, 1.0), (1.97, 1.1), (0.03, 1.1)]),
        ("ellipse", (190, 240, 250), [(1.9, 0.9), (0.05, 0.06)]),
        ("ellipse", (40, 40, 220), [(0.09, 0.9), (0.04, 0.06)]),
        *letters,
    )
    return body * (1 - detail[..., 3:]) + detail


def suitcase(rng: np.random.Generator, color: Color) -> np.ndarray:
    """A suitcase with a handle and straps; 0.52 high."""
    dark = (36, 34, 36)
    case = painted(0.52, 0.46, ("polygon", color, [(0.02, 0.14), (0.44, 0.14), (0.44, 0.52), (0.02, 0.52)]))
    detail = painted(
        0.52,
        0.46,
        ("line", dark, [(0.14, 0.03), (0.32, 0.03), (0.035, 0)]),
        ("line", dark, [(0.14, 0.03), (0.14, 0.14), (0.03, 0)]),
        ("line", dark, [(0.32, 0.03), (0.32, 0.14), (0.03, 0)]),
        ("line", dark, [(0.12, 0.14), (0.12, 0.52), (0.035, 0)]),
        ("line", dark, [(0.34, 0.14), (0.34, 0.52), (0.035, 0)]),
    )
    return woven(case, rng, 0.15) * (1 - detail[..., 3:]) + detail


def empty_plaza(height: int, width: int, rng: np.random.Generator) -> Float32[np.ndarray, "H W 3"]:
    """The background: house, hedge, trees, paving in perspective, and the lane with its arrows."""
    h, w = 4 * height, 4 * width
    canvas = np.zeros((h, w, 3), np.float32)
    canvas[:] = (150, 162, 172)
    facade(canvas, rng)
    paving(canvas, rng)
    hedge(canvas, rng)
    light = 0.93 + 0.12 * np.linspace(1, 0, w)[None] + 0.06 * np.linspace(0, 1, h)[:, None]
    canvas *= light[..., None].astype(np.float32)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 1.6)
    return np.clip(cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA), 0, 240)


def facade(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a house with rows of windows over the upper part of the image."""
    h, w = canvas.shape[:2]
    brick = rng.uniform(0.93, 1.07, (h // 40, w // 20, 1)).astype(np.float32)
    wall = cv2.resize(brick, (w, int(0.27 * h)), interpolation=cv2.INTER_NEAREST)[..., None]
    canvas[: int(0.27 * h)] = np.array((128, 146, 172)) * wall
    for left in np.linspace(0.02, 0.9, 9):
        shade = rng.uniform(0.7, 1.2)
        x1, x2, y1, y2 = int(left * w), int((left + 0.065) * w), int(0.03 * h), int(0.15 * h)
        cv2.rectangle(canvas, (x1 - 5, y1 - 5), (x2 + 5, y2 + 5), (196, 204, 208), -1)
        cv2.rectangle(canvas, (x1, y1), (x2, y2), (98 * shade, 86 * shade, 72 * shade), -1)
        cv2.line(canvas, ((x1 + x2) // 2, y1), ((x1 + x2) // 2, y2), (196, 204, 208), 5)
    cv2.rectangle(canvas, (0, int(0.185 * h)), (w, int(0.2 * h)), (178, 190, 198), -1)


def paving(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Paint tiles in perspective, the asphalt lane, and its arrows."""
    h, w = canvas.shape[:2]
    top = int(0.27 * h)
    tiles = 16
    shades = rng.normal(1, 0.05, (tiles, tiles, 1)) * np.array((166, 176, 184))
    flat = cv2.resize(shades.astype(np.float32), (1024, 1024), interpolation=cv2.INTER_NEAREST)
    flat *= rng.normal(1, 0.03, (1024, 1024, 1)).astype(np.float32)
    for line in range(0, 1025, 1024 // tiles):
        cv2.line(flat, (line, 0), (line, 1024), (132, 140, 146), 5)
        cv2.line(flat, (0, line), (1024, line), (132, 140, 146), 5)
    source = np.array([[0, 0], [1024, 0], [1024, 1024], [0, 1024]], np.float32)
    target = np.array([[0.05 * w, top], [0.95 * w, top], [1.55 * w, h], [-0.55 * w, h]], np.float32)
    ground = cv2.warpPerspective(flat, cv2.getPerspectiveTransform(source, target), (w, h), flags=cv2.INTER_AREA,
                                 borderMode=cv2.BORDER_REFLECT)  # fmt: skip
    canvas[top:] = ground[top:]
    y1, y2 = int((LANE[0] - 0.015) * h), int((LANE[1] + 0.02) * h)
    canvas[y1:y2] = (112, 112, 110) * rng.normal(1, 0.05, (y2 - y1, w, 1))
    canvas[y1 : y1 + 4] = canvas[y2 - 4 : y2] = (214, 220, 222)
    for left in (0.12, 0.42, 0.72):
        x, y, k = left * w, (y1 + y2) / 2, 0.02 * h
        shaft = np.array([(x, y - k / 2), (x + 6 * k, y - k / 2), (x + 6 * k, y + k / 2), (x, y + k / 2)])
        tip = np.array([(x + 6 * k, y - 1.6 * k), (x + 9 * k, y), (x + 6 * k, y + 1.6 * k)])
        cv2.fillPoly(canvas, [shaft.astype(int), tip.astype(int)], (206, 212, 214))


def hedge(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Paint a hedge in front of the house, and trees."""
    h, w = canvas.shape[:2]
    for x in np.linspace(0, w, 260):
        shade, y = rng.uniform(0.6, 1.25), rng.uniform(0.25, 0.30)
        centre = (int(x + rng.normal(0, 6)), int(y * h))
        cv2.circle(canvas, centre, int(rng.uniform(4, 12)), (48 * shade, 98 * shade, 70 * shade), -1)
    canvas[int(0.305 * h) : int(0.325 * h)] = (184, 190, 194)
    for left in (0.14, 0.5, 0.83):
        cv2.rectangle(canvas, (int(left * w) - 5, int(0.12 * h)), (int(left * w) + 5, int(0.3 * h)), (52, 66, 84), -1)
        for _ in range(90):
            shade = rng.uniform(0.65, 1.3)
            centre = (int(left * w + rng.normal(0, 0.03 * w)), int((0.1 + rng.normal(0, 0.035)) * h))
            cv2.circle(canvas, centre, int(rng.uniform(5, 15)), (52 * shade, 112 * shade, 84 * shade), -1)
