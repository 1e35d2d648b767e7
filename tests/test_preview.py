"""Previews show the middle frames of videos spread over the table, in true colours."""

from pathlib import Path

import numpy as np
from PIL import Image

from stages.preview import draw_preview, shown_frames
from stages.videos import read_videos


def test_middle_frames_of_spread_videos_red_first(prepared):
    shown = shown_frames(read_videos(), 2)
    assert [(video, frame) for video, frame, _ in shown] == [("train/1", 7), ("test/2", 7)]
    image = shown[0][2]
    assert image.shape == (40, 48, 3)
    assert tuple(image[15, 20]) == (250, 150, 200)  # the square's colour in conftest, blue first there
    assert len(shown_frames(read_videos(), 10)) == 4


def test_the_picture_is_written_and_repeatable(prepared):
    panel = np.zeros((40, 48, 3), np.uint8)
    panel[:, :, 0] = 255
    files = []
    for _ in range(2):
        draw_preview("made", "a title", [("one", [panel, panel[:20]]), ("two", [panel])])
        files.append(Path("metrics/previews/made.png").read_bytes())
    assert files[0] == files[1]
    pixels = np.asarray(Image.open("metrics/previews/made.png").convert("RGB"))
    assert (pixels == (255, 0, 0)).all(-1).mean() > 0.4
