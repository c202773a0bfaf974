//! Whom the cluster lets do what: the account of `deploy/kubernetes/recovery.yaml` can do all of it, and whoever may not is told
//! what to allow.

use serde_json::json;

use crate::cluster::Cluster;
use crate::site::{ANNOTATION, AUTO, CHECK, CONDITIONS, Site};

impl Site {
    /// The server is this account from now on, which stands in the namespace of the test.
    fn act_as(&self, account: &str) {
        let find = || {
            let found = self.cluster.get(&["serviceaccount", account, "--namespace", &self.namespace]);
            found["secrets"][0]["name"].as_str().map(str::to_owned)
        };
        self.world.wait("the account has a token", || find().is_some());
        let secret = find().unwrap();
        let template = "go-template={{.data.token | base64decode}}";
        let token = self.cluster.ok(&["get", "secret", &secret, "--namespace", &self.namespace, "-o", template], "");
        let text = std::fs::read_to_string(&self.cluster.kubeconfig).unwrap();
        // The certificate of whoever owns the cluster goes, and the token comes.
        let lines = text.lines().filter(|line| !line.contains("client-key-data"));
        let lines = lines.map(|line| match line.find("client-certificate-data") {
            Some(at) => format!("{}token: {token}\n", &line[..at]),
            None => format!("{line}\n"),
        });
        std::fs::write(self.world.path("kubeconfig"), lines.collect::<String>()).unwrap();
    }

    fn account(&self, rules: serde_json::Value) {
        let meta = json!({ "name": "narrow", "namespace": self.namespace });
        let name = format!("{}-narrow", self.node);
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
        let subject = json!({ "kind": "ServiceAccount", "name": "narrow", "namespace": self.namespace });
        let api = "rbac.authorization.k8s.io/v1";
        for what in [
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta }),
            json!({ "apiVersion": api, "kind": "ClusterRole", "metadata": { "name": name }, "rules": rules }),
            json!({ "apiVersion": api, "kind": "ClusterRoleBinding", "metadata": { "name": name }, "roleRef": role, "subjects": [subject] }),
        ] {
            self.cluster.apply(&what.to_string());
        }
        self.act_as("narrow");
    }
}

#[test]
fn the_account_that_we_ship_can_do_all_of_it() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/kubernetes/recovery.yaml");
    let text = std::fs::read_to_string(shipped).unwrap();
    // In the namespace of this test, and under a name of its own where the whole cluster sees it.
    let text = text.replace("name: pitcrew\n", &format!("name: {}\n", site.namespace));
    let text = text.replace("namespace: pitcrew\n", &format!("namespace: {}\n", site.namespace));
    cluster.apply(&text);
    site.act_as("pitcrew-recovery");
    site.keep("ReplicaSet");
    let _server = site.serve();
    site.breaks();
    site.until_over("repaired");
    site.until_as_before();
    assert_eq!(site.kubelet.done(&site.node), ["reboot by annotation", "check"]);
    assert_eq!(site.count("forbidden"), 0);
}

#[test]
fn whoever_may_not_is_told_which_verb_on_what_and_goes_on_once_it_may() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::usual(&cluster);
    site.account(json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list"] }]));
    let _server = site.serve();
    site.breaks();
    site.until_logged("allow `patch` on `nodes` in a ClusterRole, as `deploy/kubernetes/recovery.yaml` does");
    site.account(json!([{ "apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"] }]));
    site.until_logged("allow `list` on `pods` in a ClusterRole");
    assert_eq!(site.kubelet.done(&site.node).len(), 0);
    let all = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    site.account(all);
    site.until_over("repaired");
}

#[test]
fn a_kubeconfig_that_is_wrong_is_told_at_the_start() {
    let Some(cluster) = Cluster::find() else { return };
    let site = Site::new(&cluster, &format!("{CONDITIONS}{CHECK}{ANNOTATION}"), AUTO);
    let serve = ["server", "--no-auth", "--listen", "127.0.0.1:0"];
    std::fs::write(site.world.path("kubeconfig"), "clusters: []\ncurrent-context: x\n").unwrap();
    let told = site.world.fails(2, &serve);
    assert!(told.contains("the cluster `gpus`: the kubeconfig") && told.contains("there is no context `x`"), "{told}");
    std::fs::remove_file(site.world.path("kubeconfig")).unwrap();
    assert!(site.world.fails(2, &serve).contains("cannot read the kubeconfig"));
}
