"""Sparse coding: scikit-learn's codes, known answers, and a K-SVD whose error never rises."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import sparse_encode
from sklearn.linear_model import orthogonal_mp_gram

from stages import sparse
from stages.sparse import ksvd, omp


def problem(seed, n, size, features, unit=True):
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(size, features))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True) if unit else rng.uniform(0.5, 3, (size, 1))
    return rng.normal(size=(n, features)), atoms


def reference(samples, atoms, nonzeros):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it warns where it stops early
        return orthogonal_mp_gram(atoms @ atoms.T, atoms @ samples.T, n_nonzero_coefs=nonzeros).T.reshape(
            len(samples), len(atoms)
        )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 30),
    size=st.integers(2, 24),
    features=st.integers(2, 40),
    nonzeros=st.integers(1, 8),
    unit=st.booleans(),
)
def test_codes_are_scikit_learns(seed, n, size, features, nonzeros, unit):
    samples, atoms = problem(seed, n, size, features, unit)
    nonzeros = min(nonzeros, size, features)
    codes = omp(samples, atoms, nonzeros)
    assert np.allclose(codes, reference(samples, atoms, nonzeros), rtol=1e-6, atol=1e-6)
    assert ((codes != 0).sum(1) <= nonzeros).all()


def test_codes_are_those_of_sparse_encode_in_several_chunks(monkeypatch):
    samples, atoms = problem(1, 300, 40, 20)
    expected = sparse_encode(samples, atoms, algorithm="omp", n_nonzero_coefs=5)
    assert np.allclose(omp(samples, atoms, 5), expected, atol=1e-9)
    monkeypatch.setattr(sparse, "CHUNK", 40 * 7)
    assert np.allclose(omp(samples, atoms, 5), expected, atol=1e-9)


def test_orthogonal_atoms_by_hand():
    codes = omp(np.array([[3.0, -4.0, 1.0]]), np.diag([1.0, 1.0, 2.0]), 2)
    assert np.array_equal(codes, [[3.0, -4.0, 0.0]])
    # an atom twice as long wins with its inner product, and gets half the weight
    codes = omp(np.array([[3.0, -4.0, 2.5]]), np.diag([1.0, 1.0, 2.0]), 1)
    assert np.array_equal(codes, [[0.0, 0.0, 1.25]])


def test_weights_are_of_least_squares():
    samples, atoms = problem(3, 20, 12, 30)
    codes = omp(samples, atoms, 4)
    for sample, code in zip(samples, codes, strict=True):
        support = np.flatnonzero(code)
        best = np.linalg.lstsq(atoms[support].T, sample, rcond=None)[0]
        assert np.allclose(code[support], best)


def test_all_atoms_give_the_sample_itself():
    samples, atoms = problem(4, 6, 5, 5)
    assert np.allclose(omp(samples, atoms, 5) @ atoms, samples)


def test_zeros_ties_and_dependent_atoms():
    atoms = np.array([[1.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0]])
    samples = np.array([[0.0, 0, 0], [2.0, 0, 0], [0, 0, 5.0], [3.0, 1.0, 0]])
    codes = omp(samples, atoms, 3)
    # nothing; the first of two equal atoms, once; orthogonal to all; both directions
    assert np.allclose(codes, [[0, 0, 0], [2, 0, 0], [0, 0, 0], [3, 0, 1]])


def test_samples_do_not_see_each_other():
    samples, atoms = problem(5, 9, 10, 12)
    samples[4] = 0
    codes = omp(samples, atoms, 3)
    order = np.random.default_rng(0).permutation(9)
    assert np.allclose(omp(samples[order], atoms, 3), codes[order], atol=1e-12)


def test_float32_stays_float32():
    samples, atoms = problem(6, 5, 6, 8)
    codes = omp(samples.astype(np.float32), atoms.astype(np.float32), 2)
    assert codes.dtype == np.float32
    assert np.allclose(codes, omp(samples, atoms, 2), atol=1e-5)


@pytest.mark.parametrize("nonzeros", [0, 4])
def test_impossible_numbers_of_nonzeros(nonzeros):
    with pytest.raises(ValueError, match="of 3 atoms"):
        omp(np.ones((2, 5)), np.ones((3, 5)), nonzeros)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), size=st.integers(2, 12), nonzeros=st.integers(1, 4), kinds=st.integers(1, 40))
def test_ksvd_never_gets_worse_and_says_the_truth(seed, size, nonzeros, kinds):
    rng = np.random.default_rng(seed)
    samples = np.abs(rng.normal(size=(kinds, 16)))[rng.integers(0, kinds, 50)]  # repeated samples leave atoms unused
    learnt = ksvd(samples, size, min(nonzeros, size), 6, seed)
    errors = np.array(learnt.errors)
    assert (np.diff(errors) <= 1e-9 * errors[0] + 1e-12).all()
    assert np.isclose(errors[-1], ((samples - learnt.codes @ learnt.atoms) ** 2).sum(), atol=1e-9)
    assert ((learnt.codes != 0).sum(1) <= nonzeros).all()
    assert np.allclose(np.linalg.norm(learnt.atoms, axis=1), 1)


def test_ksvd_finds_the_atoms_that_made_the_samples():
    rng = np.random.default_rng(2)
    atoms = rng.normal(size=(20, 30))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    codes = np.zeros((1500, 20))
    for row in codes:
        row[rng.choice(20, 3, replace=False)] = rng.normal(size=3)
    learnt = ksvd(codes @ atoms, 20, 3, 80, 1)
    assert (np.abs(learnt.atoms @ atoms.T).max(0) > 0.99).sum() >= 18  # all 20 here; it may end in a local minimum
    assert learnt.errors[-1] < 0.05 * learnt.errors[0]


def test_ksvd_replaces_atoms_that_nobody_uses():
    samples = np.repeat(np.eye(6)[:, :5], [30, 1, 1, 1, 1, 0], axis=0)  # all first atoms may be the same sample
    learnt = ksvd(samples, 5, 1, 5, 0)
    assert learnt.replaced > 0
    assert np.isclose(learnt.errors[-1], 0)
    assert len(np.unique(np.abs(learnt.atoms).argmax(1))) == 5


def test_ksvd_follows_its_seed():
    samples = problem(7, 60, 1, 20)[0]
    first, again, other = (ksvd(samples, 8, 2, 3, seed) for seed in (0, 0, 1))
    assert np.array_equal(first.atoms, again.atoms)
    assert not np.allclose(first.atoms, other.atoms)


def test_ksvd_needs_enough_samples():
    with pytest.raises(ValueError, match="3 atoms of 2 samples"):
        ksvd(np.array([[1.0, 0], [0, 1], [0, 0]]), 3, 1, 1, 0)
