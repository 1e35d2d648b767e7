"""MAMA's scoring: what a table holds, what the authors' files become."""

import numpy as np
import pandas as pd
import pytest
import torch

from stages import fit, params, score
from stages.command import VigilError
from stages.cost import parameters_and_gmac
from stages.io.checkpoints import load_authors_file
from stages.io.frames import open_pixels
from stages.io.maps import unpacked
from stages.io.models import Model, load_model, save_model
from stages.methods import mama, mama_generator
from stages.videos import FRAMES, read_videos
from tests.conftest import set_params, write_motion_and_labels
from tests.golden import needs_golden, published_keys

CPU = torch.device("cpu")
SIZE = 32
VIDEOS = ("train/1", "train/2", "test/1", "test/2")


def random_network(recipe, seed: int = 0) -> mama.Network:
    """A network whose features are not all alike."""
    torch.manual_seed(seed)
    network = mama.Network(recipe)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def write_models(histories: bool = True) -> mama.Network:
    """Models as the two fits leave them; the network of both."""
    recipe = params.load().recipe("mama")
    network = random_network(recipe)
    rows = pd.DataFrame(
        [(video, "test", frame) for video in ("test/1", "test/2") for frame in range(4, 14)],
        columns=["video", "split", "frame"],
    ).astype({"frame": np.int32})
    for part, names in (("generator", mama_generator.COMPONENTS), ("destroyer", ["destroyed"])):
        blocks = []
        for steps in (2, 3):
            values = {name: np.arange(20.0) * steps + i for i, name in enumerate(names)}
            blocks.append(rows.assign(**values, checkpoint=str(steps)).sample(frac=1, random_state=0))
        history = pd.concat(blocks, ignore_index=True) if histories else pd.DataFrame()
        model = Model(network.get_submodule(part).state_dict(), {}, history=history)
        description = {"method": "mama", "recipe": getattr(recipe, part).model_dump(), "origin": "trained"}
        save_model(f"models/mama-{part}", model, description)
    return network


@pytest.fixture
def small(prepared):
    """The prepared data set with flow, labels and small models."""
    for i, video in enumerate(VIDEOS):
        write_motion_and_labels(video, seed=i, size=SIZE)
    small = {"width": 2, "batch": 2, "iterations": 3, "validate_every": 2}
    for part, more in (("generator", {"size": SIZE}), ("destroyer", {})):
        set_params(prepared, **{f"mama__{part}__{key}": value for key, value in (small | more).items()})
    return prepared


def inputs_of(*videos: str) -> mama_generator.Inputs:
    table = read_videos()
    return mama_generator.read_inputs(open_pixels(table[table.video.isin(videos)], FRAMES, SIZE, 1))


def test_table(small):
    network = write_models()
    score.main("mama")
    scores = pd.read_parquet("data/scores/mama.parquet")
    assert list(scores.columns) == ["video", "split", "frame", "checkpoint", *mama.COMPONENTS, "map"]
    assert scores.dtypes.astype(str)[["frame", *mama.COMPONENTS]].tolist() == ["int32", *["float64"] * 4]
    assert not scores.duplicated(["video", "frame", "checkpoint"]).any()
    assert list(scores.checkpoint.unique()) == ["chosen", "2", "3", "generator 2", "generator 3"]
    chosen = scores[scores.checkpoint == "chosen"]
    assert np.isfinite(chosen[mama.COMPONENTS]).all(axis=None)
    for video in VIDEOS:
        rows = chosen[chosen.video == video]
        assert rows.split.unique().tolist() == [video.split("/")[0]]
        assert rows.frame.tolist() == list(range(4, 14))
    with torch.no_grad():
        (batch,) = inputs_of("test/2").in_order(10, CPU)
        output = network.generator(*batch[:3])
        worse = network.destroyer(output.frame)
    found = chosen[chosen.video == "test/2"]
    assert np.allclose(found.prediction, ((output.frame - batch.target) / 2).square().mean((1, 2, 3)), rtol=1e-4)
    assert np.allclose(found.destroyed, ((worse - batch.target) / 2).square().mean((1, 2, 3)), rtol=1e-4)
    cells = ((output.frame - batch.target) / 2).square().mean(1).sqrt()  # a pixel a cell
    assert np.allclose(unpacked(found["map"]), cells, rtol=1e-3)
    motion, label = mama_generator.distances(output, -1)
    assert np.allclose(found.motion, motion, rtol=1e-4)
    assert np.allclose(found.label, label, rtol=1e-4)


def test_earlier_checkpoints_are_rows_of_their_own(small):
    """What the histories hold was written in another order than the frames'."""
    write_models()
    score.main("mama")
    scores = pd.read_parquet("data/scores/mama.parquet").sort_values(["video", "frame"])
    blocks = dict(list(scores.groupby("checkpoint")))
    test = blocks["chosen"].query("split == 'test'")
    for steps in (2, 3):
        ours, generators = blocks[str(steps)], blocks[f"generator {steps}"]
        assert set(ours.split) == set(generators.split) == {"test"}
        assert ours.destroyed.tolist() == (np.arange(20.0) * steps).tolist()
        for name in mama_generator.COMPONENTS:
            assert ours[name].tolist() == test[name].tolist()
        assert generators.label.tolist() == (np.arange(20.0) * steps + 1).tolist()
        assert generators.destroyed.isna().all()
        assert [*ours["map"], *generators["map"]] == [None] * 40


def test_imported_models_have_no_earlier_checkpoints(small):
    write_models(histories=False)
    score.main("mama")
    assert pd.read_parquet("data/scores/mama.parquet").checkpoint.unique().tolist() == ["chosen"]


def test_a_frame_is_scored_alike_in_any_batch(small):
    network = random_network(params.load().recipe("mama"))
    inputs = inputs_of("train/1", "test/2")
    with torch.no_grad():
        found = [
            torch.cat([mama.scored(network, batch, -1)[0] for batch in inputs.in_order(size, CPU)]) for size in (1, 8)
        ]
    assert found[0].shape == (20, 4)
    assert len(found[0].unique(dim=0)) == 20
    assert torch.allclose(*found, rtol=1e-4)


def test_the_axis_of_the_features_is_a_choice_of_the_generator(small):
    tables = []
    for axis in ("width", "channels"):
        set_params(small, mama__generator__triplet_axis=axis)
        write_models(histories=False)
        score.main("mama")
        tables.append(pd.read_parquet("data/scores/mama.parquet"))
    assert not np.allclose(tables[0].motion, tables[1].motion)
    assert np.allclose(tables[0][["prediction", "destroyed"]], tables[1][["prediction", "destroyed"]])


def test_fits_then_scores(small):
    fit.main("mama", "generator")
    fit.main("mama", "destroyer")
    score.main("mama")
    scores = pd.read_parquet("data/scores/mama.parquet")
    assert list(scores.checkpoint.unique()) == ["chosen", "2", "3", "generator 2", "generator 3"]
    blocks = dict(list(scores.query("split == 'test'").groupby("checkpoint")))
    close = {steps: np.allclose(blocks["chosen"].destroyed, blocks[steps].destroyed, rtol=1e-3) for steps in ("2", "3")}
    assert any(close.values())  # one of them was chosen
    generators = [
        np.allclose(
            blocks["chosen"][mama_generator.COMPONENTS], blocks[f"generator {steps}"][mama_generator.COMPONENTS]
        )
        for steps in (2, 3)
    ]
    assert any(generators)
    assert not list((small / "data/scratch").glob("*-mama-*"))


def test_cost_is_of_all_that_scores_a_frame(small):
    recipe = params.load().recipe("mama")
    network, inputs = mama.cost_input(recipe, Model({}, {}), Model({}, {}))
    assert [tuple(part.shape) for part in inputs] == [(1, n, SIZE, SIZE) for n in (12, 6, 84)]
    found = parameters_and_gmac(network, inputs)
    assert found["parameters"] == sum(parameter.numel() for parameter in network.parameters())
    alone = parameters_and_gmac(network.generator, inputs)
    assert found["gmac"] > alone["gmac"] > 0


def authors_files(folder, network: mama.Network) -> dict:
    """Files as the authors save them: plain state dictionaries, optimisers, lists with NumPy's numbers."""
    optimiser = torch.optim.AdamW(network.generator.parameters())
    figures = {"step": 1000, "iter_list": [0, 1000], "g_best_auc": np.float64(0.9), "g_auc_list": [np.float64(0.9), 0]}
    generator = {"net_g": network.generator.state_dict(), **figures}
    contents = {
        "g_best_auc_made.pth": generator
        | {
            "optimizer_g": optimiser.state_dict(),
            "net_d": mama_generator.Discriminator(2).state_dict(),
            "optimizer_d": optimiser.state_dict(),
        },
        "a_best_auc_made.pth": generator
        | {
            "net_a": network.destroyer.state_dict(),
            "optimizer_a": optimiser.state_dict(),
            "a_best_auc": np.float32(0.95),
            "a_auc_list": [np.float32(0.95)],
        },
    }
    for name, content in contents.items():
        torch.save(content, folder / name)
    return {name[0]: folder / name for name in contents}


def test_published_files_become_models(small):
    recipe = params.load().recipe("mama")
    network = random_network(recipe)
    files = authors_files(small, network)
    both = mama.from_authors([load_authors_file(files["a"])], recipe)
    assert list(both) == ["generator", "destroyer"]
    alone = mama.from_authors([load_authors_file(files["g"])], recipe)
    assert list(alone) == ["generator"]
    for models in (both, alone):
        for part, model in models.items():
            expected = network.get_submodule(part).state_dict()
            assert all(torch.equal(model.network[key], expected[key]) for key in expected)
            assert model.history.empty
            assert model.curve.empty
            description = {"method": "mama", "recipe": getattr(recipe, part).model_dump(), "origin": "imported"}
            save_model(f"models/mama-{part}", model, description)
            assert load_model(f"models/mama-{part}")[0].network.keys() == expected.keys()
    score.main("mama")
    assert len(pd.read_parquet("data/scores/mama.parquet")) == 40


@needs_golden
def test_published_names_and_shapes_are_those_of_the_default_width(small):
    set_params(small, dataset="ped2", mama__generator__width="published", mama__destroyer__width="published")
    tensors = {
        name: {key: torch.zeros(shape) for key, shape in published_keys(keys).items()}
        for name, keys in (("net_g", "mama-destroyer-stage-generator"), ("net_a", "mama-destroyer"))
    }
    models = mama.from_authors([tensors], params.load().recipe("mama"))
    assert {part: len(model.network) for part, model in models.items()} == {
        "generator": len(tensors["net_g"]),
        "destroyer": len(tensors["net_a"]),
    }


def test_published_files_of_another_form_are_refused(small):
    recipe = params.load().recipe("mama")
    content = load_authors_file(authors_files(small, random_network(recipe))["a"])
    with pytest.raises(VigilError, match="found 2 files, expected one"):
        mama.from_authors([content, content], recipe)
    with pytest.raises(VigilError, match=r"found list; expected a dictionary with .* net_g"):
        mama.from_authors([[content]], recipe)
    with pytest.raises(VigilError, match="found net_a; expected"):
        mama.from_authors([{"net_a": content["net_a"]}], recipe)
    for part, changed, match in (
        ("net_g", {"outc.bias": torch.zeros(4)}, r"net_g: outc.bias: found \(4,\), .* \(3,\); .*generator.width 2"),
        ("net_a", {"outc.bias": None}, "net_a: outc.bias: found missing"),
        ("net_a", {"more": torch.zeros(1)}, "net_a: more: found .* expected no such parameter"),
    ):
        tensors = {key: tensor for key, tensor in (content[part] | changed).items() if tensor is not None}
        with pytest.raises(VigilError, match=match):
            mama.from_authors([content | {part: tensors}], recipe)
