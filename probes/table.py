"""The probes by name, from cheap to dear."""

from __future__ import annotations

from layerpick.probes.attribution import AttributionProbe
from layerpick.probes.base import CLASSES, Probe
from layerpick.probes.bypass import BypassProbe
from layerpick.probes.curvature import CurvatureProbe
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.hidden.probe import HiddenProbe
from layerpick.probes.trials.off_policy import OffPolicyProbe
from layerpick.probes.trials.on_policy import WarmUpProbe
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.probes.weights.probe import WeightsProbe
from layerpick.training.errors import LayerpickError

PROBES: dict[str, type[Probe]] = {
    probe.name: probe
    for probe in (
        WeightsProbe,
        HiddenProbe,
        BypassProbe,
        GradientProbe,
        CurvatureProbe,
        AttributionProbe,
        OneStepProbe,
        OffPolicyProbe,
        WarmUpProbe,
    )
}

DEFAULT_PROBES = ("weights", "hidden", "gradient")
"""Those whose cost stays near that of the rollouts."""


def chosen_probes(text: str) -> tuple[str, ...]:
    """Names of probes from a list separated by commas of names, cost classes, or `all`.

    Raises LayerpickError for a name that is none of these.
    """
    wanted: set[str] = set()
    for name in (part.strip() for part in text.split(",")):
        own = [p.name for p in PROBES.values() if name in ("all", p.name, p.needs)]
        if not own:
            known = ", ".join(dict.fromkeys([*PROBES, *CLASSES, "all"]))
            raise LayerpickError(f"The probe '{name}' is unknown: use {known}.")
        wanted.update(own)
    return tuple(name for name in PROBES if name in wanted)
