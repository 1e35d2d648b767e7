"""The frames that are shown: the highest, one an event."""

import pandas as pd

from stages.evaluation.highlights import highest_frames, scored_objects
from stages.recipes import Fusion


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


def test_objects_are_scored_by_the_training_ones():
    box = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0}
    scores = pd.DataFrame(
        [
            {"video": "t", "split": "train", "frame": 0, **box, "raw": 1.0, "flow": 0.0},
            {"video": "t", "split": "train", "frame": 1, **box, "raw": 3.0, "flow": 4.0},
            {"video": "a", "split": "test", "frame": 7, **box, "raw": 5.0, "flow": 2.0},
        ]
    )
    found = scored_objects(scores, Fusion({"raw": 1.0, "flow": 2.0}, "train_zscore", "objects"))
    assert found.to_dict("records") == [{"video": "a", "frame": 7, **box, "score": 3.0}]
