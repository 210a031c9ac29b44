"""The contract of every probe, as checks: for the tests of one's own.

    from layerpick.probes.testing import check_probe

    def test_my_probe_keeps_the_contract(probe_input):
        check_probe(MyProbe, probe_input)
        check_repeats(MyProbe, probe_input)

`probe_input` is a `ProbeInput`, of any model and rollouts;
`layerpick.probes.testing.make_probe_input` samples one.
"""

from __future__ import annotations

import numpy as np

from layerpick.probes.base import CLASSES, Probe, ProbeInput, ProbeResult, ProbeSizes
from layerpick.probes.run import run_probe
from layerpick.training.algorithms.table import make_algorithm
from layerpick.training.episodes.play import SamplingSettings
from layerpick.training.episodes.rollouts import sample_rollouts
from layerpick.training.models.loading import LoadedModel
from layerpick.training.tasks.base import Task


def make_probe_input(
    model: LoadedModel,
    task: Task,
    *,
    prompts: int = 4,
    group_size: int = 4,
    tokens: int = 8,
    seed: int = 0,
    sizes: ProbeSizes | None = None,
) -> ProbeInput:
    """What a probe is given: rollouts of a few prompts, sampled with the task's own algorithm."""
    sampling = SamplingSettings(tokens, stop=task.settings.stop)
    return ProbeInput(
        model,
        sample_rollouts(
            model, task, prompts=prompts, group_size=group_size, sampling=sampling, seed=seed
        ),
        make_algorithm(task.default_algorithm),
        seed,
        sizes=sizes or ProbeSizes(),
        task=task,
        sampling=sampling,
    )


def check_description(probe: type[Probe]) -> None:
    """A probe says what it is; AssertionError otherwise."""
    assert probe.name and probe.name.isidentifier(), "a name that can be typed"
    assert probe.needs in CLASSES, f"needs is one of {', '.join(CLASSES)}"
    names = [info.name for info in probe.features]
    assert names and len(set(names)) == len(names), "features with different names"
    for info in probe.features:
        assert info.about and info.formula and info.source, f"{info.name} is described"
    assert set(probe.headings) <= set(names), "headings of its own features"


def check_probe(probe: type[Probe], probe_input: ProbeInput) -> ProbeResult:
    """Every feature it names is measured and finite, and the model is left as it was.

    Returns the result. Raises AssertionError with what does not hold.
    """
    check_description(probe)
    weights = {name: value.clone() for name, value in probe_input.model.model.state_dict().items()}
    done: list[int] = []
    result = run_probe(probe(), probe_input, done.append)
    assert result.failure is None, f"{probe.name}: {result.failure}"
    promised = {info.name for info in probe.features}
    assert set(result.features) == promised, f"{probe.name} measures what it names"
    for name, values in result.features.items():
        assert values.shape == (probe_input.layer_count,), f"{name}: one number per layer"
        assert values.dtype == np.float64, f"{name}: float64"
        assert np.isfinite(values).all(), f"{name}: finite"
    assert sum(done) == probe().ticks(probe_input), "as many ticks reported as announced"
    for name, value in probe_input.model.model.state_dict().items():
        assert value.equal(weights[name]), f"{name} is what it was before"
    assert not any(p.requires_grad for p in probe_input.model.model.parameters()), (
        "no gradients left on"
    )
    return result


def check_repeats(probe: type[Probe], probe_input: ProbeInput) -> None:
    """Measured twice, a probe finds the same numbers; AssertionError otherwise."""
    first, second = (run_probe(probe(), probe_input).features for _ in range(2))
    for name, values in first.items():
        assert values.tolist() == second[name].tolist(), f"{name}: equal seeds, equal numbers"
