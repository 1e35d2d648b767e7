import numpy as np
import pandas as pd
import pytest

from stages.evaluation.plots import checkpoint_figure, highlights_figure, roc_figure, score_figure

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


def test_highlights_show_the_highest_object_beside_its_frame():
    image = np.zeros((40, 60, 3), np.uint8)
    image[10:20, 30:36] = 255
    objects = pd.DataFrame(
        {"x1": [0.0, 30.0], "y1": [0.0, 10.0], "x2": [9.0, 36.0], "y2": [9.0, 20.0], "score": [1.0, 7.25]}
    )
    figure = highlights_figure([("test/1, frame 3", image, objects), ("test/2, frame 9", image, None)], "title")
    frame, enlarged, other, nothing = figure.axes
    assert [len(axes.patches) for axes in (frame, other)] == [2, 0]
    assert frame.patches[-1].get_bbox().bounds == (30, 10, 6, 10)  # drawn last: on top
    assert (enlarged.images[0].get_array() == 255).all()
    assert enlarged.get_title(loc="left") == "the highest: 7.25"
    assert not nothing.images
    assert len(highlights_figure([("test/1", image, None)], "title").axes) == 1


def test_checkpoints_are_drawn_in_their_order_with_the_best_and_the_chosen_one():
    curve = pd.DataFrame({"checkpoint": ["chosen", "100", "200", "300"], "auc": [0.6, 0.5, 0.8, 0.7]})
    (axes,) = checkpoint_figure({"made": curve}, "title").axes
    line, best, chosen = axes.lines
    assert [list(line.get_xdata()), list(line.get_ydata())] == [["100", "200", "300"], [0.5, 0.8, 0.7]]
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1, 0.8)
    assert chosen.get_ydata()[0] == 0.6
