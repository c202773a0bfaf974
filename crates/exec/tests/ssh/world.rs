//! Who connects: a home directory, keys, and what was recorded of hosts.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{Connection, DialError, KeyError, KeySource, PinFile, PrivateKeyText, Setup, WINDOW, connect};
use tempfile::TempDir;

use crate::sshd::{Sshd, keygen, until, user};

pub struct World {
    pub dir: TempDir,
    pub keys: Arc<Keys>,
    pub setup: Setup,
}

/// Keys as texts, which may be replaced.
#[derive(Default)]
pub struct Keys {
    /// Text and passphrase.
    pub now: Mutex<Vec<(String, Option<String>)>>,
    /// What a refresh finds.
    pub newer: Mutex<Option<String>>,
    pub refreshed: AtomicUsize,
}

#[async_trait]
impl KeySource for Keys {
    async fn keys(&self, _: &SshPlace, _: usize, refresh: bool) -> Result<Vec<PrivateKeyText>, KeyError> {
        if refresh {
            self.refreshed.fetch_add(1, Ordering::Relaxed);
            if let Some(newer) = self.newer.lock().unwrap().clone() {
                *self.now.lock().unwrap() = vec![(newer, None)];
            }
        }
        let text = |(text, passphrase): &(String, Option<String>)| {
            PrivateKeyText::new(text, "secret `test`").with_passphrase(passphrase.as_deref())
        };
        Ok(self.now.lock().unwrap().iter().map(text).collect())
    }
}

impl World {
    /// Without a key.
    pub fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("home/.ssh")).unwrap();
        let keys = Arc::new(Keys::default());
        let setup = Setup {
            keys: keys.clone(),
            pins: Arc::new(PinFile::new(dir.path().join("data/ssh/known_hosts"))),
            home: dir.path().join("home"),
            agent: None,
            window: WINDOW,
        };
        World { dir, keys, setup }
    }

    /// With a key that opens the server.
    pub fn admitted(sshd: &Sshd) -> World {
        let world = World::new();
        let key = world.key("key", "ed25519", "");
        sshd.admit(&key);
        world.offer(&key);
        world
    }

    /// Makes a key that nobody offers yet.
    pub fn key(&self, name: &str, kind: &str, passphrase: &str) -> PathBuf {
        let file = self.dir.path().join(name);
        keygen(&file, kind, passphrase);
        file
    }

    pub fn offer(&self, key: &Path) {
        self.offer_text(&std::fs::read_to_string(key).unwrap(), None);
    }

    pub fn offer_text(&self, text: &str, passphrase: Option<&str>) {
        *self.keys.now.lock().unwrap() = vec![(text.to_owned(), passphrase.map(str::to_owned))];
    }

    /// Writes a file of the home directory, for its owner only.
    pub fn home(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt as _;
        let file = self.setup.home.join(name);
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        file
    }

    pub async fn connect(&self, place: &SshPlace) -> Result<Connection, DialError> {
        connect(place, &self.setup).await
    }

    /// What a connect that must fail says, and whether that lasts.
    pub async fn refused(&self, place: &SshPlace) -> (String, bool) {
        match self.connect(place).await {
            Ok(_) => panic!("`{place}` was reached"),
            Err(error) => (error.to_string(), error.lasting()),
        }
    }
}

pub fn place(port: u16) -> SshPlace {
    SshPlace { port, timeout_s: 20, ..SshPlace::new("127.0.0.1", user()) }
}

/// A real ssh-agent; ended when dropped.
pub struct Agent {
    child: Child,
    pub socket: PathBuf,
}

impl Agent {
    pub async fn start(dir: &Path, keys: &[&Path]) -> Agent {
        let socket = dir.join("agent");
        let child = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Agent { child, socket };
        until("the agent listens", || agent.socket.exists()).await;
        for key in keys {
            let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &agent.socket).output();
            let added = added.unwrap();
            assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        }
        agent
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
