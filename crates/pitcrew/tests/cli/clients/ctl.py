"""airflowctl against a server, as a person types it.

Environment: PITCREW_URL, PITCREW_PASSWORD, AIRFLOWCTL (the program), AIRFLOW_HOME (a folder of its own).
"""

import json
import os
import pathlib
import subprocess
import urllib.request

url, home = os.environ["PITCREW_URL"], pathlib.Path(os.environ["AIRFLOW_HOME"])
body = json.dumps({"username": "admin", "password": os.environ["PITCREW_PASSWORD"]}).encode()
request = urllib.request.Request(f"{url}/auth/token/cli", body, {"Content-Type": "application/json"})
with urllib.request.urlopen(request) as answer:
    token = json.load(answer)["access_token"]
home.mkdir(parents=True, exist_ok=True)
(home / "production.json").write_text(json.dumps({"api_url": url}))
environment = {**os.environ, "AIRFLOW_CLI_TOKEN": token, "NO_COLOR": "1", "COLUMNS": "500"}


def ctl(*words, fails=False):
    ran = subprocess.run([os.environ["AIRFLOWCTL"], *words], env=environment, capture_output=True, text=True)
    assert (ran.returncode != 0) == fails, (words, ran.stdout, ran.stderr)
    return ran.stdout + ran.stderr


for _ in range(200):  # The server reads its folder in its own time.
    if "demo" in ctl("dags", "list"):
        break
assert json.loads(ctl("dags", "get", "demo"))
ctl("dags", "pause", "demo")
ctl("dags", "unpause", "demo")
ctl("dags", "trigger", "demo", "--dag-run-id=by-ctl", "--note=hello")
assert "by-ctl" in ctl("dagrun", "list", "--dag-id=demo")
assert "by-ctl" in ctl("dagrun", "get", "demo", "by-ctl")
ctl("dags", "list-version", "demo")
ctl("dags", "list-import-errors")
ctl("dags", "get", "none", fails=True)
ctl("variables", "create", "--key=a", "--value=1")
assert "a" in ctl("variables", "list")
(home / "variables.json").write_text(json.dumps({"b": "2", "c": {"value": "3", "description": "d"}}))
ctl("variables", "import", str(home / "variables.json"))
assert "b" in ctl("variables", "list")
ctl("pools", "create", "--name=gpu", "--slots=2")
assert "gpu" in ctl("pools", "list")
ctl("connections", "create", "--connection-id=db", "--conn-type=postgres", "--password=hunter2")
shown = ctl("connections", "list")
assert "db" in shown and "hunter2" not in shown, shown
ctl("jobs", "list")
ctl("providers", "list")
ctl("version", "--remote")
print("all is well")
