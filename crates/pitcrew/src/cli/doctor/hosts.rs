//! What hosts over SSH have of what tasks on them need.
//!
//! A host is looked over by one script and two questions to its sshd, on a connection of its own, and nothing is left
//! there. Invariant: what a host says is shortened and cleaned before it is shown, and decides nothing but what is shown.

use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use pitcrew_control::clock;
use pitcrew_control::connection::Connection;
use pitcrew_control::ssh;
use pitcrew_exec::SshPlace;
use pitcrew_exec::ssh::{Done, Limits, Pool, Standing};
use pitcrew_store::Paging;

use super::Finding;
use crate::cli::context::Context;
use crate::cli::error::invalid;
use crate::cli::format;

const SCRIPT: &str = include_str!("host.sh");
/// Before this line a shell's own files may have said something.
const MARK: &str = "pitcrew-doctor";
/// A driver that hangs, or a dead network disk, must not hold everything up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long sessions may take to open that the host has room for.
const OPENS: Duration = Duration::from_secs(5);
/// Commands that share a connection.
const SESSIONS: usize = 8;
/// Below this a checkout with its data does not fit.
const LITTLE_SPACE: u64 = 1 << 20;
/// Clocks that differ by more show in the times of a run.
const CLOCK: f64 = 2.0;

/// What was found about one host.
pub struct Host {
    /// The connection that leads there.
    pub id: String,
    pub findings: Vec<Finding>,
}

/// Looks over the hosts of these connections, all at the same time; without any, those of all connections of SSH.
pub async fn look(context: &Context, wanted: &[String]) -> anyhow::Result<Vec<Host>> {
    let rows = context.store.connections(None, Paging::ALL).await?.rows;
    if let Some(unknown) = wanted.iter().find(|id| !rows.iter().any(|row| row.id == **id)) {
        let hint = format!("`{} connections list` shows them", context.pitcrew());
        return Err(invalid(format!("there is no connection `{unknown}`\nhint: {hint}")));
    }
    let is_wanted = |row: &pitcrew_store::Connection| match wanted {
        [] => matches!(row.conn_type.as_str(), "ssh" | "sftp"),
        wanted => wanted.contains(&row.id),
    };
    let hosts = rows.into_iter().filter(is_wanted).map(async |row| {
        let id = row.id.clone();
        let findings = match Connection::open(row, &context.vault) {
            Ok(connection) => host(context, &connection).await,
            Err(error) => vec![Finding::bad("connect", format!("{error:#}"), "put the connection there anew")],
        };
        Host { id, findings }
    });
    Ok(join_all(hosts).await)
}

async fn host(context: &Context, connection: &Connection) -> Vec<Finding> {
    let setup = ssh::setup(&context.data, &context.secrets);
    let file = setup.config_file().map_err(anyhow::Error::from);
    let place = file.and_then(|file| ssh::place::place(connection, &file, &context.settings.ssh()));
    let place = match place {
        Ok(place) => place,
        Err(error) => return vec![Finding::bad("connect", format!("{error:#}"), "correct the connection")],
    };
    let pool = Pool::new(setup, Limits { sessions: SESSIONS, connections: 1, ..Limits::default() });
    let findings = findings(&pool, &place).await;
    pool.close_idle(Duration::ZERO).await;
    findings
}

async fn findings(pool: &Pool, place: &SshPlace) -> Vec<Finding> {
    let lease = match pool.get(place).await {
        Ok(lease) => lease,
        Err(error) => return vec![Finding::bad("connect", error.to_string(), "until then no task can run there")],
    };
    let mut findings = Vec::new();
    if let Some(facts) = lease.facts() {
        let text = format!("{place} in {:.2} s, with {}; {}", facts.took.as_secs_f64(), facts.key, facts.software);
        findings.push(Finding::good("connect", text));
    }
    let asked = clock::now();
    let command = format!("exec /bin/sh -s {MARK}");
    let looked = match tokio::time::timeout(PATIENCE, lease.run(&command, SCRIPT.as_bytes())).await {
        Ok(Ok(done)) => facts_of(&done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("it does not answer within {} s", PATIENCE.as_secs())),
    };
    match looked {
        Ok(facts) => findings.extend(judge(&facts, asked, clock::now())),
        Err(why) => {
            let remedy = "the login shell of the user has to run commands, and `/bin/sh` has to be there";
            findings.push(Finding::bad("programs", why, remedy));
        }
    }
    findings.push(sessions(pool, place).await);
    findings.push(sftp(pool, place).await);
    findings
}

/// Lines of the script, as a word and what belongs to it.
fn facts_of(done: &Done) -> Result<Vec<(String, String)>, String> {
    let text = String::from_utf8_lossy(&done.stdout);
    let mut lines = text.lines().skip_while(|line| *line != MARK);
    if lines.next().is_none() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(format!("it runs no `/bin/sh` for this user: {}", format::one_line(said.trim())));
    }
    let fact = |line: &str| {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        (word.to_owned(), format::one_line(rest.trim()).chars().take(200).collect())
    };
    Ok(lines.take(200).map(fact).collect())
}

/// What the facts mean. `asked` and `answered` are times of this machine.
fn judge(facts: &[(String, String)], asked: Timestamp, answered: Timestamp) -> Vec<Finding> {
    let all = |word: &str| -> Vec<&str> {
        facts.iter().filter(|(name, _)| name == word).map(|(_, rest)| rest.as_str()).collect()
    };
    let one = |word: &str| facts.iter().find(|(name, _)| name == word).map(|(_, rest)| rest.as_str());
    let mut findings = Vec::new();
    let lacks = all("lacks");
    findings.push(match (lacks.as_slice(), one("tagger")) {
        ([], Some("perl" | "python3")) => Finding::good("programs", "all that tasks need"),
        ([], _) => Finding::warn(
            "programs",
            "neither `perl` nor `python3`: half lines of a log appear when they are whole",
            "install one of them, for example `apt install perl`",
        ),
        (lacks, _) => Finding::bad(
            "programs",
            format!("it lacks {}: no task can run there", lacks.join(", ")),
            "install them, for example `apt install coreutils util-linux grep`",
        ),
    });
    findings.push(match one("git").map(|version| (version, git_version(version))) {
        Some((text, Some(version))) if version >= (2, 18) => Finding::good("git", text),
        Some((text, _)) => Finding::warn("git", format!("{text}: `git.checkout` needs 2.18"), "install a newer one"),
        None => Finding::warn("git", "not found: `git.checkout` needs it", "install it, for example `apt install git`"),
    });
    findings.extend(one("readonly").map(|dir| {
        let remedy = "the user needs a home directory of its own, see `/etc/passwd` there";
        Finding::bad("home", format!("`{dir}` cannot be written to: no task can run there"), remedy)
    }));
    findings.extend(one("disk").and_then(|text| text.split_once(' ')).and_then(|(free, mount)| {
        let free: u64 = free.parse().ok()?;
        let text = format!("{:.1} GiB free on {mount}", free as f64 / f64::from(1 << 20));
        Some(match free {
            0..LITTLE_SPACE => Finding::warn("disk", text, "free some space there"),
            _ => Finding::good("disk", text),
        })
    }));
    let gpus = all("gpu");
    findings.push(match gpus.as_slice() {
        [] => Finding::good("gpus", "none found"),
        gpus => {
            let names = gpus.iter().map(|gpu| gpu.split_once(" (UUID").map_or(*gpu, |(name, _)| name));
            Finding::good("gpus", format!("{}: {}", gpus.len(), names.collect::<Vec<_>>().join(", ")))
        }
    });
    if one("kills") == Some("true") {
        findings.push(Finding::bad(
            "logind",
            "it ends whatever runs when the last connection of the user closes (`KillUserProcesses`): a dropped link ends tasks",
            "set `KillUserProcesses=no`, or name the user in `KillExcludeUsers=`, in `/etc/systemd/logind.conf` there",
        ));
    }
    findings.extend(one("now").and_then(|now| clock_of(now, asked, answered)));
    findings
}

/// `git version 2.39.5`.
fn git_version(text: &str) -> Option<(u32, u32)> {
    let version = text.strip_prefix("git version ")?;
    let mut numbers = version.split('.').map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// How far the host's clock is from ours; it was read between the two times.
fn clock_of(nanos: &str, asked: Timestamp, answered: Timestamp) -> Option<Finding> {
    // Busybox knows no nanoseconds, and prints what was asked for.
    let digits: &str = nanos.split(|c: char| !c.is_ascii_digit()).next()?;
    let seconds = match digits.len() {
        0..=8 => return None,
        9..=12 => digits.parse::<f64>().ok()?,
        _ => digits.parse::<f64>().ok()? / 1e9,
    };
    let at = |time: Timestamp| time.as_nanosecond() as f64 / 1e9;
    let ahead = match seconds {
        early if early < at(asked) => early - at(asked),
        late if late > at(answered) => late - at(answered),
        _ => 0.0,
    };
    let text = format!("{:.1} s {} this machine's", ahead.abs(), if ahead < 0.0 { "behind" } else { "ahead of" });
    Some(match ahead.abs() {
        // Without nanoseconds it may be a second behind.
        off if off <= CLOCK => Finding::good("clock", "as this machine's"),
        _ => Finding::warn("clock", text, "let both follow a time server, for example `timedatectl set-ntp true`"),
    })
}

/// How many commands it takes at a time on one connection.
async fn sessions(pool: &Pool, place: &SshPlace) -> Finding {
    let opening = (0..SESSIONS).map(|_| tokio::time::timeout(OPENS, pool.get(place)));
    let held: Vec<_> = join_all(opening).await.into_iter().filter_map(|opened| opened.ok()?.ok()).collect();
    let most = match pool.standing(place) {
        Standing::Up { sessions: (_, most), .. } => most,
        _ => held.len(),
    };
    match most {
        0 | 1 => Finding::warn(
            "sessions",
            "one command at a time on a connection: each task needs a connection of its own",
            "raise `MaxSessions` in its `sshd_config`; 10 is usual",
        ),
        most if most < SESSIONS => Finding::good("sessions", format!("{most} commands at a time on a connection")),
        _ => Finding::good("sessions", format!("{SESSIONS} commands at a time on a connection, or more")),
    }
}

/// Whether files can be sent and fetched.
async fn sftp(pool: &Pool, place: &SshPlace) -> Finding {
    let asked = tokio::time::timeout(OPENS, async { pool.get(place).await.ok()?.has_subsystem("sftp").await });
    match asked.await {
        Ok(Some(true)) => Finding::good("sftp", "there"),
        _ => Finding::warn(
            "sftp",
            "not there: files cannot be sent or fetched by SFTP",
            "write `Subsystem sftp internal-sftp` into its `sshd_config`",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::Grade;

    fn grades(facts: &[(&str, &str)]) -> Vec<(&'static str, Grade)> {
        let facts: Vec<_> = facts.iter().map(|(word, rest)| ((*word).to_owned(), (*rest).to_owned())).collect();
        let asked = Timestamp::from_second(1_000_000_000).unwrap();
        let answered = Timestamp::from_second(1_000_000_001).unwrap();
        judge(&facts, asked, answered).into_iter().map(|finding| (finding.name, finding.grade)).collect()
    }

    #[test]
    fn facts_are_judged_and_nonsense_is_left_out() {
        let (good, warn, bad) = (Grade::Good, Grade::Warn, Grade::Bad);
        let fine =
            [("tagger", "perl"), ("git", "git version 2.39.5"), ("disk", "9000000 /"), ("now", "1000000000500000000")];
        let expected = [("programs", good), ("git", good), ("disk", good), ("gpus", good), ("clock", good)];
        assert_eq!(grades(&fine), expected);
        let poor = [
            ("lacks", "setsid"),
            ("git", "git version 2.17.1"),
            ("readonly", "/"),
            ("disk", "0 /"),
            ("gpu", "GPU 0: NVIDIA H100 (UUID: GPU-1)"),
            ("kills", "true"),
            ("now", "1000000100"),
        ];
        let expected = [
            ("programs", bad),
            ("git", warn),
            ("home", bad),
            ("disk", warn),
            ("gpus", good),
            ("logind", bad),
            ("clock", warn),
        ];
        assert_eq!(grades(&poor), expected);
        let odd = [("tagger", "awk"), ("git", "<script>"), ("disk", "much"), ("now", "%N"), ("kills", "false")];
        assert_eq!(grades(&odd), [("programs", warn), ("git", warn), ("gpus", good)]);
    }
}
