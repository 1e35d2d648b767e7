"""The flow stage end to end on a small prepared data set: pairs, values, files, resuming, and what it refuses."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torchvision.models import optical_flow

from stages import export_flow, flow, params
from stages.command import VigilError
from stages.io import weights
from stages.io.flow import full_size, read_description, read_flow
from stages.io.frames import write_store
from stages.networks.flownet2 import FlowNet2, FlowNetSD
from stages.preview import flow_colours
from tests.conftest import set_params
from tests.golden import SHARED, assert_golden, filled, golden, needs_golden, needs_ped2

VIDEOS = ["train/1", "train/2", "test/1", "test/2"]


@pytest.fixture
def small(prepared):
    """The prepared data set, to be computed at 64x64 in this process."""
    set_params(prepared, workers=1, device="cpu", dataset="demo")
    change(**{f"{recipe}__{side}": 64 for recipe in ("state", "mama") for side in ("height", "width")})
    flow.loaded.cache_clear()
    return prepared


def change(**values):
    set_params(Path(), **{f"flow__{key}": value for key, value in values.items()})


def recipe(name="state", **values):
    return getattr(params.load().recipe("flow"), name).model_copy(update=values)


def textured(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.GaussianBlur(noise, (9, 9), 2)


def test_state(small):
    flow.main("state")
    assert sorted(str(path.relative_to("data/flow/state")) for path in Path("data/flow/state").rglob("*.npy")) == [
        f"{video}.npy" for video in sorted(VIDEOS)
    ]
    found = read_flow("state", "train/1")
    assert found.dtype == np.float16
    assert found.shape == (14, 64, 64, 2)
    assert isinstance(found, np.memmap)
    assert np.abs(found[0]).max() == 0  # frame 0 with itself
    assert (found[13] == found[12]).all()
    assert (found[12] != found[11]).any()
    # the square moves 2 of 48 pixels to the right; it covers 10..20 of 40 rows and, in frame 5, 12..22 of 48 columns
    inside = found[5, 19:29, 19:27].astype(np.float32).mean((0, 1))
    np.testing.assert_allclose(inside, [2 * 64 / 48, 0], atol=0.25)
    description = read_description("state")
    assert description["network"] == "dis"
    assert description["weights_sha256"] is None
    assert (description["height"], description["width"], description["reduce"]) == (64, 64, 1)
    assert description["pairs"].startswith("frame 0: (0, 0)")
    assert list(description["videos"]) == list(pd.read_parquet("data/videos.parquet").video)
    assert description["videos"]["train/1"]["frames"] == 14
    lengths = np.linalg.norm(found.astype(np.float32), axis=-1)
    assert description["videos"]["train/1"]["mean"] == pytest.approx(lengths.mean(), abs=1e-3)
    assert description["videos"]["train/1"]["largest"] == pytest.approx(lengths.max(), abs=1e-2)
    assert cv2.imread("metrics/previews/flow-state.png") is not None


def test_mama_is_stored_small_and_begins_with_the_first_pair(small):
    flow.main("mama")
    change(mama__reduce=1)
    small_flow = read_flow("mama", "test/1").astype(np.float32)
    assert small_flow.shape == (14, 16, 16, 2)
    assert np.abs(small_flow[0]).max() > 1
    flow.main("mama")
    whole = read_flow("mama", "test/1").astype(np.float32)
    blocks = whole.reshape(14, 16, 4, 16, 4, 2).mean((2, 4))
    np.testing.assert_allclose(small_flow, blocks, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize(
    ("frames", "first", "pairs"),
    [
        (0, "self", []),
        (1, "self", [(0, 0)]),
        (1, "next", [(0, 0)]),
        (2, "self", [(0, 0), (0, 1)]),
        (2, "next", [(0, 1), (0, 1)]),
        (4, "self", [(0, 0), (1, 2), (2, 3), (2, 3)]),
        (4, "next", [(0, 1), (1, 2), (2, 3), (2, 3)]),
    ],
)
@pytest.mark.parametrize("batch", [1, 3])
def test_pairs(small, monkeypatch, frames, first, pairs, batch):
    """Each flow is there when the frame after is, each pair is computed once."""
    computed, pulled = [], []

    def pair_as_flow(one, two):
        computed.append((one[0, 0, 0].item(), two[0, 0, 0].item()))
        return np.full((1, 1, 2), computed[-1], np.float32)

    def images():
        for i in range(frames):
            pulled.append(i)
            yield np.full((1, 1, 3), i, np.uint8)

    monkeypatch.setattr(flow, "dis_flow", pair_as_flow)
    found = []
    for i, vectors in enumerate(flow.flows(images(), recipe(first=first, reduce=1, batch=batch), "cpu")):
        found.append((*vectors[0, 0].astype(int).tolist(),))
        assert batch > 1 or len(pulled) == min(i + 2, frames)
    assert found == pairs
    assert computed == list(dict.fromkeys(pairs))


def test_a_video_of_one_frame_does_not_move(small, tmp_path):
    image = cv2.imencode(".png", textured(40, 48))[1].tobytes()
    write_store(tmp_path / "one.arrow", [image], fps=25.0, source="one")
    for name in ("state", "mama"):
        record = flow.write_flow("one", tmp_path / "one.npy", tmp_path / "one.arrow", recipe(name), ("cpu",))
        assert record == {"frames": 1, "mean": 0, "largest": 0}
        assert not np.load(tmp_path / "one.npy").any()


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_each_frame_is_read_once_and_each_pair_computed_once(small, monkeypatch, tmp_path, batch):
    read, computed = [], []
    original = flow.FrameStore.__getitem__
    monkeypatch.setattr(flow.FrameStore, "__getitem__", lambda self, i: read.append(i) or original(self, i))

    def count(one, two):
        computed.append(1)
        return np.zeros((64, 64, 2), np.float32)

    monkeypatch.setattr(flow, "dis_flow", count)
    store = Path("data/frames/test/1.arrow")
    flow.write_flow("test/1", tmp_path / "made.npy", store, recipe(batch=batch), ("cpu",))
    assert read == list(range(14))
    assert len(computed) == 13
    assert np.load(tmp_path / "made.npy").shape == (14, 64, 64, 2)


def test_dis_recovers_a_known_motion():
    scene = textured(80, 120)
    found = flow.dis_flow(scene[8:-8, 8:-8], scene[11:-5, 4:-12])  # 4 to the right, 3 up
    error = np.linalg.norm(found - np.array([4, -3]), axis=-1)[8:-8, 8:-8]
    assert error.mean() < 0.1
    grey = np.repeat(scene[..., :1], 3, 2)
    np.testing.assert_allclose(flow.dis_flow(grey, grey), 0, atol=1e-3)


def test_a_second_run_computes_nothing_until_the_recipe_or_a_video_changes(small, monkeypatch):
    flow.main("state")
    before = {video: read_flow("state", video).copy() for video in VIDEOS}
    computed = []
    original = flow.dis_flow
    monkeypatch.setattr(flow, "dis_flow", lambda *pair: computed.append(1) or original(*pair))
    flow.main("state")
    change(state__batch=3)  # how many at once is no part of the result
    flow.main("state")
    assert not computed
    assert all((read_flow("state", video) == before[video]).all() for video in VIDEOS)
    table = pd.read_parquet("data/videos.parquet")
    images = [cv2.imencode(".png", textured(40, 48, seed))[1].tobytes() for seed in range(3)]
    stored = write_store("data/frames/test/3.arrow", images, fps=25.0, source="test/3")
    added = table.iloc[:1].assign(video="test/3", split="test", frames=3, hash=stored.hash)
    weak = table.iloc[:1].assign(video="weak/1", split="", frames=3)
    pd.concat([table, added, weak]).to_parquet("data/videos.parquet")
    flow.main("state")
    assert len(computed) == 2  # (0, 0) and (1, 2) of the new video
    assert not Path("data/flow/state/weak").exists()
    change(state__first="next")
    computed.clear()
    flow.main("state")
    assert len(computed) == 4 * 13 + 2


def test_missing_weights_stop_before_any_work(small, capsys):
    change(state__network="flownet2")
    with pytest.raises(
        SystemExit, match=r"FlowNet2_checkpoint.pth.tar not found[^$]*python -m stages.weights flownet2"
    ):
        flow.main("state")
    assert not Path("data/flow").exists()
    assert not Path("data/scratch").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"network": "flownet2"}, "multiples of 64; found 72 x 80: write height: 128 and width: 128"),
        ({"network": "raft_small"}, "multiples of 8, at least 128; found 72 x 80: write height: 128 and width: 128"),
        (
            {"network": "dis", "height": 70, "reduce": 4},
            "multiples of 4; found 70 x 80: write height: 72 and width: 80",
        ),
    ],
)
def test_sizes_that_a_network_cannot_take(small, values, message):
    with pytest.raises(VigilError, match=message):
        flow.check_size("state", recipe(**{"height": 72, "width": 80} | values))
    flow.check_size("state", recipe(network="dis", height=71, width=81))


@pytest.mark.parametrize(
    ("key", "value"),
    [("network", "pwc"), ("reduce", 2), ("first", "last"), ("contrast", 0), ("height", 32), ("align_corners", 1)],
)
def test_wrong_values_stop_with_their_key(small, key, value):
    change(**{f"mama__{key}": value})
    with pytest.raises(VigilError, match=rf"flow\.mama\.{key}: found {value!r}"):
        params.load()


def test_published_sizes():
    settings = params.load().model_copy(update={"dataset": "ped2"})
    state, mama = settings.recipe("flow").state, settings.recipe("flow").mama
    assert (state.height, state.width, state.first, state.align_corners) == (384, 512, "self", True)
    assert (mama.height, mama.width, mama.first, mama.align_corners, mama.reduce) == (256, 256, "next", False, 4)
    assert (state.contrast, mama.contrast) == (1, 2)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -70_000.0])
def test_flow_that_float16_cannot_hold_is_refused(small, monkeypatch, wrong):
    monkeypatch.setattr(flow, "dis_flow", lambda one, two: np.full((64, 64, 2), wrong, np.float32))
    with pytest.raises(
        SystemExit, match=r"test/2: dis gives a flow of frame 0 that is not finite, or longer than 65504"
    ):
        flow.main("state")
    assert not Path("data/flow/state").exists()


class Echo(nn.Module):
    """Stands for a network; gives back two channels of what it is given."""

    def forward(self, first, second=None):
        if second is None:  # FlowNet2: a pair (B, 3, 2, H, W)
            return torch.stack([first[:, 0, 0], first[:, 2, 1]], 1)
        return [torch.zeros(1), torch.stack([first[:, 0], second[:, 2]], 1)]


@pytest.mark.parametrize("network", ["flownet2", "raft_large"])
def test_what_networks_are_given(small, monkeypatch, network):
    monkeypatch.setattr(flow, "loaded", lambda *_: Echo())
    pairs = np.random.default_rng(0).integers(0, 256, (2, 2, 64, 64, 3), dtype=np.uint8)
    found = flow.network_flow(pairs, recipe(network=network, contrast=2.0), "cpu")
    if network == "flownet2":  # blue of the first frame, red of the second, with the contrast
        expected = 2 * np.stack([pairs[:, 0, ..., 0], pairs[:, 1, ..., 2]], -1).astype(np.float32)
    else:  # red of the first frame, blue of the second, -1..1
        expected = np.stack([pairs[:, 0, ..., 2], pairs[:, 1, ..., 0]], -1) / 127.5 - 1
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.fixture
def offered(small, monkeypatch):
    """Small FlowNets and RAFT of random weights, in files where the published ones belong."""
    torch.manual_seed(0)
    Path("models/pretrained").mkdir(parents=True)
    monkeypatch.setattr(flow, "FlowNet2", partial(FlowNet2, 4))
    monkeypatch.setattr(flow, "FlowNetSD", partial(FlowNetSD, 4))
    built = {"flownet2": FlowNet2(4), "flownet2_sd": FlowNetSD(4), "raft_small": optical_flow.raft_small()}
    for name, network in built.items():
        monkeypatch.setitem(weights.WEIGHTS, name, replace(weights.WEIGHTS[name], sha256=""))
        state = network.state_dict()
        wrapped = state if name == "raft_small" else {"epoch": 0, "state_dict": state}
        torch.save(wrapped, weights.PRETRAINED / weights.WEIGHTS[name].file)
    yield
    flow.loaded.cache_clear()


def test_flownet2_sd_stored_small_is_exact(offered):
    change(mama__network="flownet2_sd")
    flow.main("mama")
    quarter = read_flow("mama", "test/1").copy()
    assert len(read_description("mama")["weights_sha256"]) == 64
    change(mama__reduce=1)
    flow.main("mama")
    whole = read_flow("mama", "test/1").astype(np.float32)
    enlarged = full_size(quarter, 4).permute(0, 2, 3, 1).numpy()
    assert whole.std() > 0.01
    np.testing.assert_allclose(enlarged, whole, atol=1e-3 * np.abs(whole).max())


def test_flownet2_and_raft_load_strictly_and_run(offered):
    pairs = np.stack([[textured(128, 128, seed), textured(128, 128, seed + 1)] for seed in (0, 5)])
    for name in ("flownet2", "raft_small"):
        found = flow.network_flow(pairs, recipe(network=name, height=128, width=128), "cpu")
        assert found.shape == (2, 128, 128, 2)
        assert found.dtype == np.float32
        reduced = flow.network_flow(pairs, recipe(network=name, height=128, width=128, reduce=4), "cpu")
        np.testing.assert_allclose(reduced, found.reshape(2, 32, 4, 32, 4, 2).mean((2, 4)), atol=1e-4, rtol=1e-4)
    aligned, not_aligned = (
        flow.network_flow(pairs, recipe(network="flownet2", align_corners=value), "cpu") for value in (True, False)
    )
    assert np.abs(aligned - not_aligned).max() > 1e-5


def test_another_networks_file_is_refused(offered):
    torch.save(FlowNetSD(8).state_dict(), weights.PRETRAINED / weights.WEIGHTS["flownet2_sd"].file)
    change(mama__network="flownet2_sd")
    with pytest.raises(SystemExit, match=r"found \(.*\), expected \(.*\)"):
        flow.main("mama")


def test_export(small, tmp_path):
    with pytest.raises(SystemExit, match=r"data/flow/mama.json not found: run `dvc repro stages/dvc.yaml:flow-mama`"):
        export_flow.main("mama", tmp_path / "out", [])
    flow.main("mama")
    export_flow.main("mama", tmp_path / "out", ["test/1"])
    files = sorted((tmp_path / "out").rglob("*"))
    assert [path.name for path in files if path.is_file()] == [f"{i:06d}.flo" for i in range(14)]
    back = cv2.readOpticalFlow(str(tmp_path / "out/test/1/000003.flo"))
    expected = full_size(read_flow("mama", "test/1")[3:4], 4)[0].permute(1, 2, 0).numpy()
    assert back.shape == (64, 64, 2)
    np.testing.assert_array_equal(back, expected)
    export_flow.main("mama", tmp_path / "all", [])
    assert len(list((tmp_path / "all").rglob("*.flo"))) == 4 * 14
    with pytest.raises(SystemExit, match="no flow of video 'test/9': expected one of"):
        export_flow.main("mama", tmp_path / "out", ["test/9"])


def test_export_deletes_nothing_but_flow(small, tmp_path):
    flow.main("mama")
    export_flow.main("mama", tmp_path / "out", ["test/1"])
    export_flow.main("mama", tmp_path / "out", ["test/1"])
    picture = tmp_path / "own/test/2/000.jpg"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"dear")
    with pytest.raises(SystemExit, match=r"own/test/2 holds something else than \.flo files"):
        export_flow.main("mama", tmp_path / "own", [])
    assert picture.read_bytes() == b"dear"
    assert not (tmp_path / "own/test/1").exists()


def test_full_size_keeps_values_and_averages():
    flow_of_one_value = np.full((1, 4, 6, 2), 2.5, np.float16)
    assert (full_size(flow_of_one_value, 4) == 2.5).all()
    assert full_size(flow_of_one_value, 4).shape == (1, 2, 16, 24)
    ramp = np.tile(np.arange(8, dtype=np.float16)[None, None, :, None], (1, 8, 1, 2))
    inner = full_size(ramp, 4)[0, 0, 0, 2:-2]
    torch.testing.assert_close(inner.diff(), torch.full((27,), 0.25))
    assert full_size(ramp, 1).shape == (1, 2, 8, 8)


def test_colours():
    still = flow_colours(torch.zeros(2, 3, 4), 1.0)
    assert still.shape == (3, 4, 3)
    assert (still == 255).all()
    right = torch.tensor([2.0, 0.0]).view(2, 1, 1).expand(2, 3, 4)
    assert (flow_colours(right, 2.0)[0, 0] == (255, 0, 0)).all()
    assert (flow_colours(right, 4.0)[0, 0] == (255, 127, 127)).all()  # half as long as the full colour
    disc = flow.wheel(20, 30)
    assert disc[:, 0, 0].tolist() == [0, 0]
    assert disc[0, 10, 24] > 0.9
    assert disc[1, 19, 15] > 0.9


@needs_golden
@needs_ped2
def test_golden_pipeline_of_state(monkeypatch):
    file = golden("flow-pipeline-ped2")
    network = filled(FlowNet2(), "flownet2")
    monkeypatch.setattr(flow, "loaded", lambda *_: network)
    frames = [cv2.imread(str(SHARED / f"data/ped2/training/frames/01/{name}.jpg")) for name in ("000", "001")]
    resized = [cv2.resize(frame, (512, 384)) for frame in frames]
    published = recipe(network="flownet2", height=384, width=512, align_corners=False)
    found = flow.network_flow(np.stack(resized)[None], published, "cpu")
    outputs = {
        "frame0_pixels": frames[0],
        "resized_frame0": resized[0].transpose(2, 0, 1).astype(np.float32),
        "flow_512x384": found.transpose(0, 3, 1, 2),
        "flow_360x240": cv2.resize(found[0], (360, 240)),
    }
    assert set(outputs) == set(file.values)
    assert_golden(file, outputs)
