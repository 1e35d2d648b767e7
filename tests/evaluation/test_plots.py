import numpy as np
import pandas as pd
import pytest

from stages.evaluation.plots import roc_figure, score_figure

LENGTHS = {"test/2": 6, "test/10": 4, "test/11": 3}


def frames() -> pd.DataFrame:
    parts = [pd.DataFrame({"video": video, "frame": np.arange(length)}) for video, length in LENGTHS.items()]
    return pd.concat(parts, ignore_index=True)


def shaded(axes) -> list[tuple[float, float, float, float]]:
    """Left, right, bottom, top of each shaded rectangle; heights as parts of the panel."""
    boxes = [path.get_extents() for collection in axes.collections for path in collection.get_paths()]
    return [(box.x0, box.x1, box.y0, box.y1) for box in boxes]


def test_score_figure_has_a_panel_a_video_with_its_abnormal_frames_shaded():
    scores = frames().assign(score=lambda table: table["frame"] * 1.0)
    truth = frames().assign(abnormal=[False, True, True, False, False, True] + [False] * 4 + [True] * 3)
    figure = score_figure(scores, {"made": truth}, {"made": {"test/2": 0.875}}, "blue", "a title")
    panels = figure.axes
    assert [axes.get_title(loc="left") for axes in panels] == list(LENGTHS)
    assert [axes.get_title(loc="right") for axes in panels] == ["AUC 0.88", "one class", "one class"]
    np.testing.assert_array_equal(panels[1].lines[0].get_ydata(), [0, 1, 2, 3])
    # frame f covers f - 0.5 to f + 0.5, so that a single abnormal frame shows
    assert [shaded(axes) for axes in panels] == [[(0.5, 2.5, 0, 1), (4.5, 5.5, 0, 1)], [], [(-0.5, 2.5, 0, 1)]]
    assert len({axes.get_ylim() for axes in panels}) == 1
    assert figure.legends[0].get_title().get_text() == "a title"


def test_score_figure_keeps_label_sets_apart():
    scores = frames().assign(score=0.0)
    truth = frames().assign(abnormal=lambda table: table["frame"] == 1)
    figure = score_figure(scores, {"one": truth, "other": truth}, {"one": {}, "other": {}}, "blue", "")
    assert shaded(figure.axes[0]) == [(0.5, 1.5, 0.5, 1), (0.5, 1.5, 0, 0.5)]
    assert [text.get_text() for text in figure.legends[0].texts] == ["score", "abnormal (one)", "abnormal (other)"]


def test_score_figure_without_labels_shades_nothing():
    figure = score_figure(frames().assign(score=1.0), {}, {}, "blue", "")
    assert [shaded(axes) for axes in figure.axes] == [[], [], []]


@pytest.mark.parametrize("videos", [1, 2, 12, 30, 107])
def test_score_figure_has_no_empty_panels(videos):
    scores = pd.DataFrame({"video": [f"test/{i}" for i in range(videos)], "frame": 0, "score": 0.0})
    assert len(score_figure(scores, {}, {}, "blue", "").axes) == videos


def test_roc_figure_names_each_curve():
    curve = (np.array([0.0, 0.0, 1.0]), np.array([0.0, 0.5, 1.0]))
    aucs = {("honest", "made"): 0.75, ("paper", "made"): 0.5}
    figure = roc_figure(dict.fromkeys(aucs, curve), aucs, "a title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().texts]
    assert labels == ["honest, AUC 0.750", "paper, AUC 0.500"]
    aucs = {("honest", "one"): 0.75, ("honest", "other"): 0.5}
    figure = roc_figure(dict.fromkeys(aucs, curve), aucs, "a title")
    labels = [text.get_text() for text in figure.axes[0].get_legend().texts]
    assert labels == ["honest, AUC 0.750, one", "honest, AUC 0.500, other"]
