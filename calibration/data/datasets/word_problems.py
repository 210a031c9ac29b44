"""Short word problems of SVAMP that are solved by one operation on two numbers they name.

python calibration/data/datasets/word_problems.py SVAMP.json > word_problems.jsonl

The two numbers are given beside the problem, the larger one first. A calculation, as `8 - 3`,
is read as its number, so that a small model can be asked what is to be calculated. SVAMP: arXiv
2103.07191, MIT licence.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

LONGEST = 200
"""Characters of a problem."""
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def word_problem(row: dict[str, Any]) -> dict[str, str] | None:
    """A row of SVAMP as `prompt`, `numbers` and `answer`; None where it is of another kind."""
    body, question = row["Body"].strip(), row["Question"].strip()
    if body[-1] not in ".?!":
        body, question = f"{body},", question[0].lower() + question[1:]
    prompt = " ".join(f"{body} {question}".split())
    named = _NUMBER.findall(prompt)
    used = [f"{float(number):g}" for number in _NUMBER.findall(row["Equation"])]
    known = len(used) == len(set(used)) == 2 and all(named.count(number) == 1 for number in used)
    if not known or len(prompt) > LONGEST:
        return None
    numbers = " and ".join(sorted(used, key=float, reverse=True))
    return {"prompt": prompt, "numbers": numbers, "answer": f"{row['Answer']:.12g}"}


if __name__ == "__main__":
    for row in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        if found := word_problem(row):
            print(json.dumps(found))
