"""A built wheel holds everything and works where only it and its dependencies are installed."""

import json
import os
import site
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).parents[1]
ROOMS = ("selector", "probes", "training", "calibration")
NOT_SHIPPED = {".claims", "__pycache__"}


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    with FileLock(Path(tempfile.gettempdir()) / "layerpick-wheel.lock"):  # it builds in ROOT
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, cwd=ROOT)
    (path,) = out.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_data_file(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and not NOT_SHIPPED & set(path.parts):
                assert f"layerpick/{path.relative_to(ROOT)}" in names, path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A new environment with the wheel; third-party packages are borrowed, to save a download."""
    tmp_path = tmp_path_factory.mktemp("installed")
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    packages = next((tmp_path / "venv" / "lib").glob("python*/site-packages"))
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    pip = (sys.executable, "-m", "pip", "--python", python)
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    where = run(python, "-c", "import layerpick as s; print(s.__file__)", cwd=tmp_path)
    assert where.startswith(str(packages))
    return python


@pytest.mark.slow
def test_type_checkers_know_the_wheel(installed, check_types):
    check_types(None, str(installed))


def test_the_wheel_works_by_itself(installed, tmp_path):
    out = run(installed.with_name("layerpick"), "suggest", "--prompts", "8", "--json", cwd=tmp_path)
    suggestion = json.loads(out)
    assert len(suggestion["layers"]) == suggestion["model"]["layers"]
    assert (tmp_path / "layerpick-out" / "profile.png").is_file()
