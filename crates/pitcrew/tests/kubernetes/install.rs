//! `deploy/kubernetes` on a real API server: it takes every file, gives the account of the server what it needs and no more, and a
//! server that is made of these files runs there, as the user and with the disk that they say.
//!
//! All names of the installation begin with `pitcrew`. A test applies a copy in which they begin with a name of its own.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::harness::World;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// The pieces that `v1.20` does not bring along.
const PIECES: [&str; 4] = ["gpu-sharing", "monitoring", "storage/aws", "storage/gke"];

struct Install {
    cluster: Cluster,
    world: World,
    /// In place of `pitcrew` in every name.
    name: String,
}

fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kubernetes")
}

/// A line of YAML that ends with one of our names gets this one.
fn renamed(line: &str, name: &str) -> String {
    let line = line.replace("pitcrew:latest", &format!("pitcrew:{name}"));
    let Some((before, value)) = line.rsplit_once(": ") else { return line };
    match value.strip_prefix("pitcrew") {
        Some(rest) if rest.is_empty() || rest.starts_with('-') => format!("{before}: {name}{rest}"),
        _ => line,
    }
}

fn copy(from: &Path, to: &Path, name: &str) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to, name);
        } else {
            let text = std::fs::read_to_string(&from).unwrap();
            let text: String = text.lines().map(|line| renamed(line, name) + "\n").collect();
            std::fs::write(to, text).unwrap();
        }
    }
}

impl Install {
    /// With its two namespaces, as nothing can be tried in one that is not there.
    fn new(cluster: &Cluster) -> Install {
        let name = format!("i{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let world = World::new();
        copy(&shipped(), &world.path("files"), &name);
        let install = Install { cluster: cluster.clone(), world, name };
        cluster.apply(&std::fs::read_to_string(install.file("base/namespaces.yaml")).unwrap());
        // As the Prometheus Operator has it, but for its contents, which are the operator's.
        if cluster.get(&["crd", "podmonitors.monitoring.coreos.com"]).is_null() {
            cluster.apply(PODMONITORS);
            cluster.ok(&["wait", "--for=condition=established", "crd/podmonitors.monitoring.coreos.com"], "");
        }
        install
    }

    fn file(&self, path: &str) -> String {
        self.world.path("files").join(path).display().to_string()
    }

    fn tasks(&self) -> String {
        format!("{}-tasks", self.name)
    }

    /// What was asked, of whom, and how it stands.
    fn may(&self, verb: &str, what: &str, namespace: &str, account: &str) -> bool {
        let whom = format!("--as=system:serviceaccount:{}:{account}", self.name);
        let (resource, below) = what.split_once('/').unwrap_or((what, ""));
        let below = format!("--subresource={below}");
        let place =
            if namespace.is_empty() { "--all-namespaces".to_owned() } else { format!("--namespace={namespace}") };
        // It answers `no` with a status that is none of success.
        let args = ["auth", "can-i", verb, resource, &below, &place, &whom];
        let out = self.cluster.kubectl(&args, "");
        match String::from_utf8_lossy(&out.stdout).trim() {
            "yes" => true,
            "no" => false,
            other => panic!("{args:?}: {other}{}", String::from_utf8_lossy(&out.stderr)),
        }
    }

    fn of(&self, kind: &str, name: &str) -> Value {
        self.cluster.get(&[kind, name, "--namespace", &self.name])
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        for what in ["namespace", "storageclass", "persistentvolume", "clusterrole", "clusterrolebinding"] {
            let name = &self.name;
            let all = ["", "-tasks", "-data", "-recovery"].map(|rest| format!("{name}{rest}"));
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let args = [&["delete", "--wait=false", "--ignore-not-found", what], all.as_slice()].concat();
            self.cluster.kubectl(&args, "");
        }
    }
}

const PODMONITORS: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: PodMonitor, listKind: PodMonitorList, plural: podmonitors, singular: podmonitor}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [selector, podMetricsEndpoints]
            properties:
              selector: {type: object, x-kubernetes-preserve-unknown-fields: true}
              podMetricsEndpoints:
                type: array
                items:
                  type: object
                  properties:
                    port: {type: string}
                    path: {type: string}
                    interval: {type: string}
                    authorization:
                      type: object
                      properties:
                        credentials:
                          type: object
                          required: [key]
                          properties: {name: {type: string}, key: {type: string}}
";

#[test]
fn the_api_server_takes_every_file_and_finds_what_is_no_field() {
    let Some(cluster) = Cluster::find() else { return };
    let install = Install::new(&cluster);
    let told = cluster.ok(&["apply", "--dry-run=server", "-k", &install.file("v1.20")], "");
    for what in
        ["statefulset.apps/server", "statefulset.apps/database", "statefulset.apps/worker", "daemonset.apps/images"]
    {
        assert!(told.contains(&format!("{what} created (server dry run)")), "{what}: {told}");
    }
    for what in ["horizontalpodautoscaler.autoscaling/worker", "poddisruptionbudget.policy/server", "limitrange/each"] {
        assert!(told.contains(what), "{what}: {told}");
    }
    for piece in PIECES {
        cluster.ok(&["apply", "--dry-run=server", "-k", &install.file(piece)], "");
    }
    cluster.ok(&["apply", "--dry-run=server", "-f", &install.file("recovery.yaml")], "");
    assert!(install.of("statefulset", "server").is_null(), "it was only tried");

    // What says all this is worth something: one wrong word in it is found.
    let path = install.file("base/server.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("podManagementPolicy:", "podManagementPolicies:")).unwrap();
    let out = cluster.kubectl(&["apply", "--dry-run=server", "-k", &install.file("v1.20")], "");
    let wrong = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && wrong.contains("podManagementPolicies"), "{wrong}");
}

#[test]
fn old_and_new_clusters_get_the_same_but_for_the_versions_of_two_apis() {
    let Some(cluster) = Cluster::find() else { return };
    let of = |path: &str| cluster.ok(&["kustomize", &shipped().join(path).display().to_string()], "");
    let all = |text: &str| {
        let mut all: Vec<String> = text.split("\n---\n").map(|one| one.trim().to_owned()).collect();
        all.sort();
        all
    };
    let (new, old) = (of("."), of("v1.20"));
    assert!(new.contains("autoscaling/v2\n") && new.contains("policy/v1\n"));
    assert!(old.contains("autoscaling/v2beta2\n") && old.contains("policy/v1beta1\n"));
    let old = old.replace("autoscaling/v2beta2\n", "autoscaling/v2\n").replace("policy/v1beta1\n", "policy/v1\n");
    assert_eq!(all(&new), all(&old));
}

#[test]
fn the_account_of_the_server_may_do_what_it_does_and_nothing_else() {
    let Some(cluster) = Cluster::find() else { return };
    let install = Install::new(&cluster);
    cluster.apply(&std::fs::read_to_string(install.file("base/account.yaml")).unwrap());
    let (own, tasks) = (install.name.clone(), install.tasks());
    let check = |table: &[(&str, &str, &str, bool)]| {
        for (verb, what, namespace, may) in table {
            let is = install.may(verb, what, namespace, "server");
            assert_eq!(is, *may, "{verb} {what} in `{namespace}`");
        }
    };
    check(&[
        ("create", "pods", &tasks, true),
        ("get", "pods", &tasks, true),
        ("list", "pods", &tasks, true),
        ("delete", "pods", &tasks, true),
        ("get", "pods/log", &tasks, true),
        ("create", "pods/exec", &tasks, false),
        ("create", "pods/attach", &tasks, false),
        ("create", "pods/portforward", &tasks, false),
        ("deletecollection", "pods", &tasks, false),
        ("get", "secrets", &tasks, false),
        ("list", "secrets", &tasks, false),
        ("create", "serviceaccounts/token", &tasks, false),
        ("create", "roles", &tasks, false),
        ("create", "rolebindings", &tasks, false),
        ("delete", "resourcequotas", &tasks, false),
        // Its own namespace, where the password of the database is.
        ("get", "secrets", &own, false),
        ("list", "secrets", &own, false),
        ("create", "pods", &own, false),
        ("delete", "pods", &own, false),
        ("get", "configmaps", &own, false),
        ("patch", "statefulsets.apps", &own, false),
        // The whole cluster.
        ("list", "nodes", "", false),
        ("patch", "nodes", "", false),
        ("list", "pods", "", false),
        ("create", "pods/eviction", "", false),
        ("create", "clusterrolebindings", "", false),
        ("impersonate", "users", "", false),
    ]);
    // Pods of workflows run as another account, which may do nothing at all.
    for (verb, what) in [("get", "pods"), ("create", "pods"), ("get", "secrets"), ("list", "nodes")] {
        let whom = format!("--as=system:serviceaccount:{tasks}:default");
        let out = cluster.kubectl(&["auth", "can-i", verb, what, "--namespace", &tasks, &whom], "");
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), "no", "{verb} {what}");
    }
    // Where nodes are repaired, and only there.
    cluster.apply(&std::fs::read_to_string(install.file("recovery.yaml")).unwrap());
    check(&[
        ("get", "nodes", "", true),
        ("list", "nodes", "", true),
        ("watch", "nodes", "", true),
        ("patch", "nodes", "", true),
        ("list", "pods", "", true),
        ("create", "pods/eviction", "", true),
        ("delete", "nodes", "", false),
        ("update", "nodes", "", false),
        ("create", "nodes", "", false),
        ("delete", "pods", "", false),
        ("create", "pods", &own, false),
        ("get", "secrets", &own, false),
        ("get", "secrets", &tasks, false),
    ]);
}

#[test]
fn a_container_that_says_nothing_gets_a_share_and_no_gpu() {
    let Some(cluster) = Cluster::find() else { return };
    let install = Install::new(&cluster);
    cluster.apply(&std::fs::read_to_string(install.file("base/limits.yaml")).unwrap());
    let tasks = install.tasks();
    install
        .world
        .wait("pods have an account", || !cluster.get(&["serviceaccount", "default", "--namespace", &tasks]).is_null());
    let pod = |resources: Value| {
        let container = json!({ "name": "main", "image": "busybox:local", "resources": resources });
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one", "namespace": tasks },
                "spec": { "containers": [container] } })
        .to_string()
    };
    let args = ["create", "--dry-run=server", "--output", "json", "-f", "-"];
    let made: Value = serde_json::from_str(&cluster.ok(&args, &pod(json!({})))).unwrap();
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(resources["requests"], json!({ "cpu": "500m", "memory": "1Gi", "ephemeral-storage": "1Gi" }));
    assert_eq!(resources["limits"]["nvidia.com/gpu"], Value::Null);
    // Who says how much it needs is not held to less than that.
    cluster.ok(&args, &pod(json!({ "requests": { "cpu": "8", "memory": "64Gi" } })));
    let out = cluster.kubectl(&args, &pod(json!({ "limits": { "memory": "1Ti" } })));
    assert!(String::from_utf8_lossy(&out.stderr).contains("maximum memory usage per Container is 512Gi"), "{out:?}");
    let out = cluster.kubectl(&args, &pod(json!({ "limits": { "nvidia.com/gpu": "17" } })));
    assert!(String::from_utf8_lossy(&out.stderr).contains("exceeded quota: all"), "{out:?}");
}

/// The program with what it is linked to, as an image of the cluster's engine, which has nothing to pull from.
fn image(cluster: &Cluster, world: &World, name: &str) {
    let root = world.path("image");
    let program = env!("CARGO_BIN_EXE_pitcrew");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::create_dir_all(root.join("etc/ssl/certs")).unwrap();
    // Without what only debuggers read it is half as large.
    let run = |command: &mut Command| {
        let out = command.output().unwrap();
        assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    run(Command::new("strip").arg("-o").arg(root.join("bin/pitcrew")).arg(program));
    for word in run(Command::new("ldd").arg(program)).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(word.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(word, to).unwrap();
    }
    let trusted = "etc/ssl/certs/ca-certificates.crt";
    std::fs::copy(Path::new("/").join(trusted), root.join(trusted)).unwrap();
    let tar = world.path("image.tar");
    run(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."));
    let engine = cluster.kubeconfig.with_file_name("docker.sock");
    let engine = format!("unix://{}", engine.display());
    let entry = "ENTRYPOINT [\"/bin/pitcrew\"]";
    run(Command::new("docker")
        .args(["--host", &engine, "import", "--change", entry])
        .arg(&tar)
        .arg(format!("pitcrew:{name}")));
}

#[test]
fn a_server_made_of_these_files_is_well() {
    let Some(cluster) = Cluster::find() else { return };
    let install = Install::new(&cluster);
    let (world, name) = (&install.world, install.name.clone());
    image(&cluster, world, &name);
    let disk = world.path("disk");
    std::fs::create_dir(&disk).unwrap();
    // The directories above it are this user's alone; the kubelet is root.
    let node = cluster.list(&["nodes", "--selector", "kubernetes.io/os=linux"])[0]["metadata"]["name"].clone();
    let on = json!([{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] }]);
    let volume = json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": format!("{name}-data") },
        "spec": {
            "capacity": { "storage": "50Gi" }, "accessModes": ["ReadWriteOnce"], "storageClassName": format!("{name}-data"),
            "claimRef": { "namespace": name, "name": "data-server-0" }, "local": { "path": disk },
            "persistentVolumeReclaimPolicy": "Retain", "nodeAffinity": { "required": { "nodeSelectorTerms": on } } } });
    cluster.apply(&volume.to_string());
    let secret = |of: &str, values: Value| {
        let meta = json!({ "name": of, "namespace": name });
        cluster.apply(
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": meta, "stringData": values }).to_string(),
        );
    };
    // The cluster of the tests has no names for services, so this server has its database on its disk.
    let key = "a key that has more than 32 characters";
    secret("server", json!({ "PITCREW_STORE": "sqlite:/data/pitcrew.db", "PITCREW_SECRET_KEY": key }));
    secret("database", json!({ "POSTGRES_PASSWORD": "some" }));
    cluster.ok(&["apply", "-k", &install.file("v1.20")], "");

    // The kubelet asks its health: that is what makes it ready.
    world.wait("the server is ready", || {
        let pod = install.of("pod", "server-0");
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
    let path = format!("/api/v1/namespaces/{name}/pods/server-0:8793/proxy/api/v2/monitor/health");
    let health: Value = serde_json::from_str(&cluster.ok(&["get", "--raw", &path], "")).unwrap();
    assert_eq!(health["metadatabase"]["status"], "healthy");
    let pod = install.of("pod", "server-0");
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    // It is the user that was said, and wrote to its disk and nowhere else.
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(disk.join("pitcrew.db")).unwrap().uid(), 1000);
    // The configuration of the folder is the one it runs with.
    let shown = cluster.ok(&["exec", "server-0", "--namespace", &name, "--", "/bin/pitcrew", "config", "show"], "");
    assert!(shown.lines().any(|line| line.contains("default_queue") && line.contains("pitcrew.yaml")), "{shown}");

    // The autoscaler has made two workers of none, which wait for a disk, and the budget knows its server.
    world.wait("there are two workers", || install.of("statefulset", "worker")["spec"]["replicas"] == 2);
    world.wait("the budget counts", || install.of("pdb", "server")["status"]["currentHealthy"] == 1);
    // The same files once more change nothing: `kubectl` may say so of what has defaults, but no specification is another.
    let sets =
        || ["server", "database", "worker"].map(|set| install.of("statefulset", set)["metadata"]["generation"].clone());
    let before = sets();
    cluster.ok(&["apply", "-k", &install.file("v1.20")], "");
    assert_eq!(sets(), before);
    assert_eq!(install.of("statefulset", "worker")["spec"]["replicas"], 2, "the autoscaler's number stays");
    cluster.delete(&["statefulset", "--all", "--namespace", &name]);
    world.wait("the server is gone", || install.of("pod", "server-0").is_null());
    let engine = format!("unix://{}", cluster.kubeconfig.with_file_name("docker.sock").display());
    Command::new("docker").args(["--host", &engine, "rmi", "--force", &format!("pitcrew:{name}")]).output().unwrap();
}
