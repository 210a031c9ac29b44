"""Spectral scores against plain SVDs, and against WeightWatcher."""

import numpy as np
import pytest
import torch
import weightwatcher
from hypothesis import example, given, settings
from hypothesis import strategies as st

from layerpick.probes.weights.spectra import (
    power_law_exponent,
    singular_values,
    spectrum_snr,
    stable_rank,
)

shapes = st.tuples(st.integers(4, 30), st.integers(4, 30))


def heavy(shape, seed=0) -> torch.Tensor:
    """A matrix with a heavy-tailed spectrum."""
    return torch.from_numpy(np.random.default_rng(seed).standard_t(3, size=shape))


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 10**6))
def test_singular_values_are_those_of_an_svd(shape, seed):
    matrix = heavy(shape, seed)
    expected = np.linalg.svd(matrix.numpy(), compute_uv=False)
    # From the Gram matrix: absolute accuracy is √ε of the largest.
    assert singular_values(matrix) == pytest.approx(expected, abs=1e-7 * expected[0])


def test_rounding_is_not_spectrum():
    column, row = heavy((20, 1)), heavy((1, 30))
    assert len(singular_values(column @ row)) == 1
    assert len(singular_values(torch.zeros(5, 6))) == 0


@settings(max_examples=30, deadline=None)
@given(shapes, st.integers(0, 10**6), st.floats(0.01, 100))
@example((4, 4), 9437, 1.0)  # its largest singular value is 11,000 times its smallest
def test_what_scaling_and_turning_a_matrix_changes(shape, seed, scale):
    matrix = heavy(shape, seed)
    values, scaled = singular_values(matrix), singular_values(scale * matrix.T)
    assert stable_rank(scaled) == pytest.approx(stable_rank(values))
    assert 1 <= stable_rank(values) <= len(values) + 1e-9
    assert power_law_exponent(scaled) == pytest.approx(power_law_exponent(values), rel=1e-5)
    # Spectrum divides by the largest singular value, so its score goes down with scale. Eigenvalues
    # of the Gram matrix are off by ε of the largest, so the smallest value by ε of their ratio.
    snr = spectrum_snr(values, shape)
    rounding = 4 * len(values) * np.finfo(float).eps * (values[0] / values[-1]) ** 2
    assert spectrum_snr(scaled, shape[::-1]) * scale == pytest.approx(snr, rel=rounding, abs=1e-9)


def test_signal_to_noise_by_hand():
    # Quartiles 2 and 4, σ = 2 / 1.349, bound = 1.4826 × (1 + √(1/4)) = 2.2239
    values = np.array([8.0, 4.0, 3.0, 2.0, 1.0])
    assert spectrum_snr(values, (5, 20)) == pytest.approx((8 + 4 + 3) / (2 + 1) / 8)
    even = np.array([4.0, 4.0, 4.0])  # nothing stands out: all is noise
    assert spectrum_snr(even, (3, 3)) == 0
    # The bound lies below all values; the smallest counts as noise.
    assert spectrum_snr(np.array([5.1, 5.0, 4.9]), (3, 3)) == pytest.approx(10.1 / 4.9 / 5.1)


def test_the_exponent_of_a_power_law_is_found():
    """λ drawn from p(λ) ∝ λ^−α above 1: the estimate's error is about (α − 1) / √n."""
    generator = np.random.default_rng(0)
    for alpha in (2.0, 3.5):
        eigenvalues = generator.random(4000) ** (-1 / (alpha - 1))
        assert power_law_exponent(np.sqrt(eigenvalues)) == pytest.approx(alpha, abs=0.2)
    assert np.isnan(power_law_exponent(np.array([1.0, 2.0])))
    assert np.isnan(power_law_exponent(np.ones(9)))


@pytest.mark.parametrize("shape", [(64, 96), (96, 48), (30, 200)])
def test_weightwatcher_agrees(shape):
    """Same fit, same eigenvalues: only rounding of two SVDs differs.

    WeightWatcher drops eigenvalues below 10⁻⁵ and fits fewer than 20 otherwise; these matrices
    have neither.
    """
    matrix = heavy(shape).float()
    linear = torch.nn.Linear(shape[1], shape[0], bias=False)
    linear.weight.data = matrix
    details = weightwatcher.WeightWatcher(model=torch.nn.Sequential(linear)).analyze()
    values = singular_values(matrix)
    assert power_law_exponent(values) == pytest.approx(details.alpha[0], rel=1e-6)
    assert stable_rank(values) == pytest.approx(details.stable_rank[0], rel=1e-6)
    assert (values**2).sum() == pytest.approx(details.norm[0], rel=1e-6)
