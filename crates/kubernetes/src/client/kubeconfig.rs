//! Where a cluster is and who we are there: a kubeconfig as `kubectl` reads it, or what a pod is given.
//!
//! Secrets stay in memory; no error shows one.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pitcrew_lang::yaml;
use serde::Deserialize;

use super::credentials::{Credentials, Plugin};

/// Where a pod finds what it is given.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A cluster, and who we are there.
pub struct Access {
    pub server: String,
    /// PEM; `None`: whom this machine trusts.
    pub authority: Option<Vec<u8>>,
    /// The server may be anybody.
    pub insecure: bool,
    pub proxy: Option<String>,
    /// PEM: certificate and key.
    pub identity: Option<Vec<u8>>,
    pub credentials: Credentials,
    /// As whom to act.
    pub acts_as: Option<(String, Vec<String>)>,
    /// Of the context.
    pub namespace: Option<String>,
}

/// What an environment variable says.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    exec: Option<Plugin>,
    auth_provider: Option<serde_json::Value>,
    username: Option<String>,
    r#as: Option<String>,
    as_groups: Vec<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

impl Access {
    /// What `kubeconfig` says of `context`; without one: what `KUBECONFIG` names, what a pod is given, `~/.kube/config`.
    pub fn find(kubeconfig: Option<&Path>, context: Option<&str>, env: Env<'_>) -> Result<Access, String> {
        let set = |name: &str| env(name).filter(|value| !value.is_empty());
        if let Some(path) = kubeconfig {
            return Access::read(&[path.to_owned()], context);
        }
        if let Some(paths) = set("KUBECONFIG") {
            let paths: Vec<PathBuf> = std::env::split_paths(&paths).filter(|p| !p.as_os_str().is_empty()).collect();
            return Access::read(&paths, context);
        }
        let account = Path::new(ACCOUNT);
        if let (Some(host), true) = (set("KUBERNETES_SERVICE_HOST"), account.join("token").exists()) {
            return Access::of_pod(&host, &set("KUBERNETES_SERVICE_PORT").unwrap_or_default(), account);
        }
        match set("HOME").map(|home| Path::new(&home).join(".kube/config")).filter(|path| path.exists()) {
            Some(path) => Access::read(&[path], context),
            None => Err("it is not said how the cluster is reached: give `kubeconfig`, or set KUBECONFIG".to_owned()),
        }
    }

    /// Of several files the first that names something counts.
    fn read(paths: &[PathBuf], context: Option<&str>) -> Result<Access, String> {
        let mut all = File::default();
        for path in paths {
            let file = read(path)?;
            if all.current_context.is_empty() {
                all.current_context = file.current_context;
            }
            all.clusters.extend(file.clusters);
            all.users.extend(file.users);
            all.contexts.extend(file.contexts);
        }
        let shown = paths.iter().map(|path| format!("`{}`", path.display())).collect::<Vec<_>>().join(", ");
        all.access(context).map_err(|why| format!("the kubeconfig {shown}: {why}"))
    }

    /// As a pod that was given an account.
    fn of_pod(host: &str, port: &str, account: &Path) -> Result<Access, String> {
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let port = if port.is_empty() { "443" } else { port };
        let at = account.join("ca.crt");
        let authority = std::fs::read(&at).map_err(|error| format!("cannot read `{}`: {error}", at.display()))?;
        let namespace = std::fs::read_to_string(account.join("namespace")).ok();
        Ok(Access {
            server: format!("https://{host}:{port}"),
            authority: Some(authority),
            insecure: false,
            proxy: None,
            identity: None,
            credentials: Credentials::file(account.join("token")),
            acts_as: None,
            namespace: namespace.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()),
        })
    }
}

fn read(path: &Path) -> Result<File, String> {
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read the kubeconfig `{shown}`: {error}"))?;
    // What is said of a wrong value may show it, and it may be a secret.
    let wrong = |_| format!("`{shown}` is no YAML: `kubectl config view --kubeconfig {shown}` says what is wrong");
    let mut value = yaml::to_json(&text).map_err(wrong)?;
    leave_out(&mut value);
    let wrong =
        |_| format!("`{shown}` is no kubeconfig: `kubectl config view --kubeconfig {shown}` says what is wrong");
    let mut file: File = serde_json::from_value(value).map_err(wrong)?;
    // Paths of a file start where it lies.
    let base = path.parent().unwrap_or(Path::new(""));
    let settle = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = base.join(&*name).display().to_string();
        }
    };
    file.clusters.iter_mut().for_each(|one| settle(&mut one.cluster.certificate_authority));
    for NamedUser { user, .. } in &mut file.users {
        [&mut user.client_certificate, &mut user.client_key, &mut user.token_file].into_iter().for_each(settle);
        if let Some(plugin) = user.exec.as_mut().filter(|plugin| plugin.command.contains('/')) {
            plugin.command = base.join(&plugin.command).display().to_string();
        }
    }
    Ok(file)
}

/// What is null counts as what is not there.
fn leave_out(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(all) => {
            all.retain(|_, value| !value.is_null());
            all.values_mut().for_each(leave_out);
        }
        serde_json::Value::Array(all) => all.iter_mut().for_each(leave_out),
        _ => {}
    }
}

impl File {
    fn access(mut self, context: Option<&str>) -> Result<Access, String> {
        let wanted = context.unwrap_or(&self.current_context);
        if wanted.is_empty() {
            return Err("it has no `current-context`: say which one with `context`".to_owned());
        }
        let names =
            |all: &mut dyn Iterator<Item = &str>| all.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let Some(found) = self.contexts.iter().find(|one| one.name == wanted) else {
            let known = names(&mut self.contexts.iter().map(|one| one.name.as_str()));
            return Err(format!("there is no context `{wanted}`; it has {known}"));
        };
        let Context { cluster, user, namespace } = &found.context;
        let Some(cluster) = self.clusters.iter().find(|one| one.name == *cluster).map(|one| &one.cluster) else {
            return Err(format!("the context `{wanted}` means the cluster `{cluster}`, which is not there"));
        };
        let at = self.users.iter().position(|one| one.name == *user);
        let own = match (at, user.is_empty()) {
            (Some(at), _) => std::mem::take(&mut self.users[at].user),
            (None, true) => User::default(),
            (None, false) => return Err(format!("the context `{wanted}` means the user `{user}`, who is not there")),
        };
        if cluster.tls_server_name.is_some() {
            return Err("`tls-server-name` is not known here: let `server` have the name of the certificate".to_owned());
        }
        if own.has_secret() && !may_be_told_secrets(&cluster.server) {
            return Err(format!(
                "`{}` would be told the credentials of `{user}` in the clear: use `https`, or a tunnel that ends at 127.0.0.1",
                cluster.server
            ));
        }
        let authority =
            material(&cluster.certificate_authority_data, &cluster.certificate_authority, "certificate-authority")?;
        Ok(Access {
            server: cluster.server.trim_end_matches('/').to_owned(),
            authority,
            insecure: cluster.insecure_skip_tls_verify,
            proxy: cluster.proxy_url.clone(),
            identity: own.identity()?,
            acts_as: own.r#as.clone().map(|name| (name, own.as_groups.clone())),
            namespace: namespace.clone(),
            credentials: own.credentials()?,
        })
    }
}

/// By TLS, or to this machine.
fn may_be_told_secrets(server: &str) -> bool {
    let Ok(url) = reqwest::Url::parse(server) else { return true };
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    url.scheme() == "https" || host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl User {
    fn has_secret(&self) -> bool {
        self.exec.is_some() || self.token_file.is_some() || self.token.is_some()
    }

    fn identity(&self) -> Result<Option<Vec<u8>>, String> {
        let certificate = material(&self.client_certificate_data, &self.client_certificate, "client-certificate")?;
        let key = material(&self.client_key_data, &self.client_key, "client-key")?;
        match (certificate, key) {
            (Some(mut certificate), Some(key)) => {
                certificate.push(b'\n');
                certificate.extend(key);
                Ok(Some(certificate))
            }
            (None, None) => Ok(None),
            (Some(_), None) => Err("there is a `client-certificate` and no `client-key`".to_owned()),
            (None, Some(_)) => Err("there is a `client-key` and no `client-certificate`".to_owned()),
        }
    }

    fn credentials(self) -> Result<Credentials, String> {
        if self.auth_provider.is_some() {
            return Err("`auth-provider` is of Kubernetes before 1.26: use a plugin (`exec`) or a token".to_owned());
        }
        if self.username.is_some() {
            return Err(
                "`username` and `password` are of Kubernetes before 1.19: use a token or a certificate".to_owned()
            );
        }
        Ok(match (self.exec, self.token_file, self.token) {
            (Some(plugin), ..) => Credentials::plugin(plugin)?,
            (None, Some(file), _) => Credentials::file(file.into()),
            (None, None, Some(token)) => Credentials::token(token),
            (None, None, None) => Credentials::none(),
        })
    }
}

/// What stands in the file itself, or in another one.
fn material(data: &Option<String>, file: &Option<String>, what: &str) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) if !data.trim().is_empty() => {
            let read = STANDARD.decode(data.split_whitespace().collect::<String>());
            read.map(Some).map_err(|_| format!("`{what}-data` is no Base64"))
        }
        (_, Some(path)) => {
            std::fs::read(path).map(Some).map_err(|error| format!("cannot read `{path}` ({what}): {error}"))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters:\n- name: one\n  cluster: {server: 'https://one:6443/', \
                         certificate-authority-data: Q0E=}\nusers:\n- name: me\n  user: {token: s3cret}\n- name: old\n  \
                         user: {username: x, password: y}\ncontexts:\n- {name: a, context: {cluster: one, user: me, \
                         namespace: tools}}\n- {name: b, context: {cluster: two, user: me}}\n- {name: c, context: {cluster: one, user: you}}\n\
                         - {name: d, context: {cluster: one, user: old}}\n";

    fn find(text: &str, context: Option<&str>) -> Result<Access, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        std::fs::write(&path, text).unwrap();
        let shown = path.display().to_string();
        Access::find(Some(&path), context, &|_| None).map_err(|why| why.replace(&shown, "FILE"))
    }

    #[test]
    fn a_context_is_a_cluster_and_who_we_are_there() {
        let access = find(WHOLE, None).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!((access.server.as_str(), access.authority.as_deref()), ("https://one:6443", Some(&b"CA"[..])));
        assert_eq!((access.namespace.as_deref(), access.identity), (Some("tools"), None));
    }

    #[test]
    fn no_token_goes_in_the_clear_but_to_this_machine() {
        let at = |server: &str| find(&WHOLE.replace("https://one:6443/", server), None);
        let why = at("http://one:8080").err().unwrap();
        assert_eq!(
            why,
            "the kubeconfig `FILE`: `http://one:8080` would be told the credentials of `me` in the clear: use `https`, or a \
             tunnel that ends at 127.0.0.1"
        );
        assert!(at("http://10.0.0.1").is_err() && at("http://localhost.one").is_err());
        for server in ["http://127.0.0.1:8001", "http://localhost:8001", "http://[::1]:8001", "https://10.0.0.1"] {
            assert!(at(server).is_ok(), "{server}");
        }
        // Whoever is nobody has nothing to tell.
        let nobody = WHOLE.replace("https://one:6443/", "http://one:8080").replace("user: {token: s3cret}", "user: {}");
        assert!(find(&nobody, None).is_ok());
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        let told = |text: &str, context| find(text, context).err().unwrap();
        assert_eq!(told(WHOLE, Some("x")), "the kubeconfig `FILE`: there is no context `x`; it has `a`, `b`, `c`, `d`");
        assert!(told(WHOLE, Some("b")).contains("means the cluster `two`, which is not there"));
        assert!(told(WHOLE, Some("c")).contains("means the user `you`, who is not there"));
        assert!(told(WHOLE, Some("d")).contains("use a token or a certificate"));
        let odd = told(&WHOLE.replace("token: s3cret", "token: [s3cret]"), None);
        assert!(odd.contains("is no kubeconfig") && !odd.contains("s3cret"), "{odd}");
        assert!(told(&WHOLE.replace("Q0E=", "'*'"), None).contains("is no Base64"));
        assert!(told("a: [", None).starts_with("`FILE` is no YAML"));
        let nowhere = Access::find(None, None, &|_| None).err().unwrap();
        assert!(nowhere.contains("set KUBECONFIG"), "{nowhere}");
        let gone = Access::find(Some(Path::new("/nowhere/x")), None, &|_| None).err().unwrap();
        assert!(gone.starts_with("cannot read the kubeconfig `/nowhere/x`"), "{gone}");
    }
}
