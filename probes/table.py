"""The probes by name, from cheap to dear."""

from __future__ import annotations

from layerpick.probes.attribution import AttributionProbe
from layerpick.probes.base import CLASSES, Probe
from layerpick.probes.bypass import BypassProbe
from layerpick.probes.curvature import CurvatureProbe
from layerpick.probes.gradient.probe import GradientProbe
from layerpick.probes.hidden.probe import HiddenProbe
from layerpick.probes.trials.off_policy import OffPolicyProbe
from layerpick.probes.trials.on_policy import OnPolicyProbe
from layerpick.probes.trials.one_step import OneStepProbe
from layerpick.probes.weights.probe import WeightsProbe
from layerpick.training.own_code import find_class

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
        OnPolicyProbe,
    )
}

_OWN: dict[str, type[Probe]] = {}


def chosen_probes(text: str) -> tuple[str, ...]:
    """Names of probes from a list separated by commas of names, cost classes, or `all`.

    One's own, as `file.py:Class` or of an installed package, come last. Raises LayerpickError for a
    name that is none of these.
    """
    wanted: set[str] = set()
    own: list[str] = []
    for name in (part.strip() for part in text.split(",")):
        found = [p.name for p in PROBES.values() if name in ("all", p.name, p.needs)]
        if not found:
            find_probe(name)
            own.append(name)
        wanted.update(found)
    return (*(name for name in PROBES if name in wanted), *dict.fromkeys(own))


def find_probe(name: str) -> type[Probe]:
    """The probe of that name or `file.py:Class`. Raises LayerpickError for an unknown one."""
    if name not in PROBES:
        found = find_class(name, PROBES, Probe, "probe", (*CLASSES, "all"))  # type: ignore[type-abstract]
        _OWN[found.name] = found
        return found
    return PROBES[name]


def known_probes() -> dict[str, type[Probe]]:
    """The built-in probes, and one's own that have been used."""
    return {**PROBES, **_OWN}


def headings() -> dict[str, str]:
    """By feature: what stands above it in a table."""
    return {
        name: text for probe in known_probes().values() for name, text in probe.headings.items()
    }


def own_headings() -> dict[str, str]:
    """Those of one's own probes that have been used."""
    return {name: text for probe in _OWN.values() for name, text in probe.headings.items()}
