"""`layerpick probes`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from layerpick.selector.settings import Json


def probes(as_json: Json = False) -> None:
    """List the probes: what each measures, by which formula, from where, and what it needs.

    Example: layerpick probes
    """
    from rich.console import Console
    from rich.text import Text

    from layerpick.probes.table import PROBES

    if as_json:
        listed = [
            {
                "name": probe.name,
                "cost_class": probe.needs,
                "needs": _NEEDS[probe.needs],
                "features": [asdict(info) for info in probe.features],
            }
            for probe in PROBES.values()
        ]
        sys.stdout.write(json.dumps(listed, indent=2, ensure_ascii=False) + "\n")
        return
    console = Console(highlight=False)
    for probe in PROBES.values():
        console.print(Text.assemble((probe.name, "bold"), f" ({probe.needs}): needs "), end="")
        console.print(Text(_NEEDS[probe.needs]))
        for info in probe.features:
            console.print(Text.assemble("  ", (info.name, "cyan"), f": {info.about}"))
            console.print(Text(f"      {info.formula}"))
            console.print(Text(f"      source: {info.source}"))


_NEEDS = {
    "weights": "the weight files only",
    "forward": "forward passes over the rollouts",
    "backward": "forward and backward passes over the rollouts",
    "training": "short training runs of every layer",
}
