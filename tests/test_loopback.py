"""Ray's own processes of the tests listen to this machine alone."""

from typing import Any

import psutil


def test_no_process_of_the_shared_cluster_listens_to_the_network(ray_node: Any, cluster: None) -> None:
    import ray

    @ray.remote
    def work() -> int:
        return 1

    assert ray.get(work.remote()) == 1  # the processes of workers, too
    listening = {
        (process.name(), connection.laddr.ip)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"gcs_server", "raylet"} <= {name for name, _ in listening}
    assert {ip for _, ip in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}, listening
