//! Asks a node what it has: this machine by a process, another over its connection, a DCGM exporter over HTTP.
//!
//! Invariant: whatever is asked, the answer comes within the deadline, and is bounded; that none came is an answer.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pitcrew_exec::SshPlace;
use pitcrew_exec::gpu::{self, Probe, Reading, Readings, Smi, parse_dcgm, parse_probe};
use pitcrew_exec::ssh::{ASKED, BY_ITSELF, ConfigFile, Defaults, Follow, Followed, Lease, Pool, Talk};
use pitcrew_store::{Connection as Row, Paging, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::config::NodeConfig;
use super::places::Places;
use crate::clock;
use crate::connection::Connection;
use crate::ssh;
use crate::vault::Vault;

/// For one node, connecting included. Longer than the script gives `nvidia-smi`, twice.
const PATIENCE: Duration = Duration::from_secs(50);
/// For an exporter.
const EXPORTER: Duration = Duration::from_secs(10);
/// How long a shell is kept on a host for what is asked there again and again: keys may be others by then.
const RENEWED: Duration = Duration::from_secs(300);
/// After this nobody asks it any more.
const IDLE: Duration = Duration::from_secs(120);
/// Bytes that are read of an answer.
const MOST: u64 = 4 << 20;

/// What asking needs.
#[derive(Clone)]
pub struct Asker {
    pub store: Store,
    pub vault: Vault,
    pub pool: Pool,
    pub defaults: Defaults,
    pub http: reqwest::Client,
    places: Arc<Places>,
    /// By stored connection, and what is asked there.
    talks: Arc<Mutex<HashMap<(String, &'static str), Kept>>>,
}

/// A shell on a host that is kept.
struct Kept {
    talk: Talk,
    /// Where that is.
    place: SshPlace,
    since: Instant,
    used: Instant,
}

/// A host that tells by itself, and where that is.
pub struct Following {
    pub follow: Follow,
    place: SshPlace,
    since: Instant,
}

/// Why a node tells nothing by itself.
pub enum Silent {
    /// Its host lacks what that takes; it can be asked.
    Cannot,
    Failed(String),
}

/// What came back.
pub struct Answer {
    pub probe: Probe,
    /// What a DCGM exporter told beside.
    pub dcgm: Option<Result<Readings, String>>,
}

impl Asker {
    pub fn new(store: Store, vault: Vault, pool: Pool, defaults: Defaults) -> anyhow::Result<Asker> {
        let http = reqwest::Client::builder().timeout(EXPORTER).redirect(reqwest::redirect::Policy::none());
        Ok(Asker { store, vault, pool, defaults, http: http.build()?, places: Arc::default(), talks: Arc::default() })
    }

    /// The error is why the node cannot be used.
    pub async fn ask(&self, node: &NodeConfig) -> Result<Answer, String> {
        let asked = async {
            let text = match &node.connection {
                Some(id) => self.over_ssh(id).await?,
                None => here().await?,
            };
            self.answer(node, &text).await
        };
        let late = || Err(format!("it does not answer within {} s", PATIENCE.as_secs()));
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(|_| late())
    }

    async fn answer(&self, node: &NodeConfig, text: &str) -> Result<Answer, String> {
        let probe = parse_probe(text).ok_or("it runs no `/bin/sh` for this user")?;
        let dcgm = match &node.dcgm {
            Some(url) => Some(exporter(&self.http, url).await),
            None => None,
        };
        Ok(Answer { probe, dcgm })
    }

    /// The same as [`Asker::ask`], of a node over SSH that tells it every so often by itself; at once, when it is not followed yet.
    pub async fn next(
        &self,
        node: &NodeConfig,
        every: Duration,
        following: &mut Option<Following>,
    ) -> Result<Answer, Silent> {
        let Some(id) = &node.connection else { return Err(Silent::Cannot) };
        let told = async {
            if let Some(known) = following
                && !self.is_current(id, known).await
            {
                *following = None;
            }
            // One that broke says nothing of the host.
            let kept = match following {
                Some(known) => known.follow.next().await.ok(),
                None => None,
            };
            let said = match kept {
                Some(said) => said,
                None => {
                    let look = gpu::probe_script();
                    let what = Followed { look: &look, wake: "", found: "", every: every.as_secs() };
                    let known = following.insert(self.follow(id, "", what).await.map_err(Silent::Failed)?);
                    known.follow.next().await.map_err(|error| Silent::Failed(error.to_string()))?
                }
            };
            if said.code != ASKED && said.code != BY_ITSELF {
                return Err(Silent::Cannot);
            }
            self.answer(node, &String::from_utf8_lossy(&said.stdout)).await.map_err(Silent::Failed)
        };
        let late = || Err(Silent::Failed(format!("it does not answer within {} s", PATIENCE.as_secs())));
        let told = tokio::time::timeout(every + PATIENCE, told).await.unwrap_or_else(|_| late());
        if told.is_err() {
            *following = None;
        }
        told
    }

    /// Begins to follow the host that a stored connection leads to.
    pub async fn follow(&self, id: &str, first: &str, what: Followed<'_>) -> Result<Following, String> {
        let place = self.usual_place(id).await?;
        let lease = self.pool.get(&place).await.map_err(|error| error.to_string())?;
        let follow = Follow::open(lease, first, what).await.map_err(|error| error.to_string())?;
        Ok(Following { follow, place, since: clock::instant() })
    }

    /// Whether the stored connection still leads there, and keys need not be looked up anew.
    pub async fn is_current(&self, id: &str, following: &Following) -> bool {
        following.since.elapsed() < RENEWED && self.usual_place(id).await.is_ok_and(|place| place == following.place)
    }

    /// A connection to the node that this stored connection leads to.
    pub async fn connect(&self, id: &str) -> Result<Lease, String> {
        let place = self.place(id).await?;
        self.pool.get(&place).await.map_err(|error| error.to_string())
    }

    /// It may be back any moment: whoever connects next finds out, and does not hear that it was away just now.
    pub async fn hurry(&self, id: &str) {
        if let Ok(place) = self.place(id).await {
            self.pool.hurry(&place);
        }
    }

    async fn place(&self, id: &str) -> Result<SshPlace, String> {
        let row = self.store.connection(id).await.map_err(|error| error.to_string())?;
        let row = row.ok_or_else(|| format!("there is no connection `{id}`: `pitcrew connections add` makes one"))?;
        let place = Connection::open(row, &self.vault).and_then(|connection| {
            let file = self.pool.setup().config_file()?;
            ssh::place::place(&connection, &file, &self.defaults)
        });
        place.map_err(|error| format!("{error:#}"))
    }

    async fn over_ssh(&self, id: &str) -> Result<String, String> {
        let said = self.again(id, "probe", &gpu::probe_script()).await?;
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Where a stored connection leads, as of some seconds ago: for whoever asks there again and again, and changes nothing.
    async fn usual_place(&self, id: &str) -> Result<SshPlace, String> {
        let read = async || {
            let rows = self.store.connections(None, Paging::ALL).await.map_err(|error| error.to_string())?.rows;
            Ok((rows, self.pool.setup().config_file().map_err(|error| error.to_string())?))
        };
        let place = |row: &Row, file: &ConfigFile| {
            let place = Connection::open(row.clone(), &self.vault)
                .and_then(|connection| ssh::place::place(&connection, file, &self.defaults));
            place.map_err(|error| format!("{error:#}"))
        };
        self.places.of(id, clock::instant(), read, place).await
    }

    /// Runs a script on a host that is asked the same again soon, in a shell that is kept there for `what`, for as long as the
    /// stored connection leads to the same place. Whoever gives up waiting gives up that shell.
    pub async fn again(&self, id: &str, what: &'static str, script: &str) -> Result<Vec<u8>, String> {
        let place = self.usual_place(id).await?;
        let key = (id.to_owned(), what);
        let kept = {
            let mut talks = self.talks();
            talks.retain(|_, kept| kept.used.elapsed() < IDLE);
            talks.remove(&key)
        };
        if let Some(kept) = kept.filter(|kept| kept.place == place && kept.since.elapsed() < RENEWED)
            // One that broke says nothing of the host.
            && let Ok((said, talk)) = kept.talk.run(script).await
        {
            self.talks().insert(key, Kept { talk, place, since: kept.since, used: clock::instant() });
            return Ok(said.stdout);
        }
        let lease = self.pool.get(&place).await.map_err(|error| error.to_string())?;
        let talk = Talk::open(lease).await.map_err(|error| error.to_string())?;
        let (said, talk) = talk.run(script).await.map_err(|error| error.to_string())?;
        let now = clock::instant();
        self.talks().insert(key, Kept { talk, place, since: now, used: now });
        Ok(said.stdout)
    }

    fn talks(&self) -> MutexGuard<'_, HashMap<(String, &'static str), Kept>> {
        self.talks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an exporter tells.
async fn exporter(http: &reqwest::Client, url: &str) -> Result<Readings, String> {
    let failed = |error: reqwest::Error| {
        let late = error.is_timeout().then(|| format!("it does not answer within {} s", EXPORTER.as_secs()));
        let why = late.unwrap_or_else(|| error.without_url().to_string());
        format!("the DCGM exporter cannot be asked: {why}")
    };
    let mut response = http.get(url).send().await.and_then(|r| r.error_for_status()).map_err(failed)?;
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&part);
        if body.len() as u64 > MOST {
            return Err("the DCGM exporter answers without end".to_owned());
        }
    }
    Ok(parse_dcgm(&String::from_utf8_lossy(&body)))
}

/// Whether the devices of this machine are declared in the environment, and so never change.
pub fn is_pretended() -> bool {
    std::env::var_os(gpu::PRETEND_VARIABLE).is_some()
}

/// This machine, as a server or a run finds it when it starts.
pub async fn this_machine() -> Result<Probe, String> {
    let late = || Err(format!("this machine does not answer within {} s", PATIENCE.as_secs()));
    let text = tokio::time::timeout(PATIENCE, here()).await.unwrap_or_else(|_| late())?;
    let mut probe = parse_probe(&text).ok_or("`/bin/sh` does not run here")?;
    if is_pretended() {
        let variables = std::env::vars().filter(|(name, _)| name == gpu::PRETEND_VARIABLE).collect();
        let found = gpu::detect(&variables, None, PATIENCE).await;
        let reading =
            |gpu: gpu::Gpu| Reading { index: gpu.index, uuid: gpu.uuid, name: gpu.name, ..Reading::default() };
        (probe.smi, probe.gpus) = (Smi::Answered, found.gpus.into_iter().map(reading).collect());
        probe.remarks = found.remarks;
    }
    Ok(probe)
}

/// The script on this machine.
async fn here() -> Result<String, String> {
    let failed = |error: std::io::Error| format!("`/bin/sh` cannot be run: {error}");
    let mut child = tokio::process::Command::new(Path::new("/bin/sh"))
        .arg("-s")
        .args(std::env::current_exe())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(gpu::probe_script().as_bytes()).await.map_err(failed)?;
    }
    let mut text = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MOST).read_to_end(&mut text).await.map_err(failed)?;
    }
    child.wait().await.map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n";
    const TOLD: &str = "# TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
        DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"GPU-a\",device=\"nvidia0\",modelName=\"NVIDIA A100-SXM4-80GB\"} 97\n\
        DCGM_FI_DEV_POWER_USAGE{gpu=\"0\",UUID=\"GPU-a\",modelName=\"NVIDIA A100-SXM4-80GB\"} 312.5\n";

    /// How an exporter answers.
    enum Way {
        /// These parts, one after the other as they are read.
        Parts(Vec<String>),
        /// Half an answer, and then nothing for as long as somebody waits.
        Hang,
        /// A line again and again.
        Endless,
    }

    /// The address of an exporter that answers one question.
    async fn serve(way: Way) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            let _ = stream.read(&mut asked).await;
            match way {
                Way::Parts(parts) => {
                    for part in parts {
                        if stream.write_all(part.as_bytes()).await.and(stream.flush().await).is_err() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                }
                Way::Hang => {
                    let _ = stream.write_all(format!("{HEAD}DCGM_FI_DEV_GPU").as_bytes()).await;
                    // Until whoever asked gives up.
                    while stream.read(&mut asked).await.is_ok_and(|read| read > 0) {}
                }
                Way::Endless => {
                    let _ = stream.write_all(HEAD.as_bytes()).await;
                    while stream.write_all(TOLD.as_bytes()).await.is_ok() {}
                }
            }
        });
        format!("http://{address}/metrics")
    }

    async fn ask(way: Way) -> Result<Readings, String> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().timeout(EXPORTER).no_proxy().build().unwrap();
        exporter(&http, &serve(way).await).await
    }

    #[tokio::test]
    async fn an_exporter_that_is_slow_or_talks_nonsense_is_read_and_one_that_fails_is_told() {
        let slow: Vec<String> =
            std::iter::once(HEAD).map(str::to_owned).chain(TOLD.chars().map(String::from)).collect();
        let read = ask(Way::Parts(slow)).await.unwrap();
        let [gpu] = &read.gpus[..] else { panic!("{read:?}") };
        assert_eq!((gpu.uuid.as_str(), gpu.use_percent, gpu.power_watts), ("GPU-a", Some(97.0), Some(312.5)));

        let garbage =
            ask(Way::Parts(vec![format!("{HEAD}<html>\u{fffd}{{{{DCGM_FI_DEV_GPU_UTIL{{gpu=")])).await.unwrap();
        assert!(garbage.gpus.is_empty());
        let failed = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let said = ask(Way::Parts(vec![failed.to_owned()])).await.unwrap_err();
        assert!(said.contains("cannot be asked") && said.contains("500"), "{said}");
        let said = ask(Way::Parts(vec!["nonsense".to_owned()])).await.unwrap_err();
        assert!(said.contains("cannot be asked"), "{said}");
        let said = ask(Way::Endless).await.unwrap_err();
        assert_eq!(said, "the DCGM exporter answers without end");
    }

    #[tokio::test]
    async fn an_exporter_that_hangs_is_given_up() {
        let said = ask(Way::Hang).await.unwrap_err();
        assert_eq!(said, "the DCGM exporter cannot be asked: it does not answer within 10 s");
    }
}
