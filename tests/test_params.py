"""params.yaml: what is right is read as written, what is wrong is named with what to write instead."""

from pathlib import Path

import pytest

from stages import params
from stages.command import VigilError

TEXT = Path("params.yaml").read_text()


def load(tmp_path, old="", new="", count=1):
    assert old in TEXT
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace(old, new, count))
    return params.load(path)


def test_shipped_file_is_right():
    assert params.load().method in params.methods()


def test_scientific_notation_is_a_number(tmp_path):
    text = TEXT.replace("learning_rate: published", "learning_rate: 1e-3")
    path = tmp_path / "params.yaml"
    path.write_text(text)
    assert params.load(path).recipe("mnad").fit.learning_rate == 1e-3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("method: mnad ", "method: mnda ", "did you mean 'mnad'"),
        ("seed: 0", "sead: 0", "sead: unknown key; did you mean 'seed'"),
        ("seed: 0", "seed: -1", "seed: found -1; input should be greater than or equal to 0"),
        ("protocol: honest", "protocol: fair", "protocol: found 'fair'"),
        ("device: auto", "device: gpu", "device: found 'gpu'"),
        ("epochs: published", "epochs: many", "lgn_net.fit.epochs: found 'many'"),
        ("epochs: published", "epocs: 3", "lgn_net.fit.epocs: unknown key; did you mean 'epochs'"),
        ("alpha: published", "alpha: 1.5", "lgn_net.fuse.alpha: found 1.5"),
        ("size: published", "size: 65", "multiple of 8"),
        ("mnad_recon:", "mnad_reconn:", "mnad_reconn: unknown key; did you mean 'mnad_recon'"),
        ("frame_difference:\n", "frame_diff:\n", "the section of method frame_difference is missing"),
    ],
)
def test_wrong_values_are_named(tmp_path, old, new, message):
    with pytest.raises(VigilError, match=message.replace("(", r"\(")):
        load(tmp_path, old, new)


def test_all_problems_come_at_once(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("seed: 0", "seed: x", 1).replace("protocol: honest", "protocol: x"))
    with pytest.raises(VigilError, match=r"wrong in 2 place\(s\)"):
        params.load(path)


def test_broken_and_missing_files(tmp_path):
    (tmp_path / "broken.yaml").write_text("method: [")
    with pytest.raises(VigilError, match="not valid YAML"):
        params.load(tmp_path / "broken.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(VigilError, match="no keys"):
        params.load(tmp_path / "empty.yaml")
    with pytest.raises(VigilError, match="repository's root"):
        params.load(tmp_path / "none.yaml")


def test_published_depends_on_the_data_set_and_a_number_wins(tmp_path):
    assert load(tmp_path, "dataset: demo", "dataset: ped2").recipe("mnad").fit.epochs == 60
    assert load(tmp_path, "dataset: demo", "dataset: shanghaitech").recipe("mnad").fit.epochs == 10
    assert load(tmp_path, "dataset: demo", "dataset: my_cameras").recipe("mnad_recon").fit.learning_rate == 2e-5
    path = tmp_path / "params.yaml"
    path.write_text(TEXT.replace("epochs: published", "epochs: 7").replace("dataset: demo", "dataset: ped2"))
    assert params.load(path).recipe("mnad").fit.epochs == 7


def test_unpublished_value_is_an_error():
    section = params.load().sections["mnad"]
    table = {**params.recipe_module("mnad").PUBLISHED, "fit.epochs": {"avenue": (60, "a source")}}
    with pytest.raises(
        VigilError, match=r"mnad\.fit\.epochs: nothing is published for data set 'ped2' \(only for avenue\)"
    ):
        params.resolve(section, table, "ped2", "mnad")


def test_what_a_method_rests_on(tmp_path):
    found = params.load()
    assert found.rests_on("mnad") == {}
    assert found.rests_on("state") == {"flow.state.network": "dis", "boxes.source": "motion"}
    assert found.rests_on("s3r") == {"features.source": "own", "features.weights": "random"}
    imported = load(tmp_path, "source: own  ", "source: imported  ")
    assert imported.rests_on("s3r") == {"features.source": "imported"}


@pytest.mark.parametrize("name", params.methods())
def test_what_needs_no_weights_is_a_choice_of_params_yaml(name):
    module = params.recipe_module(name)
    found = params.load().rests_on(name)
    assert set(getattr(module, "RESTS_ON", {})) == set(found)
    for path, free in getattr(module, "RESTS_ON", {}).items():
        section, *keys = path.split(".")
        for value in free:
            content = part = params.load().sections[section].model_dump()
            for key in keys[:-1]:
                part = part[key]
            part[keys[-1]] = value
            params.recipe_module(section).Recipe.model_validate(content)


@pytest.mark.parametrize("name", params.recipes())
def test_every_published_value_has_a_source_and_fits_its_schema(name):
    module = params.recipe_module(name)
    for key, entries in module.PUBLISHED.items():
        *path, last = key.split(".")
        for value, source in entries.values():
            assert len(source) > 10
            section = params.load().sections[name].model_dump()
            part = section
            for step in path:
                part = part[step]
            assert last in part
            part[last] = value
            module.Recipe.model_validate(section)
