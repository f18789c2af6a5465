"""Reads a run that waits for another one, and the runs that it triggered, with the official Python client of Apache Airflow.

children.py BASE_URL PASSWORD RUN_ID: the run of the DAG `parent` in `tests/it/between.rs`, whose task `solve` is deferred.
"""

import json
import sys
import urllib.request

import airflow_client.client as airflow
from airflow_client.client import api


def main(url: str, password: str, run_id: str) -> None:
    body = json.dumps({"username": "admin", "password": password}).encode()
    request = urllib.request.Request(f"{url}/auth/token", data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        token = json.load(answer)["access_token"]
    client = airflow.ApiClient(airflow.Configuration(host=url, access_token=token))
    runs, tis = api.DagRunApi(client), api.TaskInstanceApi(client)

    solve = tis.get_task_instance("parent", run_id, "solve")
    assert solve.state.value == "deferred", solve
    assert solve.operator == "TriggerDagRunOperator", solve
    waiting = tis.get_task_instances("parent", run_id, state=["deferred"])
    assert [ti.task_id for ti in waiting.task_instances] == ["solve"], waiting

    parent = runs.get_dag_run("parent", run_id)
    assert parent.triggered_by.value == "rest_api", parent
    children = runs.get_dag_runs("child").dag_runs
    assert [(run.triggered_by.value, run.run_type.value, run.conf) for run in children] == [
        ("operator", "manual", {"value": 7})
    ], children
    assert runs.get_dag_run("child", children[0].dag_run_id).state.value == "running"
    assert len(runs.get_dag_runs("leaf").dag_runs) == 2
    everywhere = runs.get_dag_runs("~", state=["running"])
    assert {run.dag_id for run in everywhere.dag_runs} == {"parent", "child"}, everywhere


if __name__ == "__main__":
    main(*sys.argv[1:])
