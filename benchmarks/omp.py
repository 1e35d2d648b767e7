"""Orthogonal matching pursuit: ours, all samples at once, against scikit-learn's, one sample after the other.

    python -m benchmarks.omp [--repeats 5]

Both code the same samples over the same atoms, and both are called as one would call them: `omp` and
`sparse_encode(algorithm="omp")`, Gram matrix included. They take turns in one run with the matrix product of samples
and atoms alone, which no way can do without. Medians. The objective is the sum of squares that the codes leave. Made
data: sums of three atoms, and noise.
"""

import argparse
import time

import numpy as np
from sklearn.decomposition import sparse_encode
from threadpoolctl import threadpool_info

from stages.sparse import omp

# samples, atoms, values of a sample, non-zeros
SIZES = (
    (2048, 158, 175, 2),  # S3R on ShanghaiTech: channels, slots, videos
    (2048, 400, 800, 2),  # on UCF-Crime
    (20_000, 158, 2048, 2),  # snippets, atoms, channels
    (20_000, 158, 2048, 8),
)


def made(n: int, size: int, features: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples and the atoms that they are made of, with noise."""
    rng = np.random.default_rng(0)
    atoms = rng.normal(size=(size, features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((n, size))
    rows = np.arange(n)
    for _ in range(3):
        codes[rows, rng.integers(0, size, n)] += rng.normal(size=n)
    return codes @ atoms + rng.normal(size=(n, features)) * 0.3 / np.sqrt(features), atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    print(f"threads of the linear algebra: {max(info['num_threads'] for info in threadpool_info())}")
    for n, size, features, nonzeros in SIZES:
        samples, atoms = made(n, size, features)
        ways = {
            "product": lambda: samples @ atoms.T,  # noqa: B023, called before the next turn
            "ours": lambda: omp(samples, atoms, nonzeros),  # noqa: B023
            "scikit-learn": lambda: sparse_encode(samples, atoms, algorithm="omp", n_nonzero_coefs=nonzeros),  # noqa: B023
        }
        times: dict[str, list[float]] = {way: [] for way in ways}
        codes: dict[str, np.ndarray] = {}
        for _ in range(repeats):
            for way, call in ways.items():
                start = time.perf_counter()
                codes[way] = call()
                times[way].append(time.perf_counter() - start)
        product, ours, theirs = (1000 * float(np.median(values)) for values in times.values())
        objectives = [float(((samples - found @ atoms) ** 2).sum()) for found in (codes["ours"], codes["scikit-learn"])]
        difference = float(np.abs(codes["ours"] - codes["scikit-learn"]).max())
        print(
            f"{n} x {features} samples, {size} atoms, {nonzeros} non-zeros: {ours:.1f} ms (the product alone "
            f"{product:.1f} ms), scikit-learn {theirs:.1f} ms, {theirs / ours:.1f} times ours; objectives "
            f"{objectives[0]:.9g} and {objectives[1]:.9g}; codes differ by {difference:.1g} at most"
        )


if __name__ == "__main__":
    main()
