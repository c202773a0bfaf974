//! What is made before the first container of a pod begins: images, volumes with their files, and the container that has the network.
//!
//! That container runs a program of ours that does nothing. It keeps the network and the volumes in memory alive between steps; files go in and
//! out through it; and as it never ends by itself, its end tells that the engine was stopped. It is made of the pod's first image, so nothing
//! is left at the engine, and the image needs no program for it.

use std::collections::BTreeSet;

use pitcrew_core::pod::{PodFailure, Pull};
use serde_json::{Value, json};

use super::remove;
use super::{Answer, Found, Patience, Prepare, VOLUMES};
use crate::docker::registries::Registry;
use crate::docker::tar::Entry;
use crate::docker::{Engine, Fault, Kind};

/// The program of the first container, and where it lies.
const WAIT: &str = ".pitcrew/wait";

/// Why it could not be made; `failure` is the whole pod's.
struct Failed {
    fault: Fault,
    failure: PodFailure,
    may_pass: bool,
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Failed {
        let (message, may_pass) = (fault.words.clone(), fault.may_pass());
        Failed { fault, failure: PodFailure::Refused { message }, may_pass }
    }
}

/// Makes it; from the start again where the engine went away meanwhile. The error is the answer to that.
pub async fn run(engine: &Engine, prepare: &Prepare, patience: &mut Patience) -> Result<Answer, Answer> {
    loop {
        let Failed { fault, failure, may_pass } = match make(engine, prepare).await {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        if !patience.after(engine, &fault).await {
            return Err(Answer::Failed { failure, may_pass });
        }
    }
}

async fn make(engine: &Engine, prepare: &Prepare) -> Result<Answer, Failed> {
    let whose = &prepare.whose;
    remove::sweep(engine, &whose.instance, &whose.life, &prepare.left).await?;
    remove::forgotten(engine, &whose.instance, &prepare.data).await?;
    // A keeper that was killed may have begun this pod; or this one, before the engine went away.
    remove::pod(engine, &whose.instance, &whose.pod).await?;
    let mut images = Vec::new();
    let mut fetched = BTreeSet::new();
    for (container, image, pull) in &prepare.images {
        let is_new = fetched.insert((image.clone(), *pull == Pull::Always));
        let pull = if is_new { *pull } else { Pull::Never };
        let found = find(engine, image, pull, &prepare.registries).await.map_err(|fault| {
            let message = words(image, pull, &fault);
            let failure = PodFailure::ImagePull { container: container.clone(), image: image.clone(), message };
            // A registry may have it a moment later, whatever it says now; that is a matter of the task's retries.
            let fault = if fault.kind == Kind::Failed { Fault { kind: Kind::Invalid, ..fault } } else { fault };
            Failed { fault, failure, may_pass: true }
        })?;
        images.push(found);
    }
    let first = prepare.images.first().map(|(_, image, _)| image.as_str()).unwrap_or_default();
    let address = begin(engine, prepare, first).await?;
    Ok(Answer::Prepared { images, address })
}

fn words(image: &str, pull: Pull, fault: &Fault) -> String {
    match (pull, fault.kind) {
        (Pull::Never, Kind::NotFound) => {
            format!("the image `{image}` is not at the engine, and `imagePullPolicy: Never` says not to fetch it")
        }
        _ => format!("the image `{image}` cannot be had: {fault}"),
    }
}

async fn find(engine: &Engine, image: &str, pull: Pull, registries: &[Registry]) -> Result<Found, Fault> {
    if pull != Pull::Always {
        match engine.image(image).await {
            Err(fault) if fault.kind == Kind::NotFound && pull == Pull::IfNotPresent => {}
            Err(fault) => return Err(fault),
            Ok(found) => return Ok(told(image, found)),
        }
    }
    println!("fetching the image `{image}`");
    engine.pull(image, registries).await?;
    engine.image(image).await.map(|found| told(image, found))
}

fn told(image: &str, found: crate::docker::Image) -> Found {
    let config = found.config.unwrap_or_default();
    let digests = found.repo_digests.unwrap_or_default();
    let name = image.split('@').next().unwrap_or(image);
    let short = name.rsplit('/').next().and_then(|last| last.split(':').next()).unwrap_or_default();
    // An image may be known by several names; that which was asked for comes first.
    let own = digests.iter().find(|digest| digest.split('@').next().is_some_and(|known| known.ends_with(short)));
    let id = match image.contains('@') {
        true => image.to_owned(),
        false => own.or(digests.first()).cloned().unwrap_or(found.id),
    };
    Found {
        id,
        user: config.user.unwrap_or_default(),
        env: config.env.unwrap_or_default(),
        cmd: config.cmd.unwrap_or_default(),
        entrypoint: config.entrypoint.unwrap_or_default(),
        workdir: config.working_dir.unwrap_or_default(),
    }
}

/// Makes the volumes and the first container, fills and starts it; gives its address.
async fn begin(engine: &Engine, prepare: &Prepare, image: &str) -> Result<Option<String>, Fault> {
    let whose = &prepare.whose;
    let (mut mounts, mut entries): (Vec<Value>, Vec<Entry>) = (Vec::new(), Vec::new());
    for volume in &prepare.volumes {
        let mut labels = whose.labels();
        let mut options = Vec::new();
        if volume.is_in_memory {
            let size = volume.limit.map(|bytes| format!("size={bytes}")).into_iter();
            let mode = std::iter::once("mode=0777".to_owned());
            options = vec![("type", "tmpfs".to_owned()), ("device", "tmpfs".to_owned())];
            options.push(("o", mode.chain(size).collect::<Vec<_>>().join(",")));
        }
        let mut is_new = true;
        if let Some(dir) = &volume.stands_for {
            // It is not of this pod alone.
            labels.retain(|key, _| key == "pitcrew.instance");
            labels.insert(remove::STANDS_FOR.to_owned(), dir.clone());
            let all: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            is_new = engine.volumes(&all).await?.is_empty();
        }
        if is_new || volume.group.is_some() {
            let mode = if volume.group.is_some() { 0o2777 } else { 0o777 };
            entries.push(Entry { group: volume.group.unwrap_or(0), ..Entry::directory(&volume.key, mode) });
        }
        engine.make_volume(&volume.name, &labels, &options).await?;
        mounts.push(json!({
            "Type": "volume", "Source": volume.name, "Target": format!("{VOLUMES}/{}", volume.key),
            "VolumeOptions": { "NoCopy": true },
        }));
    }
    let name = whose.first();
    let mut host = prepare.names.clone();
    host["Mounts"] = mounts.into();
    host["LogConfig"] = json!({ "Type": "none" });
    host["NetworkMode"] = "default".into();
    let body = json!({
        "Image": image, "Entrypoint": [format!("/{WAIT}")], "Cmd": [], "User": "0:0", "Hostname": prepare.hostname,
        "Labels": whose.labels(), "WorkingDir": "/", "StopSignal": "SIGKILL", "Healthcheck": { "Test": ["NONE"] },
        "HostConfig": host,
    });
    engine.create(&name, &body).await?;
    let program = waiting(&engine.architecture().await?)?;
    engine.put(&name, "/", &[Entry::directory(".pitcrew", 0o755), Entry::file(WAIT, program, 0o755)]).await?;
    engine.start(&name).await?;
    entries.extend(prepare.files.iter().cloned().map(Entry::from));
    engine.put(&name, VOLUMES, &entries).await?;
    let container = engine.container(&name).await?;
    if !container.state.running {
        return Err(Fault::invalid(format!("the first container of the pod does not run: {}", container.state.error)));
    }
    Ok(container.address().map(str::to_owned))
}

/// A program that waits for ever, for engines of this kind of processor.
fn waiting(architecture: &str) -> Result<Vec<u8>, Fault> {
    /// Where it is in memory, and how long what comes before its first instruction is.
    const BASE: u64 = 0x40_0000;
    const HEAD: u16 = 64 + 56;
    let (machine, code): (u16, &[u8]) = match architecture {
        // loop: mov eax, 34 (pause); syscall; jmp loop
        "amd64" | "x86_64" => (62, &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]),
        // mov x8, 73 (ppoll); loop: mov x0..x3, 0; svc 0; b loop
        "arm64" | "aarch64" => (
            183,
            &[
                0x28, 0x09, 0x80, 0xd2, 0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03,
                0x00, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfb, 0xff, 0xff, 0x17,
            ],
        ),
        other => return Err(Fault::invalid(format!("pods do not run on an engine of the architecture `{other}`"))),
    };
    let length = u64::from(HEAD) + code.len() as u64;
    let mut program = Vec::new();
    // An ELF file of 64 bits, lowest byte first, with one part that is loaded as a whole.
    program.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    program.extend([2u16, machine].iter().flat_map(|n| n.to_le_bytes()));
    program.extend(1u32.to_le_bytes());
    program.extend([BASE + u64::from(HEAD), 64, 0].iter().flat_map(|n| n.to_le_bytes()));
    program.extend(0u32.to_le_bytes());
    program.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()));
    program.extend([1u32, 5].iter().flat_map(|n| n.to_le_bytes()));
    program.extend([0, BASE, BASE, length, length, 0x1000].iter().flat_map(|n: &u64| n.to_le_bytes()));
    program.extend_from_slice(code);
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_the_first_container_waits() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wait");
        std::fs::write(&path, waiting(std::env::consts::ARCH).unwrap()).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = std::process::Command::new(&path).spawn().unwrap();
        // One that cannot run ends at once, with a signal that is another.
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        while !stat().contains(") S ") {
            assert!(!stat().contains(") Z "), "it ended");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(waiting("s390x").is_err());
    }

    #[test]
    fn an_image_is_known_by_its_digest_where_it_has_one() {
        let image = |digests: &[&str]| crate::docker::Image {
            id: "sha256:11".into(),
            repo_digests: Some(digests.iter().map(|text| (*text).to_owned()).collect()),
            config: None,
        };
        assert_eq!(told("busybox", image(&[])).id, "sha256:11");
        assert_eq!(told("busybox:1", image(&["a@sha256:22", "busybox@sha256:33"])).id, "busybox@sha256:33");
        assert_eq!(told("b@sha256:44", image(&["a@sha256:22"])).id, "b@sha256:44");
    }
}
