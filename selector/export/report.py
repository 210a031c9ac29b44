"""An export in a few sentences and as JSON."""

from __future__ import annotations

import json

from rich.markup import escape

from layerpick.selector.export.run import Exported


def sentences(exported: Exported) -> list[str]:
    """What was exported for whom, and what to know."""
    plan = exported.plan
    count = sum(name.startswith(plan.names.prefixes) for name in plan.names.parameters)
    return [
        f"[bold]{exported.target}[/bold]: {plan.in_words} of {escape(str(plan.model))}, {count} "
        f"parameters whose names begin with {' or '.join(plan.names.prefixes)}",
        escape(plan.reason),
        *map(escape, exported.notes),
    ]


def to_json(exported: Exported) -> str:
    """Target, layers, names and files."""
    names = exported.plan.names
    return (
        json.dumps(
            {
                "target": exported.target,
                "model": exported.plan.model,
                "revision": exported.plan.revision,
                "layers": names.layers,
                "prefixes": names.prefixes,
                "linear_modules": names.linear,
                "files": [str(path) for path in exported.files],
                "notes": exported.notes,
            },
            indent=2,
        )
        + "\n"
    )
