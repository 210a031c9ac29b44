"""`layerpick tasks`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from layerpick.selector.settings import Json


def tasks(as_json: Json = False) -> None:
    """List the tasks: what each is, where its data comes from, and what it needs installed.

    Example: layerpick tasks
    """
    from rich.console import Console
    from rich.text import Text

    from layerpick.training.tasks.table import TASK_INFOS

    if as_json:
        sys.stdout.write(json.dumps([asdict(info) for info in TASK_INFOS], indent=2) + "\n")
        return
    console = Console(highlight=False)
    for info in TASK_INFOS:
        console.print(Text.assemble((info.name, "bold"), f": {info.about}"))
        for source in info.sources:
            console.print(Text(f"  source   {source}"))
        console.print(Text(f"  default  {info.default}"))
        console.print(Text(f"  needs    {info.needs}"))
