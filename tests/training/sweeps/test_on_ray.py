"""Sweeps on a Ray cluster of three nodes on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from layerpick.calibration.sweeps.store import FolderStore, read_folder
from layerpick.selector.progress import Silent
from layerpick.selector.settings import TRAINING_SAMPLING, HeldOutChoice, ModelChoice
from layerpick.selector.sweep.recipe import BenchRecipe
from layerpick.selector.sweep.run import measure_sweep
from layerpick.selector.sweep.settings import ClusterChoice, SweepChoice
from layerpick.training.errors import LayerpickError
from layerpick.training.settings import RlSettings
from layerpick.training.sweeps.on_ray import RayPasses
from layerpick.training.sweeps.parcels import pack, unpack
from layerpick.training.sweeps.ray_tasks import Call, Needs, RayTasks
from layerpick.training.sweeps.records import RunKey
from layerpick.training.tasks.settings import TaskSettings

# Read by Ray when it is imported: nodes on the loopback interface, nothing reported to anybody.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# Workers would else wait for whatever else the machine does.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
if find_spec("ray") is not None:
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers import less
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
SMALL = {"num_cpus": 1, "object_store_memory": 100_000_000, "include_dashboard": False}
CHOICE = SweepChoice(
    layers="0,2,3,5",
    seeds=2,
    learning_rates=(2e-4,),
    shared_lr=True,
    policies_per_pass=1,
    probes="none",
)
WHAT = (
    ModelChoice(device="cpu"),
    "math",
    TaskSettings(),
    None,
    TRAINING_SAMPLING,
    RlSettings(steps=2, prompts=4, group_size=4),
    HeldOutChoice(heldout_prompts=16, heldout_samples=2),
    CHOICE,
)


@pytest.fixture
def nodes():
    """`nodes(count)`: the first holds the cluster together and runs nothing."""
    from ray.cluster_utils import Cluster

    clusters = []

    def start(count: int, cpus: int = 1):
        head = {**SMALL, "num_cpus": 0}
        clusters.append(Cluster(initialize_head=True, head_node_args=head))
        workers = [clusters[0].add_node(**{**SMALL, "num_cpus": cpus}) for _ in range(count)]
        return clusters[0], workers

    yield start
    import ray

    ray.shutdown()
    clusters[0].shutdown()


def timeless(records):
    """Records without what may differ between equal runs."""
    return {r.run.name: r.model_dump(exclude={"seconds", "versions", "device"}) for r in records}


def tell_process(*, on_step):
    on_step(1)
    return os.getpid()


def fail(message, *, on_step):
    raise LayerpickError(message)


def die(*, on_step):
    os.kill(os.getpid(), signal.SIGKILL)


def doubled(number, deaths, *, on_step):
    if random.random() < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def stay(folder, *, on_step):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def content(parcel, *, on_step):
    place = unpack(parcel)
    files = [place] if place.is_file() else sorted(place.rglob("*.txt"))
    return place.name, [(file.name, file.read_text()) for file in files]


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_a_sentence_says_what_to_install(tmp_path):
    with pytest.raises(LayerpickError, match=r"--on ray needs .* pip install 'layerpick\[ray\]'"):
        measure_sweep(*WHAT, tmp_path, Silent(), ClusterChoice(on="ray"))


@needs_ray
def test_ray_on_this_machine_is_loopback_only_and_outcomes_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERPICK_CACHE", str(tmp_path / "cache"))
    ticks = []
    with RayTasks("ray", Needs(gpus=0)) as tasks:
        family = psutil.Process().children(recursive=True)
        listening = [c for p in family for c in p.net_connections() if c.status == "LISTEN"]
        assert listening and {c.laddr.ip for c in listening} <= {"127.0.0.1", "::ffff:127.0.0.1"}
        assert tasks.local and tasks.check() is None
        calls = [Call("one", tell_process, ()), Call("two", fail, ("no such thing.",))]
        calls += [Call("three", die, ())]
        for call in calls:
            tasks.submit(call)
        ended = {result.call.name: result for result in tasks.ended(ticks.append)}
        assert ended["one"].value != os.getpid() and ended["one"].failure is None
        assert ended["two"].failure == "no such thing"
        assert "WorkerCrashedError" in ended["three"].failure
        assert sum(ticks) == 3
        # A worker is kept for the next task.
        for _ in range(3):
            tasks.submit(Call("again", tell_process, ()))
            (again,) = tasks.ended()
            assert again.value == ended["one"].value or again.value in {
                p.pid for p in psutil.Process().children(recursive=True)
            }
        (tmp_path / "model" / "part").mkdir(parents=True)
        (tmp_path / "model" / "part" / "a.txt").write_text("one")
        (tmp_path / "model" / "b.txt").write_text("")
        (tmp_path / "rows.txt").write_text("two")
        parcels = [pack(tmp_path / name, tasks) for name in ("model", "rows.txt")]
        shutil.rmtree(tmp_path / "model")
        (tmp_path / "rows.txt").unlink()
        for parcel in parcels:
            tasks.submit(Call(parcel.name, content, (parcel,)))
        unpacked = dict(result.value for result in tasks.ended())
        assert unpacked == {
            "model": [("b.txt", ""), ("a.txt", "one")],
            "rows.txt": [("rows.txt", "two")],
        }
        # What still runs when the door is closed is ended.
        tasks.submit(Call("long", stay, (str(tmp_path),)))
        while not (running := [p for p in tmp_path.iterdir() if p.name.isdigit()]):
            time.sleep(0.1)
    deadline = time.monotonic() + 30
    while psutil.pid_exists(int(running[0].name)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not psutil.pid_exists(int(running[0].name))


@needs_ray
def test_an_address_where_nobody_listens_is_one_sentence():
    with pytest.raises(LayerpickError, match="cannot be reached"):
        RayTasks("127.0.0.1:1")


@needs_ray
@pytest.mark.slow
def test_a_cluster_measures_what_this_machine_measures_and_survives_a_node(nodes, tmp_path):
    cluster, workers = nodes(2)
    expected = read_folder(measure_sweep(*WHAT, tmp_path / "here", Silent()))
    with RayTasks(cluster.address, Needs(gpus=0)) as tasks:
        assert not tasks.local and tasks.slots == 2
    measure_sweep(*WHAT, tmp_path / "there", Silent(), ClusterChoice(on=cluster.address))
    (folder,) = (tmp_path / "there").glob("*/*")
    assert timeless(read_folder(folder)) == timeless(expected)
    # Another sweep, during which a node is lost once the first layers are measured.
    lost = []

    class Witness(Silent):
        def stage(self, name, total):
            def tick(steps):
                layers = list((tmp_path / "lossy").glob("*/*/layer*.json"))
                if layers and not lost:
                    lost.append(len(layers))
                    cluster.remove_node(workers[0], allow_graceful=False)

            return tick

    folder = measure_sweep(*WHAT, tmp_path / "lossy", Witness(), ClusterChoice(on=cluster.address))
    assert 0 < lost[0] < 8
    assert timeless(read_folder(folder)) == timeless(expected)


@needs_ray
@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_where_it_was(nodes, tmp_path):
    cluster, _ = nodes(2)
    options = ["--layers", "0,2,3,5", "--seeds", "2", "--steps", "2", "--prompts", "4"]
    options += ["--group-size", "4", "--lr-grid", "2e-4", "--shared-lr", "--probes", "none"]
    options += ["--heldout-prompts", "16", "--heldout-samples", "2", "--policies-per-pass", "1"]
    options += ["--device", "cpu", "--on", cluster.address, "--out", str(tmp_path)]
    command = [sys.executable, "-m", "layerpick", "sweep", *options]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while not (layers := list(tmp_path.glob("*/*/layer*.json"))) and driver.poll() is None:
        time.sleep(0.1)
    driver.kill()
    driver.communicate()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*/[!.]*.json")}
    assert layers and len(kept) < 12
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(read_folder(layers[0].parent)) == 2 + 2 + 8
    assert all(path.stat().st_mtime_ns == moment for path, moment in kept.items())


@needs_ray
@pytest.mark.slow
def test_a_pass_that_always_fails_is_reported_when_the_others_are_done(nodes, tmp_path):
    cluster, _ = nodes(2)
    with RayTasks(cluster.address, Needs(gpus=0)) as tasks:
        passes = RayPasses(tasks, BenchRecipe(*WHAT), "multiplexed", 1, Silent())
        keys = [
            RunKey(kind="layer", seed=0, learning_rate=2e-4, layer=layer) for layer in (0, 99, 3)
        ]
        store = FolderStore(tmp_path)
        with pytest.raises(LayerpickError, match=r"1 of 3 passes failed.*layer099.*IndexError"):
            for records in passes.measure([keys]):
                store.write(records)
    assert {r.run.layer for r in read_folder(tmp_path)} == {0, 3}


@needs_ray
@pytest.mark.slow
def test_of_five_hundred_tiny_passes_none_is_lost_when_workers_die(nodes):
    cluster, _ = nodes(2, cpus=4)
    with RayTasks(cluster.address, Needs(gpus=0)) as tasks:
        assert tasks.slots == 8
        for number in range(500):
            tasks.submit(Call(str(number), doubled, (number, 0.05)))
        values = [result.value for result in tasks.ended()]
    assert sorted(values) == [2 * number for number in range(500)]
