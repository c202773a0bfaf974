//! Where a data directory keeps what.
//!
//! Every name below it comes from parsed ids, so nothing can lead out of it.

use std::path::{Path, PathBuf};

use pitcrew_core::{AttemptId, RunKey};

/// A data directory, absolute.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Makes the directory if it is missing. The error names it and says what to do.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let explain = |error: std::io::Error| {
            anyhow::anyhow!(
                "cannot use `{}` as the data directory: {error}; choose another with `--data-dir DIR`",
                path.display()
            )
        };
        std::fs::create_dir_all(path).map_err(explain)?;
        Ok(DataDir(path.canonicalize().map_err(explain)?))
    }

    /// What the directory goes by among those of other servers: made once, and the same for ever.
    pub fn id(&self) -> std::io::Result<String> {
        let path = self.0.join("id");
        let read = || {
            let text = std::fs::read_to_string(&path)?;
            match text.trim().parse::<uuid::Uuid>() {
                Ok(id) => Ok(id.to_string()),
                Err(_) => Err(std::io::Error::other(format!("`{}` holds no id: remove it", path.display()))),
            }
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            read => return read,
        }
        // Appears whole; of two processes that make it at the same moment, one wins.
        let fresh = uuid::Uuid::now_v7();
        let temp = self.0.join(format!("id.{}.tmp", fresh.simple()));
        std::fs::write(&temp, format!("{fresh}\n"))?;
        let made = std::fs::hard_link(&temp, &path);
        let _ = std::fs::remove_file(&temp);
        match made {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
            _ => read(),
        }
    }

    /// One of another machine, at this absolute path there.
    pub fn there(path: &str) -> Self {
        DataDir(PathBuf::from(path))
    }

    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The socket, lock and log of the process that keeps attempts alive.
    pub fn runner(&self) -> PathBuf {
        self.0.join("runner")
    }

    /// Python environments, by the hash of their requirements.
    pub fn environments(&self) -> PathBuf {
        self.0.join("environments")
    }

    /// Everything on disk of one run.
    pub fn run(&self, run: RunKey) -> PathBuf {
        self.0.join("runs").join(run.to_string())
    }

    /// Removes everything on disk of one run; it is no error if there is nothing.
    pub fn remove_run(&self, run: RunKey) -> std::io::Result<()> {
        match std::fs::remove_dir_all(self.run(run)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The root of a run's workspaces, where its steps start.
    pub fn workspace(&self, run: RunKey) -> PathBuf {
        self.run(run).join("workspace")
    }

    /// Kept files of a run.
    pub fn artifacts(&self, run: RunKey) -> PathBuf {
        self.run(run).join("artifacts")
    }

    /// What the actions of a run leave for the server: its reports, and the versions that it used.
    pub fn records(&self, run: RunKey) -> PathBuf {
        self.run(run).join("records")
    }

    /// The own directory of one attempt: its log, its end, its scripts.
    pub fn attempt(&self, id: &AttemptId) -> PathBuf {
        self.run(id.run).join("attempts").join(id.local_name())
    }
}
