"""Which process this is: from flags or a launcher's variables, or a sentence about what does not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest
import tiny

from jaxlab.core.errors import UsageError
from jaxlab.run.processes import find_place
from jaxlab.run.trial import surroundings

ADDRESS = "127.0.0.1:12345"


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_said_means_alone():
    assert find_place(None, None, None) is None
    assert find_place(None, 1, None) is None


def test_flags_say_the_place():
    place = find_place(ADDRESS, 4, 3)
    assert (place.coordinator, place.processes, place.process, place.found) == (ADDRESS, 4, 3, "flags")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((ADDRESS, None, 1), "--processes: expected together with --coordinator, --process"),
        ((None, 2, None), "--coordinator, --process: expected together with --processes"),
        ((ADDRESS, 2, 2), "--process=2: expected 0 to 1, one of --processes=2"),
        ((ADDRESS, 0, 0), "--processes=0: expected 1 or more"),
        (("12345", 2, 1), "--coordinator=12345: expected HOST:PORT of process 0"),
        (("host:none", 2, 1), "--coordinator=host:none: expected HOST:PORT"),
    ],
)
def test_flags_that_do_not_fit_are_explained(flags, sentence):
    with pytest.raises(UsageError) as found:
        find_place(*flags)
    assert sentence in str(found.value)


def test_slurm_says_the_place(monkeypatch):
    variables = {"JOB_ID": "4097", "STEP_NODELIST": "node[007-009]", "NTASKS": "3", "PROCID": "2", "LOCALID": "0"}
    for name, value in variables.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    place = find_place(None, None, None)
    assert (place.coordinator, place.processes, place.process) == ("node007:61441", 3, 2)
    assert place.found == "SLURM"
    assert find_place(None, 1, None) is None  # though there are three: each trains for itself
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert find_place(None, None, None) is None


def test_a_training_that_another_command_starts_is_alone(monkeypatch):
    monkeypatch.setenv("SLURM_PROCID", "2")
    assert "SLURM_PROCID" not in surroundings(tiny.mlp())


def test_open_mpi_says_the_place(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911")
    for name, value in {"SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(f"OMPI_COMM_WORLD_{name}", value)
    place = find_place(None, None, None)
    assert (place.coordinator.partition(":")[0], place.processes, place.process) == ("10.96.0.1", 2, 1)
    assert place.found == "Open MPI"


def test_a_launcher_that_says_nonsense_is_explained(monkeypatch):
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "nonsense")
    with pytest.raises(UsageError, match=r"Open MPI: .*; --coordinator, --processes and --process say it themselves"):
        find_place(None, None, None)


def test_a_process_alone_asks_for_no_devices_to_find_that_out():
    program = (
        "from jaxlab.run.processes import find_place, joined; from jaxlab.train.across import writes; "
        "from jax._src import xla_bridge; "
        "assert find_place(None, None, None) is None and not joined() and writes(); "
        "assert not xla_bridge.backends_are_initialized()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
