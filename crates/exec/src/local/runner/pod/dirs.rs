//! The directories of a pod, below that of its attempt: what its containers share.
//!
//! ```text
//! pod/workspace                       /workspace
//! pod/tekton/{home,results,…}         /tekton/…
//! pod/tekton/run/N/status             of step N: its results, its exit code; `/tekton/steps/NAME` leads there
//! pod/volumes/NAME                    volumes that end with the pod
//! pod/boxes/NAME                      what a container writes elsewhere
//! ```
//!
//! Invariant: only what lies below a directory that a container can write to is not ours; and that is opened with care (`sandbox::open`).

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use pitcrew_core::pod::{Container, Medium, Pod, Shape, Source};
use sha2::{Digest, Sha256};

use crate::sandbox::open;

/// A text that has no `#!` line is one for this.
const DEFAULT_INTERPRETER: &str = "#!/bin/sh\nset -e\n";
/// Of `/tekton`, for whoever a container runs as.
const OPEN: [&str; 4] = ["home", "results", "artifacts", "creds"];
const CLOSED: [&str; 5] = ["steps", "run", "scripts", "bin", "downward"];

pub struct PodDirs {
    root: PathBuf,
    /// Where volumes in memory are.
    memory: PathBuf,
}

impl PodDirs {
    /// Those of an attempt; `token` is that of the runner.
    pub fn of(attempt: &Path, token: &str) -> PodDirs {
        let digest = Sha256::digest(attempt.as_os_str().as_encoded_bytes());
        let name: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        PodDirs { root: attempt.join("pod"), memory: Path::new("/dev/shm").join(format!("{}{name}", prefix(token))) }
    }

    /// Makes all of them, and the scripts.
    pub fn make(&self, pod: &Pod) -> io::Result<()> {
        directory(&self.root, 0o700)?;
        for (name, mode) in [("workspace", 0o777), ("tekton", 0o755), ("volumes", 0o755), ("boxes", 0o700)] {
            directory(&self.root.join(name), mode)?;
        }
        let tekton = self.root.join("tekton");
        OPEN.iter().try_for_each(|name| directory(&tekton.join(name), 0o777))?;
        CLOSED.iter().try_for_each(|name| directory(&tekton.join(name), 0o755))?;
        for (index, step) in pod.steps.iter().enumerate() {
            let run = tekton.join(format!("run/{index}"));
            let status = run.join("status");
            for path in [&run, &status, &status.join("results"), &status.join("artifacts")] {
                directory(path, 0o777)?;
            }
            for name in [step.name.clone(), index.to_string()] {
                symlink(format!("/tekton/run/{index}/status"), tekton.join("steps").join(name))?;
            }
        }
        for (index, container) in pod.steps.iter().chain(&pod.sidecars).enumerate() {
            self.write_script(index, container)?;
        }
        for volume in &pod.volumes {
            match &volume.source {
                Source::Scratch { medium: Medium::Disk, .. } => directory(&self.volume(&volume.name, false), 0o777)?,
                Source::Scratch { medium: Medium::Memory, .. } => {
                    fs::create_dir_all(&self.memory)?;
                    fs::set_permissions(&self.memory, fs::Permissions::from_mode(0o700))?;
                    directory(&self.volume(&volume.name, true), 0o777)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes those to which comes what containers elsewhere leave.
    pub fn make_mirror(&self, pod: &Pod) -> io::Result<()> {
        let tekton = self.root.join("tekton");
        for path in [&self.root, &tekton, &tekton.join("results"), &tekton.join("artifacts"), &tekton.join("run")] {
            directory(path, 0o700)?;
        }
        for index in 0..pod.steps.len() {
            let run = tekton.join(format!("run/{index}"));
            let status = run.join("status");
            for path in [&run, &status, &status.join("results"), &status.join("artifacts")] {
                directory(path, 0o700)?;
            }
        }
        Ok(())
    }

    /// Written again when what earlier steps left is put in.
    pub fn write_script(&self, index: usize, container: &Container) -> io::Result<()> {
        let Some(text) = script_text(container) else { return Ok(()) };
        let path = self.root.join("tekton/scripts").join(script_name(index));
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
    }

    pub fn workspace(&self) -> PathBuf {
        self.root.join("workspace")
    }

    pub fn tekton(&self, name: &str) -> PathBuf {
        self.root.join("tekton").join(name)
    }

    pub fn volume(&self, name: &str, in_memory: bool) -> PathBuf {
        if in_memory { self.memory.join(name) } else { self.root.join("volumes").join(name) }
    }

    /// A new directory for a container.
    pub fn make_box(&self, name: &str) -> io::Result<PathBuf> {
        let path = self.root.join("boxes").join(name);
        directory(&path, 0o700)?;
        Ok(path)
    }

    /// Keeps the exit code where later steps can read it.
    pub fn keep_code(&self, step: usize, code: i32) -> io::Result<()> {
        open::write_plain(&self.tekton("run"), &format!("{step}/status/exitCode"), code.to_string().as_bytes(), 0o644)
    }

    /// Gives back the memory; what is on the disk goes with the files of the attempt.
    pub fn free_memory(&self) {
        let _ = fs::remove_dir_all(&self.memory);
    }
}

/// The beginning of the names of volumes in memory of a runner.
fn prefix(token: &str) -> String {
    format!("pitcrew-{token}-")
}

/// Frees the memory of volumes that a killed runner left.
pub fn sweep(token: &str) {
    let prefix = prefix(token);
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The script of a container, with the line that says what reads it.
pub fn script_text(container: &Container) -> Option<String> {
    let text = container.script.as_ref()?;
    let head = if text.starts_with("#!") { "" } else { DEFAULT_INTERPRETER };
    Some(format!("{head}{text}"))
}

pub fn script_name(index: usize) -> String {
    format!("script-{index}")
}

/// Where a container sees the scripts.
pub fn scripts_at(shape: Shape) -> &'static str {
    match shape {
        Shape::Tekton => "/tekton/scripts",
        Shape::Plain => "/run/pitcrew/scripts",
    }
}

/// Makes a directory with these permissions, whatever the mask.
fn directory(path: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
