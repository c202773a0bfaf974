//! Who a pod's engine is where images come from: Secrets that `imagePullSecrets` of the pod names, else those of its ServiceAccount; then
//! what `docker login` left for the user of this server.

use std::path::PathBuf;

use anyhow::Context as _;
use pitcrew_core::pod::Pod;
use pitcrew_exec::docker::Registry;
use pitcrew_store::Store;
use serde_json::Value;

use super::objects;
use crate::vault::Vault;

/// The account of a pod that names none.
const USUAL: &str = "default";

/// All of them, in the order in which they are tried. A Secret that is not there, or that is none of a registry, is none that counts,
/// as in a cluster.
///
/// # Errors
/// What is there and cannot be read.
pub async fn find(store: &Store, vault: &Vault, pod: &Pod) -> anyhow::Result<Vec<Registry>> {
    let mut all = of_secrets(store, vault, pod).await?;
    all.extend(own(&|name| std::env::var_os(name).map(PathBuf::from)));
    Ok(all)
}

async fn of_secrets(store: &Store, vault: &Vault, pod: &Pod) -> anyhow::Result<Vec<Registry>> {
    let mut names = names(&pod.cluster);
    if names.is_empty() {
        let account = if pod.service_account.is_empty() { USUAL } else { &pod.service_account };
        let row = store.object("ServiceAccount", &pod.namespace, account).await?;
        names = row.map(|row| self::names(&row.doc)).unwrap_or_default();
    }
    let mut all = Vec::new();
    for name in names {
        let Some(row) = store.object("Secret", &pod.namespace, &name).await? else { continue };
        let key = match row.doc["type"].as_str() {
            Some("kubernetes.io/dockerconfigjson") => ".dockerconfigjson",
            Some("kubernetes.io/dockercfg") => ".dockercfg",
            _ => continue,
        };
        let keys = objects::keys(store, vault, true, &pod.namespace, &name).await?.unwrap_or_default();
        let Some(bytes) = keys.get(key) else { continue };
        // The error of the parser might show what it found.
        let file: Value = serde_json::from_slice(bytes)
            .ok()
            .with_context(|| format!("the key `{key}` of the Secret `{name}` is no JSON"))?;
        all.extend(Registry::all_of(if key == ".dockercfg" { &file } else { &file["auths"] }));
    }
    Ok(all)
}

fn names(of: &Value) -> Vec<String> {
    let listed = of["imagePullSecrets"].as_array().into_iter().flatten();
    listed.filter_map(|entry| entry["name"].as_str().map(str::to_owned)).collect()
}

/// Those of the user of this server.
fn own(variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<Registry> {
    let given = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let Some(folder) = given("DOCKER_CONFIG").or_else(|| given("HOME").map(|home| home.join(".docker"))) else {
        return Vec::new();
    };
    let path = folder.join("config.json");
    let read = match std::fs::read(&path) {
        Ok(bytes) => Registry::of_config(&bytes),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot be read: {error}")),
    };
    read.unwrap_or_else(|why| {
        tracing::warn!("no login of `{}` is used for images: it {why}", path.display());
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use pitcrew_store::StoreUrl;
    use serde_json::json;

    use super::*;
    use crate::paths::DataDir;

    #[tokio::test]
    async fn secrets_of_the_pod_come_before_those_of_its_account() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::new(&DataDir::open(dir.path()).unwrap(), &|_| None).unwrap();
        let store = Store::open(&StoreUrl::Memory).await.unwrap();
        let secret = |name: &str, kind: &str, key: &str, text: String| {
            json!({ "apiVersion": "v1", "kind": "Secret", "type": format!("kubernetes.io/{kind}"),
                "metadata": { "name": name }, "stringData": { key: text } })
        };
        let auths = |server: &str| json!({ server: { "username": "ada", "password": "hunter2" } });
        let new = json!({ "auths": auths("new.test") }).to_string();
        let old = auths("old.test").to_string();
        let account = |names: &[&str]| {
            let names: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "default" }, "imagePullSecrets": names })
        };
        for doc in [
            secret("new", "dockerconfigjson", ".dockerconfigjson", new),
            secret("old", "dockercfg", ".dockercfg", old),
            secret("other", "basic-auth", "password", "hunter2".to_owned()),
            secret("broken", "dockerconfigjson", ".dockerconfigjson", "hunter2".to_owned()),
            account(&["old", "gone", "other"]),
        ] {
            objects::put(&store, &vault, &doc, "ci", "ada", jiff::Timestamp::UNIX_EPOCH).await.unwrap();
        }
        let found = async |cluster: Value| {
            let pod = json!({ "name": "p", "hostname": "p", "namespace": "ci", "steps": [], "shape": "tekton", "cluster": cluster });
            let all = of_secrets(&store, &vault, &serde_json::from_value(pod).unwrap()).await;
            all.map(|all| all.into_iter().map(|one| one.server).collect::<Vec<_>>())
        };
        assert_eq!(found(Value::Null).await.unwrap(), ["old.test"]);
        let named = |name: &str| json!({ "imagePullSecrets": [{ "name": name }] });
        assert_eq!(found(named("new")).await.unwrap(), ["new.test"]);
        assert_eq!(found(named("gone")).await.unwrap(), Vec::<String>::new());
        let refused = format!("{:#}", found(named("broken")).await.unwrap_err());
        assert_eq!(refused, "the key `.dockerconfigjson` of the Secret `broken` is no JSON");
    }

    #[test]
    fn what_docker_login_left_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let docker = dir.path().join(".docker");
        std::fs::create_dir(&docker).unwrap();
        let home = |name: &str| (name == "HOME").then(|| dir.path().to_owned());
        assert!(own(&home).is_empty());
        let file = json!({ "auths": { "r.test": { "username": "ada", "password": "secret" } } });
        std::fs::write(docker.join("config.json"), file.to_string()).unwrap();
        assert_eq!(own(&home)[0].server, "r.test");
        let elsewhere = dir.path().join("elsewhere");
        let moved = |name: &str| home(name).or_else(|| (name == "DOCKER_CONFIG").then(|| elsewhere.clone()));
        assert!(own(&moved).is_empty());
        assert!(own(&|_| None).is_empty());
    }
}
