//! Servers to deliver to, repositories, secrets, and a Pitcrew server that knows the example.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::gates::Gates;
use crate::git_http::GitHttp;
use crate::harness::{Running, World, contains, text};
use crate::moto::Moto;
use crate::sshd::{Sshd, keygen};

const TOKEN: &str = "c4nary-token-0f-the-repository";
pub const PASSWORD: &str = "a password of the admin";
/// Above the runs of the example.
const RUNS: &str = "/api/v2/dags/gpu-server-cicd/dagRuns";

pub struct Delivery {
    pub pitcrew: World,
    pub user: String,
    pub moto: Moto,
    pub git: GitHttp,
    pub gates: Gates,
    /// Of the Pitcrew server.
    pub url: String,
    /// Of the servers.
    pub port: u16,
    server: Running,
    sshds: Vec<(String, Sshd)>,
    bearer: String,
    arn: String,
    key: String,
    /// The key of [`Delivery::git_over_ssh`].
    git_key: String,
}

impl Delivery {
    /// With an sshd on each of these addresses, all on one port.
    pub async fn new(addresses: &[&str]) -> Delivery {
        Delivery::with(addresses, |example| example.to_owned()).await
    }

    /// With another example.
    pub async fn with(addresses: &[&str], change: impl Fn(&str) -> String) -> Delivery {
        let mut pitcrew = World::new();
        let moto = Moto::start();
        moto.serve(&mut pitcrew);
        // A server that is down costs little time, and one that is slow has enough.
        pitcrew.env.push(("PITCREW_SSH_TIMEOUT", "8s".to_owned()));
        pitcrew.env.push(("PITCREW_ADMIN_PASSWORD", PASSWORD.to_owned()));
        let key_file = pitcrew.path("key");
        keygen(&key_file, "ed25519", "");
        let key = std::fs::read_to_string(&key_file).unwrap();
        std::fs::create_dir(pitcrew.path("home")).unwrap();

        let gates = Gates::new(&pitcrew);
        // Only the first line of this kind counts.
        let env = format!("SetEnv SHLVL=1 HOME={} PATH={}", pitcrew.path("home").display(), gates.path());
        let mut sshds: Vec<(String, Sshd)> = Vec::new();
        for address in addresses {
            let port = sshds.first().map(|(_, sshd): &(String, Sshd)| sshd.port);
            let mut sshd = Sshd::start(&format!("ListenAddress {address}\n{env}")).await;
            if let Some(port) = port {
                sshd.down();
                sshd.port = port;
                sshd.up().await;
            }
            sshd.admit(&key_file);
            sshds.push(((*address).to_owned(), sshd));
        }
        std::fs::remove_file(&key_file).unwrap();

        let git = GitHttp::start(pitcrew.path("repositories"), TOKEN);
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gpu-server-cicd.yaml");
        let example = std::fs::read_to_string(example).unwrap();
        pitcrew.workflow("gpu-server-cicd", &change(&example));
        let (server, url) = serve(&pitcrew);
        let said = pitcrew.ok(&["tokens", "create", "tests", "--user", "admin"]);
        let bearer = said.split_whitespace().find(|word| word.starts_with("pct_")).unwrap().to_owned();
        let port = sshds[0].1.port;
        let user = text(&Command::new("whoami").output().unwrap()).trim().to_owned();
        let (arn, git_key) = (String::new(), String::new());
        let mut world =
            Delivery { pitcrew, user, moto, git, gates, url, port, server, sshds, bearer, arn, key, git_key };
        world.arn = world.secret("gpu-server-ssh-key", &json!({ "private_key": world.key }).to_string());
        world.secret("git/token", TOKEN);
        world.repository("app");
        // The token takes a moment as well.
        world
            .pitcrew
            .wait("the workflow is there", || world.ask("/api/v2/dags", &[]).1.to_string().contains("gpu-server-cicd"));
        world
    }

    /// Serves the repositories by SSH too, to the key in the secret `git/key` and to no other.
    pub async fn git_over_ssh(&mut self) -> Sshd {
        let sshd = Sshd::start("").await;
        for name in ["wrong/key", "git/key"] {
            let file = self.pitcrew.path("git-key");
            keygen(&file, "ed25519", "");
            sshd.admit(&file);
            self.git_key = std::fs::read_to_string(&file).unwrap();
            std::fs::remove_file(file.with_extension("pub")).unwrap();
            std::fs::remove_file(file).unwrap();
            self.secret(name, &self.git_key);
        }
        sshd
    }

    /// The repository, as it is reached by SSH.
    pub fn ssh_url(&self, git: &Sshd) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, git.port, self.pitcrew.path("repositories/app.git").display())
    }

    /// A line of the key that [`Delivery::git_over_ssh`] made.
    pub fn line_of_git_key(&self) -> &str {
        self.git_key.lines().nth(2).unwrap()
    }

    /// Ends the Pitcrew server as the kernel would.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Starts it again, with the environment as it is now.
    pub fn start(&mut self) {
        (self.server, self.url) = serve(&self.pitcrew);
    }

    pub fn sshd(&mut self, address: &str) -> &mut Sshd {
        self.sshds.iter_mut().find(|(known, _)| known == address).map(|(_, sshd)| sshd).unwrap()
    }

    /// Puts a secret into the Secrets Manager; gives its ARN.
    pub fn secret(&self, name: &str, text: &str) -> String {
        let input = json!({ "Name": name, "SecretString": text, "ClientRequestToken": "0".repeat(32) });
        self.moto.json("secretsmanager", "secretsmanager.CreateSecret", &input)["ARN"].as_str().unwrap().to_owned()
    }

    /// The directory of the servers' workspaces; they are all this machine.
    pub fn workspace(&self) -> PathBuf {
        self.pitcrew.path("it's a workspace")
    }

    pub fn conf(&self, servers: &str) -> Value {
        json!({
            "gpu_server_ip": servers,
            "workspace_path": self.workspace(),
            "secrets_arn": self.arn,
            "git_repo_url": self.repository_url("app"),
            "git_branch": "main",
            "git_token": "aws-sm:git/token",
            "ssh_user": self.user,
            "ssh_port": self.port,
        })
    }

    /// That of the first server, with other values.
    pub fn conf_with(&self, changes: Value) -> Value {
        let mut conf = self.conf("127.0.0.1");
        conf.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        conf
    }

    pub fn repository_url(&self, name: &str) -> String {
        format!("http://{}/{name}.git", self.git.address)
    }

    pub fn repository(&self, name: &str) {
        let dir = self.pitcrew.path(&format!("repositories/{name}.git"));
        std::fs::create_dir_all(&dir).unwrap();
        git(&dir, &["init", "-q", "-b", "main"]);
        git(&dir, &["config", "user.email", "a@b"]);
        git(&dir, &["config", "user.name", "A B"]);
    }

    /// Makes a commit in the repository; gives its name.
    pub fn commit(&self, file: &str, content: &str) -> String {
        self.commit_to("app", &[(file, content)])
    }

    pub fn commit_to(&self, repository: &str, files: &[(&str, &str)]) -> String {
        let repository = self.pitcrew.path(&format!("repositories/{repository}.git"));
        for (file, content) in files {
            let path = repository.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        git(&repository, &["add", "--all"]);
        git(&repository, &["commit", "-q", "--allow-empty", "-m", "a change"]);
        git(&repository, &["rev-parse", "HEAD"])
    }

    /// Asks for a run by the command line; gives its id.
    pub fn trigger(&self, conf: Value) -> String {
        let conf = conf.to_string();
        let run = self.pitcrew.json(&["dags", "trigger", "gpu-server-cicd", "--conf", &conf, "--output", "json"]);
        run["run_id"].as_str().unwrap_or_else(|| panic!("{run}")).to_owned()
    }

    /// How the run ended, when it has.
    pub fn ended(&self, run: &str) -> String {
        let path = format!("{RUNS}/{}", encoded(run));
        let state = || self.get(&path)["state"].as_str().unwrap_or_default().to_owned();
        self.pitcrew.wait("the run is over", || ["success", "failed"].contains(&state().as_str()));
        state()
    }

    pub fn instances(&self, run: &str) -> Vec<Value> {
        self.get(&format!("{RUNS}/{}/taskInstances?limit=1000", encoded(run)))["task_instances"]
            .as_array()
            .unwrap()
            .clone()
    }

    /// The states of the instances of a task, by map index.
    pub fn states(&self, run: &str, task: &str) -> Vec<String> {
        let mut found: Vec<(i64, String)> = self
            .instances(run)
            .iter()
            .filter(|instance| instance["task_id"] == task)
            .map(|i| (i["map_index"].as_i64().unwrap(), i["state"].as_str().unwrap_or("none").to_owned()))
            .collect();
        found.sort();
        found.into_iter().map(|(_, state)| state).collect()
    }

    /// How often a task was tried that has one instance, and what is said of its end.
    pub fn told(&self, run: &str, task: &str) -> (u64, String) {
        let shown = self.pitcrew.json(&["runs", "show", run, "--output", "json"]);
        let task = shown["tasks"].as_array().unwrap().iter().find(|row| row["id"] == task).unwrap().clone();
        (task["attempts"].as_u64().unwrap(), task["message"].as_str().unwrap_or_default().to_owned())
    }

    pub fn output(&self, run: &str, task: &str, name: &str) -> String {
        let path = format!("{RUNS}/{}/taskInstances/{task}/xcomEntries/{name}?map_index=0", encoded(run));
        self.get(&path)["value"].as_str().unwrap_or_default().to_owned()
    }

    /// An output that is a number.
    pub fn figure(&self, run: &str, task: &str, name: &str) -> f64 {
        let run = run.replace('+', "%2B");
        let path =
            format!("/api/v2/dags/gpu-server-cicd/dagRuns/{run}/taskInstances/{task}/xcomEntries/{name}?map_index=0");
        let found = self.get(&path);
        found["value"].as_f64().unwrap_or_else(|| panic!("{task} {name}: {found}"))
    }

    /// One series of the server's metrics.
    pub fn metric(&self, series: &str) -> f64 {
        let answer = self.get("/metrics");
        let text = answer.as_str().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no `{series}` in {text}")).parse().unwrap()
    }

    /// What is said of a run to who asks for it, with every log.
    pub fn story(&self, run: &str) -> String {
        text(&self.pitcrew.run(&["runs", "show", run])) + &text(&self.pitcrew.run(&["logs", run]))
    }

    pub fn runs(&self) -> u64 {
        self.get(&format!("{RUNS}?limit=1"))["total_entries"].as_u64().unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(path, &[]);
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.ask(path, &["-H", "Content-Type: application/json", "-d", &body.to_string()])
    }

    fn ask(&self, path: &str, more: &[&str]) -> (u16, Value) {
        let bearer = format!("Authorization: Bearer {}", self.bearer);
        let (status, body) = self.curl(path, &[&["-H", &bearer], more].concat());
        (status, serde_json::from_str(&body).unwrap_or_else(|_| json!(body)))
    }

    /// Status and body of an answer.
    pub fn curl(&self, path: &str, more: &[&str]) -> (u16, String) {
        let url = format!("{}{path}", self.url);
        let arguments = [&["-sS", "-w", "\n%{http_code}"], more, &[&url]].concat();
        let said = text(&Command::new("curl").args(arguments).output().unwrap());
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.parse().unwrap_or_else(|_| panic!("{path}: {said}")), body.to_owned())
    }

    /// Waits until nothing is left of any run: on the servers but the repositories, and here of orders to remove it.
    pub fn leaves_nothing(&self) {
        self.leaves_only(&[]);
    }

    /// But for these files of the servers' home.
    pub fn leaves_only(&self, kept: &[&str]) {
        let kept = kept.iter().map(|file| self.pitcrew.path("home").join(file).display().to_string());
        let kept: Vec<String> = kept.collect();
        let mut told = Vec::new();
        self.pitcrew.wait("nothing is left", || {
            let mut left = self.left();
            left.retain(|one| !kept.contains(one));
            if left != told {
                eprintln!("still there: {left:?}");
                told.clone_from(&left);
            }
            left.is_empty()
        });
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let ours = ["", "a", "w", "x"].map(|dir| self.pitcrew.path("home/.pitcrew").join(dir));
        each_below(&self.pitcrew.path("home"), &mut |path| {
            if !ours.contains(&path.to_owned()) {
                left.push(path.display().to_string());
            }
        });
        each_below(&self.pitcrew.path("data/ssh/removals"), &mut |path| {
            if path.is_file() && path.extension() != Some("json".as_ref()) {
                left.push(path.display().to_string());
            }
        });
        for root in [self.workspace(), self.pitcrew.path("strange")] {
            each_below(&root, &mut |path| {
                let name = path.file_name().unwrap().to_string_lossy();
                if name.starts_with(".git.broken-") || name.ends_with(".lock") || name.starts_with("tmp_pack") {
                    left.push(path.display().to_string());
                }
            });
        }
        let home = format!("{}/.pitcrew/a/", self.pitcrew.path("home").display());
        left.extend(processes_with(&[&home]));
        left
    }

    /// Neither the token nor the key is in a file (of the server's data, its log, the workspace, the hosts' homes), nor in
    /// the command line or the environment of any process.
    pub fn no_secret_anywhere(&self) {
        let middle = self.key.lines().nth(2).unwrap();
        let keys = [middle, self.git_key.lines().nth(2).unwrap_or(middle)];
        for secret in [TOKEN].into_iter().chain(keys) {
            assert_eq!(processes_with(&[secret]), Vec::<String>::new());
            assert_eq!(self.pitcrew.files_with(secret), Vec::<PathBuf>::new());
        }
    }
}

/// The processes with one of these texts in their command line or environment.
fn processes_with(wanted: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if entry.file_name().to_string_lossy().bytes().all(|byte| byte.is_ascii_digit()) {
            let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
            let (line, environ) = (read("cmdline"), read("environ"));
            if wanted.iter().any(|text| contains(&line, text.as_bytes()) || contains(&environ, text.as_bytes())) {
                found.push(String::from_utf8_lossy(&line).replace('\0', " "));
            }
        }
    }
    found
}

fn each_below(root: &Path, take: &mut dyn FnMut(&Path)) {
    for path in std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path()) {
        take(&path);
        if path.is_dir() && !path.is_symlink() {
            each_below(&path, take);
        }
    }
}

/// A server, and where it answers; each has a log of its own.
fn serve(pitcrew: &World) -> (Running, String) {
    let path = pitcrew.path("server.log");
    if path.exists() {
        let older = (0..).map(|n| pitcrew.path(&format!("server-{n}.log"))).find(|path| !path.exists());
        std::fs::rename(&path, older.unwrap()).unwrap();
    }
    let log = std::fs::File::create(&path).unwrap();
    let mut command = pitcrew.command(&["server", "--listen", "127.0.0.1:0", "--workflows", "workflows", "-v"]);
    let server = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    let url = || {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        let at = log.find("http://127.0.0.1:")?;
        Some(log[at..].split(|c: char| c.is_whitespace() || c == '\x1b').next()?.trim_end_matches('/').to_owned())
    };
    pitcrew.wait("the server answers", || url().is_some());
    (server, url().unwrap())
}

/// Key and value of listed variables.
pub fn values(variables: &Value) -> Value {
    let pair = |v: &Value| (v["key"].as_str().unwrap().to_owned(), v["value"].clone());
    Value::Object(variables.as_array().unwrap().iter().map(pair).collect())
}

fn encoded(run: &str) -> String {
    run.replace('+', "%2B")
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
