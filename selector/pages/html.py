"""A page as one HTML file that asks nobody for anything.

Its policy forbids every request. Colours follow the reader's light or dark setting; without
scripts everything is there but sorting, hints and the choice of what is drawn.
"""

from __future__ import annotations

import json
import re
from html import escape
from importlib.metadata import version
from pathlib import Path

from layerpick.selector.pages.parts import Chart, Facts, Lines, Page, Part, Table
from layerpick.training.files import write_text

REPORT = "report.html"
MOST_LETTERS = 48
"""Of a table's cell that is not broken."""
_HERE = Path(__file__).parent
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><p class="about">{title}</p><h1>{headline}</h1></header>
{parts}
</main>
<footer>layerpick {version}</footer>
<div id="tip" role="status" hidden></div>
<script>{script}</script>
</body>
</html>
"""


def write_page(page: Page, path: Path) -> None:
    """Write a page, whole or not at all."""
    write_text(path, render(page))


def render(page: Page) -> str:
    """The page as text."""
    return _PAGE.format(
        policy=f"{_POLICY}; img-src data:",
        title=escape(page.title),
        headline=_prose(page.headline),
        style=(_HERE / "page.css").read_text("utf-8"),
        script=(_HERE / "page.js").read_text("utf-8"),
        parts="\n".join(_part(part) for part in page.parts),
        version=version("layerpick"),
    )


def _part(part: Part) -> str:
    if isinstance(part, Table):
        inside = _table(part)
    elif isinstance(part, Chart):
        inside = _chart(part)
    elif isinstance(part, Facts):
        pairs = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in part.values.items())
        inside = f"<dl>{''.join(pairs)}</dl>"
    else:
        inside = _lines(part)
    title = f"<h2>{escape(part.title)}</h2>" if part.title else ""
    return f"<section>{title}{inside}</section>"


def _lines(part: Lines) -> str:
    if part.is_command:
        return f'<pre tabindex="0">{escape(chr(10).join(part.lines))}</pre>'
    return "".join(f"<p>{_prose(line)}</p>" for line in part.lines)


def _prose(line: str) -> str:
    """A sentence; what stands between backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(line))


def _table(part: Table) -> str:
    heads = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(column)}</button></th>'
        for column in part.columns
    )
    rows = "".join(
        f"<tr{' class=marked' if index in part.marked else ''}>"
        + "".join(_cell(cell) for cell in row)
        + "</tr>"
        for index, row in enumerate(part.rows)
    )
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(part.title)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _cell(text: str) -> str:
    """A long text may be broken, so that the columns beside it are seen."""
    is_long = any(len(line) > MOST_LETTERS for line in text.splitlines())
    return f"<td{' class=long' if is_long else ''}>{escape(text)}</td>"


def _chart(part: Chart) -> str:
    data = json.dumps(dict(part.tips), ensure_ascii=False).replace("<", "\\u003c")
    choice = ""
    if part.choices:
        options = "".join(
            f'<option value="{escape(key)}">{escape(name)}</option>'
            for key, name in part.choices.items()
        )
        choice = f'<label class="choice">Also drawn: <select>{options}</select></label>'
    note = f'<p class="note">{escape(part.note)}</p>' if part.note else ""
    return (
        f'{choice}<div class="wide chart">{part.svg}'
        f'<script type="application/json">{data}</script></div>{note}'
    )
