"""Drives a running server with the official Python client of Airflow's REST API.

Each check is a function; a check that raises has failed, and the others go on. The last line counts them.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import sys
import time
import traceback
import urllib.error
import urllib.request
import uuid
from typing import Any, Callable

import airflow_client.client as airflow
from airflow_client.client import api
from airflow_client.client.exceptions import ApiException
from airflow_client.client.models.clear_task_instances_body import ClearTaskInstancesBody
from airflow_client.client.models.clear_task_instances_body_task_ids_inner import ClearTaskInstancesBodyTaskIdsInner
from airflow_client.client.models.dag_patch_body import DAGPatchBody
from airflow_client.client.models.dag_run_clear_body import DAGRunClearBody
from airflow_client.client.models.dag_run_patch_body import DAGRunPatchBody
from airflow_client.client.models.dag_runs_batch_body import DAGRunsBatchBody
from airflow_client.client.models.patch_task_instance_body import PatchTaskInstanceBody
from airflow_client.client.models.task_instances_batch_body import TaskInstancesBatchBody
from airflow_client.client.models.trigger_dag_run_post_body import TriggerDAGRunPostBody

FINISHED = {"success", "failed"}
CHECKS: list[Callable[["Session"], None]] = []


def check(function: Callable[["Session"], None]) -> Callable[["Session"], None]:
    CHECKS.append(function)
    return function


def equal(found: Any, expected: Any, what: str = "value") -> None:
    if found != expected:
        raise AssertionError(f"{what}: expected {expected!r}, found {found!r}")


def holds(condition: Any, what: str) -> None:
    if not condition:
        raise AssertionError(what)


def refused(status: int, call: Callable[[], Any]) -> ApiException:
    """The call must be refused with this status, as an exception of the client."""
    try:
        answer = call()
    except ApiException as error:
        equal(error.status, status, "status")
        return error
    raise AssertionError(f"expected status {status}, found an answer: {answer!r}")


class Session:
    def __init__(self, url: str, password: str, dag_id: str, conf: dict[str, Any], expect: str) -> None:
        self.url = url.rstrip("/")
        self.password = password
        self.dag_id = dag_id
        self.conf = conf
        self.expect = expect
        self.token = self.log_in("admin", password)
        self.client = airflow.ApiClient(airflow.Configuration(host=self.url, access_token=self.token))
        self.dags = api.DAGApi(self.client)
        self.runs = api.DagRunApi(self.client)
        self.tis = api.TaskInstanceApi(self.client)
        self.xcoms = api.XComApi(self.client)
        self.tasks = api.TaskApi(self.client)
        # The run that the checks look at: triggered once, ended.
        self.run_id = f"drive-{uuid.uuid4()}"
        # A logical date of its own: whatever ran against this server before.
        self.logical_date = dt.datetime.now(dt.timezone.utc)

    def log_in(self, username: str, password: str) -> str:
        body = json.dumps({"username": username, "password": password}).encode()
        request = urllib.request.Request(
            f"{self.url}/auth/token", data=body, headers={"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            equal(answer.status, 201, "status of a login")
            return json.load(answer)["access_token"]

    def raw(
        self, method: str, path: str, accept: str = "application/json", body: bytes | None = None, **headers: str
    ) -> tuple[int, Any, bytes]:
        """A request without the client, for what it hides: status, headers, bytes."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(
            self.url + path,
            data=body,
            headers={"Authorization": f"Bearer {self.token}", "Accept": accept, **headers},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def trigger(self, **members: Any) -> Any:
        members.setdefault("logical_date", None)
        members.setdefault("conf", self.conf)
        return self.runs.trigger_dag_run(self.dag_id, TriggerDAGRunPostBody(**members))

    def finished(self, run_id: str) -> Any:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            run = self.runs.get_dag_run(self.dag_id, run_id)
            if run.state.value in FINISHED:
                return run
            time.sleep(0.05)
        raise AssertionError(f"run {run_id} has not ended within two minutes")

    def task(self, task_id: str) -> dict[str, str]:
        return {"dag_id": self.dag_id, "dag_run_id": self.run_id, "task_id": task_id}

    def task_instances(self) -> list[Any]:
        return self.tis.get_task_instances(self.dag_id, self.run_id, limit=100).task_instances


# Server


@check
def health_and_version_without_a_token(session: Session) -> None:
    anonymous = airflow.ApiClient(airflow.Configuration(host=session.url))
    health = api.MonitorApi(anonymous).get_health()
    equal(health.metadatabase.status, "healthy")
    equal(health.scheduler.status, "healthy")
    holds(api.VersionApi(anonymous).get_version().version, "a version")


@check
def refuses_without_a_token(session: Session) -> None:
    for token in (None, "not.a.token"):
        client = airflow.ApiClient(airflow.Configuration(host=session.url, access_token=token))
        refused(401, lambda: api.DAGApi(client).get_dags())


@check
def refuses_a_wrong_password(session: Session) -> None:
    try:
        session.log_in("admin", session.password + "x")
    except urllib.error.HTTPError as error:
        equal(error.code, 401)
        holds(isinstance(json.load(error)["detail"], str), "a text as detail")
        return
    raise AssertionError("a wrong password was accepted")


@check
def describes_itself(session: Session) -> None:
    status, _, body = session.raw("GET", "/openapi.json")
    equal(status, 200)
    document = json.loads(body)
    holds(document["openapi"].startswith("3.1"), "OpenAPI 3.1")
    holds("/api/v2/dags/{dag_id}/dagRuns" in document["paths"], "the runs of a DAG")


@check
def constant_lists_are_empty(session: Session) -> None:
    equal(api.ImportErrorApi(session.client).get_import_errors().total_entries, 0)
    equal(api.JobApi(session.client).get_jobs().total_entries, 0)
    equal(api.PluginApi(session.client).get_plugins().total_entries, 0)
    equal(api.ProviderApi(session.client).get_providers().total_entries, 0)
    equal(api.DagWarningApi(session.client).list_dag_warnings().total_entries, 0)
    refused(404, lambda: api.ImportErrorApi(session.client).get_import_error(1))


# DAGs


@check
def lists_and_gets_dags(session: Session) -> None:
    listed = session.dags.get_dags(limit=100)
    holds(session.dag_id in [dag.dag_id for dag in listed.dags], "the DAG is in the list")
    holds(listed.total_entries >= len(listed.dags), "total_entries counts all")
    dag = session.dags.get_dag(session.dag_id)
    equal((dag.dag_id, dag.is_stale), (session.dag_id, False))
    found = session.dags.get_dags(dag_id_pattern=session.dag_id[1:], order_by=["-dag_id"])
    holds(session.dag_id in [dag.dag_id for dag in found.dags], "found by a part of its id")
    found = session.dags.get_dags(dag_id_prefix_pattern=session.dag_id[:2])
    holds(session.dag_id in [dag.dag_id for dag in found.dags], "found by the start of its id")
    equal(session.dags.get_dags(dag_id_pattern="no-such-dag-anywhere").total_entries, 0)
    equal(len(session.dags.get_dags(limit=1).dags), 1)
    refused(404, lambda: session.dags.get_dag("no-such-dag"))
    refused(400, lambda: session.dags.get_dags(order_by=["no_such_column"]))


@check
def details_source_versions_and_statistics_of_a_dag(session: Session) -> None:
    details = session.dags.get_dag_details(session.dag_id)
    equal(details.dag_id, session.dag_id)
    version = details.latest_dag_version
    source = api.DagSourceApi(session.client).get_dag_source(session.dag_id)
    holds(session.dag_id in source.content, "the manifest names its DAG")
    equal(source.version_number, version.version_number)
    status, headers, text = session.raw("GET", f"/api/v2/dagSources/{session.dag_id}", accept="text/plain")
    equal((status, headers.get_content_type(), text.decode()), (200, "text/plain", source.content))
    versions = api.DagVersionApi(session.client)
    one = versions.get_dag_version(session.dag_id, version.version_number)
    equal(one.id, version.id)
    listed = versions.get_dag_versions(session.dag_id, order_by=["-version_number"])
    equal(listed.dag_versions[0].version_number, version.version_number)
    holds(versions.get_dag_versions("~").total_entries >= listed.total_entries, "the versions of all DAGs")
    stats = api.DagStatsApi(session.client).get_dag_stats(dag_ids=[session.dag_id])
    equal(sorted(state.state.value for state in stats.dags[0].stats), ["failed", "queued", "running", "success"])
    tags = session.dags.get_dag_tags()
    holds({tag.name for tag in details.tags} <= set(tags.tags), "its tags are among all tags")


@check
def pauses_and_unpauses(session: Session) -> None:
    for paused in (True, False):
        dag = session.dags.patch_dag(session.dag_id, DAGPatchBody(is_paused=paused))
        equal(dag.is_paused, paused)
        equal(session.dags.get_dag(session.dag_id).is_paused, paused)
        listed = session.dags.get_dags(paused=paused, dag_id_pattern=session.dag_id, limit=100)
        holds(session.dag_id in [dag.dag_id for dag in listed.dags], f"listed with paused={paused}")
    refused(404, lambda: session.dags.patch_dag("no-such-dag", DAGPatchBody(is_paused=True)))


@check
def a_paused_dag_leaves_its_run_queued(session: Session) -> None:
    session.dags.patch_dag(session.dag_id, DAGPatchBody(is_paused=True))
    try:
        run = session.trigger(dag_run_id=f"paused-{uuid.uuid4()}")
        time.sleep(0.3)
        equal(session.runs.get_dag_run(session.dag_id, run.dag_run_id).state.value, "queued")
    finally:
        session.dags.patch_dag(session.dag_id, DAGPatchBody(is_paused=False))
    equal(session.finished(run.dag_run_id).state.value, session.expect)
    session.runs.delete_dag_run(session.dag_id, run.dag_run_id)


@check
def tasks_of_a_dag(session: Session) -> None:
    listed = session.tasks.get_tasks(session.dag_id)
    equal(listed.total_entries, len(listed.tasks))
    ids = [task.task_id for task in listed.tasks]
    equal(ids, sorted(ids), "the default order")
    first = session.tasks.get_task(session.dag_id, ids[0])
    equal(first.task_id, ids[0])
    holds(first.trigger_rule, "a trigger rule")
    equal([task.task_id for task in session.tasks.get_tasks(session.dag_id, order_by="-task_id").tasks], ids[::-1])
    refused(404, lambda: session.tasks.get_task(session.dag_id, "no-such-task"))


# Runs


@check
def triggers_with_everything_given(session: Session) -> None:
    run = session.trigger(
        dag_run_id=session.run_id,
        logical_date=session.logical_date,
        data_interval_start=session.logical_date - dt.timedelta(hours=1),
        data_interval_end=session.logical_date,
        note="driven",
    )
    equal(run.dag_run_id, session.run_id)
    equal(run.logical_date, session.logical_date, "logical date, to the microsecond")
    equal(run.data_interval_start, session.logical_date - dt.timedelta(hours=1))
    equal((run.run_type.value, run.triggered_by.value, run.note), ("manual", "rest_api", "driven"))
    equal(run.conf, session.conf)
    equal(run.triggering_user_name, "admin")
    equal(len(run.dag_versions), 1)
    run = session.finished(session.run_id)
    equal(run.state.value, session.expect)
    holds(run.end_date >= run.start_date >= run.queued_at, "the times are in order")
    holds(run.duration >= 0, "a duration")


@check
def refuses_what_is_taken_or_wrong(session: Session) -> None:
    refused(409, lambda: session.trigger(dag_run_id=session.run_id))
    refused(409, lambda: session.trigger(logical_date=session.logical_date))
    refused(404, lambda: session.runs.trigger_dag_run("no-such-dag", TriggerDAGRunPostBody(logical_date=None)))
    refused(422, lambda: session.trigger(dag_run_id="a/b"))
    refused(422, lambda: session.trigger(data_interval_start=session.logical_date))
    path = f"/api/v2/dags/{session.dag_id}/dagRuns"
    for body, wanted in (
        (b"{}", 422),
        (b"{", 422),
        (b'{"logical_date": null} x', 422),
        (b'{"logical_date": null, "odd": 1}', 422),
    ):
        status, _, answer = session.raw("POST", path, body=body, Content_Type="application/json")
        equal(status, wanted, f"status for {body!r}")
        holds(json.loads(answer)["detail"][0]["loc"][0] == "body", "the place of the problem")
    status, _, _ = session.raw("POST", path, body=b"{}", Content_Type="text/plain")
    equal(status, 415)
    status, _, _ = session.raw("POST", path, body=b" " * (2 << 20), Content_Type="application/json")
    equal(status, 413)


@check
def a_run_without_a_name_gets_one(session: Session) -> None:
    run = session.trigger()
    holds(run.dag_run_id.startswith("manual__"), run.dag_run_id)
    equal(run.logical_date, None)
    equal(session.finished(run.dag_run_id).dag_run_id, run.dag_run_id)
    session.runs.delete_dag_run(session.dag_id, run.dag_run_id)
    refused(404, lambda: session.runs.get_dag_run(session.dag_id, run.dag_run_id))


@check
def waits_for_a_run(session: Session) -> None:
    run = session.trigger(dag_run_id=f"wait-{uuid.uuid4()}")
    path = f"/api/v2/dags/{session.dag_id}/dagRuns/{run.dag_run_id}/wait?interval=30"
    status, headers, body = session.raw("GET", path, accept="application/x-ndjson")
    equal((status, headers.get_content_type()), (200, "application/x-ndjson"))
    lines = [json.loads(line) for line in body.splitlines()]
    equal(lines[-1]["state"], session.expect)
    holds(len(lines) <= 2, "no line before its interval has passed")
    answer = session.runs.wait_dag_run_until_finished(session.dag_id, run.dag_run_id, interval=1)
    equal(answer["state"], session.expect, "as one JSON value for the client")
    refused(404, lambda: session.runs.wait_dag_run_until_finished(session.dag_id, "no-such-run", interval=1))
    session.runs.delete_dag_run(session.dag_id, run.dag_run_id)


@check
def lists_runs(session: Session) -> None:
    runs = session.runs
    by_id = runs.get_dag_runs(session.dag_id, run_id_pattern=session.run_id)
    equal([run.dag_run_id for run in by_id.dag_runs], [session.run_id])
    equal(by_id.total_entries, 1)
    everywhere = runs.get_dag_runs("~", run_id_prefix_pattern=session.run_id, dag_id_pattern=session.dag_id)
    equal(everywhere.total_entries, 1)
    moment = dt.timedelta(microseconds=1)
    for bounds, count in (
        ({"logical_date_gte": session.logical_date, "logical_date_lte": session.logical_date}, 1),
        ({"logical_date_gt": session.logical_date - moment, "logical_date_lt": session.logical_date + moment}, 1),
        ({"logical_date_gt": session.logical_date, "logical_date_lt": session.logical_date + moment}, 0),
    ):
        equal(runs.get_dag_runs(session.dag_id, **bounds).total_entries, count, str(bounds))
    equal(runs.get_dag_runs(session.dag_id, state=["queued"], run_id_pattern=session.run_id).total_entries, 0)
    wanted = runs.get_dag_runs(session.dag_id, state=[session.expect, "queued"], run_id_pattern=session.run_id)
    equal(wanted.total_entries, 1)
    equal(runs.get_dag_runs(session.dag_id, run_type=["scheduled"], run_id_pattern=session.run_id).total_entries, 0)
    equal(runs.get_dag_runs(session.dag_id, duration_gte=86_400.0, run_id_pattern=session.run_id).total_entries, 0)
    refused(404, lambda: runs.get_dag_runs("no-such-dag"))
    refused(400, lambda: runs.get_dag_runs(session.dag_id, order_by=["odd"]))
    batch = runs.get_list_dag_runs_batch("~", DAGRunsBatchBody(dag_ids=[session.dag_id], states=[session.expect]))
    holds(session.run_id in [run.dag_run_id for run in batch.dag_runs], "found by a batch")


@check
def pages_and_orders_runs(session: Session) -> None:
    names = [f"page-{index}-{uuid.uuid4()}" for index in range(3)]
    for name in names:
        session.trigger(dag_run_id=name)
    for name in names:
        session.finished(name)
    listed = session.runs.get_dag_runs(session.dag_id, run_id_pattern="page-", order_by=["run_id"], limit=2)
    equal([run.dag_run_id for run in listed.dag_runs], names[:2])
    equal(listed.total_entries, 3)
    rest = session.runs.get_dag_runs(session.dag_id, run_id_pattern="page-", order_by=["run_id"], limit=2, offset=2)
    equal([run.dag_run_id for run in rest.dag_runs], names[2:])
    down = session.runs.get_dag_runs(session.dag_id, run_id_pattern="page-", order_by=["-run_id"])
    equal([run.dag_run_id for run in down.dag_runs], names[::-1])
    down = session.runs.get_dag_runs(session.dag_id, run_id_pattern="page-", order_by=["state", "-id"])
    equal([run.dag_run_id for run in down.dag_runs], names[::-1])
    found, cursor = [], ""
    while cursor is not None:
        page = session.runs.get_dag_runs(session.dag_id, run_id_pattern="page-", limit=1, cursor=cursor)
        found += [run.dag_run_id for run in page.dag_runs]
        cursor = page.next_cursor
    equal(found, names, "by cursor")
    for name in names:
        session.runs.delete_dag_run(session.dag_id, name)


# Task instances


@check
def lists_and_gets_task_instances(session: Session) -> None:
    tasks = {task.task_id for task in session.tasks.get_tasks(session.dag_id).tasks}
    instances = session.task_instances()
    equal({ti.task_id for ti in instances}, tasks)
    for ti in instances:
        equal((ti.dag_id, ti.dag_run_id, ti.map_index), (session.dag_id, session.run_id, -1))
        holds(uuid.UUID(str(ti.id)).version == 5, "the id is a UUID")
        one = session.tis.get_task_instance(session.dag_id, session.run_id, ti.task_id)
        equal(one, ti)
        equal(session.tis.get_mapped_task_instance(session.dag_id, session.run_id, ti.task_id, -1), one)
        equal(one.logical_date, session.logical_date)
    ran = [ti for ti in instances if ti.start_date is not None]
    holds(ran, "some task ran")
    holds(all(ti.end_date >= ti.start_date and ti.try_number >= 1 for ti in ran), "times and tries")
    only = session.tis.get_task_instances(session.dag_id, session.run_id, task_id=ran[0].task_id)
    equal([ti.task_id for ti in only.task_instances], [ran[0].task_id])
    by_state = session.tis.get_task_instances("~", "~", state=[ran[0].state.value], run_id_pattern=session.run_id)
    holds(ran[0].task_id in [ti.task_id for ti in by_state.task_instances], "found in all runs")
    ordered = session.tis.get_task_instances(session.dag_id, session.run_id, order_by=["start_date"], state=["success"])
    starts = [ti.start_date for ti in ordered.task_instances]
    equal(starts, sorted(starts), "ordered by start")
    batch = session.tis.get_task_instances_batch(
        "~", "~", TaskInstancesBatchBody(dag_ids=[session.dag_id], dag_run_ids=[session.run_id])
    )
    equal(batch.total_entries, len(instances))
    refused(404, lambda: session.tis.get_task_instance(session.dag_id, session.run_id, "no-such-task"))
    refused(404, lambda: session.tis.get_task_instances(session.dag_id, "no-such-run"))
    refused(404, lambda: session.tis.get_mapped_task_instance(session.dag_id, session.run_id, ran[0].task_id, 7))


def ran(session: Session) -> Any:
    return next(ti for ti in session.task_instances() if ti.start_date is not None)


@check
def tries_of_a_task_instance(session: Session) -> None:
    ti = ran(session)
    tries = session.tis.get_task_instance_tries(session.dag_id, session.run_id, ti.task_id)
    numbers = [one.try_number for one in tries.task_instances]
    equal(numbers, list(range(1, ti.try_number + 1)))
    last = session.tis.get_task_instance_try_details(session.dag_id, session.run_id, ti.task_id, ti.try_number)
    equal((last.state, last.end_date), (ti.state, ti.end_date))
    mapped = session.tis.get_mapped_task_instance_tries(session.dag_id, session.run_id, ti.task_id, -1)
    equal(mapped, tries)
    refused(
        404, lambda: session.tis.get_task_instance_try_details(session.dag_id, session.run_id, ti.task_id, 99)
    )


@check
def reads_logs(session: Session) -> None:
    ti = ran(session)
    log = session.tis.get_log(session.dag_id, session.run_id, ti.task_id, ti.try_number, full_content=True)
    messages = log.content.actual_instance
    equal(log.continuation_token, None, "the log of an ended try has ended")
    events = [message if isinstance(message, str) else message.event for message in messages]
    path = f"/api/v2/dags/{session.dag_id}/dagRuns/{session.run_id}/taskInstances/{ti.task_id}/logs/{ti.try_number}"
    for suffix in ("", "?follow=true"):
        status, headers, body = session.raw("GET", path + suffix, accept="application/x-ndjson")
        equal((status, headers.get_content_type()), (200, "application/x-ndjson"))
        equal([json.loads(line)["event"] for line in body.splitlines()], events, "the same as lines")
    status, headers, body = session.raw("GET", path, accept="text/plain")
    equal((status, headers.get_content_type(), len(body.splitlines())), (200, "text/plain", len(events)))
    refused(404, lambda: session.tis.get_log(session.dag_id, session.run_id, ti.task_id, 99))
    refused(404, lambda: session.tis.get_log(session.dag_id, session.run_id, "no-such-task", 1))


@check
def reads_xcoms(session: Session) -> None:
    listed = session.xcoms.get_xcom_entries(**session.task("~"), limit=100)
    holds(listed.xcom_entries, "some task published something")
    for entry in listed.xcom_entries:
        value = session.xcoms.get_xcom_entry(**session.task(entry.task_id), xcom_key=entry.key).actual_instance
        equal((value.key, value.task_id, value.run_id), (entry.key, entry.task_id, session.run_id))
        path = (
            f"/api/v2/dags/{session.dag_id}/dagRuns/{session.run_id}/taskInstances/{entry.task_id}"
            f"/xcomEntries/{entry.key}"
        )
        _, _, plain = session.raw("GET", path)
        _, _, text = session.raw("GET", path + "?stringify=true")
        equal(json.loads(json.loads(text)["value"]), json.loads(plain)["value"], "the text is the value's JSON")
    first = listed.xcom_entries[0]
    only = session.xcoms.get_xcom_entries(**session.task(first.task_id), xcom_key=first.key)
    equal([entry.key for entry in only.xcom_entries], [first.key])
    refused(404, lambda: session.xcoms.get_xcom_entry(**session.task(first.task_id), xcom_key="no-such-key"))


# Changes


@check
def clears_task_instances(session: Session) -> None:
    ti = ran(session)
    named = [ClearTaskInstancesBodyTaskIdsInner(ti.task_id)]
    body = {"dag_run_id": session.run_id, "task_ids": named, "only_failed": False}
    clear = lambda **more: session.tis.post_clear_task_instances(  # noqa: E731
        session.dag_id, ClearTaskInstancesBody(**body, **more)
    )
    dry = clear(dry_run=True)
    equal([one.task_id for one in dry.task_instances], [ti.task_id])
    equal(session.tis.get_task_instance(session.dag_id, session.run_id, ti.task_id), ti, "a dry run changes nothing")
    wide = clear(dry_run=True, include_downstream=True)
    task = session.tasks.get_task(session.dag_id, ti.task_id)
    holds(set(task.downstream_task_ids) <= {one.task_id for one in wide.task_instances}, "what follows is included")
    cleared = clear(dry_run=False)
    equal([one.task_id for one in cleared.task_instances], [ti.task_id])
    equal(session.finished(session.run_id).state.value, session.expect)
    again = session.tis.get_task_instance(session.dag_id, session.run_id, ti.task_id)
    equal(again.try_number, ti.try_number + 1, "the next try")
    tries = session.tis.get_task_instance_tries(session.dag_id, session.run_id, ti.task_id)
    equal(len(tries.task_instances), ti.try_number + 1)
    log = session.tis.get_log(session.dag_id, session.run_id, ti.task_id, ti.try_number, full_content=True)
    holds(log.content is not None, "the first try keeps its log")
    named = [ClearTaskInstancesBodyTaskIdsInner("no-such-task")]
    unknown = ClearTaskInstancesBody(dag_run_id=session.run_id, task_ids=named, dry_run=True)
    refused(404, lambda: session.tis.post_clear_task_instances(session.dag_id, unknown))


@check
def clears_a_run(session: Session) -> None:
    before = {ti.task_id for ti in session.task_instances()}
    # The client cannot read the answer of a dry run, Airflow's neither: it finds each element to be two things at once.
    path = f"/api/v2/dags/{session.dag_id}/dagRuns/{session.run_id}/clear"
    status, _, dry = session.raw("POST", path, body=b"{}", Content_Type="application/json")
    equal(status, 200)
    equal({one["task_id"] for one in json.loads(dry)["task_instances"]}, before)
    cleared = session.runs.clear_dag_run(session.dag_id, session.run_id, DAGRunClearBody(dry_run=False))
    equal(cleared.actual_instance.dag_run_id, session.run_id)
    equal(session.finished(session.run_id).state.value, session.expect)


@check
def sets_state_and_note_of_a_run(session: Session) -> None:
    run = session.runs.patch_dag_run(session.dag_id, session.run_id, DAGRunPatchBody(note="changed"))
    equal((run.note, run.state.value), ("changed", session.expect))
    for state in ("failed", "success"):
        run = session.runs.patch_dag_run(session.dag_id, session.run_id, DAGRunPatchBody(state=state))
        equal(run.state.value, state)
    run = session.runs.patch_dag_run(
        session.dag_id, session.run_id, DAGRunPatchBody(state="failed", note="masked"), update_mask=["note"]
    )
    equal((run.state.value, run.note), ("success", "masked"))
    session.runs.patch_dag_run(session.dag_id, session.run_id, DAGRunPatchBody(state="queued"))
    equal(session.finished(session.run_id).state.value, session.expect)
    refused(
        404, lambda: session.runs.patch_dag_run(session.dag_id, "no-such-run", DAGRunPatchBody(state="failed"))
    )


@check
def sets_the_state_of_a_task_instance(session: Session) -> None:
    run = session.trigger(dag_run_id=f"marked-{uuid.uuid4()}")
    session.finished(run.dag_run_id)
    listed = session.tis.get_task_instances(session.dag_id, run.dag_run_id, state=["success"]).task_instances
    name = (session.dag_id, run.dag_run_id, next(ti.task_id for ti in listed if ti.map_index == -1))
    body = PatchTaskInstanceBody(new_state="skipped")
    would = session.tis.patch_task_instance_dry_run(*name, body)
    equal([(ti.task_id, ti.state.value) for ti in would.task_instances], [(name[2], "success")])
    equal(session.tis.get_task_instance(*name).state.value, "success", "a dry run changes nothing")
    changed = session.tis.patch_task_instance(*name, body)
    equal([(ti.task_id, ti.state.value) for ti in changed.task_instances], [(name[2], "skipped")])
    equal(session.tis.get_task_instance(*name).state.value, "skipped")
    refused(409, lambda: session.tis.patch_task_instance(*name, body))
    refused(404, lambda: session.tis.patch_task_instance(session.dag_id, run.dag_run_id, "no-such-task", body))
    refused(404, lambda: session.tis.get_mapped_task_instances(*name))
    equal(session.tis.get_task_instance_dependencies(*name).dependencies, [])


# Pools, audit log


@check
def reads_pools(session: Session) -> None:
    pools = api.PoolApi(session.client)
    pool = pools.get_pool("default_pool")
    equal(pool.open_slots + pool.occupied_slots, pool.slots)
    holds("default_pool" in [pool.name for pool in pools.get_pools().pools], "it is in the list")
    refused(404, lambda: pools.get_pool("no-such-pool"))


@check
def the_audit_log_knows_who_triggered(session: Session) -> None:
    logs = api.EventLogApi(session.client)
    listed = logs.get_event_logs(dag_id=session.dag_id, order_by=["-event_log_id"], limit=100)
    holds(listed.event_logs, "the changes to this DAG")
    ids = [line.event_log_id for line in listed.event_logs]
    equal(ids, sorted(ids, reverse=True))
    one = logs.get_event_log(ids[0])
    equal((one.event, one.owner), (listed.event_logs[0].event, "admin"))
    refused(404, lambda: logs.get_event_log(2**40))


@check
def deletes_a_run(session: Session) -> None:
    session.runs.delete_dag_run(session.dag_id, session.run_id)
    refused(404, lambda: session.runs.get_dag_run(session.dag_id, session.run_id))
    refused(404, lambda: session.runs.delete_dag_run(session.dag_id, session.run_id))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("password")
    parser.add_argument("dag_id")
    parser.add_argument("--conf", type=json.loads, default={}, help="the conf of every run")
    parser.add_argument("--expect", default="success", choices=sorted(FINISHED), help="how every run ends")
    parser.add_argument("--only", help="only the checks whose names contain this")
    arguments = parser.parse_args()
    session = Session(arguments.url, arguments.password, arguments.dag_id, arguments.conf, arguments.expect)
    passed, failed = 0, 0
    for function in CHECKS:
        if arguments.only and arguments.only not in function.__name__:
            continue
        try:
            function(session)
        except Exception as error:  # noqa: BLE001 - whatever it is, the check has failed and the others go on
            failed += 1
            where = traceback.extract_tb(error.__traceback__)
            line = next((frame.lineno for frame in reversed(where) if frame.filename == __file__), "?")
            print(f"FAILED {function.__name__} (line {line}): {type(error).__name__}: {str(error)[:600]}")
        else:
            passed += 1
            print(f"ok     {function.__name__}")
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
