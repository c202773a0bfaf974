//! What is removed from an engine, and when: all of a pod at its end, and what a killed runner or an engine that was away left behind.
//!
//! Only what carries our labels is touched, and of that only what is of this data directory.

use std::path::Path;

use super::{Answer, Finish, Patience, VOLUMES, Whose};
use crate::docker::tar::What;
use crate::docker::{Engine, Entry, Fault, Kind};
use crate::sandbox::open;

/// The label of volumes that outlive their pod.
pub const STANDS_FOR: &str = "pitcrew.stands-for";
/// The most of one file that is fetched: what is longer is no result.
const MOST: usize = crate::spec::MAX_OUTPUT + 1;

/// Fetches what the pod left, and removes it. The error is that nothing, or not all, was fetched.
pub async fn finish(engine: &Engine, finish: &Finish, patience: &mut Patience) -> Result<Answer, Fault> {
    let Whose { instance, pod: name, .. } = &finish.whose;
    let fetched = loop {
        match fetch(engine, &finish.whose, &finish.fetch).await {
            Err(fault) if patience.after(engine, &fault).await => {}
            other => break other,
        }
    };
    let removed = loop {
        match pod(engine, instance, name).await {
            Err(fault) if patience.after(engine, &fault).await => {}
            other => break other,
        }
    };
    fetched?;
    Ok(removed.map_or_else(|fault| Answer::Left(fault.words), |()| Answer::Done))
}

/// Copies directories of volumes here. One that is not there, or whose pod is gone, is empty.
pub async fn fetch(engine: &Engine, whose: &Whose, all: &[(String, std::path::PathBuf)]) -> Result<(), Fault> {
    for (from, to) in all {
        let entries = match engine.get(&whose.first(), &format!("{VOLUMES}/{from}")).await {
            Err(fault) if fault.kind == Kind::NotFound => continue,
            other => other?,
        };
        for entry in entries {
            let cannot = |error| Fault::invalid(format!("cannot keep what the container left: {error}"));
            keep(to, &entry).map_err(cannot)?;
        }
    }
    Ok(())
}

/// Puts one file of a container below a directory of ours. Nobody else writes there, and links are made so that they lead nowhere.
fn keep(to: &Path, entry: &Entry) -> std::io::Result<()> {
    // Its first part is that of the directory itself.
    let Some((_, path)) = entry.path.split_once('/') else { return Ok(()) };
    let path = open::relative(path)?;
    let path = path.to_str().ok_or(std::io::ErrorKind::InvalidData)?;
    match &entry.what {
        What::Directory => std::fs::create_dir_all(to.join(path)),
        What::File(bytes) => open::write_plain(to, path, &bytes[..bytes.len().min(MOST)], 0o600),
        What::Link(_) => replace(&to.join(path), |at| std::os::unix::fs::symlink("/dev/null/link", at)),
        What::Other => replace(&to.join(path), |at| {
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).map_err(Into::into)
        }),
    }
}

fn replace(at: &Path, make: impl Fn(&Path) -> std::io::Result<()>) -> std::io::Result<()> {
    match make(at) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(at)?;
            make(at)
        }
        other => other,
    }
}

/// Removes all that was made for one pod.
pub async fn pod(engine: &Engine, instance: &str, name: &str) -> Result<(), Fault> {
    let labels = [format!("pitcrew.instance={instance}"), format!("pitcrew.pod={name}")];
    for container in engine.labelled(&labels).await? {
        engine.remove(&container.id).await?;
    }
    let mut volumes = engine.volumes(&labels).await?;
    // A part of a volume before the volume that it is of.
    volumes.sort_by_key(|volume| std::cmp::Reverse(volume.name.len()));
    for volume in volumes {
        engine.remove_volume(&volume.name).await?;
    }
    Ok(())
}

/// Removes all pods of other lives of a runner, and those of this life that are named.
pub async fn sweep(engine: &Engine, instance: &str, life: &str, left: &[String]) -> Result<(), Fault> {
    let own = [format!("pitcrew.instance={instance}")];
    let is_left = |labels: &Option<std::collections::BTreeMap<String, String>>| {
        let label = |key: &str| labels.as_ref().and_then(|labels| labels.get(key)).cloned();
        let name = label("pitcrew.pod")?;
        (label("pitcrew.life").as_deref() != Some(life) || left.contains(&name)).then_some(name)
    };
    let mut pods: Vec<String> = engine.labelled(&own).await?.iter().filter_map(|one| is_left(&one.labels)).collect();
    pods.extend(engine.volumes(&own).await?.iter().filter_map(|volume| is_left(&volume.labels)));
    pods.sort();
    pods.dedup();
    for name in pods {
        pod(engine, instance, &name).await?;
    }
    Ok(())
}

/// Removes volumes whose directory was removed with its run.
pub async fn forgotten(engine: &Engine, instance: &str, data: &Path) -> Result<(), Fault> {
    let labels = [format!("pitcrew.instance={instance}"), STANDS_FOR.to_owned()];
    for volume in engine.volumes(&labels).await? {
        let dir = volume.labels.as_ref().and_then(|labels| labels.get(STANDS_FOR));
        let Some(dir) = dir.and_then(|dir| open::relative(dir).ok()) else { continue };
        if !data.join(dir).is_dir() {
            match engine.remove_volume(&volume.name).await {
                // A pod still has it.
                Err(fault) if fault.kind == Kind::Conflict => {}
                other => other?,
            }
        }
    }
    Ok(())
}
