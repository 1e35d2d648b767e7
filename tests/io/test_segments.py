"""Reading what pixels belong to."""

import numpy as np
import pytest

from stages import segments
from stages.command import VigilError
from stages.io.segments import CLASSES, SEGMENTS, read_segments


def test_logits_are_read_as_they_were_written_and_cannot_be_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logits = np.random.default_rng(0).normal(size=(3, CLASSES, 4, 4)).astype(np.float16)
    path = SEGMENTS / "train/01.npy"
    path.parent.mkdir(parents=True)
    np.save(path, logits)
    found = read_segments("train/01")
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, logits)
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_the_stage_writes_the_classes_that_are_read():
    assert len(segments.CLASSES) == CLASSES


def test_absent_logits_are_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VigilError, match=r"01.npy not found: run `dvc repro stages/dvc.yaml:segments` first"):
        read_segments("train/01")
