"""Ray does a study on a real cluster of two nodes of this machine. Needs the extra ``ray``."""

import os
from pathlib import Path

import pytest
import small_study

import jaxlab
from jaxlab.study.attempts import attempts
from jaxlab.study.executors import ray as executor
from jaxlab.study.tasks import KILLED

pytest.importorskip("ray")
pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(monkeypatch):
    """Start two nodes of a core each, whose workers find the tests' modules."""
    import ray
    from ray.cluster_utils import Cluster

    here = [str(Path(__file__).parent), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, here)))
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    found.add_node(num_cpus=1)
    try:
        yield found.address
    finally:
        ray.shutdown()
        found.shutdown()


def test_two_nodes_share_a_study_and_a_killed_run_is_done_again(tmp_path, cluster):
    import ray

    study = small_study.get_study()
    study = jaxlab.Study(study.base, [{}, {"hooks.trap.kind": "kill"}], (0, 1), study.metric)
    result = jaxlab.run_study(study, tmp_path, executor.make(address=cluster))
    assert result["finished"] == 4
    assert [row["status"] for row in attempts(tmp_path)].count(KILLED) == 2
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
