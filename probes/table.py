"""The probes by name."""

from __future__ import annotations

from layerpick.probes.base import Probe
from layerpick.probes.gradient import GradientProbe

PROBES: dict[str, type[Probe]] = {probe.name: probe for probe in (GradientProbe,)}
