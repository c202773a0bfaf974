//! One container, from its start to its end: what it writes is told once and whole, and its end as what it is.
//!
//! An engine may go away in between. Then it is asked again, and what it wrote is read from the start, without what was told already. If the first
//! container of the pod is over as well when the engine is back, the engine was stopped: what ran is lost, whatever its exit code.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use super::{ASK_AGAIN, ASKED_FOR, End, Follow, How, Part, Patience, Put, VOLUMES, short_digest};
use super::{home, remove};
use crate::clock;
use crate::docker::tar::{Entry, What};
use crate::docker::{Engine, Fault, Kind, Output, State, Stream};

/// What is kept of a stream that goes to a file as well.
const SPOOL: usize = 64 << 20;
/// Exit codes of what was ended by force, or of what an engine found over when it came back.
const BY_FORCE: [i64; 3] = [137, 143, 255];

pub async fn run(engine: &Engine, follow: Follow) -> End {
    let name = follow.whose.container(&follow.container);
    let mut end = End { id: String::new(), how: How::Lost(String::new()) };
    let signals = match signal(SignalKind::terminate()) {
        Ok(signals) => signals,
        Err(error) => {
            end.how = How::Config(format!("cannot listen for requests to end: {error}"));
            return end;
        }
    };
    match begin(engine, &follow, &name).await {
        Ok(id) => end.id = id,
        Err(how) => {
            end.how = match state(engine, &follow.whose.first()).await {
                Ok(first) if first.running => how,
                Ok(_) | Err(_) => How::Lost("its engine was stopped, or its pod removed, before it began".to_owned()),
            };
            return end;
        }
    }
    let mut kept = Kept {
        engine,
        name: &name,
        follow: &follow,
        signals,
        kill_at: None,
        told: [0, 0],
        spool: [Vec::new(), Vec::new()],
    };
    end.how = kept.until_end().await;
    if let How::Exited { code, .. } = end.how
        && let Err(fault) = kept.leave(code).await
    {
        eprintln!("what the container left cannot be fetched: {fault}");
    }
    end
}

/// Makes and starts it; gives its id. What came before the start is done again where the engine went away meanwhile, and the start is not.
async fn begin(engine: &Engine, follow: &Follow, name: &str) -> Result<String, How> {
    let mut patience = Patience::new();
    let id = loop {
        match make(engine, follow, name).await {
            Ok(id) => break id,
            Err(fault) if patience.after(engine, &fault).await => {
                // Without it there is nothing to begin in.
                if !state(engine, &follow.whose.first()).await?.running {
                    return Err(How::Lost("its engine was stopped before it began".to_owned()));
                }
            }
            Err(fault) if fault.is_unanswered() => {
                return Err(How::Lost(format!("its engine went away and did not come back: {fault}")));
            }
            Err(fault) => return Err(How::Config(fault.words)),
        }
    };
    let Err(fault) = engine.start(&id).await else { return Ok(id) };
    // Where no answer came, it may run all the same.
    match state(engine, &id).await? {
        state if state.running || state.status == "exited" && state.error.is_empty() => Ok(id),
        _ if fault.is_unanswered() => Err(How::Lost("its engine was stopped before it began".to_owned())),
        state if state.error.is_empty() => Err(How::Config(fault.words)),
        state => match state.exit_code {
            126 | 127 => Err(How::Program(state.error)),
            _ => Err(How::Config(state.error)),
        },
    }
}

/// Makes it, with all that it finds; gives its id.
async fn make(engine: &Engine, follow: &Follow, name: &str) -> Result<String, Fault> {
    let first = follow.whose.first();
    put(engine, &first, VOLUMES, &follow.files).await?;
    let mut body = follow.body.clone();
    body["Labels"] = json!(follow.whose.labels());
    for part in &follow.parts {
        let mount = part_of(engine, follow, part).await?;
        if let Some(mounts) = body["HostConfig"]["Mounts"].as_array_mut() {
            mounts.push(mount);
            // A volume inside another comes after it.
            mounts.sort_by_key(|mount| mount["Target"].as_str().unwrap_or_default().matches('/').count());
        }
    }
    let id = match engine.create(name, &body).await {
        Err(fault) if fault.kind == Kind::Conflict => {
            // Of a keeper that was killed, or of a try whose answer did not come.
            engine.remove(name).await?;
            engine.create(name, &body).await
        }
        other => other,
    }?;
    put(engine, &id, "/", &follow.own).await?;
    if let Some(home) = &follow.home {
        home::link(engine, &id, home).await?;
    }
    Ok(id)
}

/// What the engine says of it, when it says something again.
async fn state(engine: &Engine, name: &str) -> Result<State, How> {
    let until = clock::instant() + ASKED_FOR;
    loop {
        match engine.container(name).await {
            Ok(container) => return Ok(container.state),
            Err(fault) if fault.kind == Kind::NotFound => {
                return Err(How::Lost("somebody removed its container".to_owned()));
            }
            Err(fault) if fault.may_pass() && clock::instant() < until => {}
            Err(fault) => return Err(How::Lost(format!("how it ended is not known: {fault}"))),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn put(engine: &Engine, name: &str, at: &str, files: &[Put]) -> Result<(), Fault> {
    if files.is_empty() {
        return Ok(());
    }
    let entries: Vec<Entry> = files.iter().cloned().map(Entry::from).collect();
    engine.put(name, at, &entries).await
}

/// A directory of a volume as a mount; made if it is missing.
async fn part_of(engine: &Engine, follow: &Follow, part: &Part) -> Result<Value, Fault> {
    let first = follow.whose.first();
    let mut at = String::new();
    for name in part.path.split('/').filter(|name| !name.is_empty() && *name != ".") {
        at = if at.is_empty() { name.to_owned() } else { format!("{at}/{name}") };
        let path = format!("{VOLUMES}/{}/{at}", part.key);
        match engine.stat(&first, &path).await {
            Ok(true) => {}
            Ok(false) => {
                let words = format!("`{at}` of its volume `{}` is no directory and cannot be mounted", part.key);
                return Err(Fault::invalid(words));
            }
            Err(fault) if fault.kind == Kind::NotFound => {
                let made = Entry::directory(format!("{}/{at}", part.key), 0o777);
                engine.put(&first, VOLUMES, &[made]).await?;
            }
            Err(fault) => return Err(fault),
        }
    }
    if engine.has_parts_of_volumes() {
        return Ok(json!({
            "Type": "volume", "Source": part.volume, "Target": part.at, "ReadOnly": part.read_only,
            "VolumeOptions": { "NoCopy": true, "Subpath": at },
        }));
    }
    let whole = engine.volume(&part.volume).await?;
    let name = format!("{}-{}-part-{}", follow.whose.pod, part.key, short_digest(at.as_bytes()));
    let device = format!("{}/{at}", whole.mountpoint);
    let options = [("type", "none".to_owned()), ("o", "bind".to_owned()), ("device", device)];
    engine.make_volume(&name, &follow.whose.labels(), &options).await?;
    Ok(json!({
        "Type": "volume", "Source": name, "Target": part.at, "ReadOnly": part.read_only, "VolumeOptions": { "NoCopy": true },
    }))
}

/// A container that runs.
struct Kept<'a> {
    engine: &'a Engine,
    name: &'a str,
    follow: &'a Follow,
    signals: Signal,
    /// It was asked to end; when force comes.
    kill_at: Option<Instant>,
    /// How many bytes of stdout and stderr were told.
    told: [u64; 2],
    spool: [Vec<u8>; 2],
}

impl Kept<'_> {
    async fn until_end(&mut self) -> How {
        let (mut broken, mut silent_since) = (false, None);
        loop {
            let whole = match self.engine.output(self.name).await {
                Ok(output) => self.tell(output).await,
                Err(fault) => Err(fault),
            };
            let ended = match self.engine.container(self.name).await {
                Ok(container) if container.state.running => None,
                Ok(container) => Some(container.state),
                Err(fault) if fault.kind == Kind::NotFound => {
                    return How::Lost("somebody removed its container".to_owned());
                }
                Err(fault) if fault.may_pass() => None,
                Err(fault) => return How::Lost(format!("how it ended is not known: {fault}")),
            };
            match (whole, ended) {
                (Ok(()), Some(state)) => return self.ended(state, broken).await,
                (Ok(()), None) => silent_since = None,
                (Err(fault), _) => {
                    broken = true;
                    if silent_since.get_or_insert_with(clock::instant).elapsed() >= ASKED_FOR {
                        return How::Lost(format!("its engine went away and did not come back: {fault}"));
                    }
                }
            }
            self.pause().await;
        }
    }

    /// Tells what it writes, without what was told already.
    async fn tell(&mut self, mut output: Output) -> Result<(), Fault> {
        let mut skip = self.told;
        loop {
            let (told, spool) = (&mut self.told, &mut self.spool);
            let keeps = [self.follow.stdout_to.is_some(), self.follow.stderr_to.is_some()];
            let take = |stream: Stream, bytes: &[u8]| {
                let number = usize::from(stream == Stream::Stderr);
                let known = usize::try_from(skip[number]).unwrap_or(usize::MAX).min(bytes.len());
                skip[number] -= known as u64;
                let bytes = &bytes[known..];
                told[number] += bytes.len() as u64;
                // The runner reads to the end; where it is gone, so is whoever wanted this.
                let _ = match stream {
                    Stream::Stdout => std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush()),
                    Stream::Stderr => std::io::stderr().write_all(bytes),
                };
                if keeps[number] && spool[number].len() < SPOOL {
                    spool[number].extend_from_slice(bytes);
                }
            };
            tokio::select! {
                more = output.next(take) => if !more? { return Ok(()) },
                _ = self.signals.recv() => self.asked_to_end().await,
                () = clock::until(self.kill_at) => self.force().await,
            }
        }
    }

    /// Waits a moment, and hears requests meanwhile.
    async fn pause(&mut self) {
        tokio::select! {
            () = tokio::time::sleep(ASK_AGAIN) => {}
            _ = self.signals.recv() => self.asked_to_end().await,
            () = clock::until(self.kill_at) => self.force().await,
        }
    }

    async fn asked_to_end(&mut self) {
        if self.kill_at.is_none() {
            // A little sooner than the runner, which would end the keeper as well.
            self.kill_at = Some(clock::instant() + self.follow.grace.mul_f32(0.8));
            self.send("TERM").await;
        }
    }

    async fn force(&mut self) {
        // Again, if that did not come through.
        self.kill_at = Some(clock::instant() + Duration::from_secs(1));
        self.send("KILL").await;
    }

    async fn send(&self, signal: &str) {
        if let Err(fault) = self.engine.kill(self.name, signal).await {
            eprintln!("the container cannot be told to end: {fault}");
        }
    }

    async fn ended(&mut self, state: State, broken: bool) -> How {
        let is_asked = self.kill_at.is_some();
        if !is_asked && (broken || BY_FORCE.contains(&state.exit_code) || !state.error.is_empty()) {
            match self::state(self.engine, &self.follow.whose.first()).await {
                Ok(first) if first.running => {}
                Ok(_) => return How::Lost("its engine was stopped while it ran".to_owned()),
                Err(How::Lost(_)) => return How::Lost("its pod was removed while it ran".to_owned()),
                Err(other) => return other,
            }
        }
        if !is_asked && BY_FORCE.contains(&state.exit_code) {
            // Whoever removes a container ends it first.
            tokio::time::sleep(ASK_AGAIN).await;
            if let Err(lost) = self::state(self.engine, self.name).await {
                return lost;
            }
        }
        let code = i32::try_from(state.exit_code).unwrap_or(-1);
        How::Exited { code, out_of_memory: state.out_of_memory && code != 0 }
    }

    /// What others find of it when it is over: its exit code, what it wrote, its results.
    async fn leave(&mut self, code: i32) -> Result<(), Fault> {
        let first = self.follow.whose.first();
        if let Some((path, of_failures)) = &self.follow.code_to
            && (code == 0 || *of_failures)
        {
            self.engine.put(&first, VOLUMES, &[Entry::file(path, code.to_string(), 0o644)]).await?;
        }
        let (to, errors_to) = (&self.follow.stdout_to, &self.follow.stderr_to);
        let [out, errors] = std::mem::take(&mut self.spool);
        let files = match (to, errors_to) {
            (Some(to), Some(same)) if to == same => [Some((to, [out, errors].concat())), None],
            (to, errors_to) => [to.as_ref().map(|to| (to, out)), errors_to.as_ref().map(|to| (to, errors))],
        };
        for (path, bytes) in files.into_iter().flatten() {
            let entry = Entry {
                path: path.trim_start_matches('/').to_owned(),
                what: What::File(bytes),
                mode: 0o644,
                group: 0,
                user: 0,
            };
            self.engine.put(self.name, "/", &[entry]).await?;
        }
        remove::fetch(self.engine, &self.follow.whose, &self.follow.fetch).await
    }
}
