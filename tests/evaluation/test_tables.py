import pandas as pd

from stages.evaluation.tables import label_hash, rows_by


def test_rows_by_keeps_the_order_of_appearance():
    table = pd.DataFrame({"video": ["test/2", "test/10", "test/2"], "frame": [0, 0, 1]})
    assert {name: list(rows["frame"]) for name, rows in rows_by(table, "video").items()} == {
        "test/2": [0, 1],
        "test/10": [0],
    }
    assert list(rows_by(table, "video")) == ["test/2", "test/10"]


def test_label_hash_is_of_the_lines_in_order():
    table = pd.DataFrame({"video": "test/01", "frame": [0, 1, 2], "abnormal": [False, False, True]})
    # printf 'test/01,0,0\ntest/01,1,0\ntest/01,2,1\n' | sha256sum
    assert label_hash(table) == "253a2b890d3e"
    assert label_hash(table) != label_hash(table[::-1])
    assert label_hash(table) != label_hash(table.assign(abnormal=~table["abnormal"]))
