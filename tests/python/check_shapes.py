"""Compares the answers of a running server with an OpenAPI description of Airflow's REST API.

Every GET that both know is asked, with ids that the server itself lists; the answer must match the schema of its status.
Additional members are allowed: ours are documented.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import jsonschema
import yaml


class Server:
    def __init__(self, url: str, password: str) -> None:
        self.url = url.rstrip("/")
        body = json.dumps({"username": "admin", "password": password}).encode()
        request = urllib.request.Request(
            f"{self.url}/auth/token", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.token = json.load(answer)["access_token"]

    def get(self, path: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json"}
        request = urllib.request.Request(self.url + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)


def fill(path: str, ids: dict[str, Any]) -> str | None:
    parts = []
    for part in path.split("/"):
        if part.startswith("{"):
            value = ids.get(part.strip("{}"))
            if value is None:
                return None
            part = urllib.parse.quote(str(value), safe="~")
        parts.append(part)
    return "/".join(parts)


def known_ids(server: Server) -> dict[str, Any]:
    """The ids of a run that has ended, with an XCom."""
    _, xcoms = server.get("/api/v2/dags/~/dagRuns/~/taskInstances/~/xcomEntries?limit=1")
    ids: dict[str, Any] = {"try_number": 1, "task_try_number": 1, "map_index": -1, "version_number": 1}
    ids["pool_name"] = "default_pool"
    for entry in xcoms["xcom_entries"]:
        ids |= {"dag_id": entry["dag_id"], "dag_run_id": entry["run_id"]}
        ids |= {"task_id": entry["task_id"], "xcom_key": entry["key"]}
    _, logs = server.get("/api/v2/eventLogs?limit=1")
    for line in logs["event_logs"]:
        ids["event_log_id"] = line["event_log_id"]
    return ids


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", help="the OpenAPI description, YAML")
    parser.add_argument("url")
    parser.add_argument("password")
    arguments = parser.parse_args()
    with open(arguments.spec, encoding="utf-8") as file:
        spec = yaml.safe_load(file)
    server = Server(arguments.url, arguments.password)
    _, ours = server.get("/openapi.json")
    ids = known_ids(server)
    passed, failed, absent, skipped = 0, 0, 0, 0
    for path, item in spec["paths"].items():
        if "get" not in item:
            continue
        if "get" not in ours["paths"].get(path, {}):
            absent += 1
            continue
        filled = fill(path, ids)
        if filled is None or path.endswith("/wait"):
            print(f"skipped {path}")
            skipped += 1
            continue
        for suffix, wanted in (("", 200), ("?limit=x", 422)):
            takes = {parameter["name"] for parameter in item["get"].get("parameters", [])}
            if suffix and "limit" not in takes:
                continue
            status, answer = server.get(filled + suffix)
            if status == 404 and "importErrors/" in path:
                wanted = 404
            description = item["get"]["responses"].get(str(status), {})
            schema = description.get("content", {}).get("application/json", {}).get("schema")
            problems = []
            if status != wanted:
                problems.append(f"status {status}, wanted {wanted}: {json.dumps(answer)[:200]}")
            elif schema is not None:
                validator = jsonschema.Draft202012Validator(schema | {"components": spec["components"]})
                for error in validator.iter_errors(answer):
                    problems.append(f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}")
            for problem in problems:
                print(f"FAILED GET {filled}{suffix}: {problem}")
            failed += bool(problems)
            passed += not problems
    print(f"{passed} passed, {failed} failed, {skipped} skipped for want of data, {absent} not served here")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
