import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convergent.measures.selection import kth_largest


@settings(deadline=None)  # Numba compiles first.
@given(
    arrays(np.float64, st.integers(1, 40), elements=st.integers(-5, 5).map(float)),
    st.data(),
)
def test_it_is_the_value_at_its_place_in_order(values, data):
    k = data.draw(st.integers(1, values.size))
    before = values.copy()
    assert kth_largest(values, k) == np.sort(values)[-k]
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("order", [np.sort, lambda v: -np.sort(v), np.zeros_like])
def test_it_takes_sorted_and_equal_values(order):
    values = order(np.random.default_rng(0).normal(size=3000))
    for k in (1, 2, 1500, 3000):
        assert kth_largest(values, k) == np.sort(values)[-k]
