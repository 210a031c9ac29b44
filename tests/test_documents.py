"""Documents: every link leads somewhere, code can be read, the reference names what is there."""

import ast
import re
from pathlib import Path

import pytest

import layerpick

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
DOCUMENTS = [*PAGES, *ROOT.glob("*.md"), *ROOT.glob("examples/*.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+\s+(.*)$", re.M)


def prose(path: Path) -> str:
    """A document without its code."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    headings = HEADING.findall(path.read_text("utf-8"))
    plain = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[\s]+", "-", heading) for heading in plain}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path):
    for target in LINK.findall(prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        assert place.exists(), f"{path}: {target}"
        if anchor and place.suffix == ".md":
            assert anchor in anchors(place), f"{path}: {target}"


def test_the_reference_names_what_is_there():
    for page in (DOCS / "reference").glob("*.md"):
        for name in re.findall(r"^::: layerpick\.([\w.]+)$", page.read_text(), re.M):
            module = (ROOT / name.replace(".", "/")).with_suffix(".py")
            home = module if module.is_file() else module.parent.with_suffix(".py")
            assert home.is_file(), name
            defined = {
                node.name
                for node in ast.parse(home.read_text("utf-8")).body
                if isinstance(node, ast.ClassDef | ast.FunctionDef)
            }
            assert home == module or module.stem in defined, name


def test_every_function_is_explained():
    page = (DOCS / "python.md").read_text()
    for name in layerpick.__all__:
        if name[0].islower() and not name.startswith("_"):
            assert f"`{name}`" in page, name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_in_documents_can_be_read(path):
    for code in re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
        ast.parse(code)
