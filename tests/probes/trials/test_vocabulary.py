"""Log-probabilities from likely words and one for all others, against the whole vocabulary's."""

import pytest
import torch

from layerpick.probes.trials.vocabulary import LIKELY, Written, log_probs_from, remember_head

POSITIONS, WIDTH, WORDS = 6, 16, 20_000


@pytest.fixture
def head() -> torch.Tensor:
    """(V, width): a few words that the first direction favours, and many that it does not."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.2 * torch.randn(WORDS, WIDTH, generator=generator)
    weight[:50, 0] += 2.0
    return weight


@pytest.fixture
def hidden() -> torch.Tensor:
    """(M, width)."""
    found = torch.randn(POSITIONS, WIDTH, generator=torch.Generator().manual_seed(1))
    found[:, 0] = 4.0
    return found


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("biased", [False, True])
def test_a_step_is_read_as_over_the_whole_vocabulary(head, hidden, temperature, biased):
    targets = torch.tensor([0, 7, 49, 50, 19_999, 3, 3])
    place = torch.tensor([0, 1, 2, 3, 4, 5, 0])
    written = Written(targets, place, temperature)
    bias = torch.linspace(-0.5, 0.5, WORDS) if biased else None
    base = remember_head(hidden, head, bias, written)
    assert len(base.words) < WORDS / 10, "only some words are likely"
    assert base.rest.max() > 0.005, "all others hold something together"

    generator = torch.Generator().manual_seed(2)
    step = 0.1 * torch.randn(POSITIONS, WIDTH, generator=generator)
    moved = (hidden + step).requires_grad_()
    found = log_probs_from(moved, base, head, written)
    upstream = torch.linspace(-1, 1, len(targets))
    (slope,) = torch.autograd.grad(found, moved, upstream)

    exact_hidden = moved.detach().double().requires_grad_()
    logits = exact_hidden @ head.double().T + (0 if bias is None else bias.double())
    exact = (logits / temperature).log_softmax(dim=1)[place, targets]
    (expected_slope,) = torch.autograd.grad(exact, exact_hidden, upstream.double())

    # All others count as one word: the second order of what they are moved apart is lost.
    apart = (step @ head.T / temperature).double()
    p = (hidden.double() @ head.double().T + (0 if bias is None else bias.double())) / temperature
    unlikely = p.softmax(dim=1)
    unlikely[:, base.words] = 0
    share = unlikely.sum(dim=1, keepdim=True)
    variance = (unlikely * apart**2).sum(dim=1) - (unlikely * apart).sum(dim=1) ** 2 / share[:, 0]
    assert torch.allclose(found.double(), exact, atol=float(variance.max()) + 1e-5)
    assert variance.max() < 2e-3
    cosine = torch.cosine_similarity(slope.double().flatten(), expected_slope.flatten(), dim=0)
    assert cosine > 0.9999


def test_words_are_counted_one_by_one_where_all_are_likely(hidden):
    few = torch.randn(1 + int(0.001 / LIKELY), WIDTH, generator=torch.Generator().manual_seed(3))
    written = Written(torch.tensor([1]), torch.tensor([2]), 1.0)
    base = remember_head(hidden * 0.01, few, None, written)
    assert base.words.tolist() == list(range(len(few)))
    assert not base.rest.any()
    assert not base.centre.any()
