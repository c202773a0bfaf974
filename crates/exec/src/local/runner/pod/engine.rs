//! From a pod to what keepers are told (`docker::keeper`): containers of an engine, with the same directories as in a sandbox.
//!
//! ```text
//! volume tekton                        /tekton, read-only: scripts, links, where the others are mounted
//! volumes home, results, artifacts     /tekton/…
//! volumes run-N                        /tekton/run/N, which only step N can write to
//! volume workspace                     /workspace
//! volumes v-NAME                       volumes of the pod; in memory if they hold a secret
//! ```
//!
//! Invariant: nothing of this machine is mounted, since the engine may be on another; a volume with a secret in it is in memory alone.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use pitcrew_core::pod::{
    CREDENTIALS, Container, FileEntry, Medium, Mount, OnError, PodFailure, ProbeHow, Shape, Source,
};
use serde_json::{Value, json};

use super::boxes::Maker;
use super::dirs::{script_name, script_text, scripts_at};
use super::{logins, probes};
use crate::docker::keeper::{EnginePlace, Follow, Found, NewVolume, Part, Prepare, Put, PutWhat, Whose, short_digest};
use crate::sandbox::{Image, open};
use crate::spec::{AttemptSpec, PodRun};

/// Directories of `/tekton`.
const DIRECTORIES: [&str; 9] = ["home", "results", "artifacts", "creds", "steps", "run", "scripts", "bin", "downward"];
/// Of `/tekton`, for whoever a container runs as.
const OPEN: [&str; 3] = ["home", "results", "artifacts"];

/// The engine of a pod, once it is prepared.
#[derive(Clone)]
pub struct Door {
    pub place: EnginePlace,
    pub whose: Whose,
    /// Of the pod, in the network of the engine.
    pub address: Option<String>,
}

/// What is made once; the error says what an engine cannot do, before anything begins.
pub fn prepare(run: &PodRun, place: &EnginePlace, whose: Whose) -> Result<Prepare, PodFailure> {
    let pod = &run.pod;
    let refused = |message: String| PodFailure::Refused { message };
    if let Some(message) = pod.sidecars.iter().find_map(probes::refused) {
        return Err(refused(message));
    }
    if let Some(sidecar) = pod.sidecars.iter().find(|sidecar| !is_here(place) && is_asked_from_here(sidecar)) {
        return Err(refused(format!(
            "`{}` has a probe by HTTP or TCP, which does not reach containers of an engine on another machine; use `exec`",
            sidecar.name
        )));
    }
    let volume = |key: String| NewVolume {
        name: format!("{}-{key}", whose.pod),
        key,
        is_in_memory: false,
        limit: None,
        stands_for: None,
        group: None,
    };
    let (mut volumes, mut files) = (Vec::new(), Vec::new());
    match pod.shape {
        Shape::Tekton => {
            volumes.push(volume("workspace".to_owned()));
            volumes.push(volume("tekton".to_owned()));
            files.push(directory("tekton".to_owned(), 0o755));
            files.extend(DIRECTORIES.map(|name| directory(format!("tekton/{name}"), 0o755)));
            volumes.extend(OPEN.map(|name| volume(name.to_owned())));
            for (index, step) in pod.steps.iter().enumerate() {
                volumes.push(volume(format!("run-{index}")));
                if !logins::of_step(pod, index).is_empty() {
                    volumes.push(NewVolume { is_in_memory: true, ..volume(logins::volume(index)) });
                }
                files.push(directory(format!("tekton/run/{index}"), 0o755));
                files.extend(
                    ["", "/results", "/artifacts"].map(|dir| directory(format!("run-{index}/status{dir}"), 0o777)),
                );
                for name in [step.name.clone(), index.to_string()] {
                    let to = PutWhat::Link(format!("/tekton/run/{index}/status"));
                    files.push(Put { path: format!("tekton/steps/{name}"), what: to, mode: 0o777, group: 0, user: 0 });
                }
            }
        }
        Shape::Plain => volumes.push(volume("scripts".to_owned())),
    }
    for (index, container) in pod.steps.iter().chain(&pod.sidecars).enumerate() {
        files.extend(script(pod.shape, index, container));
    }
    for declared in pod.volumes.iter().filter(|volume| volume.name != CREDENTIALS) {
        let group = pod.security.fs_group;
        let own = NewVolume { group, ..volume(format!("v-{}", declared.name)) };
        let wrong = |what: String| {
            refused(format!("the volume `{}` is {what}, which is not on a Docker engine", declared.name))
        };
        match &declared.source {
            Source::Scratch { medium: Medium::Disk, .. } => volumes.push(own),
            Source::Scratch { medium: Medium::Memory, limit } => {
                volumes.push(NewVolume { is_in_memory: true, limit: *limit, ..own })
            }
            Source::Shared { dir } => volumes.push(NewVolume {
                name: shared(&whose, dir),
                stands_for: Some(stands_for(&run.data, dir).map_err(refused)?),
                ..own
            }),
            Source::Files(_) | Source::Projected(_) => {
                let all = files_of(&declared.source)
                    .ok_or_else(|| refused(format!("a part of the volume `{}` was not filled in", declared.name)))?;
                let is_secret = all.iter().any(|file| file.is_secret);
                files.extend(all.iter().flat_map(|file| puts(&own.key, file, group)));
                volumes.push(NewVolume { is_in_memory: is_secret, ..own });
            }
            Source::Object { name, .. } => {
                return Err(refused(format!("the volume `{}` of `{name}` was not filled in", declared.name)));
            }
            Source::Host { path, .. } => return Err(wrong(format!("the path `{path}` of the machine"))),
            Source::Claim { name, .. } => return Err(wrong(format!("the claim `{name}` of a cluster"))),
            Source::Other { kind, .. } => return Err(wrong(format!("of the kind `{kind}`"))),
        }
    }
    let images = pod.steps.iter().chain(&pod.sidecars);
    let images = images.map(|one| (one.name.clone(), one.image.clone(), one.pull)).collect();
    Ok(Prepare {
        whose,
        hostname: pod.hostname.chars().take(63).collect(),
        names: names(&pod.cluster),
        images,
        registries: Vec::new(),
        volumes,
        files,
        data: run.data.clone(),
        left: Vec::new(),
    })
}

/// Which names the containers of a pod know, and whom they ask for others: `hostAliases` and `dnsConfig` in the words of the engine.
fn names(cluster: &Value) -> Value {
    let texts = |of: &Value| -> Vec<String> {
        of.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let mut hosts = Vec::new();
    for alias in cluster["hostAliases"].as_array().into_iter().flatten() {
        let address = alias["ip"].as_str().unwrap_or_default();
        hosts.extend(texts(&alias["hostnames"]).iter().map(|name| format!("{name}:{address}")));
    }
    let dns = &cluster["dnsConfig"];
    let options = dns["options"].as_array().into_iter().flatten().filter_map(|option| {
        let name = option["name"].as_str()?;
        Some(option["value"].as_str().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")))
    });
    let options: Vec<String> = options.collect();
    json!({
        "ExtraHosts": hosts, "Dns": texts(&dns["nameservers"]), "DnsSearch": texts(&dns["searches"]), "DnsOptions": options,
    })
}

/// An image as an engine knows it, in the words of this module.
pub fn image(found: Found) -> Image {
    let env = found.env.iter().filter_map(|text| text.split_once('='));
    let user = found.user.split(':').next().unwrap_or_default();
    Image {
        id: found.id,
        shell: None,
        links: Vec::new(),
        wrapped: None,
        entrypoint: found.entrypoint,
        cmd: found.cmd,
        path: String::new(),
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        bind: BTreeMap::new(),
        user: user.parse().ok(),
        user_name: found.user.clone(),
        users: BTreeMap::new(),
        workdir: Some(found.workdir).filter(|dir| !dir.is_empty()),
        root: None,
    }
}

impl Maker<'_> {
    /// What a keeper is told of a container; `index` counts the steps, then the sidecars.
    pub fn follow(&self, index: usize, container: &Container, door: &Door) -> Result<Follow, PodFailure> {
        let image = &self.images[index];
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        let env = self.environment(container, image)?;
        let argv = self.argv(index, container, &env);
        if argv.is_empty() {
            return Err(config(format!(
                "the image `{}` has no entry point: say `command` or `script`",
                container.image
            )));
        }
        let is_step = index < self.run.pod.steps.len();
        let mut seen = Seen { mounts: Vec::new(), parts: Vec::new(), own: Vec::new() };
        self.mounts(index, &mut seen, &door.whose);
        for mount in &container.mounts {
            self.mount(container, mount, &mut seen, &door.whose)?;
        }
        // A volume inside another comes after it; one at the same place instead of it.
        let mut kept: BTreeMap<String, Value> = BTreeMap::new();
        for mount in seen.mounts {
            kept.insert(mount["Target"].as_str().unwrap_or_default().trim_end_matches('/').to_owned(), mount);
        }
        seen.parts.iter().for_each(|part| drop(kept.remove(part.at.trim_end_matches('/'))));
        let mut mounts: Vec<(String, Value)> = kept.into_iter().collect();
        mounts.sort_by_key(|(target, _)| target.matches('/').count());
        let mounts: Vec<Value> = mounts.into_iter().map(|(_, mount)| mount).collect();
        let held = self.devices();
        // The engine shows those alone, and counts them anew.
        let counted = ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"];
        let env = env.iter().filter(|(name, _)| held.is_none() || !counted.contains(&name.as_str()));
        let env: Vec<String> = env.map(|(name, value)| format!("{name}={value}")).collect();
        let mut host = self.rights(container);
        host["Mounts"] = Value::from(mounts);
        host["NetworkMode"] = Value::from(format!("container:{}", door.whose.first()));
        host["Init"] = Value::from(true);
        host["LogConfig"] = json!({ "Type": "json-file", "Config": { "max-size": "256m", "max-file": "4" } });
        self.limits(container, &mut host).map_err(config)?;
        let mut body = json!({
            "Image": image.id, "Entrypoint": argv, "Cmd": [], "Env": env,
            "Healthcheck": { "Test": ["NONE"] }, "HostConfig": host,
        });
        let user = self.user(container, image)?;
        if let Some(user) = &user {
            body["User"] = Value::from(user.as_str());
        }
        let user = user.unwrap_or_else(|| image.user_name.clone());
        let credentials = logins::of_step(&self.run.pod, index);
        let mut files: Vec<Put> = script(self.run.pod.shape, index, container).into_iter().collect();
        files.extend(logins::files(credentials, index, &user));
        let home = logins::home(credentials, &env, &user);
        let workdir = container.workdir.clone().filter(|dir| !dir.is_empty());
        if let Some(dir) = workdir.or_else(|| image.workdir.clone()) {
            body["WorkingDir"] = Value::from(dir);
        }
        let has_tekton = is_step && self.run.pod.shape == Shape::Tekton;
        let status = self.dirs.tekton(&format!("run/{index}/status"));
        Ok(Follow {
            whose: door.whose.clone(),
            container: container.name.clone(),
            body,
            parts: seen.parts,
            files,
            own: seen.own,
            home,
            grace: Duration::try_from(self.spec.grace).unwrap_or_default(),
            code_to: has_tekton
                .then(|| (format!("run-{index}/status/exitCode"), container.on_error == OnError::Continue)),
            fetch: match has_tekton {
                true => ["results", "artifacts"]
                    .map(|name| (format!("run-{index}/status/{name}"), status.join(name)))
                    .into(),
                false => Vec::new(),
            },
            stdout_to: container.stdout_to.clone(),
            stderr_to: container.stderr_to.clone(),
        })
    }

    /// What comes here when the pod is over.
    pub fn fetched(&self) -> Vec<(String, std::path::PathBuf)> {
        match self.run.pod.shape {
            Shape::Tekton => ["results", "artifacts"].map(|name| (name.to_owned(), self.dirs.tekton(name))).into(),
            Shape::Plain => Vec::new(),
        }
    }

    /// What all pods of this shape have.
    fn mounts(&self, index: usize, seen: &mut Seen, whose: &Whose) {
        let mut add = |key: &str, at: &str, read_only: bool| {
            seen.mounts.push(mounted(&format!("{}-{key}", whose.pod), at, read_only));
        };
        match self.run.pod.shape {
            Shape::Tekton => {
                add("workspace", "/workspace", false);
                add("tekton", "/tekton", true);
                OPEN.iter().for_each(|name| add(name, &format!("/tekton/{name}"), false));
                for step in 0..self.run.pod.steps.len() {
                    add(&format!("run-{step}"), &format!("/tekton/run/{step}"), step != index);
                }
                if logins::of_step(&self.run.pod, index).is_empty() {
                    let options = json!({ "Mode": 0o1777 });
                    seen.mounts.push(json!({ "Type": "tmpfs", "Target": "/tekton/creds", "TmpfsOptions": options }));
                } else {
                    add(&logins::volume(index), "/tekton/creds", false);
                }
            }
            Shape::Plain => add("scripts", scripts_at(Shape::Plain), true),
        }
    }

    fn mount(&self, container: &Container, mount: &Mount, seen: &mut Seen, whose: &Whose) -> Result<(), PodFailure> {
        let name = &mount.volume;
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        if !mount.at.starts_with('/') || mount.at.split('/').any(|part| part == "..") {
            return Err(config(format!("it mounts `{name}` at `{}`, which is no absolute path", mount.at)));
        }
        let volume = self.run.pod.volumes.iter().find(|volume| volume.name == *name);
        let volume = volume.ok_or_else(|| config(format!("there is no volume `{name}`")))?;
        let key = format!("v-{name}");
        let at_engine = match &volume.source {
            Source::Shared { dir } => shared(whose, dir),
            _ => format!("{}-{key}", whose.pod),
        };
        let files = files_of(&volume.source);
        let read_only = mount.read_only || files.is_some();
        let Some(sub) = mount.sub_path.as_deref().filter(|sub| !sub.is_empty()) else {
            seen.mounts.push(mounted(&at_engine, &mount.at, read_only));
            return Ok(());
        };
        let sub = open::relative(sub).map_err(|e| config(format!("it mounts a part of `{name}`: {e}")))?;
        let path = sub.to_str().unwrap_or_default().to_owned();
        match files.as_ref().and_then(|files| files.iter().find(|file| file.path == path)) {
            Some(file) if file.is_secret => {
                return Err(config(format!(
                    "it mounts the file `{path}` of the Secret in `{name}` alone, which would be on the engine's disk; mount the whole volume"
                )));
            }
            Some(file) => {
                let what = PutWhat::File(file.bytes.clone());
                let at = mount.at.trim_start_matches('/').to_owned();
                seen.own.push(Put { path: at, what, mode: file.mode, group: 0, user: 0 });
            }
            None => seen.parts.push(Part { key, volume: at_engine, path, at: mount.at.clone(), read_only }),
        }
        Ok(())
    }

    /// Who it runs as; `None`: as the image says.
    fn user(&self, container: &Container, image: &Image) -> Result<Option<String>, PodFailure> {
        let (security, pod) = (&container.security, &self.run.pod.security);
        let asked = security.run_as_user.or(pod.run_as_user);
        let uid = asked.or(image.user);
        if security.run_as_non_root.or(pod.run_as_non_root) == Some(true) && uid.is_none_or(|uid| uid == 0) {
            let message = match asked {
                Some(_) => "container's runAsUser breaks non-root policy: it is 0",
                None => "container has runAsNonRoot and image will run as root; say `runAsUser`",
            };
            return Err(PodFailure::Config { container: container.name.clone(), message: message.to_owned() });
        }
        Ok(match (asked, security.run_as_group.or(pod.run_as_group)) {
            (None, None) => None,
            (None, Some(group)) => Some(format!("{}:{group}", image.user.unwrap_or(0))),
            (Some(user), None) => Some(user.to_string()),
            (Some(user), Some(group)) => Some(format!("{user}:{group}")),
        })
    }

    /// What it may do.
    fn rights(&self, container: &Container) -> Value {
        let (security, pod) = (&container.security, &self.run.pod.security);
        let groups: Vec<String> = pod.fs_group.iter().chain(&pod.supplemental_groups).map(u32::to_string).collect();
        let options: &[&str] = match security.allow_privilege_escalation {
            Some(false) => &["no-new-privileges"],
            Some(true) | None => &[],
        };
        let gpus = self.devices();
        json!({
            "Privileged": security.privileged == Some(true), "ReadonlyRootfs": security.read_only_root == Some(true),
            "CapAdd": security.add_capabilities, "CapDrop": security.drop_capabilities, "SecurityOpt": options,
            "GroupAdd": groups,
            "DeviceRequests": gpus.map(|ids| json!([{ "Driver": "nvidia", "DeviceIDs": ids, "Capabilities": [["gpu"]] }])),
        })
    }

    /// The GPUs that the attempt holds.
    fn devices(&self) -> Option<Vec<String>> {
        let held = self.spec.gpus.as_ref().filter(|gpus| !gpus.is_empty())?;
        let of =
            |id: &String| self.spec.held_gpus.iter().find(|one| one.id == *id).map_or(id, |one| &one.device).clone();
        Some(held.iter().map(of).collect())
    }

    /// The least of what the container and its task say.
    fn limits(&self, container: &Container, host: &mut Value) -> Result<(), String> {
        let limit = |name: &str| container.resources.limits.get(name).map(|text| quantity(text)).transpose();
        let own = self.spec.limits;
        let memory =
            [limit("memory")?, own.memory_bytes.map(|bytes| bytes as f64)].into_iter().flatten().reduce(f64::min);
        let cores =
            [limit("cpu")?, own.cpu_milli.map(|milli| f64::from(milli) / 1e3)].into_iter().flatten().reduce(f64::min);
        if let Some(bytes) = memory {
            // Without this a container may swap as much again.
            host["Memory"] = json!(bytes as u64);
            host["MemorySwap"] = json!(bytes as u64);
        }
        if let Some(cores) = cores {
            host["NanoCpus"] = json!((cores * 1e9) as u64);
        }
        Ok(())
    }
}

struct Seen {
    mounts: Vec<Value>,
    parts: Vec<Part>,
    own: Vec<Put>,
}

fn mounted(volume: &str, at: &str, read_only: bool) -> Value {
    json!({
        "Type": "volume", "Source": volume, "Target": at, "ReadOnly": read_only, "VolumeOptions": { "NoCopy": true },
    })
}

/// The volume that stands for a directory of the data directory.
fn shared(whose: &Whose, dir: &str) -> String {
    format!("pitcrew-{}-{}", whose.instance, short_digest(dir.as_bytes()))
}

/// The directory is made, so that the volume lasts as long as it does.
fn stands_for(data: &Path, dir: &str) -> Result<String, String> {
    let path = open::relative(dir).map_err(|e| e.to_string())?;
    fs::create_dir_all(data.join(&path)).map_err(|e| format!("cannot make the directory `{dir}` of a claim: {e}"))?;
    Ok(dir.to_owned())
}

/// Files of a volume that is made of such; `None` for others, and where something is not a file yet.
fn files_of(source: &Source) -> Option<Vec<FileEntry>> {
    match source {
        Source::Files(files) => Some(files.clone()),
        Source::Projected(parts) => parts.iter().map(files_of).collect::<Option<Vec<_>>>().map(|all| all.concat()),
        Source::Scratch { .. }
        | Source::Shared { .. }
        | Source::Object { .. }
        | Source::Host { .. }
        | Source::Claim { .. }
        | Source::Other { .. } => None,
    }
}

/// A file, and the directories that it is in.
fn puts(key: &str, file: &FileEntry, group: Option<u32>) -> Vec<Put> {
    let mut all = Vec::new();
    let parts: Vec<&str> = file.path.split('/').collect();
    for count in 1..parts.len() {
        all.push(directory(format!("{key}/{}", parts[..count].join("/")), 0o755));
    }
    let mode = if group.is_some() { file.mode | 0o040 } else { file.mode };
    let what = PutWhat::File(file.bytes.clone());
    all.push(Put { path: format!("{key}/{}", file.path), what, mode, group: group.unwrap_or(0), user: 0 });
    all
}

fn directory(path: String, mode: u32) -> Put {
    Put { path, what: PutWhat::Directory, mode, group: 0, user: 0 }
}

fn script(shape: Shape, index: usize, container: &Container) -> Option<Put> {
    let what = PutWhat::File(script_text(container)?.into_bytes());
    let dir = match shape {
        Shape::Tekton => "tekton/scripts",
        Shape::Plain => "scripts",
    };
    Some(Put { path: format!("{dir}/{}", script_name(index)), what, mode: 0o755, group: 0, user: 0 })
}

/// Whether its containers can be reached from here by their address.
fn is_here(place: &EnginePlace) -> bool {
    let host = place.host.as_str();
    host.starts_with("unix://")
        || ["tcp://127.0.0.1", "tcp://localhost", "tcp://[::1]"].iter().any(|own| host.starts_with(own))
}

fn is_asked_from_here(sidecar: &Container) -> bool {
    [&sidecar.probes.startup, &sidecar.probes.readiness].into_iter().flatten().any(|probe| match &probe.how {
        ProbeHow::Exec(_) => false,
        ProbeHow::Http { .. } | ProbeHow::Tcp { .. } => true,
    })
}

fn quantity(text: &str) -> Result<f64, String> {
    let wrong = || format!("`{text}` is no quantity of a resource");
    let digits = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+')).unwrap_or(text.len());
    let factor = match &text[digits..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        // Such as `1e3`.
        _ => return text.parse().map_err(|_| wrong()),
    };
    let number: f64 = text[..digits].parse().map_err(|_| wrong())?;
    Ok(number * factor)
}

/// The name of a pod among all containers and volumes of an engine.
pub fn name(spec: &AttemptSpec) -> String {
    format!("pitcrew-{}", short_digest(spec.dir.as_os_str().as_encoded_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        assert_eq!(quantity("64Mi"), Ok(64.0 * 1024.0 * 1024.0));
        assert_eq!((quantity("500m"), quantity("1.5"), quantity("1e3")), (Ok(0.5), Ok(1.5), Ok(1000.0)));
        assert!(quantity("many").is_err());
    }

    #[test]
    fn a_volume_in_which_anything_is_secret_is_in_memory() {
        let file = |is_secret| FileEntry { path: "a/b".into(), bytes: b"x".to_vec(), mode: 0o400, is_secret };
        let all = files_of(&Source::Projected(vec![Source::Files(vec![file(false)]), Source::Files(vec![file(true)])]));
        assert_eq!(all.map(|all| all.iter().filter(|file| file.is_secret).count()), Some(1));
        let put = puts("v-x", &file(true), Some(7));
        assert_eq!(put.iter().map(|put| put.path.as_str()).collect::<Vec<_>>(), ["v-x/a", "v-x/a/b"]);
        assert_eq!((put[1].mode, put[1].group), (0o440, 7));
    }
}
