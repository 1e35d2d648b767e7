"""S3R against numbers from the authors' own network, and what its training, scoring, import and export promise."""

import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from stages import fit, params, score
from stages.command import VigilError
from stages.io.features import CHANNELS
from stages.io.models import load_model, save_model
from stages.methods import s3r
from stages.recipes import Fusion
from stages.recipes import s3r as recipe_s3r
from tests.conftest import set_params
from tests.golden import assert_golden, filled, golden, needs_golden, published_keys


def recipe_of(width: int = 512):
    return SimpleNamespace(fit=SimpleNamespace(width=width))


class Checkpoint(torch.nn.Module):
    """The names and shapes of the authors' network, for the golden numbers' weights."""

    def __init__(self):
        super().__init__()
        self.tensors = {key: torch.zeros(shape) for key, shape in published_keys("s3r").items()}

    def state_dict(self) -> dict:
        return self.tensors

    def load_state_dict(self, tensors: dict, strict: bool) -> None:
        self.tensors = tensors


@pytest.fixture
def dictionary(tmp_path, monkeypatch) -> torch.Tensor:
    """A small data/dictionary.npy, in the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir(exist_ok=True)
    return write_dictionary()


def write_dictionary(slots: int = 5) -> torch.Tensor:
    codes = np.random.default_rng(5).normal(0, 0.1, (slots, CHANNELS))
    np.save(s3r.DICTIONARY, codes)
    return torch.from_numpy(codes).float()


@needs_golden
def test_network_losses_gradients_and_inference(dictionary):
    file = golden("s3r")
    authors = filled(Checkpoint(), "s3r").tensors
    network = s3r.Network()
    model = s3r.from_authors([authors], recipe_of())
    network.load_state_dict(model.network)
    network.eval()
    video = torch.tensor(file.input("video") * file.input("video_scale"))
    macro = torch.tensor(file.input("macro"))
    seen = {}
    aggregates = {"video_embedding": network.video_embedding[0], "macro_embedding": network.macro_embedding[0]}
    hooked = {**aggregates, "video_non_local": aggregates["video_embedding"].non_local, "attention": network.en_normal}
    for name, module in hooked.items():
        module.register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.setdefault(name, []).append(output)
        )
    # the golden numbers have another dictionary for each video, a run of ours has one for all
    values = [network.read(one) for one in macro]
    parts = [network(one[None], *normality) for one, normality in zip(video, values, strict=True)]
    found = s3r.Output(*(torch.cat(part) for part in zip(*parts, strict=True)))
    maps = {name: torch.cat(outputs) for name, outputs in seen.items()}
    mixtures = [part.flatten(0, 1) for part in seen["attention"]]
    normal_part = torch.cat([one @ value[2] for one, value in zip(seen["attention"], values, strict=True)])
    gate = network.de_normal(maps["video_embedding"].mean(2) - maps["macro_embedding"].mean(2))[:, :, None]
    top = s3r.top_snippets(found.magnitudes)
    bags, features = s3r.bag_scores(found, top)[:, None], s3r.bag_features(found, top)
    assert_golden(
        file,
        {
            "en_normal": normal_part,
            "attention": torch.stack(mixtures).mT,
            "video_non_local": maps["video_non_local"],
            "video_embedding": maps["video_embedding"].mT,
            "macro_embedding": maps["macro_embedding"].mT,
            "de_normal_video": found.features.flatten(0, 1),
            "de_normal_macro": ((1 - gate) * maps["macro_embedding"]).mT,
            "video_scores": found.scores[..., None],
            "macro_scores": found.macro[:, None],
            "feature_magnitudes": found.magnitudes,
            "topk_regular": top[:2],
            "topk_anomaly": top[2:],
            "regular_score": bags[:2],
            "anomaly_score": bags[2:],
            "feature_select_regular": features[:2].transpose(0, 1).flatten(0, 1),
            "feature_select_anomaly": features[2:].transpose(0, 1).flatten(0, 1),
        },
    )
    terms = s3r.losses(found, dropout=0.0)
    classification, magnitude, smoothness, sparsity, normality = terms
    total = torch.tensor([1, 1e-4, 8e-4, 8e-3, 1]) @ terms
    assert_golden(
        file,
        {
            "loss_magnitude_loss_cls": classification[None],
            "loss_magnitude_loss_total": (classification + 1e-4 * magnitude)[None],
            "loss_smooth": 8e-4 * smoothness[None],
            "loss_sparsity": 8e-3 * sparsity[None],
            "loss_macro": normality[None],
            "loss_cost": total[None],
        },
    )
    total.backward()
    norms = {name: parameter.grad.norm().item() for name, parameter in network.named_parameters()}
    trained = [name for name in published_keys("s3r") if "running" not in name and "num_batches" not in name]
    assert_golden(file, {"grad_norms": np.array([norms.get(name, 0.0) for name in trained])})
    test = torch.tensor(file.input("video_test") * file.input("video_test_scale"))
    with torch.no_grad():
        found = network(test, *values[0])
    assert_golden(
        file,
        {
            "inference_video_scores": found.scores[..., None],
            "inference_macro_scores": found.macro[:, None],
            "inference_feature_magnitudes": found.magnitudes,
            "inference_repeated16": found.scores[0].repeat_interleave(16),
        },
    )
    exported = s3r.to_authors(model)
    assert {name: tuple(tensor.shape) for name, tensor in exported.items()} == published_keys("s3r")
    assert all(torch.equal(exported[name], authors[name]) for name in model.network)
    sizes = [tensor.numel() for name, tensor in exported.items() if "running" not in name and "num_batches" not in name]
    assert sum(sizes) == 81_436_802
    assert sum(parameter.numel() for parameter in network.parameters()) == 81_436_802 - 2 * 12_589_056


def small_network() -> s3r.Network:
    """A small network in eval mode, whose branches all say something."""
    torch.manual_seed(3)
    network = s3r.Network(8)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return network.eval()


def random_videos(count: int, snippets: int, crops: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, crops, snippets, CHANNELS, generator=torch.Generator().manual_seed(seed))


def test_kernels_of_a_mixture_make_what_the_convolutions_make_of_it():
    torch.manual_seed(0)
    aggregate = s3r.Aggregate(8).eval()
    value, mixture = torch.randn(5, CHANNELS), torch.randn(3, 5, 7)
    x = value.T @ mixture
    assert torch.allclose(aggregate(x, mixture, aggregate.kernels(value)), aggregate(x), atol=1e-4)


@pytest.mark.parametrize("snippets", [1, 2, 3, 40])
def test_any_number_of_snippets(dictionary, snippets):
    network = small_network()
    videos = random_videos(4, snippets)
    with torch.no_grad():
        found = network(videos, *network.read(dictionary))
    assert found.scores.shape == (4, snippets)
    assert found.macro.shape == (4,)
    assert found.features.shape == (4, 2, snippets, CHANNELS)
    assert s3r.top_snippets(found.magnitudes).shape == (4, min(snippets, 3))
    assert s3r.losses(found, 0.7).isfinite().all()


def test_a_video_is_scored_alike_in_any_batch_and_order_of_crops(dictionary):
    network = small_network()
    videos = random_videos(3, 6)
    with torch.no_grad():
        normality = network.read(dictionary)
        whole = network(videos, *normality)
        alone = network(videos[1:2], *normality)
        turned = network(videos.flip(1), *normality)
    assert torch.allclose(whole.scores[1:2], alone.scores, atol=1e-5)
    assert torch.allclose(whole.scores, turned.scores, atol=1e-5)
    assert torch.allclose(whole.magnitudes, turned.magnitudes, rtol=1e-4)


def output_of(scores: list[list[float]], magnitudes: list[list[float]], macro: list[float]) -> s3r.Output:
    """An output whose features are magnitudes in the first channel."""
    lengths = torch.tensor(magnitudes)
    features = F.pad(lengths[:, None, :, None], (0, CHANNELS - 1))
    return s3r.Output(torch.tensor(scores), torch.tensor(macro), features, lengths)


def test_losses_by_hand():
    found = output_of(
        scores=[[0.9, 0.5, 0.5, 0.5], [0.2, 0.2, 0.2, 0.9], [0.0, 0.8, 0.8, 0.8], [0.5, 0.5, 0.5, 0.1]],
        magnitudes=[[1, 4, 3, 2.0], [4, 3, 2, 1.0], [10, 20, 30, 40.0], [140, 130, 120, 0.0]],
        macro=[0.5, 0.5, 0.5, 0.5],
    )
    classification, magnitude, smoothness, sparsity, macro = s3r.losses(found, 0.0).tolist()
    assert np.isclose(classification, -np.mean(np.log([0.5, 0.8, 0.8, 0.5])))
    assert np.isclose(magnitude, np.mean([(70 + 3) ** 2, (30 + 3) ** 2]))
    assert np.isclose(smoothness, 0.8**2 + 0.3**2 + 0.4**2)  # 0.3: from one video to the next
    assert np.isclose(sparsity, np.sqrt(3 * 0.8**2 + 3 * 0.5**2 + 0.1**2))
    assert np.isclose(macro, np.log(2))


def test_dropout_overlooks_snippets_of_each_video_for_itself():
    torch.manual_seed(0)
    magnitudes = torch.linspace(1, 2, 32).repeat(200, 1)
    top = s3r.top_snippets(magnitudes, 0.7)
    assert torch.equal(s3r.top_snippets(magnitudes), torch.tensor([31, 30, 29]).expand(200, 3))
    assert len(top.unique(dim=0)) > 100
    chosen = (top == 31).any(1).float().mean().item()  # the largest is among the top unless it is overlooked
    assert 0.2 < chosen < 0.4


def test_the_network_starts_as_the_authors():
    network = s3r.Network(8)
    aggregate = network.macro_embedding[0]
    assert not any(p.any() for name, p in network.named_parameters() if name.endswith("bias"))
    assert not aggregate.non_local.alter[1].weight.any()
    weight = network.en_normal.en_normal_module.value_embedding.weight
    assert weight.abs().max() <= np.sqrt(6 / (2 * CHANNELS))
    assert weight.abs().max() > 0.99 * np.sqrt(6 / (2 * CHANNELS))


def test_videos_are_drawn_as_with_restartable_loaders():
    passes = [[s3r.drawn(0, 7, 3, 5, step) for step in (1 + 2 * i, 2 + 2 * i)] for i in range(20)]
    for batches in passes:
        assert len(set(np.concatenate(batches))) == 6  # no video twice in a pass; the seventh is dropped
    assert set(np.concatenate([one for batches in passes for one in batches])) == set(range(7))
    assert np.array_equal(passes[3][1], s3r.drawn(0, 7, 3, 5, 8))
    assert len({tuple(batches[0]) for batches in passes}) > 10
    assert any((s3r.drawn(1, 7, 3, 5, step) != s3r.drawn(0, 7, 3, 5, step)).any() for step in range(1, 5))
    items = np.arange(10, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 32, 4), np.float32)
    for step, videos in s3r.read_batches(items, [6, 4], 3, 0, range(1, 9)):
        of_batch = videos[:, 0, 0, 0]
        assert (of_batch[:3] < 6).all()
        assert (of_batch[3:] >= 6).all(), step


def test_evaluations():
    def found(**changes):
        return s3r.evaluations(SimpleNamespace(**changes))

    assert found(steps=10, test_after=5, test_every=1) == [6, 7, 8, 9, 10]
    assert found(steps=10, test_after=0, test_every=4) == [4, 8, 10]
    assert found(steps=10, test_after=50, test_every=1) == [10]
    assert len(found(steps=15_000, test_after=5_000, test_every=1)) == 10_000


SNIPPETS = {"test/1": 4, "test/2": 1}


@pytest.fixture
def weak(tmp_path, monkeypatch):
    """A working directory with features of 4 normal, 3 abnormal and 2 test videos, and a dictionary of them.

    In abnormal videos a few snippets, of test/1 the last two, are as no normal one is.
    """
    shutil.copy("params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = [*(f"train/{i}" for i in range(1, 5)), *(f"weak/{i}" for i in range(1, 4)), *SNIPPETS]
    abnormal = [name.startswith("weak") or name == "test/1" for name in names]
    lengths = [SNIPPETS.get(name, 3 + i) for i, name in enumerate(names)]
    table = pd.DataFrame(
        {
            "video": names,
            "split": [part if part != "weak" else "" for part in (name.split("/")[0] for name in names)],
            "frames": [16 * length - 3 for length in lengths],
            "hash": names,
            "weak_split": ["test" if name.startswith("test") else "train" for name in names],
            "weak_abnormal": pd.array(abnormal, "boolean"),
        }
    )
    s3r.DICTIONARY.parent.mkdir()
    table.to_parquet("data/videos.parquet")
    rng = np.random.default_rng(0)
    pattern = np.abs(rng.normal(0, 0.5, CHANNELS)).astype(np.float32)
    for name, length, is_abnormal in zip(names, lengths, abnormal, strict=True):
        features = np.abs(rng.normal(0, 0.5, (length, 2, CHANNELS))).astype(np.float32)
        features[length - 2 :] += 2 * pattern * is_abnormal
        write_features(name, features)
    write_dictionary()
    set_params(
        tmp_path,
        **{
            f"s3r__fit__{key}": value
            for key, value in dict(width=8, batch=2, steps=5, test_every=2, test_after=0, learning_rate=1e-3).items()
        },
    )
    return tmp_path


def write_features(video: str, features: np.ndarray) -> None:
    path = s3r.path_of(video)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, features.astype(np.float32))


def test_scores_have_a_row_a_snippet_and_a_checkpoint(weak):
    fit.main("s3r")
    model, _ = load_model("models/s3r")
    score.main("s3r")
    scores = pd.read_parquet("data/scores/s3r.parquet")
    assert list(scores.columns) == ["video", "split", "frame", "checkpoint", "score"]
    assert scores.frame.dtype == np.int32
    assert scores.score.dtype == np.float64
    assert set(scores.split) == {"test"}
    assert list(scores.checkpoint.unique()) == ["chosen", "2", "4", "5"]
    for name, rows in scores.groupby("checkpoint", observed=True):
        assert rows.frame.tolist() == [0, 16, 32, 48, 0], name
        assert rows.video.tolist() == ["test/1"] * 4 + ["test/2"], name
    own, last = (scores.loc[scores.checkpoint == name, "score"].to_numpy() for name in ("chosen", "5"))
    assert np.allclose(own, last, atol=1e-6)
    network = s3r.Network(8)
    network.load_state_dict(model.network)
    network.eval()
    with torch.no_grad():
        features = torch.from_numpy(np.load(s3r.path_of("test/1"))).transpose(0, 1)[None]
        found = network(features, *network.read(torch.from_numpy(np.load(s3r.DICTIONARY)).float()))
    assert np.allclose(own[:4], found.scores[0], atol=1e-6)
    assert not list((weak / "data/scratch").glob("*-s3r-*"))


def test_training_finds_the_planted_snippets(weak):
    set_params(weak, s3r__fit__steps=40, s3r__fit__test_every=40)
    fit.main("s3r")
    curve = pd.read_csv("models/s3r/loss.csv")
    assert list(curve.columns) == ["epoch", "step", "loss", *s3r.TERMS]
    assert curve.step.tolist() == [40]
    weights = np.array([1, 1e-4, 8e-4, 8e-3, 1])
    assert np.allclose(curve[list(s3r.TERMS)] @ weights, curve.loss, rtol=1e-3)
    score.main("s3r")
    scores = pd.read_parquet("data/scores/s3r.parquet").query("checkpoint == 'chosen'").score.to_numpy()
    assert scores[2:4].min() > scores[[0, 1, 4]].max()


class Killed(BaseException):
    """What ends a process."""


@pytest.mark.parametrize("held_out", [0.0, 0.3])
def test_a_killed_training_ends_with_the_same_model_unless_the_features_are_others(weak, monkeypatch, held_out):
    monkeypatch.setattr(s3r, "INTERVAL", 2)
    set_params(weak, s3r__fit__held_out=held_out)
    fit.main("s3r")
    whole, _ = load_model("models/s3r")
    plain, steps = s3r.losses, []

    def killed_in_the_fourth_step(found, dropout):
        steps.append(dropout)
        if len(steps) == 4:
            raise Killed
        return plain(found, dropout)

    def killed():
        steps.clear()
        with monkeypatch.context() as patch:
            patch.setattr(s3r, "losses", killed_in_the_fourth_step)
            with pytest.raises(Killed):
                fit.main("s3r")

    killed()
    with monkeypatch.context() as patch:
        steps.clear()
        patch.setattr(s3r, "losses", lambda *args: steps.append(0) or plain(*args))
        fit.main("s3r")
        assert len(steps) == 3  # from the third step on
        resumed, _ = load_model("models/s3r")
        assert all(torch.equal(whole.network[key], resumed.network[key]) for key in whole.network)
        assert whole.curve.equals(resumed.curve)
        assert whole.history.equals(resumed.history)
        killed()
        write_features("train/1", np.ones((3, 2, CHANNELS)))
        patch.setattr(s3r, "losses", lambda *args: steps.append(0) or plain(*args))
        steps.clear()
        fit.main("s3r")
        assert len(steps) == 5


def test_same_seed_same_model_another_seed_another(weak):
    models = []
    for seed in (0, 0, 1):
        set_params(weak, seed=seed)
        fit.main("s3r")
        models.append(load_model("models/s3r")[0])
    same, again, other = models
    assert all(torch.equal(same.network[key], again.network[key]) for key in same.network)
    assert any(not torch.equal(same.network[key], other.network[key]) for key in same.network)


def test_held_out_videos_choose_the_step_and_are_not_trained_on(weak, monkeypatch):
    set_params(weak, s3r__fit__held_out=0.3, s3r__fit__steps=6)
    aucs, weights, drawn = iter([0.5, 1.0, 0.25]), [], []
    offer, items = s3r.Best.offer, s3r.training_items
    monkeypatch.setattr(s3r, "held_out_auc", lambda *_args: next(aucs))
    monkeypatch.setattr(s3r, "training_items", lambda videos, scratch: drawn.extend(videos) or items(videos, scratch))

    def recorded(best, auc, step, network):
        weights.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        offer(best, auc, step, network)

    monkeypatch.setattr(s3r.Best, "offer", recorded)
    fit.main("s3r")
    model, _ = load_model("models/s3r")
    curve = pd.read_csv("models/s3r/loss.csv")
    assert all(torch.equal(model.network[name], weights[1][name]) for name in model.network)
    assert curve.best_step.tolist() == [4]
    assert curve.held_out_auc.tolist() == [1.0]
    assert len(drawn) == 5  # one of four normal and one of three abnormal videos are held out


def test_of_equally_good_steps_the_last_is_kept():
    best = s3r.Best()
    for step, auc in enumerate((0.9, 1.0, 0.8, 1.0, 0.9)):
        best.offer(auc, step, torch.nn.Linear(1, 1))
    assert (best.auc, best.step) == (1.0, 3)


def change_labels(**changes) -> None:
    videos = pd.read_parquet("data/videos.parquet")
    videos.assign(**changes).to_parquet("data/videos.parquet")


def test_errors_that_a_user_can_mend(weak):
    set_params(weak, s3r__fit__learning_rate=1e30)
    with pytest.raises(SystemExit, match=r"no numbers any more at step \d: lower s3r.fit.learning_rate"):
        fit.main("s3r")
    set_params(weak, s3r__fit__learning_rate=1e-3, s3r__fit__batch=4)
    with pytest.raises(SystemExit, match=r"3 abnormal videos to train on, fewer than a batch: set s3r.fit.batch to 3"):
        fit.main("s3r")
    set_params(weak, s3r__fit__batch=2)
    write_features("train/2", np.ones((3, 1, CHANNELS)))
    with pytest.raises(SystemExit, match=r"found shape \(3, 1, 2048\), expected \(snippets, 2, 2048\)"):
        fit.main("s3r")
    for video in ("train/2", "test/2"):  # test videos are looked at first, before the longer work
        s3r.path_of(video).unlink()
        with pytest.raises(SystemExit, match=rf"{video}_i3d.npy not found"):
            fit.main("s3r")
    np.save(s3r.DICTIONARY, np.ones((5, 7)))
    with pytest.raises(SystemExit, match=r"found shape \(5, 7\), expected finite numbers \(slots, 2048\)"):
        fit.main("s3r")
    s3r.DICTIONARY.unlink()
    with pytest.raises(SystemExit, match=r"run `dvc repro stages/dvc.yaml:dictionary` first"):
        fit.main("s3r")
    change_labels(weak_abnormal=pd.array([None] * 9, "boolean"))
    with pytest.raises(SystemExit, match="have no label"):
        fit.main("s3r")
    change_labels(weak_abnormal=pd.array([False] * 9, "boolean"))
    with pytest.raises(SystemExit, match=r"no abnormal training videos: .* take another method, such as mnad"):
        fit.main("s3r")
    change_labels(weak_split="")
    with pytest.raises(SystemExit, match="no normal training videos"):
        fit.main("s3r")


def authors_tensors() -> dict[str, torch.Tensor]:
    """A checkpoint as the authors publish it, of a small network."""
    return small_network().state_dict() | {name: torch.ones(shape) for name, shape in s3r.unused_shapes().items()}


def test_published_files_become_a_model_and_back(dictionary):
    tensors = authors_tensors()
    model = s3r.from_authors([tensors], recipe_of(8))
    assert torch.equal(model.state["dictionary"], dictionary)
    assert set(tensors) - set(model.network) == set(s3r.unused_shapes())
    s3r.Network(8).load_state_dict(model.network)
    exported = s3r.to_authors(model)
    assert {name: tensor.shape for name, tensor in exported.items()} == {n: t.shape for n, t in tensors.items()}
    assert not any(exported[name].any() for name in s3r.unused_shapes())
    network, inputs = s3r.cost_input(recipe_of(8), model)
    assert network(*inputs).scores.shape == (1, 1)


def test_published_files_of_another_form_are_refused(dictionary):
    tensors = authors_tensors()
    with pytest.raises(VigilError, match="found 2 file"):
        s3r.from_authors([tensors, tensors], recipe_of(8))
    with pytest.raises(VigilError, match="expected one: the network's state dictionary"):
        s3r.from_authors([[tensors]], recipe_of(8))
    for changed, match in (
        ({"video_projection.0.bias": torch.zeros(9)}, r"video_projection.0.bias: found \(9,\), expected \(2048,\)"),
        ({"video_classifier.0.bias": None}, "video_classifier.0.bias: found missing"),
        ({"more.weight": torch.zeros(1)}, "more.weight: found .* expected no such parameter"),
    ):
        wrong = {key: tensor for key, tensor in (tensors | changed).items() if tensor is not None}
        with pytest.raises(VigilError, match=match):
            s3r.from_authors([wrong], recipe_of(8))


def test_an_imported_model_is_scored_without_a_history(weak):
    save_model(
        "models/s3r",
        s3r.from_authors([authors_tensors()], params.load().recipe("s3r")),
        {"method": "s3r", "recipe": params.load().recipe("s3r").fit.model_dump(), "origin": "imported"},
    )
    score.main("s3r")
    scores = pd.read_parquet("data/scores/s3r.parquet")
    assert scores.checkpoint.unique().tolist() == ["chosen"]
    assert len(scores) == 5


def test_the_ladder_ends_with_the_papers_rule():
    ladder = recipe_s3r.ladder(recipe_s3r.Fuse(checkpoint="chosen"))
    assert ladder["honest"] == Fusion({"score": 1.0}, normalise="none", frames="snippets")
    assert [fusion.checkpoint for fusion in ladder.values()] == ["chosen", "last", "last", "best_on_test"]
    assert params.load().recipe("s3r").fit.test_every >= 1
