"""The frames that are shown: the highest, one an event; false alarms; misses."""

import pandas as pd

from stages.evaluation.highlights import SHOWN, highest_frames, shown


def test_one_frame_of_each_event_by_hand():
    frames = pd.DataFrame(
        {
            "video": ["a"] * 4 + ["b"] * 2,
            "frame": [0, 1, 10, 19, 1, 2],
            "score": [5.0, 9.0, 8.0, 7.0, 8.5, 1.0],
        }
    )
    # a 10 is 9 frames from a 1, a 19 is 18 from it; b 1 is another video's
    found = highest_frames(frames, 4, apart=10)
    assert list(zip(found.video, found.frame, strict=True)) == [("a", 1), ("b", 1), ("a", 19)]
    assert list(highest_frames(frames, 2, apart=1).score) == [9.0, 8.5]


def test_false_alarms_and_misses_by_hand():
    frames = pd.DataFrame(
        {
            "video": ["a"] * 9 + ["b"] * 3,
            "frame": [*range(9), *range(3)],
            #         in vain        missed                 found             in vain       missed
            "score": [2.0, 3.0, 0.0, 0.2, 0.1, 0.0, 0.0, 2.0, 0.0, 9.0, 0.5, 0.0],
            "abnormal": [False, False, False, True, True, False, True, True, False, False, False, True],
        }
    )
    found = shown(frames, 1.0)
    highest = found.loc[found["kind"] == "highest"]
    assert list(zip(highest["video"], highest["frame"], strict=True)) == [("b", 0), ("a", 1)]
    assert found.loc[found["kind"] != "highest"].to_dict("records") == [
        {"kind": "false_alarm", "rank": 0, "video": "b", "frame": 0, "score": 9.0, "start": 0, "stop": 1},
        {"kind": "false_alarm", "rank": 1, "video": "a", "frame": 1, "score": 3.0, "start": 0, "stop": 2},
        {"kind": "miss", "rank": 0, "video": "a", "frame": 3, "score": 0.2, "start": 3, "stop": 5},
        {"kind": "miss", "rank": 1, "video": "b", "frame": 2, "score": 0.0, "start": 2, "stop": 3},
    ]
    assert set(shown(frames, None)["kind"]) == {"highest"}
    assert set(shown(frames.drop(columns="abnormal"), 1.0)["kind"]) == {"highest"}


def test_no_kind_is_shown_too_often():
    frames = pd.DataFrame({"video": "a", "frame": range(60), "score": [0.0, 2.0] * 30, "abnormal": False})
    found = shown(frames, 1.0)
    assert found["kind"].value_counts().to_dict() == {"false_alarm": SHOWN, "highest": 3}
