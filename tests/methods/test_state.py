"""STATE against numbers from the authors' own network, and what its training, scoring and import promise."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from stages import fit, params, score
from stages.command import VigilError
from stages.evaluation.fusion import fuse
from stages.io.checkpoints import load_authors_file
from stages.io.models import load_model
from stages.io.objects import OBJECTS, object_type, read_objects
from stages.methods import state
from stages.recipes import Fusion
from stages.recipes import state as recipe_state
from tests.conftest import set_params
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys

CPU = torch.device("cpu")


def recipe_of(layers: int, width: int = 32, heads: int = 4):
    return SimpleNamespace(fit=SimpleNamespace(width=width, layers=layers, heads=heads))


class Checkpoint:
    """The names and shapes of an authors' network, for the golden numbers' weights."""

    def __init__(self, name: str):
        self.tensors = {key: torch.zeros(shape) for key, shape in published_keys(name).items()}

    def state_dict(self) -> dict:
        return self.tensors

    def load_state_dict(self, tensors: dict, strict: bool) -> None:
        self.tensors = tensors

    def eval(self) -> "Checkpoint":
        return self


def authors_files(name: str) -> list:
    """The authors' files of a network with the golden numbers' weights, and of ten training objects."""
    return [[[[filled(Checkpoint(name), name).tensors]]], [[np.arange(10.0)]], [[np.arange(10.0) / 2]]]


def published(name: str) -> state.Network:
    layers = 5 if "5layers" in name else 3
    network = state.Network(layers=layers)
    network.load_state_dict(state.from_authors(authors_files(name), recipe_of(layers)).network)
    return network.eval()


@needs_golden
@pytest.mark.parametrize(("name", "parameters"), [("avenue-3", 3_312_261), ("shanghaitech-5", 4_356_757)])
def test_names_and_shapes_are_the_published_ones(name, parameters):
    keys = published_keys(f"state-{name}layers")
    shapes = state.authors_shapes(state.Network(layers=int(name[-1])))
    assert {f"module.{key}": shape for key, shape in shapes.items()} == keys
    sizes = [int(np.prod(shape)) for key, shape in keys.items() if "running" not in key and "num_batches" not in key]
    assert sum(sizes) == parameters


@needs_golden
@pytest.mark.parametrize("name", ["state-avenue-3layers", "state-shanghaitech-5layers"])
def test_network_losses_and_gradients(name):
    file, network = golden(name), published(name)
    cubes = torch.tensor(file.input("x")).unflatten(1, (7, 3))
    flow = torch.tensor(file.input("flow")).unflatten(1, (7, 2))
    seen = {}
    modules = {
        "feature_embedding": network.raw.embedding,
        "feature_embedding_of": network.flow.embedding,
        "encoder_layer0": network.raw.layers[0],
        "encoder": network.raw.layers[-1],
        "encoder_of": network.flow.layers[-1],
        "head": network.raw.layers[0].attention,
    }
    for key, module in modules.items():
        module.register_forward_hook(lambda _module, _inputs, output, key=key: seen.update({key: output}))
    attention = network.raw.layers[0].attention
    heads_logits, own_logits = [], attention.logits
    attention.logits = lambda *inputs: heads_logits.append(own_logits(*inputs)) or heads_logits[-1]
    raw, of = network(cubes)
    logits = heads_logits[0][:, :, :, :1]
    found = {
        **{key: output for key, output in seen.items() if key != "head"},
        "encoder_layer0_head0": seen["head"][:, :, :32],
        "encoder_layer0_head0_logits": logits.flatten(0, 2),
        "logits_softmax": logits.softmax(2),
        "raw_outputs": raw,
        "of_outputs": of,
        "raw_score_plain": state.errors((raw, of), cubes, flow)[:, 0],
        "of_score_plain": state.errors((raw, of), cubes, flow)[:, 1],
        "raw_patch_error_per_frame": (raw - cubes).square().flatten(2).sum(2),
    }
    del attention.logits
    loss = F.mse_loss(raw, cubes) + F.mse_loss(of, flow)
    found |= {"loss": loss[None], "train_loss": loss[None]}
    loss.backward()
    norms = {}
    for ours, theirs in state.authors_names(network).items():
        if "running" not in ours and "num_batches" not in ours:
            parts = network.get_parameter(ours).grad.chunk(len(theirs))
            norms |= {f"module.{key}": part.norm().item() for key, part in zip(theirs, parts, strict=True)}
    keys = [key for key in published_keys(name) if "running" not in key and "num_batches" not in key]
    found["train_grad_norms"] = np.array([norms.get(key, 0.0) for key in keys])
    for epsilon, suffix in ((0.002, ""), (0.005, "_eps005")):
        recipe = SimpleNamespace(epsilon=epsilon, target="perturbed", detach_target=False)
        moved = state.perturbed_errors(network, cubes, flow, recipe)
        found |= {f"raw_score_perturbed{suffix}": moved[:, 0], f"of_score_perturbed{suffix}": moved[:, 1]}
    gradient_at = cubes.clone().requires_grad_()
    outputs = network(gradient_at)
    (gradient,) = torch.autograd.grad(F.mse_loss(outputs[0], gradient_at) + F.mse_loss(outputs[1], flow), gradient_at)
    found["input_grad"] = gradient.flatten(1, 2)
    found["x_perturbed"] = state.perturbed(network, cubes, flow, 0.002, False).flatten(1, 2)
    assert_golden(file, found)


@needs_golden
def test_score_of_objects_and_frames():
    file, network = golden("score-state"), published("state-avenue-3layers")
    epsilon, weights = file.meta["eps"], {"raw": file.meta["w_raw"], "flow": file.meta["w_of"]}
    recipe = SimpleNamespace(epsilon=epsilon, target="perturbed", detach_target=False)
    fusion = recipe_state.ladder(recipe_state.Fuse(**weights))["honest"]
    statistics = {"raw": file.meta["stats_mean_std"]["raw"], "flow": file.meta["stats_mean_std"]["of"]}
    train = {name: np.array([mean - std, mean + std]) for name, (mean, std) in statistics.items()}
    found = {}
    for frame, boxes in enumerate(file.meta["boxes_per_frame"]):
        if boxes:
            records = np.zeros(boxes, object_type(3, 32))
            records["raw"] = file.input(f"cubes_{frame}")
            cubes, _ = state.on_device(records, CPU)
            flow = torch.tensor(file.input(f"flows_{frame}")).permute(0, 1, 4, 2, 3)
            values = state.perturbed_errors(network, cubes, flow, recipe).double().numpy()
            found[f"box_scores_{frame}"] = fuse(fusion, {"raw": values[:, 0], "flow": values[:, 1]}, train)
    assert_golden(file, found)
    highest = [found[f"box_scores_{frame}"].max() for frame in (0, 2, 3)]
    assert np.allclose(file.values["frame_scores"][[0, 2, 3]], highest, atol=0.002)


def random_records(count: int, seed: int = 0, size: int = 8, context: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    records = np.zeros(count, object_type(context, size))
    records["frame"] = np.arange(count) // 2
    records["box"] = rng.uniform(0, 30, (count, 4))
    records["raw"] = rng.integers(0, 256, records["raw"].shape)
    records["flow"] = rng.normal(size=records["flow"].shape)
    return records


def small_network(**options) -> state.Network:
    """A small network whose layers and heads differ, as after training."""
    torch.manual_seed(0)
    network = state.Network(**{"width": 2, "layers": 2, "heads": 4, **options})
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def test_attention_is_a_convolution_of_each_pair_joined():
    torch.manual_seed(0)
    attention, heads, size = state.Attention(8, 2), 2, 4
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    x, position = torch.randn(2, 3, 8, 5, 6), torch.randn(3, size)
    expected = []
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        z = x[:, :, own]

        def convolved(conv, t, z=z, own=own):
            return F.leaky_relu(F.conv2d(z[:, t], conv.weight[own], conv.bias[own], padding=1), 0.2)

        outputs = []
        for t in range(3):
            query = convolved(attention.query, t) + position[t, :, None, None]
            values = [convolved(attention.key_value, s) for s in range(3)]
            joined = [torch.cat([query, values[s] + position[s, :, None, None]], 1) for s in range(3)]
            weight, bias = attention.pair.weight[head : head + 1], attention.pair.bias[head : head + 1]
            logits = [F.leaky_relu(F.conv2d(pair, weight, bias, padding=1), 0.2) for pair in joined]
            shares = torch.stack(logits).softmax(0)
            outputs.append((shares * torch.stack(values)).sum(0))
        expected.append(torch.stack(outputs, 1))
    assert torch.allclose(attention(x, position), torch.cat(expected, 2), atol=1e-5)


def test_layers_and_heads_begin_equal_and_streams_do_not():
    network = state.Network(width=2, layers=3, heads=4)
    first, *others = [layer.state_dict() for layer in network.raw.layers]
    assert all(torch.equal(first[key], other[key]) for other in others for key in first)
    for name, parameter in network.raw.layers[0].attention.named_parameters():
        head, *heads = parameter.chunk(4)
        assert all(torch.equal(head, other) for other in heads), name
    query = network.raw.layers[0].attention.query.weight
    assert query.abs().max() <= (2 * 9) ** -0.5  # as a convolution of one head's channels is initialised
    assert not torch.equal(query, network.flow.layers[0].attention.query.weight)


def test_records_as_input():
    records = np.zeros(1, object_type(1, 8))
    records["raw"][0, 2, 3, 4] = (255, 51, 0)  # frame 2, row 3, column 4, blue first
    records["flow"][0, 1, 5, 6] = (1.5, -2)
    cubes, flow = state.on_device(records, CPU)
    assert cubes.shape == (1, 3, 3, 8, 8)
    assert torch.allclose(cubes[0, 2, :, 3, 4], torch.tensor([1.0, 0.2, 0.0]))
    assert cubes.sum().item() == pytest.approx(1.2)
    assert flow.shape == (1, 3, 2, 8, 8)
    assert flow[0, 1, :, 5, 6].tolist() == [1.5, -2]


def test_errors_are_sums_of_squares_by_object():
    cubes, flow = torch.zeros(2, 3, 3, 8, 8), torch.zeros(2, 3, 2, 8, 8)
    found = cubes.clone(), flow.clone()
    found[0][1, 0, 2, 7, 7] = 3
    found[1][0, :, 0, 0, 0] = 2
    assert state.errors(found, cubes, flow).tolist() == [[0, 12], [9, 0]]


class Half(torch.nn.Module):
    """Reconstructs half of what it sees: the error shrinks with the pixels, unless the target stays."""

    def forward(self, cubes):
        return cubes / 2, torch.zeros_like(cubes[:, :, :2])


@pytest.mark.parametrize(
    ("target", "detach_target", "expected"),
    [
        ("perturbed", False, 0.45**2),  # pixels 1 -> 0.9, which 0.45 is compared with
        ("original", False, 0.55**2),  # 0.45 is compared with 1
        ("perturbed", True, 0.55**2),  # pixels 1 -> 1.1, which 0.55 is compared with
        ("original", True, 0.45**2),
    ],
)
def test_perturbation_by_hand(target, detach_target, expected):
    cubes, flow = torch.ones(2, 3, 3, 8, 8), torch.ones(2, 3, 2, 8, 8)
    recipe = SimpleNamespace(epsilon=0.1, target=target, detach_target=detach_target)
    found = state.perturbed_errors(Half(), cubes, flow, recipe)
    assert torch.allclose(found, torch.tensor([expected * cubes[0].numel(), flow[0].numel()]).expand(2, 2), rtol=1e-5)


def test_no_step_gives_the_plain_errors():
    network = small_network()
    cubes, flow = state.on_device(random_records(3), CPU)
    recipe = SimpleNamespace(epsilon=0.0, target="perturbed", detach_target=False)
    with torch.no_grad():
        plain = state.errors(network(cubes), cubes, flow)
    assert torch.equal(state.perturbed_errors(network, cubes, flow, recipe), plain)


def test_an_object_is_scored_alike_in_any_batch():
    network = small_network()
    records = random_records(9)
    recipe = SimpleNamespace(epsilon=0.01, target="perturbed", detach_target=False)
    whole = state.perturbed_errors(network, *state.on_device(records, CPU), recipe)
    parts = [state.perturbed_errors(network, *state.on_device(records[i : i + 1], CPU), recipe) for i in range(9)]
    assert torch.allclose(whole, torch.cat(parts), rtol=1e-4)
    backwards = state.perturbed_errors(network, *state.on_device(records[::-1], CPU), recipe)
    assert torch.allclose(whole, backwards.flip(0), rtol=1e-4)


def test_batches_hold_every_object_once():
    videos = [random_records(count, seed) for seed, count in enumerate((5, 0, 7, 1))]
    objects = state.Objects(videos)
    assert len(objects) == 13
    everything = np.concatenate(videos)
    assert np.array_equal(objects.read(np.array([0, 4, 5, 11, 12])), everything[[0, 4, 5, 11, 12]])
    batches = list(objects.batches(4, seed=1, epoch=2))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    assert sorted(batch.tobytes() for part in batches for batch in part) == sorted(o.tobytes() for o in everything)
    again, other = (list(objects.batches(4, seed=1, epoch=epoch)) for epoch in (2, 3))
    assert all(np.array_equal(one, two) for one, two in zip(batches, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(batches, other, strict=True))


def write_objects(**videos: np.ndarray) -> None:
    """Objects of data/objects; the names have _ for /."""
    for name, records in videos.items():
        path = OBJECTS / f"{name.replace('_', '/')}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, records)


@pytest.fixture
def small(prepared):
    """The prepared data set with objects, and a small network; the second test video has no objects."""
    write_objects(
        train_1=random_records(5, 1),
        train_2=random_records(4, 2),
        test_1=random_records(6, 3),
        test_2=random_records(0),
    )
    set_params(prepared, state__fit__width=2, state__fit__epochs=2, state__fit__batch=4, state__fit__layers=1)
    return prepared


def test_scores_have_a_row_an_object(small, monkeypatch):
    monkeypatch.setattr(state, "SCORED_AT_ONCE", 4)
    fit.main("state")
    model, _ = load_model("models/state")
    score.main("state")
    scores = pd.read_parquet("data/scores/state.parquet")
    assert list(scores.columns) == ["video", "split", "frame", "x1", "y1", "x2", "y2", "raw", "flow"]
    assert scores.groupby("video", sort=False).size().to_dict() == {"train/1": 5, "train/2": 4, "test/1": 6}
    train, test = scores.query("split == 'train'"), scores.query("split == 'test'")
    records = np.concatenate([read_objects("train/1"), read_objects("train/2")])
    assert np.array_equal(train[["x1", "y1", "x2", "y2"]], records["box"])
    assert np.array_equal(train.frame, records["frame"])
    assert np.array_equal(test.frame, read_objects("test/1")["frame"])
    assert scores.dtypes.astype(str).tolist()[2:] == ["int32", *["float32"] * 4, *["float64"] * 2]
    assert np.array_equal(train[["raw", "flow"]], torch.stack([model.state["train_raw"], model.state["train_flow"]], 1))
    network = state.Network(2, 1, 4)
    network.load_state_dict(model.network)
    network.eval()
    with torch.no_grad():
        cubes, flow = state.on_device(records, CPU)
        assert np.allclose(train[["raw", "flow"]], state.errors(network(cubes), cubes, flow), rtol=1e-4)
    recipe = params.load().recipe("state").score
    moved = state.perturbed_errors(network, *state.on_device(read_objects("test/1"), CPU), recipe)
    assert np.allclose(test[["raw", "flow"]], moved, rtol=1e-4)
    assert not list((small / "data/scratch").glob("*-state-*"))


def test_training_lowers_the_loss(small):
    write_objects(train_1=np.repeat(random_records(2), 8), train_2=random_records(0))
    set_params(small, state__fit__epochs=12, state__fit__width=8, state__fit__learning_rate=0.01)
    fit.main("state")
    curve = pd.read_csv("models/state/loss.csv")
    assert list(curve.columns) == ["epoch", "loss", "raw", "flow"]
    assert np.allclose(curve.loss, curve.raw + curve.flow, rtol=1e-4)
    assert curve.raw.iloc[-1] < curve.raw.iloc[0] / 2


class Killed(BaseException):
    """What ends a process."""


def test_a_killed_training_ends_with_the_same_model_unless_the_objects_are_others(small, monkeypatch):
    fit.main("state")
    whole, _ = load_model("models/state")
    trained = []
    epochs = state.resumable_epochs

    def counted(*args):
        for epoch in epochs(*args):
            trained.append(epoch)
            yield epoch

    monkeypatch.setattr(state, "resumable_epochs", counted)
    plain, videos = state.errors, []

    def killed_in_the_second_video(*args):
        if not torch.is_grad_enabled():
            videos.append(len(args[1]))
            if len(videos) == 3:  # the first video's two batches are done
                raise Killed
        return plain(*args)

    monkeypatch.setattr(state, "SCORED_AT_ONCE", 4)
    with monkeypatch.context() as patch:
        patch.setattr(state, "errors", killed_in_the_second_video)
        with pytest.raises(Killed):
            fit.main("state")
    assert trained == [0, 1]
    with monkeypatch.context() as patch:
        seen = []
        patch.setattr(state, "errors", lambda *args: seen.append(len(args[1])) or plain(*args))
        fit.main("state")
        assert seen == [4]  # the second video alone
    assert trained == [0, 1]
    resumed, _ = load_model("models/state")
    assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
    assert all(torch.allclose(whole.state[key], resumed.state[key], rtol=1e-5) for key in whole.state)
    assert whole.curve.equals(resumed.curve)

    with monkeypatch.context() as patch:
        patch.setattr(state, "errors", killed_in_the_second_video)
        videos.clear()
        with pytest.raises(Killed):
            fit.main("state")
    write_objects(train_2=random_records(4, 9))
    fit.main("state")
    assert trained == [0, 1] * 3


def test_same_seed_same_model_another_seed_another(small):
    models = []
    for seed in (0, 0, 1):
        set_params(small, seed=seed)
        fit.main("state")
        models.append(load_model("models/state")[0])
    same, again, other = models
    assert all(torch.equal(same.network[key], again.network[key]) for key in same.network)
    assert any(not torch.equal(same.network[key], other.network[key]) for key in same.network)


def test_errors_that_a_user_can_mend(small):
    fit.main("state")
    write_objects(test_1=random_records(3, size=12))
    with pytest.raises(SystemExit, match=r"test/1.npy: found objects of 3 frames of 12 pixels, the model takes 3 .* 8"):
        score.main("state")
    set_params(small, state__fit__learning_rate=1e30)
    with pytest.raises(SystemExit, match=r"the loss became .*: lower fit.learning_rate"):
        fit.main("state")
    write_objects(train_1=random_records(2, context=5))
    with pytest.raises(SystemExit, match=r"objects of 11 frames, STATE knows positions of 10: lower objects.context"):
        fit.main("state")
    write_objects(train_1=random_records(0), train_2=random_records(0))
    with pytest.raises(SystemExit, match="the training videos have no objects"):
        fit.main("state")
    (OBJECTS / "train/1.npy").unlink()
    with pytest.raises(SystemExit, match=r"train/1.npy not found: run `dvc repro stages/dvc.yaml:objects` first"):
        fit.main("state")


def made_files(tmp_path, layers: int = 1, width: int = 2) -> list:
    """Files as the authors publish them, of a small network."""
    tensors = {
        f"module.{name}": torch.full(shape, float(i))
        for i, (name, shape) in enumerate(state.authors_shapes(state.Network(width, layers)).items())
    }
    contents = [[[[tensors]]], [[np.arange(5, dtype=np.float32)]], [[np.arange(5, dtype=np.float32) * 2]]]
    paths = [tmp_path / name for name in ("model.npy", "raw.npy", "of.npy")]
    for content, path in zip(contents, paths, strict=True):
        torch.save(content, path)
    return paths


def test_published_files_become_a_model(small):
    paths = made_files(small)
    files = [load_authors_file(path) for path in paths]
    model = state.from_authors(files, params.load().recipe("state"))
    network, tensors = state.Network(2, 1), files[0][0][0][0]
    network.load_state_dict(model.network)
    heads = [tensors[f"module.encoder_of.encoder.0.attention_heads.{h}.attentionmap.conv0.0.weight"] for h in range(4)]
    assert torch.equal(network.flow.layers[0].attention.pair.weight, torch.cat(heads))
    assert torch.equal(network.raw.decoder[4].bias, tensors["module.prediction.out.conv.bias"])
    assert model.state["cube_shape"].tolist() == [7, 32]
    model.state["cube_shape"] = torch.tensor([3, 8])  # of this test's objects
    rows = state.training_rows(pd.read_parquet("data/videos.parquet").query("split == 'train'"), model)
    assert rows.video.eq("published statistics").all()
    assert rows.frame.tolist() == [0, 1, 2, 3, 4]
    assert rows[["x1", "y1", "x2", "y2"]].isna().all(axis=None)
    assert rows.flow.tolist() == [0, 2, 4, 6, 8]


def test_published_files_of_another_form_are_refused(small):
    files = [load_authors_file(path) for path in made_files(small)]
    recipe = params.load().recipe("state")
    tensors = files[0][0][0][0]
    with pytest.raises(VigilError, match="found 2 file"):
        state.from_authors(files[:2], recipe)
    with pytest.raises(VigilError, match="network: found list"):
        state.from_authors([[[tensors], [tensors]], *files[1:]], recipe)
    with pytest.raises(VigilError, match="of training scores: found an array"):
        state.from_authors([files[0], files[1], [[np.arange(4.0)]]], recipe)
    some = "module.encoder.encoder.0.GN1.weight"
    for changed, match in (
        ({some: torch.zeros(9)}, r"GN1.weight: found \(9,\), expected \(8,\)"),
        ({some: None}, "GN1.weight: found missing"),
        ({"module.encoder.more": torch.zeros(1)}, "encoder.more: found .* expected no such parameter"),
    ):
        wrong = {key: tensor for key, tensor in (tensors | changed).items() if tensor is not None}
        with pytest.raises(VigilError, match=match):
            state.from_authors([[[wrong]], *files[1:]], recipe)


def test_fusion_weighs_both_errors_and_has_one_rule_for_both_protocols():
    assert recipe_state.ladder(recipe_state.Fuse(raw=0.3, flow=1)) == {
        "honest": Fusion({"raw": 0.3, "flow": 1.0}, normalise="train_zscore", frames="objects")
    }
