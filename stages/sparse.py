"""Sparse coding: orthogonal matching pursuit of all samples at once, and K-SVD.

X n samples x F features, D S atoms x F features, C n samples x S codes with at most k non-zeros a row: X = C D nearly.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CHUNK = 1 << 17  # numbers in an array of a chunk of samples: what stays in a processor's cache


def omp(samples: Float[np.ndarray, "n F"], atoms: Float[np.ndarray, "S F"], nonzeros: int) -> Float[np.ndarray, "n S"]:
    """Orthogonal matching pursuit: each sample by at most `nonzeros` atoms, chosen greedily, weighted by least squares.

    Batch OMP with a progressive Cholesky factor (Rubinstein, Zibulevsky, Elad, "Efficient Implementation of the K-SVD
    Algorithm using Batch Orthogonal Matching Pursuit", 2008, section 3), here for all samples in step. Gives the codes
    of scikit-learn's `orthogonal_mp_gram`: atoms need not have unit length, and the next atom is the one whose inner
    product with the residual is the largest. Of several equal ones it is the first. A sample gets fewer non-zeros
    where the square of that inner product, or of the part of the atom that is new, falls to the precision of the
    numbers; so a sample of zeros, or one orthogonal to every atom, gets none.

    Raises ValueError unless 1 <= nonzeros <= S.
    """
    if not 1 <= nonzeros <= len(atoms):
        raise ValueError(f"{nonzeros} non-zeros of {len(atoms)} atoms")
    kind = np.result_type(samples, atoms)
    gram = atoms @ atoms.T
    codes = np.zeros((len(samples), len(atoms)), kind)
    step = max(CHUNK // len(atoms), 1)
    for start in range(0, len(samples), step):
        part = slice(start, start + step)
        _omp_chunk(samples[part] @ atoms.T, gram, nonzeros, codes[part])
    return codes


def _omp_chunk(
    products: Float[np.ndarray, "n S"], gram: Float[np.ndarray, "S S"], nonzeros: int, codes: Float[np.ndarray, "n S"]
) -> None:
    """Fill `codes` from inner products of samples and atoms; `products` is overwritten with those of the residuals.

    The chosen atoms are orthogonalised as they come: a sample's atom j is sum_i L[j, i] q_i. Then the residual loses
    z_j q_j, and all that is needed of q_j are its inner products with the atoms, U_j. Codes follow from L^T c = z.
    """
    rows = np.arange(len(products))
    tiny = np.finfo(products.dtype).eps
    lower = np.zeros((nonzeros, nonzeros, len(products)), products.dtype)  # L, samples last
    chosen = np.zeros((nonzeros, len(products)), np.intp)
    weights = np.zeros((nonzeros, len(products)), products.dtype)  # z
    new = np.empty((nonzeros, *products.shape), products.dtype)  # U
    active = np.ones(len(products), bool)
    for j in range(nonzeros):
        best = np.abs(products).argmax(1)
        value = products[rows, best]
        lower[j, :j] = new[:j, rows, best]
        rest = gram[best, best] - (lower[j, :j] ** 2).sum(0)
        active &= (value**2 >= tiny) & (rest > tiny) & ~(chosen[:j] == best).any(0)
        if not active.any():
            lower[range(j, nonzeros), range(j, nonzeros)] = 1
            break
        lower[j, :j, ~active] = 0
        lower[j, j] = np.sqrt(np.where(active, rest, 1))
        chosen[j], weights[j] = best, np.where(active, value / lower[j, j], 0)
        np.take(gram, best, 0, out=new[j])
        for i in range(j):
            new[j] -= lower[j, i, :, None] * new[i]
        new[j] /= lower[j, j, :, None]
        products -= weights[j][:, None] * new[j]
    for j in reversed(range(nonzeros)):
        weights[j] -= np.einsum("in,in->n", lower[j + 1 :, j], weights[j + 1 :])
        weights[j] /= lower[j, j]
        codes[rows, chosen[j]] += weights[j]


@dataclass(frozen=True)
class Learnt:
    """What K-SVD found.

    Attributes:
        atoms: S x F, of unit length.
        codes: n x S, of the samples over the atoms.
        errors: sum of squares of X - C D before the first round, and after each; never rises.
        replaced: how often an atom that no sample used was replaced.
    """

    atoms: np.ndarray
    codes: np.ndarray
    errors: list[float]
    replaced: int


def ksvd(samples: Float[np.ndarray, "n F"], size: int, nonzeros: int, rounds: int, seed: int) -> Learnt:
    """Learn atoms over which each sample has a code of few non-zeros.

    Args:
        samples: at least `size` of them differ from zero.
        size: number of atoms.
        nonzeros: at most, of a code.
        rounds: of updating all atoms and coding all samples.
        seed: of the first atoms.

    Approximate K-SVD ("Efficient Implementation of the K-SVD Algorithm using Batch Orthogonal Matching Pursuit",
    section 4; the original is Aharon, Elad, Bruckstein, IEEE Trans. Signal Processing 2006, figure 2): in each round
    every atom takes the direction that explains best what the others leave of its samples, then all samples are coded
    anew. It starts from `size` samples, drawn without repetition. An atom that no sample uses is replaced by the
    sample that is represented worst. Pursuit is greedy and could make a sample worse than it was; such a sample keeps
    its code, so the error never rises.

    Raises ValueError where fewer samples than `size` differ from zero.
    """
    rng = np.random.default_rng(seed)
    some = np.flatnonzero(samples.any(1))
    if len(some) < size:
        raise ValueError(f"{size} atoms of {len(some)} samples that are not zero")
    atoms = _unit(samples[rng.choice(some, size, replace=False)])
    codes = omp(samples, atoms, nonzeros)
    residual = samples - codes @ atoms
    errors, replaced = [float((residual**2).sum())], 0
    for _ in range(rounds):
        unused = np.flatnonzero(~codes.any(0))
        worst = some[np.argsort(-(residual[some] ** 2).sum(1), kind="stable")[: len(unused)]]
        atoms[unused] = _unit(samples[worst])
        replaced += len(unused)
        for k in np.flatnonzero(codes.any(0)):
            users = np.flatnonzero(codes[:, k])
            rest = residual[users] + np.outer(codes[users, k], atoms[k])
            atoms[k] = _unit(codes[users, k] @ rest)
            codes[users, k] = rest @ atoms[k]
            residual[users] = rest - np.outer(codes[users, k], atoms[k])
        again = omp(samples, atoms, nonzeros)
        found = samples - again @ atoms
        better = (found**2).sum(1) < (residual**2).sum(1)
        codes[better], residual[better] = again[better], found[better]
        errors.append(float((residual**2).sum()))
    return Learnt(atoms, codes, errors, replaced)


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length 1 in the same directions; none may be zero."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
