"""Pages: what they hold, and that they hold it in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.table import Table as RichTable
from typer.testing import CliRunner

from layerpick.calibration.paths import SHIPPED_SWEEPS
from layerpick.calibration.sweeps.measured import read_sweep
from layerpick.calibration.sweeps.store import read_folder
from layerpick.selector.app.app import app
from layerpick.selector.pages.charts import COLOURS, Profile, draw_profile
from layerpick.selector.pages.html import REPORT, render, write_page
from layerpick.selector.pages.parts import Chart, Facts, Lines, Page, Table, from_rich, how_made
from layerpick.selector.suggestion.result import read_suggestion
from layerpick.selector.sweep.page import sweep_page

MOST_BYTES = 1_500_000
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Seen(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def suggestion(arguments, tmp_path):
    assert CliRunner().invoke(app, arguments).exit_code == 0
    return tmp_path / "out"


@pytest.fixture(scope="module")
def sweep():
    return read_sweep(read_folder(SHIPPED_SWEEPS / "reference-math" / "math-grpo"))


def test_the_suggestions_page(suggestion):
    text = (suggestion / REPORT).read_text("utf-8")
    made, seen = read_suggestion(suggestion / "suggestion.json"), Seen(text)
    assert f"Pick: layer {made.pick} of 3" in seen.text
    for layer in made.layers:
        assert f"{layer.predicted:.2f}" in seen.text
        assert f'"suggestion-layer-{layer.layer}": ["layer {layer.layer}' in text
    # Every feature that was measured can be chosen, and is in the drawing.
    options = [attributes["value"] for tag, attributes in seen.tags if tag == "option"]
    assert len(options) == 1 + len({name for each in made.layers for name in each.features})
    ids = {attributes.get("id") for _, attributes in seen.tags}
    assert set(options[1:]) <= ids
    assert {f"suggestion-layer-{layer.layer}" for layer in made.layers} <= ids
    for version in made.versions.values():
        assert version in seen.text
    asks_nobody(text)


def test_the_sweeps_page(sweep):
    text = render(sweep_page(sweep))
    seen = Seen(text)
    assert seen.text.count("Best: layer 4 of 6") == 1
    assert "layer 4, the best" in text
    assert f"contribution {sweep.contribution(4).mean:.2f}" in text
    assert len([tag for tag, _ in seen.tags if tag == "svg"]) == 2
    asks_nobody(text)


def asks_nobody(text: str) -> None:
    """No address outside, no source, and a policy that forbids them."""
    assert len(text.encode()) < MOST_BYTES
    seen = Seen(text)
    for tag, attributes in seen.tags:
        assert tag not in ("iframe", "img", "object", "embed")
        for name in ("src", "href", "xlink:href", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, value)
    policy = next(a["content"] for t, a in seen.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "url(http" not in text
    assert "@import" not in text


def test_what_a_person_writes_stays_text():
    """A name cannot become a tag or a script, in any part."""
    bad = "</script><script>alert(1)</script><b>&"
    parts = (
        Table(bad, (bad,), ((bad,),)),
        Lines(bad, (bad,)),
        Lines(bad, (bad,), is_command=True),
        Facts(bad, {bad: bad}),
        Chart(bad, "<svg></svg>", bad, {"a": [bad]}, {bad: bad}),
    )
    text = render(Page(bad, bad, parts))
    seen = Seen(text)
    assert sum(tag == "script" for tag, _ in seen.tags) == 2  # the chart's data, and the page's own
    assert not any(tag == "b" for tag, _ in seen.tags)
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)
    assert json.loads(data) == {"a": [bad]}


def test_backticks_mark_code():
    """In sentences; a command stays as it was typed."""
    lines = ("run `a <b>` or `c`; one ` alone",)
    text = render(Page("t", "use `x`", (Lines("", lines), Lines("", lines, is_command=True))))
    assert "<h1>use <code>x</code></h1>" in text
    assert "<p>run <code>a &lt;b&gt;</code> or <code>c</code>; one ` alone</p>" in text
    assert ">run `a &lt;b&gt;` or `c`; one ` alone</pre>" in text


def test_colours_are_the_pages_own():
    profile = Profile(
        key="k", layers=(0, 1, 2), label="value", predicted={0: 0.1, 1: 0.5, 2: 0.3},
        intervals={0: (0, 1), 1: (0, 1), 2: (0, 1)}, measured={1: (0.4, 0.1)}, pick=1,
        others={"one": {0: 1.0, 1: 2.0}, "flat": {0: 1.0, 2: 1.0}},
    )  # fmt: skip
    svg = draw_profile(profile)
    fixed = set(re.findall(r"#[0-9a-fA-F]{6}", svg))
    assert not fixed & set(COLOURS)
    assert fixed <= {"#000000", "#ffffff"}
    assert set(COLOURS.values()) >= set(re.findall(r"var\(--\w+\)", svg))
    assert list(profile.choices.values()) == ["nothing", "one", "flat"]


def test_tables_of_the_terminal():
    table = RichTable(title="[bold]T[/bold]")
    table.add_column("a")
    table.add_column("b")
    table.add_row("1", "[red]x[/red]", style="bold green")
    table.add_row("2", "y")
    assert from_rich(table) == Table("T", ("a", "b"), (("1", "x"), ("2", "y")), frozenset({0}))


def test_how_to_make_it_again():
    lines = how_made(["/bin/layerpick", "suggest", "--stop", "\\n", "my model"])
    assert lines.lines == ("layerpick suggest --stop '\\n' 'my model'",)
    assert not how_made(["/bin/python"]).is_command


def test_evaluate_and_verify_write_theirs(made_examples, write_sweep, suggestion, tmp_path):
    root = tmp_path / "sweeps"
    for example in made_examples(6):
        write_sweep(example, root)
    arguments = ["evaluate", "--sweeps", str(root), "--level", "weights", "--out"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "evaluation")])
    assert done.exit_code == 0, done.output
    text = (tmp_path / "evaluation" / REPORT).read_text("utf-8")
    assert (
        "On 6 sweeps of 6 pretrained models, each model left out in turn, weights ranks layers"
        in text
    )
    asks_nobody(text)


def test_a_long_text_is_broken_and_lines_are_kept():
    table = Table("T", ("a", "b"), (("word " * 20, "1\n2"), ("short", "3")))
    text = render(Page("t", "h", (table,)))
    assert text.count("<td class=long>") == 1
    assert "<td>1\n2</td>" in text


# --- In a browser ---

PROBE = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => errors.push(event.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector("table"), column = 1;
  const read = () => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
  const before = read();
  table.querySelectorAll("th button")[column].click();
  const down = read();
  table.querySelectorAll("th button")[column].click();
  const up = read();
  const hot = document.querySelectorAll(".hot");
  hot[1].dispatchEvent(new Event("mouseenter"));
  const tip = document.getElementById("tip");
  const pointed = tip.hidden ? null : tip.textContent;
  hot[0].focus();
  hot[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", cancelable: true }));
  const focused = document.activeElement.id;
  const right = (one) => one.getBoundingClientRect().right;
  const last = [...hot].filter((mark) => hot[0].closest(".chart").contains(mark)).at(-1);
  const passed = [right(last)];
  last.focus();
  passed.push(right(last));
  const tabbed = [...document.querySelectorAll(".chart")].map((chart) =>
    [chart.querySelectorAll(".hot").length, chart.querySelectorAll("[tabindex='0'].hot").length]);
  const select = document.querySelector("select");
  const visible = () => select === null ? null : [...select.options].filter((option) => {
    const drawn = document.getElementById(option.value);
    return drawn && getComputedStyle(drawn).display !== "none";
  }).map((option) => option.value);
  const first = visible();
  if (select) { select.selectedIndex = 2; select.dispatchEvent(new Event("change")); }
  const requests = performance.getEntriesByType("resource").map((entry) => entry.name);
  const found = { errors, requests, before, down, up, pointed, focused, tabbed, passed,
    first, second: visible(),
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth,
    sizes: [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().height) };
  const out = document.createElement("textarea");
  out.id = "found";
  out.textContent = JSON.stringify(found);
  document.body.append(out);
});
</script>
"""


def browse(page: Path, tmp_path: Path, width: int) -> tuple[dict, str]:
    """What the page does in Chromium: findings, and the browser's log."""
    text = page.read_text("utf-8")
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace("<main>", PROBE + "<main>", 1), "utf-8")
    command = [
        str(CHROMIUM),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        f"--user-data-dir={tmp_path / 'profile'}",
        "--enable-logging=stderr",
        f"--window-size={width},900",
        "--virtual-time-budget=2000",
        "--dump-dom",
        probed.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    (found,) = re.findall(r'<textarea id="found">(.*?)</textarea>', done.stdout, re.DOTALL)
    unescaped = found.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    return json.loads(unescaped), done.stderr


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [500, 800, 1300])
def test_in_chromium(suggestion, sweep, tmp_path, width):
    write_page(sweep_page(sweep), tmp_path / "sweep.html")
    for page in (suggestion / REPORT, tmp_path / "sweep.html"):
        found, log = browse(page, tmp_path, width)
        assert found["errors"] == []
        assert "CONSOLE" not in log
        assert found["requests"] == []
        assert sorted(found["before"]) == sorted(found["down"])
        assert found["up"] != found["down"]
        assert all(height > 100 for height in found["sizes"])
        assert found["wide"] == 0  # only tables and drawings scroll sideways
        assert found["pointed"].startswith("layer 1")
        assert found["focused"].endswith("-layer-1")
        assert found["passed"][1] <= width  # what has the focus is scrolled to
        if width == 500:
            assert found["passed"][0] > width
        # One stop of Tab for each drawing, however many layers it has.
        assert [min(marks, 1) for marks, _ in found["tabbed"]] == [s for _, s in found["tabbed"]]
        if found["first"] is not None:
            assert found["first"] == []
            assert len(found["second"]) == 1


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_numbers_sort_as_numbers(tmp_path):
    numbers = ("9", "10", "-3", "1,000", "1e+03 ± 2", "", "0.5 ± 0.1")
    rows = tuple(("x", number) for number in numbers)
    svg = draw_profile(Profile("k", (0, 1), "v", predicted={0: 0.0, 1: 1.0}, intervals={0: (0, 1)}))
    chart = Chart("c", svg, "", {"k-layer-0": ["layer 0"], "k-layer-1": ["layer 1"]})
    write_page(Page("t", "h", (Table("T", ("a", "b"), rows), chart)), tmp_path / "page.html")
    found, _ = browse(tmp_path / "page.html", tmp_path, 800)
    assert found["down"] == ["1,000", "1e+03 ± 2", "10", "9", "0.5 ± 0.1", "-3", ""]
    assert found["up"] == ["-3", "0.5 ± 0.1", "9", "10", "1,000", "1e+03 ± 2", ""]
