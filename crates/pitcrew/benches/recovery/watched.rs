//! What it costs the server to watch machines at the default settings while nothing happens: a thousand of workers, which are
//! simulated over real HTTP; and hosts, each reached by a connection of its own to a real sshd.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Running, World, text};
use crate::simulated::{GPUS, smi, uuid, worker};
use crate::sshd::{Sshd, free_port, keygen};

/// Unless `workers=N` and `hosts=N` say otherwise.
const WORKERS: usize = 1_000;
const HOSTS: usize = 60;
/// What belongs to the beginning is over after this, and then it is looked for so long: workers and hosts tell within a minute
/// all that they tell while nothing happens, and a fifth of the nodes what their drivers say of themselves.
const SETTLE: Duration = Duration::from_secs(45);
const LOOK: Duration = Duration::from_secs(60);

pub async fn watched() {
    let (many, some) = (count("workers=", WORKERS), count("hosts=", HOSTS));
    let workers = Watched::new(|_| String::new());
    let token = workers.token(many);
    let clients: Vec<_> =
        (0..many).map(|number| tokio::spawn(worker(workers.url.clone(), token.clone(), number))).collect();
    let (hosts, _sshd, _machine) = hosts(some).await;
    let is_ready = |of: &Watched, count: usize| {
        let nodes = of.get("/api/pitcrew/v1/nodes");
        let ready = nodes["nodes"].as_array().map_or(0, |all| {
            all.iter()
                .filter(|node| {
                    node["standing"] == "ready" && node["gpus"].as_array().is_some_and(|g| g.len() == GPUS as usize)
                })
                .count()
        });
        ready >= count
    };
    workers.world.wait("all workers are nodes", || is_ready(&workers, many));
    hosts.world.wait("all hosts are nodes", || is_ready(&hosts, some));
    tokio::time::sleep(SETTLE).await;
    let before = (workers.cpu(), hosts.cpu());
    tokio::time::sleep(LOOK).await;
    let used = (workers.cpu() - before.0, hosts.cpu() - before.1);
    assert!(clients.iter().all(|client| !client.is_finished()), "a simulated worker gave up");
    clients.iter().for_each(tokio::task::JoinHandle::abort);
    let percent = |seconds: f64| seconds / LOOK.as_secs_f64() * 100.0;
    println!(
        "watched    {many} machines of workers with {GPUS} GPUs each  {:.1} % of a core (aim ≤ 5), {:.0} MiB resident",
        percent(used.0),
        workers.memory()
    );
    println!(
        "watched    {some} hosts over SSH with {GPUS} GPUs each  {:.1} % of a core, {:.1} ms of a core per host and minute; 1,000 of them, \
         extrapolated, {:.1} %",
        percent(used.1),
        used.1 * 1e3 / some as f64 / (LOOK.as_secs_f64() / 60.0),
        percent(used.1) * 1_000.0 / some as f64
    );
}

/// A number that the command line gives.
fn count(word: &str, usual: usize) -> usize {
    std::env::args().find_map(|arg| arg.strip_prefix(word)?.parse().ok()).unwrap_or(usual)
}

/// A server that watches.
struct Watched {
    world: World,
    url: String,
    server: Running,
}

impl Watched {
    /// `more`: what its configuration has beside recovery.
    fn new(more: impl FnOnce(&mut World) -> String) -> Watched {
        let mut world = World::new();
        world.env.push(("PITCREW_GPUS", "0".to_owned()));
        let config = format!("recovery: {{mode: observe}}\n{}", more(&mut world));
        std::fs::write(world.path("pitcrew.yaml"), config).unwrap();
        world.env.push(("PITCREW_CONFIG", world.path("pitcrew.yaml").display().to_string()));
        let listen = format!("127.0.0.1:{}", free_port());
        let log = std::fs::File::create(world.path("server.log")).unwrap();
        let mut command = world.command(&["server", "--no-auth", "--listen", &listen, "--workflows", "workflows"]);
        let server = Running(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        let watched = Watched { world, url: format!("http://{listen}"), server };
        watched.world.wait("the server answers", || !watched.get("/api/pitcrew/v1/nodes").is_null());
        watched
    }

    /// An answer of its API; null, if there is none.
    fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.url);
        let asked = async { reqwest::Client::builder().no_proxy().build()?.get(url).send().await?.json().await };
        let runtime = tokio::runtime::Handle::current();
        let answer: reqwest::Result<Value> = tokio::task::block_in_place(|| runtime.block_on(asked));
        answer.unwrap_or_default()
    }

    fn token(&self, uses: usize) -> String {
        let said = self.world.ok(&["workers", "token", "--uses", &uses.to_string()]);
        said.split_whitespace().find(|word| word.starts_with("pwt_")).unwrap().to_owned()
    }

    /// Seconds of a processor that it has used.
    fn cpu(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.server.0.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }

    fn memory(&self) -> f64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.server.0.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1024.0
    }
}

/// A server with hosts at addresses of their own, all of them one sshd.
async fn hosts(count: usize) -> (Watched, Sshd, tempfile::TempDir) {
    let machine = tempfile::tempdir().unwrap();
    let at = machine.path();
    let addresses: Vec<String> = (2..count + 2).map(|last| format!("127.0.0.{last}")).collect();
    // sshd listens at few addresses, and at any of this machine if it is not said at which.
    let port = free_port();
    let path = format!("ListenAddress 0.0.0.0:{port}\nSetEnv SHLVL=1 PATH={}:/usr/bin:/bin", at.display());
    let sshd = Sshd::start(&path).await;
    std::fs::write(at.join("q"), smi("host")).unwrap();
    for address in &addresses {
        let row = |index: u32| {
            format!("{index}, {}, Disabled, 81559, 4, 35, 312.50, 61, NVIDIA H100 80GB HBM3\n", uuid(address, index))
        };
        std::fs::write(at.join(format!("rows.{address}")), (0..GPUS).map(row).collect::<String>()).unwrap();
    }
    let script = format!(
        "#!/bin/sh\ncd '{}' || exit 1\n[ \"$1\" = -q ] && exec cat q\nto=${{SSH_CONNECTION#* * }}\nexec cat \"rows.${{to%% *}}\"\n",
        at.display()
    );
    let written = Command::new("/bin/sh")
        .args(["-c", "printf %s \"$1\" >\"$0\" && chmod 755 \"$0\""])
        .arg(at.join("nvidia-smi"))
        .arg(script)
        .status();
    assert!(written.unwrap().success());
    let watched = Watched::new(|world| {
        let key = world.path("key");
        keygen(&key, "ed25519", "");
        sshd.admit(&key);
        let user = text(&Command::new("whoami").output().unwrap());
        let extra = json!({ "key_file": key }).to_string();
        let mut nodes = "nodes:\n".to_owned();
        for (number, address) in addresses.iter().enumerate() {
            let name = format!("h{number}");
            let host = ["connections", "add", &name, "--conn-type", "ssh", "--conn-host", address];
            let port = port.to_string();
            let more = ["--conn-port", &port, "--conn-login", user.trim(), "--conn-extra", &extra];
            world.ok(&[&host[..], &more].concat());
            nodes.push_str(&format!("- {{name: {name}, connection: {name}}}\n"));
        }
        nodes
    });
    (watched, sshd, machine)
}
