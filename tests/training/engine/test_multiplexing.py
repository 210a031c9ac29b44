"""Which models can be multiplexed."""

from __future__ import annotations

import pytest

from layerpick.training.engine.stacked import check_multiplexing
from layerpick.training.errors import LayerpickError


def test_every_family_can_be_multiplexed(tiny, family):
    check_multiplexing(tiny(family))
    assert "forward" not in vars(tiny(family).layers[0])


def test_layers_that_mix_rows_are_refused(tiny, monkeypatch):
    model = tiny("llama")
    plain = type(model.layers[1]).forward

    def mixing(self, hidden_states, *args, **kwargs):
        output = plain(self, hidden_states, *args, **kwargs)
        return output + output.mean(dim=0, keepdim=True)

    monkeypatch.setattr(type(model.layers[1]), "forward", mixing)
    with pytest.raises(LayerpickError, match="cannot be trained in one pass.*--engine trl"):
        check_multiplexing(model)
