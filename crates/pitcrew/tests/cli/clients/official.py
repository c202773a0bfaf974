"""Airflow's own Python client against a server: every answer must pass its strict models.

Environment: PITCREW_URL, PITCREW_PASSWORD. The server serves the workflow `demo`.
"""

import json
import os
import time
import urllib.request

import airflow_client.client as af
from airflow_client.client.rest import ApiException

url = os.environ["PITCREW_URL"]
body = json.dumps({"username": "admin", "password": os.environ["PITCREW_PASSWORD"]}).encode()
request = urllib.request.Request(f"{url}/auth/token", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    token = json.load(answer)["access_token"]

client = af.ApiClient(af.Configuration(host=url, access_token=token))
dags, runs, tis = af.DAGApi(client), af.DagRunApi(client), af.TaskInstanceApi(client)


def refused(status, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except ApiException as error:
        assert error.status == status, error
        return
    raise AssertionError(f"expected {status}")


assert af.MonitorApi(client).get_health().scheduler.status == "healthy"
af.VersionApi(client).get_version()

for _ in range(600):  # The server reads its folder in its own time.
    listed = dags.get_dags(limit=10, tags=["clients"])
    if listed.dags:
        break
    time.sleep(0.05)
assert [dag.dag_id for dag in listed.dags] == ["demo"]
assert dags.get_dag("demo").tags[0].name == "clients"
assert dags.get_dag_details("demo").params["n"]["value"] == 3
assert dags.get_dag_tags().tags == ["clients"]
assert "workflow: demo" in af.DagSourceApi(client).get_dag_source("demo").content
assert dags.patch_dag("demo", af.DAGPatchBody(is_paused=True)).is_paused
assert not dags.patch_dag("demo", af.DAGPatchBody(is_paused=False)).is_paused
assert af.DagVersionApi(client).get_dag_versions("demo").total_entries == 1
tasks = af.TaskApi(client)
assert {task.task_id for task in tasks.get_tasks("demo").tasks} == {"first", "second"}
assert tasks.get_task("demo", "first").downstream_task_ids == ["second"]

run = runs.trigger_dag_run("demo", af.TriggerDAGRunPostBody(conf={"n": 5}, dag_run_id="one", note="by hand"))
assert (run.dag_run_id, run.conf) == ("one", {"n": 5})
refused(409, runs.trigger_dag_run, "demo", af.TriggerDAGRunPostBody(dag_run_id="one"))
refused(400, runs.trigger_dag_run, "demo", af.TriggerDAGRunPostBody(conf={"n": "x"}))
refused(404, runs.trigger_dag_run, "none", af.TriggerDAGRunPostBody())
waited = runs.wait_dag_run_until_finished_without_preload_content("demo", "one", interval=1)
last = json.loads(waited.read().decode().strip().splitlines()[-1])
assert last["state"] == "success", last
assert runs.get_dag_run("demo", "one").state == "success"
assert runs.get_dag_runs("~", state=["success"], order_by=["-run_after"]).total_entries == 1
assert runs.get_list_dag_runs_batch("~", af.DAGRunsBatchBody(dag_ids=["demo"], page_limit=5)).total_entries == 1
assert runs.patch_dag_run("demo", "one", af.DAGRunPatchBody(note="checked")).note == "checked"
assert af.DagStatsApi(client).get_dag_stats(["demo"]).dags[0].stats[2].count == 1

assert tis.get_task_instances("demo", "one").total_entries == 2
instance = tis.get_task_instance("demo", "one", "first")
assert (instance.state, instance.try_number) == ("success", 1)
assert tis.get_task_instance_tries("demo", "one", "first").total_entries == 1
assert tis.get_task_instances_batch("demo", "one", af.TaskInstancesBatchBody(task_ids=["second"])).total_entries == 1
tis.get_task_instance_dependencies("demo", "one", "first")
log = tis.get_log("demo", "one", "first", 1)
assert "hello" in json.dumps(log.to_dict(), default=str)
cleared = tis.post_clear_task_instances("demo", af.ClearTaskInstancesBody(dag_run_id="one", only_failed=False))
assert cleared.total_entries == 2

xcoms = af.XComApi(client)
place = dict(dag_id="demo", task_id="first", dag_run_id="one")
assert xcoms.get_xcom_entry(xcom_key="size", **place).actual_instance.value in (5, "5")
xcoms.create_xcom_entry(x_com_create_body=af.XComCreateBody(key="k", value={"a": [1]}), **place)
xcoms.update_xcom_entry(xcom_key="k", x_com_update_body=af.XComUpdateBody(value=2), **place)
assert xcoms.get_xcom_entries(**place).total_entries == 2
xcoms.delete_xcom_entry(xcom_key="k", **place)

variables = af.VariableApi(client)
variables.post_variable(af.VariableBody(key="greeting", value="hello"))
assert variables.get_variable("greeting").value == "hello"
variables.patch_variable("greeting", af.VariableBody(key="greeting", value="bye"))
assert variables.get_variables(variable_key_pattern="greet").total_entries == 1
variables.delete_variable("greeting")
refused(404, variables.get_variable, "greeting")

connections = af.ConnectionApi(client)
connections.post_connection(af.ConnectionBody(connection_id="db", conn_type="postgres", password="hunter2", port=5432))
assert connections.get_connection("db").password == "***"
assert connections.get_connections().total_entries == 1
connections.delete_connection("db")

pools = af.PoolApi(client)
pools.post_pool(af.PoolBody(name="gpu", slots=2))
assert pools.patch_pool("gpu", af.PoolPatchBody(slots=4, pool="gpu")).open_slots == 4
assert pools.get_pools().total_entries == 2
pools.delete_pool("gpu")

assert af.EventLogApi(client).get_event_logs(dag_id="demo", event="run.trigger").total_entries == 1
assert af.AssetApi(client).get_assets().total_entries == 0
assert af.JobApi(client).get_jobs().total_entries == 1
assert af.ProviderApi(client).get_providers().total_entries > 5
assert af.PluginApi(client).get_plugins().total_entries == 0
assert af.DagWarningApi(client).list_dag_warnings().total_entries == 0
assert af.ImportErrorApi(client).get_import_errors().total_entries == 0
assert af.BackfillApi(client).list_backfills("demo").total_entries == 0
assert af.ConfigApi(client).get_config().sections[0].name == "pitcrew"

runs.delete_dag_run("demo", "one")
refused(404, runs.get_dag_run, "demo", "one")
dags.delete_dag("demo")
print("all is well")
