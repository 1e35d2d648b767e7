"""Error maps on disk: where in a frame a network errs, as the column `map` of a table of scores.

A map is SIDE x SIDE cells, float16, rows first: the root of the mean squared error of a cell's pixels, which are 0..1.
"""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Float16

SIDE = 32  # cells in each direction


def packed(maps: Float[np.ndarray, "N side side"]) -> list[bytes]:
    """Maps as a table holds them."""
    return [one.tobytes() for one in np.asarray(maps, np.float16)]


def unpacked(column: Iterable[bytes]) -> Float16[np.ndarray, "N side side"]:
    """The maps of a table's column."""
    return np.frombuffer(b"".join(column), np.float16).reshape(-1, SIDE, SIDE)
