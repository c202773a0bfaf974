//! A real sshd on a port of its own, with host keys of its own; stopped when dropped.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Sshd {
    pub dir: TempDir,
    pub port: u16,
    settings: String,
    child: Option<Child>,
}

impl Sshd {
    /// With an Ed25519 host key, and these lines in its settings.
    pub async fn start(settings: &str) -> Sshd {
        Sshd::with_host_keys(&["ed25519"], settings).await
    }

    pub async fn with_host_keys(kinds: &[&str], settings: &str) -> Sshd {
        let dir = tempfile::tempdir().unwrap();
        for kind in kinds {
            keygen(&dir.path().join(format!("host_{kind}")), kind, "");
        }
        std::fs::write(dir.path().join("authorized_keys"), "").unwrap();
        let mut sshd = Sshd { dir, port: free_port(), settings: settings.to_owned(), child: None };
        sshd.up().await;
        sshd
    }

    /// Starts it, also again after [`Sshd::down`], on the same port.
    pub async fn up(&mut self) {
        let dir = self.dir.path();
        // With a level, bash does not read the files of whoever runs the tests, which may take it seconds.
        let mut config = format!(
            "Port {}\nListenAddress 127.0.0.1\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             SetEnv SHLVL=1\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nUseDNS no\nMaxStartups 500\n",
            self.port,
            dir.join("authorized_keys").display()
        );
        let mut host_keys: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        host_keys.retain(|path| path.extension().is_none());
        host_keys.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("host_"));
        for key in host_keys {
            config.push_str(&format!("HostKey {}\n", key.display()));
        }
        // The first value of a setting wins.
        std::fs::write(dir.join("sshd_config"), format!("{}\n{config}", self.settings)).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let program = program();
        let mut command = Command::new(&program);
        command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(log);
        if let Some(libraries) = libraries(&program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{}: {error}", program.display())));
        // No connect to find out: a server may count those who sign in to nothing.
        until("sshd listens", || self.log().contains("Server listening")).await;
    }

    /// Stops it; connections that are there go on.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub fn log(&self) -> String {
        let text = std::fs::read(self.dir.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        assert!(!text.contains("no hostkeys available") && !text.contains("Bad configuration"), "{text}");
        text
    }

    /// Lets the owner of this key in, and nobody else.
    pub fn admit(&self, key: &Path) {
        let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
        std::fs::write(self.dir.path().join("authorized_keys"), public).unwrap();
    }

    /// Gives it another host key, from the next start on.
    pub fn change_host_key(&self, kind: &str) {
        let file = self.dir.path().join(format!("host_{kind}"));
        std::fs::remove_file(&file).unwrap();
        std::fs::remove_file(file.with_extension("pub")).unwrap();
        keygen(&file, kind, "");
    }

    /// `TYPE BASE64` of a host key.
    pub fn host_key(&self, kind: &str) -> String {
        let text = std::fs::read_to_string(self.dir.path().join(format!("host_{kind}.pub"))).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    }

    /// Sign-ins so far.
    pub fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.down();
    }
}

/// Waits for a fact.
pub async fn until(what: &str, is_true: impl Fn() -> bool) {
    let wait = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("waited in vain: {what}");
    }
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("PITCREW_TEST_SSHD") {
        return path.into();
    }
    let cache = std::env::var_os("PITCREW_TEST_CACHE").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/pitcrew-test")));
    let places = [Some(PathBuf::from("/usr/sbin/sshd")), cache.map(|cache| cache.join("sshd/usr/sbin/sshd"))];
    let found = places.into_iter().flatten().find(|path| path.exists());
    found.expect("these tests need an sshd: `scripts/sshd` gets one (`scripts/test` runs it)")
}

/// Those that were unpacked beside it.
fn libraries(program: &Path) -> Option<PathBuf> {
    let usr = program.parent()?.parent()?;
    let lib = usr.join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH));
    (usr != Path::new("/usr")).then_some(lib)
}

pub fn keygen(file: &Path, kind: &str, passphrase: &str) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", kind, "-N", passphrase, "-C", "test", "-f"])
        .arg(file)
        .stdin(Stdio::null())
        .output()
        .expect("these tests need `ssh-keygen`: install openssh-client");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Whom this process may sign in as.
pub fn user() -> String {
    let out = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}
