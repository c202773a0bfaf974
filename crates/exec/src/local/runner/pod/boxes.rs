//! From a container of a pod to the plan of its box.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use pitcrew_core::pod::{
    CREDENTIALS, Container, EnvSource, FileEntry, Medium, Mount, Pod, PodFailure, Shape, Source, expand,
};

use super::dirs::{PodDirs, script_name, scripts_at};
use super::engine::Door;
use super::probes;
use crate::sandbox::{self, Bind, BoxPlan, From, Image, Person, Work, open};
use crate::spec::{AttemptSpec, PodRun};

/// What all containers of a pod are made of.
pub struct Maker<'a> {
    pub spec: &'a AttemptSpec,
    pub run: &'a PodRun,
    pub dirs: &'a PodDirs,
    /// Of the steps, then of the sidecars.
    pub images: Vec<Image>,
    /// `None`: a sandbox.
    pub door: Option<Door>,
}

impl<'a> Maker<'a> {
    /// Finds the images, and refuses what no sandbox can do, before anything begins.
    pub fn new(spec: &'a AttemptSpec, run: &'a PodRun, dirs: &'a PodDirs) -> Result<Maker<'a>, PodFailure> {
        let pod = &run.pod;
        if let Some(message) = pod.sidecars.iter().find_map(probes::refused) {
            return Err(PodFailure::Refused { message });
        }
        let mut images = Vec::new();
        for container in pod.steps.iter().chain(&pod.sidecars) {
            let image = sandbox::find_image(&container.image, &run.sandbox.images).map_err(|message| {
                PodFailure::ImagePull { container: container.name.clone(), image: container.image.clone(), message }
            })?;
            images.push(image);
        }
        let maker = Maker { spec, run, dirs, images, door: None };
        for (container, image) in pod.steps.iter().chain(&pod.sidecars).zip(&maker.images) {
            maker.person(container, image)?;
            maker.environment(container, image)?;
        }
        Ok(maker)
    }

    fn pod(&self) -> &Pod {
        &self.run.pod
    }

    /// The plan of a container; `index` counts the steps, then the sidecars.
    pub fn plan(&self, index: usize, container: &Container) -> Result<BoxPlan, PodFailure> {
        let image = &self.images[index];
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        let env = self.environment(container, image)?;
        let argv = self.argv(index, container, &env);
        // The longest that a machine can have.
        let hostname: String = self.pod().hostname.chars().take(63).collect();
        let dir = self.dirs.make_box(&container.name).map_err(|e| config(format!("cannot make its directory: {e}")))?;
        let workdir = container.workdir.clone().filter(|dir| !dir.is_empty()).or_else(|| image.workdir.clone());
        Ok(BoxPlan {
            dir,
            hostname: hostname.clone(),
            image: image.clone(),
            hide: self.hidden(),
            binds: self.binds(index, container, image)?,
            devices: devices_of(self.spec),
            is_read_only: container.security.read_only_root == Some(true),
            work: Work {
                person: self.person(container, image)?,
                path: image.path.clone(),
                hostname: hostname.clone(),
                argv,
                env,
                workdir: workdir.unwrap_or_else(|| "/".to_owned()),
                credentials: self.credentials(index),
                stdout_to: container.stdout_to.clone(),
                stderr_to: container.stderr_to.clone(),
            },
        })
    }

    /// What it executes.
    pub fn argv(&self, index: usize, container: &Container, env: &[(String, String)]) -> Vec<String> {
        let known: BTreeMap<&str, &str> = env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let fill = |texts: &[String]| -> Vec<String> {
            texts.iter().map(|text| expand(text, |name| known.get(name).copied())).collect()
        };
        let (command, args) = (fill(&container.command), fill(&container.args));
        match &container.script {
            Some(_) => {
                let script = format!("{}/{}", scripts_at(self.pod().shape), script_name(index));
                [vec![script], args].concat()
            }
            None => self.images[index].argv(&command, &args),
        }
    }

    /// What the steps find in their homes.
    fn credentials(&self, index: usize) -> Vec<FileEntry> {
        let volume = self.pod().volumes.iter().find(|volume| volume.name == CREDENTIALS);
        match volume.map(|volume| &volume.source) {
            Some(Source::Files(files)) if index < self.pod().steps.len() => files.clone(),
            _ => Vec::new(),
        }
    }

    fn hidden(&self) -> Vec<PathBuf> {
        let own = [&self.run.data, &self.spec.dir].map(Clone::clone);
        own.into_iter().chain(self.run.sandbox.hide.iter().map(PathBuf::from)).collect()
    }

    fn person(&self, container: &Container, image: &Image) -> Result<Person, PodFailure> {
        let (security, pod) = (&container.security, &self.pod().security);
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        if security.privileged == Some(true) {
            let message = format!(
                "the container `{}` wants to be privileged, which would be root of this machine; run this task on Docker or \
                 Kubernetes",
                container.name
            );
            return Err(PodFailure::Refused { message });
        }
        let asked = security.run_as_user.or(pod.run_as_user);
        let uid = asked.or(image.user).unwrap_or(0);
        if uid == 0 && security.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
            return Err(config(match asked {
                Some(_) => "container's runAsUser breaks non-root policy: it is 0".to_owned(),
                None => "container has runAsNonRoot and image will run as root; say `runAsUser`".to_owned(),
            }));
        }
        let groups = pod.fs_group.iter().chain(&pod.supplemental_groups).copied().collect();
        let capabilities =
            sandbox::capabilities(&security.add_capabilities, &security.drop_capabilities).map_err(config)?;
        Ok(Person {
            uid,
            gid: security.run_as_group.or(pod.run_as_group),
            groups,
            fs_group: pod.fs_group,
            capabilities,
            no_new_privileges: security.allow_privilege_escalation == Some(false),
        })
    }

    /// Variables in their order; a later one may name an earlier.
    pub fn environment(&self, container: &Container, image: &Image) -> Result<Vec<(String, String)>, PodFailure> {
        let mut env: Vec<(String, String)> = image.env.clone().into_iter().collect();
        env.extend(self.spec.reserved_env().into_iter().map(|(name, value)| (name.to_owned(), value)));
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        if let Some(from) = container.env_from.first() {
            return Err(config(format!("its environment from `{}` was not filled in", from.name)));
        }
        for wanted in &container.env {
            let value = match &wanted.from {
                EnvSource::Text(text) => {
                    let known = |name: &str| env.iter().rev().find(|(other, _)| other == name).map(|(_, v)| v.as_str());
                    expand(text, known)
                }
                EnvSource::Field(path) => self.field(path).ok_or_else(|| {
                    config(format!(
                        "its variable `{}` asks for the field `{path}`, which is not known here",
                        wanted.name
                    ))
                })?,
                EnvSource::Secret { name, .. } | EnvSource::ConfigMap { name, .. } => {
                    return Err(config(format!("its variable `{}` from `{name}` was not filled in", wanted.name)));
                }
                EnvSource::Resource(_) => {
                    return Err(config(format!(
                        "its variable `{}` asks for a resource of the container, which is not known here",
                        wanted.name
                    )));
                }
            };
            env.retain(|(name, _)| *name != wanted.name);
            env.push((wanted.name.clone(), value));
        }
        Ok(env)
    }

    fn field(&self, path: &str) -> Option<String> {
        let pod = self.pod();
        let keyed = |prefix: &str| {
            let key = path.strip_prefix(prefix)?.strip_prefix('[')?.strip_suffix(']')?;
            Some(key.trim_matches(['\'', '"']).to_owned())
        };
        Some(match path {
            "metadata.name" => pod.name.clone(),
            "metadata.namespace" => pod.namespace.clone(),
            "status.podIP" | "status.hostIP" => "127.0.0.1".to_owned(),
            "spec.nodeName" => pod.hostname.clone(),
            _ => match (keyed("metadata.labels"), keyed("metadata.annotations")) {
                (Some(key), _) => pod.labels.get(&key).cloned().unwrap_or_default(),
                (_, Some(key)) => pod.annotations.get(&key).cloned().unwrap_or_default(),
                _ => return None,
            },
        })
    }

    /// What it sees: first what all pods of this shape have, then its volumes, which may lie over those.
    fn binds(&self, index: usize, container: &Container, image: &Image) -> Result<Vec<Bind>, PodFailure> {
        let mut binds: Vec<Bind> = Vec::new();
        let mut add = |path: PathBuf, at: &str, is_read_only: bool| {
            binds.push(Bind { from: From::Directory { path, sub: None }, at: at.to_owned(), is_read_only });
        };
        for (at, path) in &image.bind {
            add(home_of(path), at, true);
        }
        match self.pod().shape {
            Shape::Tekton => {
                add(self.dirs.workspace(), "/workspace", false);
                add(self.dirs.tekton(""), "/tekton", true);
                for name in ["home", "results", "artifacts"] {
                    add(self.dirs.tekton(name), &format!("/tekton/{name}"), false);
                }
                if index < self.pod().steps.len() {
                    let own = format!("run/{index}");
                    add(self.dirs.tekton(&own), &format!("/tekton/{own}"), false);
                }
                binds.push(Bind { from: From::Empty, at: "/tekton/creds".to_owned(), is_read_only: false });
            }
            Shape::Plain => add(self.dirs.tekton("scripts"), scripts_at(Shape::Plain), true),
        }
        let mut mounts: Vec<&Mount> = container.mounts.iter().collect();
        // A volume inside another comes after it.
        mounts.sort_by_key(|mount| mount.at.trim_end_matches('/').matches('/').count());
        for mount in mounts {
            binds.push(self.volume(container, mount)?);
        }
        Ok(binds)
    }

    fn volume(&self, container: &Container, mount: &Mount) -> Result<Bind, PodFailure> {
        let name = &mount.volume;
        let config = |message: String| PodFailure::Config { container: container.name.clone(), message };
        let refused = |what: &str| {
            let message = format!("the volume `{name}` is {what}, which a sandbox does not have");
            Err(PodFailure::Refused { message })
        };
        if !mount.at.starts_with('/') || mount.at.split('/').any(|part| part == "..") {
            return Err(config(format!("it mounts `{name}` at `{}`, which is no absolute path", mount.at)));
        }
        if let Some(sub) = &mount.sub_path {
            open::relative(sub).map_err(|e| config(format!("it mounts a part of `{name}`: {e}")))?;
        }
        let volume = self.pod().volumes.iter().find(|volume| volume.name == *name);
        let volume = volume.ok_or_else(|| config(format!("there is no volume `{name}`")))?;
        let sub = mount.sub_path.clone().filter(|sub| !sub.is_empty());
        let (from, is_read_only) = match &volume.source {
            Source::Scratch { medium, .. } => {
                let path = self.dirs.volume(name, *medium == Medium::Memory);
                self.own(&path).map_err(|e| config(format!("cannot prepare the volume `{name}`: {e}")))?;
                (From::Directory { path, sub }, mount.read_only)
            }
            Source::Shared { dir } => {
                let path = open::relative(dir).map(|dir| self.run.data.join(dir));
                let path = path.and_then(|path| {
                    if !path.is_dir() {
                        fs::create_dir_all(&path)?;
                        fs::set_permissions(&path, fs::Permissions::from_mode(0o777))?;
                    }
                    self.own(&path)?;
                    Ok(path)
                });
                let path = path.map_err(|e| config(format!("cannot prepare the volume `{name}`: {e}")))?;
                (From::Directory { path, sub }, mount.read_only)
            }
            Source::Files(files) => (From::Files { files: files.clone(), sub }, true),
            Source::Projected(sources) => {
                let mut all: Vec<FileEntry> = Vec::new();
                for source in sources {
                    match source {
                        Source::Files(files) => all.extend(files.iter().cloned()),
                        _ => return Err(config(format!("a part of the volume `{name}` was not filled in"))),
                    }
                }
                (From::Files { files: all, sub }, true)
            }
            Source::Object { name: object, .. } => {
                return Err(config(format!("the volume `{name}` of `{object}` was not filled in")));
            }
            Source::Host { path, .. } => return refused(&format!("the path `{path}` of the machine")),
            Source::Claim { name, .. } => return refused(&format!("the claim `{name}` of a cluster")),
            Source::Other { kind, .. } => return refused(&format!("of the kind `{kind}`")),
        };
        Ok(Bind { from, at: mount.at.clone(), is_read_only })
    }

    /// Gives a volume to the group that its pod asked for.
    fn own(&self, path: &std::path::Path) -> std::io::Result<()> {
        let Some(group) = self.pod().security.fs_group else { return Ok(()) };
        // Without root all containers are one user.
        if !rustix::process::geteuid().is_root() {
            return Ok(());
        }
        std::os::unix::fs::chown(path, None, Some(group))?;
        let mode = fs::metadata(path)?.permissions().mode();
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777 | 0o2770))
    }
}

/// A path of the machine, where `~` is the home directory of whoever runs the server.
fn home_of(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

/// The device files of the GPUs that the attempt holds, and those that all GPUs need.
fn devices_of(spec: &AttemptSpec) -> Vec<PathBuf> {
    let Some(held) = spec.gpus.as_ref().filter(|gpus| !gpus.is_empty()) else { return Vec::new() };
    let of_instance =
        |id: &String| spec.held_gpus.iter().find(|one| one.id == *id).map_or(id, |one| &one.device).clone();
    let held: Vec<String> = held.iter().map(of_instance).collect();
    let mut devices: Vec<PathBuf> = ["nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset"]
        .iter()
        .map(|name| PathBuf::from("/dev").join(name))
        .collect();
    let mut cards: Vec<PathBuf> =
        fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    // By their place on the bus, as indices count them.
    cards.sort();
    for (index, card) in cards.iter().enumerate() {
        let text = fs::read_to_string(card.join("information")).unwrap_or_default();
        let field = |name: &str| {
            text.lines()
                .find_map(|line| Some(line.strip_prefix(name)?.trim_start().strip_prefix(':')?.trim().to_owned()))
        };
        let (uuid, minor) = (field("GPU UUID"), field("Device Minor"));
        if held.iter().any(|id| uuid.as_ref() == Some(id) || *id == index.to_string())
            && let Some(minor) = minor
        {
            devices.push(PathBuf::from(format!("/dev/nvidia{minor}")));
        }
    }
    devices
}
