"""Which layers a specification names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerpick.training.errors import LayerpickError
from layerpick.training.models.choosing import choose_layers


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 10))
def test_layers_are_chosen_by_specification(count, wanted, step):
    assert choose_layers("all", count) == tuple(range(count))
    assert choose_layers(f"every:{step}", count) == tuple(range(0, count, step))
    middle = choose_layers(f"middle:{wanted}", count)
    assert len(middle) == min(wanted, count)
    assert abs((middle[0] + middle[-1]) / 2 - (count - 1) / 2) <= 0.5
    assert choose_layers(f"0,{count - 1},0", count) == tuple(sorted({0, count - 1}))
    with pytest.raises(LayerpickError, match=f"layers are 0 to {count - 1}"):
        choose_layers(str(count), count)


@pytest.mark.parametrize(
    "spec", ["", "first", "middle", "middle:0", "every:0", "1,,2", "-1", "1-3"]
)
def test_other_specifications_are_refused(spec):
    with pytest.raises(LayerpickError, match="--layers"):
        choose_layers(spec, 8)
