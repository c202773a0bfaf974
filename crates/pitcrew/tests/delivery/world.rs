//! Servers to deliver to, a repository, a secret, and a Pitcrew server that knows the example.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::git_http::GitHttp;
use crate::harness::{Running, World, contains, text};
use crate::moto::Moto;
use crate::sshd::{Sshd, keygen};

const TOKEN: &str = "c4nary-token-0f-the-repository";

pub struct Delivery {
    pub pitcrew: World,
    pub user: String,
    _server: Running,
    moto: Moto,
    git: GitHttp,
    sshds: Vec<(String, Sshd)>,
    port: u16,
    url: String,
    arn: String,
    key: String,
    /// The key of [`Delivery::git_over_ssh`].
    git_key: String,
}

impl Delivery {
    /// With an sshd on each of these addresses, all on one port.
    pub async fn new(addresses: &[&str]) -> Delivery {
        let mut pitcrew = World::new();
        let moto = Moto::start();
        moto.serve(&mut pitcrew);
        // A server that is down costs little time.
        pitcrew.env.push(("PITCREW_SSH_TIMEOUT", "2s".to_owned()));
        let key_file = pitcrew.path("key");
        keygen(&key_file, "ed25519", "");
        let key = std::fs::read_to_string(&key_file).unwrap();
        keygen(&pitcrew.path("other"), "ed25519", "");
        let secret = |name: &str, text: &str| {
            let input = json!({ "Name": name, "SecretString": text });
            moto.json("secretsmanager", "secretsmanager.CreateSecret", &input)["ARN"].as_str().unwrap().to_owned()
        };
        let arn = secret("gpu-server-ssh-key", &json!({ "private_key": key }).to_string());
        secret("wrong/key", &std::fs::read_to_string(pitcrew.path("other")).unwrap());
        secret("git/token", TOKEN);
        std::fs::remove_file(pitcrew.path("other")).unwrap();

        let mut sshds: Vec<(String, Sshd)> = Vec::new();
        for address in addresses {
            let port = sshds.first().map(|(_, sshd): &(String, Sshd)| sshd.port);
            let home = format!("SetEnv HOME={}", pitcrew.path("home").display());
            let mut sshd = Sshd::start(&format!("ListenAddress {address}\n{home}")).await;
            if let Some(port) = port {
                sshd.down();
                sshd.port = port;
                sshd.up().await;
            }
            sshd.admit(&key_file);
            sshds.push(((*address).to_owned(), sshd));
        }
        std::fs::remove_file(&key_file).unwrap();
        std::fs::create_dir(pitcrew.path("home")).unwrap();

        let repositories = pitcrew.path("repositories");
        std::fs::create_dir(&repositories).unwrap();
        git(&repositories, &["init", "-q", "-b", "main", "app.git"]);
        git(&repositories.join("app.git"), &["config", "user.email", "a@b"]);
        git(&repositories.join("app.git"), &["config", "user.name", "A B"]);
        let served = GitHttp::start(repositories, TOKEN);

        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/gpu-server-cicd.yaml");
        pitcrew.workflow("gpu-server-cicd", &std::fs::read_to_string(example).unwrap());
        let server = pitcrew.serve();
        let url = || {
            let log = std::fs::read_to_string(pitcrew.path("server.log")).unwrap_or_default();
            let at = log.find("http://127.0.0.1:")?;
            Some(log[at..].split(|c: char| c.is_whitespace() || c == '\x1b').next()?.trim_end_matches('/').to_owned())
        };
        pitcrew.wait("the server answers", || url().is_some());
        let url = url().unwrap();
        pitcrew.wait("the workflow is there", || {
            text(&pitcrew.run(&["dags", "list", "--output", "json"])).contains("gpu-server-cicd")
        });
        let port = sshds[0].1.port;
        let user = text(&Command::new("whoami").output().unwrap()).trim().to_owned();
        Delivery {
            pitcrew,
            user,
            _server: server,
            moto,
            git: served,
            sshds,
            port,
            url,
            arn,
            key,
            git_key: String::new(),
        }
    }

    /// Serves the repositories by SSH too, to the key in the secret `git/key` and to no other.
    pub async fn git_over_ssh(&mut self) -> Sshd {
        let sshd = Sshd::start("").await;
        let file = self.pitcrew.path("git-key");
        keygen(&file, "ed25519", "");
        sshd.admit(&file);
        self.git_key = std::fs::read_to_string(&file).unwrap();
        std::fs::remove_file(file).unwrap();
        let input = json!({ "Name": "git/key", "SecretString": self.git_key });
        self.moto.json("secretsmanager", "secretsmanager.CreateSecret", &input);
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

    pub fn down(&mut self, address: &str) {
        self.sshds.iter_mut().filter(|(known, _)| known == address).for_each(|(_, sshd)| sshd.down());
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
            "git_repo_url": format!("http://{}/app.git", self.git.address),
            "git_branch": "main",
            "git_token": "aws-sm:git/token",
            "ssh_user": self.user,
            "ssh_port": self.port,
        })
    }

    /// Makes a commit in the repository; gives its name.
    pub fn commit(&self, file: &str, content: &str) -> String {
        let repository = self.pitcrew.path("repositories/app.git");
        let path = repository.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        git(&repository, &["add", "--all"]);
        git(&repository, &["commit", "-q", "--allow-empty", "-m", "a change"]);
        git(&repository, &["rev-parse", "HEAD"])
    }

    /// Asks for a run by the command line; gives its id.
    pub fn trigger(&self, conf: Value) -> String {
        let conf = conf.to_string();
        let run = self.pitcrew.json(&["dags", "trigger", "gpu-server-cicd", "--conf", &conf, "--output", "json"]);
        let run = run.get(0).unwrap_or(&run);
        run["dag_run_id"].as_str().or(run["run_id"].as_str()).unwrap_or_else(|| panic!("{run}")).to_owned()
    }

    fn run(&self, run: &str) -> Value {
        let path = format!("/api/v2/dags/gpu-server-cicd/dagRuns/{}", run.replace('+', "%2B"));
        self.get(&path)
    }

    /// How the run ended, when it has.
    pub fn ended(&self, run: &str) -> String {
        let state = || self.run(run)["state"].as_str().unwrap_or_default().to_owned();
        self.pitcrew.wait("the run is over", || ["success", "failed"].contains(&state().as_str()));
        state()
    }

    fn instances(&self, run: &str) -> Vec<Value> {
        let path = format!("/api/v2/dags/gpu-server-cicd/dagRuns/{}/taskInstances", run.replace('+', "%2B"));
        self.get(&path)["task_instances"].as_array().unwrap().clone()
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

    pub fn output(&self, run: &str, task: &str, name: &str) -> String {
        let run = run.replace('+', "%2B");
        let path =
            format!("/api/v2/dags/gpu-server-cicd/dagRuns/{run}/taskInstances/{task}/xcomEntries/{name}?map_index=0");
        self.get(&path)["value"].as_str().unwrap_or_default().to_owned()
    }

    /// What every task of a run said, for failures of tests.
    pub fn story(&self, run: &str) -> String {
        let mut story = String::new();
        for instance in self.instances(run) {
            story.push_str(&format!("{} {} {}\n", instance["task_id"], instance["map_index"], instance["state"]));
        }
        let key = self.pitcrew.json(&["runs", "show", run, "--output", "json"]);
        story += &serde_json::to_string_pretty(&key).unwrap();
        // What the server found wrong after a task's end is in no log.
        story + &text(&self.pitcrew.run(&["runs", "show", run])) + &text(&self.pitcrew.run(&["logs", run]))
    }

    pub fn runs(&self) -> u64 {
        self.get("/api/v2/dags/gpu-server-cicd/dagRuns?limit=1")["total_entries"].as_u64().unwrap()
    }

    pub fn get(&self, path: &str) -> Value {
        let out = Command::new("curl").args(["-sS", &format!("{}{path}", self.url)]).output().unwrap();
        serde_json::from_slice(&out.stdout).unwrap_or_else(|error| panic!("{path}: {error}: {}", text(&out)))
    }

    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.url);
        let body = body.to_string();
        let arguments = ["-sS", "-w", "\n%{http_code}", "-H", "Content-Type: application/json", "-d", &body, &url];
        let said = text(&Command::new("curl").args(arguments).output().unwrap());
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap_or_else(|_| json!(body)))
    }

    /// What is in the servers' home besides an empty `.pitcrew`.
    pub fn left_on_the_server(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut folders = vec![self.pitcrew.path("home")];
        while let Some(folder) = folders.pop() {
            for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() {
                    folders.push(path);
                } else {
                    left.push(path.display().to_string());
                }
            }
        }
        left
    }

    /// Neither the token nor the key is in a file: of the server's data, its log, the workspace, or the hosts' homes.
    pub fn no_secret_anywhere(&self) {
        let middle = self.key.lines().nth(2).unwrap();
        let of_git = self.git_key.lines().nth(2);
        for secret in [TOKEN, middle].into_iter().chain(of_git) {
            assert_eq!(self.pitcrew.files_with(secret), Vec::<PathBuf>::new());
        }
        assert!(!contains(&std::fs::read(self.pitcrew.path("server.log")).unwrap(), TOKEN.as_bytes()));
    }
}

/// Key and value of listed variables.
pub fn values(variables: &Value) -> Value {
    let pair = |v: &Value| (v["key"].as_str().unwrap().to_owned(), v["value"].clone());
    Value::Object(variables.as_array().unwrap().iter().map(pair).collect())
}

fn git(dir: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
