"""The growing cache against the library's."""

from __future__ import annotations

import torch
from transformers import DynamicCache

from layerpick.training.episodes.cache import growing_cache


def test_it_holds_what_the_librarys_cache_holds():
    """Through growth, dropped and repeated rows, and slots in another order."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = growing_cache(), DynamicCache()

    def same():
        for layer in range(2):
            for name in ("keys", "values"):
                found, expected = (getattr(c.layers[layer], name) for c in (ours, theirs))
                assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()

    def extend(rows, slots):
        for layer in range(2):
            made = [torch.randn(rows, 3, slots, 4, generator=generator) for _ in range(2)]
            found, expected = (cache.update(*made, layer) for cache in (ours, theirs))
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))

    extend(3, 5)
    for _ in range(20):
        extend(3, 1)
    rows = torch.tensor([2, 2, 0, 1])
    for cache in (ours, theirs):
        cache.batch_select_indices(rows)
    same()
    extend(4, 30)
    order = torch.rand(4, 55, generator=generator).argsort(dim=1)[:, :40]
    for layer in range(2):
        ours.layers[layer].take_slots(order)
        held = theirs.layers[layer]
        index = order[:, None, :, None].expand(-1, 3, -1, 4)
        held.keys, held.values = held.keys.gather(2, index), held.values.gather(2, index)
    same()
    extend(4, 2)
    same()


def test_a_token_is_written_in_place():
    cache = growing_cache()
    cache.update(torch.zeros(2, 1, 40, 4), torch.zeros(2, 1, 40, 4), 0)
    before = cache.layers[0].keys.data_ptr()
    cache.update(torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4), 0)
    assert cache.layers[0].keys.data_ptr() == before
    assert cache.layers[0].keys.shape == (2, 1, 41, 4)
