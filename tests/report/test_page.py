import base64
import json
import re

import cv2
import numpy as np
import pandas as pd
import pytest

from stages.report import curves, pictures, results
from stages.report.page import axis, write_report
from tests.report import made


def written(folder, evaluations, card=made.CARD, videos=None, frames="nothing") -> str:
    write_report(evaluations, folder / "report", card, made.videos() if videos is None else videos, folder / frames)
    return (folder / "report" / "index.html").read_text()


def data_of(folder) -> dict:
    text = (folder / "report" / "data.js").read_text()
    return json.loads(text.removeprefix("globalThis.REPORT=").removesuffix(";\n"))


def bodies(page: str) -> list[str]:
    table = page[page.index('<table class="results">') :]
    return re.findall(r"<tbody>.*?</tbody>", table[: table.index("</table>")], re.S)


def names(body: str) -> list[str]:
    return re.findall(r'class="name" data-value="([^"]*)"', body)


# ---- rows


def test_runs_that_differ_by_the_seed_alone_are_one_row():
    runs = [made.evaluation("mnad", auc, name=f"mnad, seed {seed}", seed=seed) for seed, auc in ((1, 0.8), (0, 0.7))]
    rows = results.rows([*runs, made.evaluation("mama", 0.9)])
    assert [(row.name, [run.metrics["seed"] for run in row.runs]) for row in rows] == [("mama", [0]), ("mnad", [0, 1])]
    cell = results.cell(rows[1], results.AUC, "yard")
    assert (cell.value, cell.text) == (pytest.approx(0.75), "75.0")
    assert cell.more == "± 7.1"  # 10 / sqrt(2)
    assert results.interval(rows[0], "yard") == pytest.approx((0.8, 0.95))
    assert results.interval(rows[1], "yard") == pytest.approx((0.65, 0.8))
    del runs[1].metrics["honest"]["auc_micro_interval"]
    assert results.interval(results.rows(runs)[0], "yard") is None
    assert [value for _, value in results.ladder(rows[1], "yard")] == pytest.approx([0.75, 0.8, 0.83])


def test_another_recipe_is_another_row_with_a_style_of_its_own():
    other = made.evaluation("mnad", 0.8, name="mnad 2")
    other.recipe["mnad"]["fuse"]["alpha"] = 0.1
    rows = results.rows([made.evaluation("mnad", 0.7), other])
    assert [row.name for row in rows] == ["mnad", "mnad 2"]
    assert len({row.style for row in rows}) == 2


def test_styles_are_told_apart_with_and_without_colour():
    rows = [results.Row(number, str(number), (made.evaluation("mnad", 0.7),), False, False) for number in range(49)]
    assert len({row.style for row in rows}) == 49
    assert len({row.style.split()[0] for row in rows[:7]}) == len({row.style.split()[1] for row in rows[:7]}) == 7


def test_the_floor_and_weak_supervision_are_known_by_the_method():
    rows = results.rows([made.evaluation(method, 0.6) for method in ("frame_difference", "s3r", "mnad")])
    assert {row.name: (row.floor, row.weak) for row in rows} == {
        "frame_difference": (True, False),
        "mnad": (False, False),
        "s3r": (False, True),
    }


def test_a_method_that_this_tree_does_not_know_is_no_error():
    assert not results.rows([made.evaluation("of_another_branch", 0.6)])[0].weak


def test_rows_are_ranked_among_those_on_the_same_frames_alone(tmp_path):
    weak = made.evaluation("s3r", 0.99, frames=made.frame_table({"test/a": 40}), data="d2")
    page = written(tmp_path, [made.evaluation("mnad", 0.7), made.evaluation("mama", 0.8), weak])
    assert [names(body) for body in bodies(page)] == [["mama", "mnad"], ["s3r"]]
    assert "not to be ranked with those above: 40 test frames, labels hash-yard" in page


def test_a_value_that_one_seed_lacks_is_a_dash():
    runs = [made.evaluation("mnad", 0.7, seed=seed, name=f"mnad {seed}") for seed in (0, 1)]
    runs[1].metrics["alarms"]["false_alarms_per_hour"] = None
    (row,) = results.rows(runs)
    column = next(column for column in results.COLUMNS if column.key == "false")
    assert results.cell(row, column, "yard") == results.Cell(None, "–")


@pytest.mark.parametrize(
    ("show", "value", "text"),
    [
        (results.percent, 0.88769, "88.8"),
        (results.significant, 0.0496, "0.0496"),
        (results.significant, 11110.0, "11,110"),
        (results.significant, 999.6, "1,000"),
        (results.significant, 1.0, "1"),
        (results.magnitude, 246915, "247 k"),
        (results.magnitude, 10584082, "10.6 M"),
        (results.magnitude, 999_600, "1 M"),
        (results.magnitude, 0, "0"),
    ],
)
def test_numbers_as_text(show, value, text):
    assert show(value) == text


# ---- curves


def test_bins_lose_no_peak_and_no_gap():
    values = np.zeros(1000)
    values[[3, 777]] = 9, -5
    values[100:120] = np.nan
    bins = curves.extremes(values, 10)
    assert bins.shape == (100, 2)
    assert np.nanmax(bins) == 9
    assert bins[77].tolist() == [-5, 0]
    assert np.isnan(bins[10:12]).all()
    assert np.isfinite(np.delete(bins, [10, 11], axis=0)).all()


def test_the_last_bin_is_what_is_left():
    assert curves.extremes(np.arange(5.0), 2).tolist() == [[0, 1], [2, 3], [4, 4]]


def test_values_survive_sixteen_bits():
    values = np.array([-2.0, np.nan, 0.123456, 5.0])
    stored = np.frombuffer(base64.b64decode(curves.quantised(values, -2.0, 5.0)), "<u2")
    assert stored[[0, 1, 3]].tolist() == [0, curves.GAP, curves.GAP - 1]
    assert -2 + stored[2] / 65534 * 7 == pytest.approx(0.123456, abs=7 / 65534 / 2)
    assert curves.quantised(np.ones(2), 1.0, 1.0) == base64.b64encode(bytes(4)).decode()


def test_long_videos_are_binned_until_the_page_is_small():
    assert curves.longest([381] * 107, 14) == curves.LONGEST  # ShanghaiTech: every frame as it is
    most = curves.longest([3840] * 290, 6)  # UCF-Crime, three methods
    assert most == 512  # 6 x 290 x 512 is below a million, 6 x 290 x 1024 is not
    assert curves.step_of(most, most) == 1
    assert 2 * -(-3840 // curves.step_of(3840, most)) <= most


def test_spans():
    assert curves.spans(np.array([True, True, False, True])) == [[0, 2], [3, 4]]
    assert curves.spans(np.zeros(3, bool)) == []


def test_names_stand_at_their_own_curve():
    x = np.linspace(0, 1, 2000) ** 3
    places = curves.label_places({0: (x, x**0.2), 1: (x, x)}, {0: "good", 1: "chance"})
    for number, curve in ((0, lambda a: a**0.2), (1, lambda a: a)):
        left, bottom, beside_x, beside_y = places[number]
        assert 1 - beside_y / curves.SIDE == pytest.approx(curve(beside_x / curves.SIDE), abs=0.02)
        assert abs(left - beside_x) < 70
        assert abs(bottom - beside_y) < 2 * curves.LINE


def test_packed_scores_are_those_of_the_table(tmp_path):
    written(tmp_path, [made.evaluation("mnad", 0.8)])
    (row,), (first, second) = (data_of(tmp_path)[key] for key in ("rows", "videos"))
    assert (first["name"], first["frames"], first["fps"], first["step"]) == ("test/a", 40, 10.0, 1)
    assert first["truth"] == {"yard": [[10, 20]]}
    assert second["truth"] == {"yard": []}
    own = first["rows"]["0"]
    assert own["alarms"] == [[11, 20]]  # 3.0 + 0.1 is the first above 3.05
    assert own["auc"] == {"yard": {"honest": 1.0, "paper": 1.0}}
    assert second["rows"]["0"]["auc"] == {}
    scale = row["scales"]["honest"]
    stored = np.frombuffer(base64.b64decode(own["honest"]), "<u2")
    table = made.frame_table().query("video == 'test/a'")
    assert scale["low"] + stored / 65534 * (scale["high"] - scale["low"]) == pytest.approx(table["honest"], abs=1e-4)
    paper = np.frombuffer(base64.b64decode(own["paper"]), "<u2")
    assert (paper == curves.GAP).tolist() == [True] * 4 + [False] * 36


# ---- pictures


def test_key_frames_are_even_and_hold_the_highest():
    assert pictures.key_frames(60, 17) == [5, 15, 17, 25, 35, 45, 55]
    assert pictures.key_frames(60, 15) == [5, 15, 25, 35, 45, 55]
    assert pictures.key_frames(2, None) == [0, 1]


def test_an_error_map_is_opaque_where_it_is_high():
    colours = pictures.warm(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    assert colours[:2, 3].tolist() == [0, 0]
    assert 0 < colours[2, 3] < colours[3, 3] == colours[4, 3]


def test_an_overlay_is_a_picture_of_the_cells():
    cells = np.zeros((32, 32))
    cells[3, 5] = 1
    address = pictures.overlay(made.packed(cells[None])[0], 0.0, 1.0)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(address.split(",")[1]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert image.shape == (32, 32, 4)
    assert np.argwhere(image[..., 3]).tolist() == [[3, 5]]


def test_boxes_stay_inside_and_the_highest_is_on_top():
    columns = ["x1", "y1", "x2", "y2", "score"]
    table = pd.DataFrame([[-5, 2, 10, 8, 0.1], [1, 1, 99, 99, 0.7]], columns=columns, dtype=float)
    last = pictures.boxes(table, 50, 40)[-1]
    assert last == {"x": 1.0, "y": 1.0, "width": 49.0, "height": 39.0, "score": 0.7, "rank": 0}
    assert pictures.boxes(table, 50, 40)[0]["x"] == 0


def test_each_frame_is_written_once_and_large_ones_smaller(tmp_path):
    made.write_frames(tmp_path)
    album = pictures.Album(tmp_path / "pictures", tmp_path, made.VIDEOS)
    one = album.picture("test/b & <c>", 7)
    assert one == pictures.Picture("pictures/001_000007.jpg", 48, 32)
    assert album.picture("test/b & <c>", 7) is one
    assert album.picture("test/a", 40) is None  # behind its end
    assert album.picture("test/none", 0) is None
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["001_000007.jpg"]
    image = cv2.imread(str(tmp_path / "pictures/001_000007.jpg"))
    assert abs(int(image.mean()) - 74) <= 1


# ---- the page


def test_what_is_in_the_page(tmp_path):
    made.write_frames(tmp_path / "frames")
    runs = [made.evaluation("mnad", 0.8), made.evaluation("frame_difference", 0.6, maps=False)]
    page = written(tmp_path, runs, frames="frames")
    for section in ("results", "ladder", "roc", "scores", "frames", "cost", "recipes", "protocols"):
        assert f'<section id="{section}">' in page
    assert "100 frames of 2 test videos, 10 of them abnormal (10.0&nbsp;%)" in " ".join(page.split())
    assert "Made data, not a benchmark." in page
    assert "hash-yard" in page
    assert "70.0 to 85.0" in page
    sources = re.findall(r'<img src="([^"]+)"', page)
    assert sources
    assert all((tmp_path / "report" / source).exists() for source in sources)
    assert page.count('class="seen map"') == 4  # highest twice, false alarm, miss
    assert page.count("data:image/png") == 4


def test_what_is_not_as_published_is_said(tmp_path):
    assert "Not trained or scored" not in written(tmp_path, [made.evaluation("mnad", 0.8)])
    small = made.evaluation("mnad", 0.8)
    small.recipe["mnad"]["fit"]["size"] = 64
    page = written(tmp_path, [small, made.evaluation("mama", 0.7)])
    assert "by the published recipe: mnad (" in page
    assert 'fit.size 64 <span class="quiet">(published 256)</span>' in page


def test_names_are_text_whatever_they_hold(tmp_path):
    made.write_frames(tmp_path / "frames")
    nasty = made.evaluation("mnad", 0.8, name="</script><script>alert(1)</script>")
    page = written(tmp_path, [nasty], frames="frames")
    assert "<title>A yard &amp; &#34;gate&#34; &lt;7&gt;: Vigil</title>" in page
    assert "test/b &amp; &lt;c&gt;" in page
    assert "<c>" not in page
    assert "alert(1)</script>" not in page
    assert (tmp_path / "report" / "data.js").read_text().isascii()


def test_the_same_evaluations_give_the_same_bytes(tmp_path):
    made.write_frames(tmp_path / "frames")
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old").touch()

    def content():
        written(tmp_path, [made.evaluation("mnad", 0.8), made.evaluation("mama", 0.7)], frames="frames")
        return {path.name: path.read_bytes() for path in (tmp_path / "report").rglob("*") if path.is_file()}

    first = content()
    assert "old" not in first
    assert content() == first


def test_a_failure_leaves_the_old_page(tmp_path):
    written(tmp_path, [made.evaluation("mnad", 0.8)])
    before = (tmp_path / "report" / "index.html").read_bytes()
    broken = made.evaluation("mnad", 0.8)
    del broken.metrics["honest"]
    with pytest.raises(KeyError):
        written(tmp_path, [broken])
    assert (tmp_path / "report" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_label_sets_are_told_apart(tmp_path):
    one = made.evaluation("mnad", 0.8, label_sets=("official", "other"))
    for part in ("honest", "paper"):
        one.metrics[part]["other"] = one.metrics[part]["other"] | {"auc_micro": 0.55}
    page = written(tmp_path, [one])
    cells = re.findall(r'<td data-key="auc" data-value="([^"]*)"', page)
    assert [float(cell) for cell in cells] == [0.8, 0.55]
    assert page.count('name="set"') == 2
    assert [*data_of(tmp_path)["videos"][0]["truth"]] == ["official", "other"]


def test_two_hundred_videos_without_labels_and_frames(tmp_path):
    lengths = {f"test/{number:03d}": 50 for number in range(200)}
    table = made.frame_table(lengths)
    videos = pd.DataFrame({"video": [*lengths], "frames": 50, "fps": np.nan, "height": 0, "width": 0})
    page = written(tmp_path, [made.evaluation("mnad", None, frames=table)], videos=videos)
    assert page.count('class="card"') == 200
    assert "without labels" in page
    assert 'id="roc"' not in page
    assert 'id="frames"' not in page
    assert "AUC</button>" not in page
    assert ">alarms</button>" in page
    assert data_of(tmp_path)["sets"] == []
    assert data_of(tmp_path)["videos"][0]["fps"] is None


def test_a_method_may_judge_other_videos_or_none_of_a_video(tmp_path):
    part = made.frame_table({"test/a": 40})
    page = written(tmp_path, [made.evaluation("mnad", 0.8), made.evaluation("s3r", 0.9, frames=part, data="d2")])
    videos = data_of(tmp_path)["videos"]
    assert [sorted(video["rows"]) for video in videos] == [["0", "1"], ["0"]]
    assert page.count("<tbody>") >= 2


def test_shanghaitech_stays_small(tmp_path):
    lengths = {f"test/{number:03d}": 382 if number < 24 else 381 for number in range(107)}
    rng = np.random.default_rng(0)
    frames = pd.concat(pd.DataFrame({"video": video, "frame": range(count)}) for video, count in lengths.items())
    frames = frames.assign(alarm=False, abnormal=rng.random(len(frames)) < 0.4).reset_index(drop=True)
    runs = []
    for number in range(7):
        own = frames.assign(honest=rng.normal(size=len(frames)), paper=rng.random(len(frames)))
        runs.append(made.evaluation(f"method_{number}", 0.8, frames=own))
    videos = pd.DataFrame({"video": [*lengths], "frames": [*lengths.values()], "fps": 24.0})
    written(tmp_path, runs, videos=videos)
    assert sum(lengths.values()) == 40_791
    assert (tmp_path / "report" / "data.js").stat().st_size < 3e6
    assert (tmp_path / "report" / "index.html").stat().st_size < 2e6
    assert all(video["step"] == 1 for video in data_of(tmp_path)["videos"])


def test_axes_hold_their_values_and_have_few_ticks():
    for values in ([0.55, 0.888], [0.999, 1.0], [0.0, 1.0], [0.7], [0.5, 0.5]):
        one = axis(values, 0.1, 1.0)
        assert one.low <= min(values)
        assert max(values) <= one.high
        assert 1 <= len(one.ticks) <= 6
        assert all(0 <= one.at(tick) <= 100 for tick in one.ticks)


def test_the_other_rules_of_macro_averaging_are_said(tmp_path):
    page = re.sub(r"\s+", " ", written(tmp_path, [made.evaluation("mnad", 0.7)]))
    assert "of mnad to 77.1 where every video is given one more" in page
    assert "to 75.2 or 25.3 where their area is taken for 1 or for 0" in page
