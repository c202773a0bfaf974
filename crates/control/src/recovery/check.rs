//! Checks of a node: what is run there, and what came of it.
//!
//! By DCGM where it is; its health watches alone while others' work goes on; else by what the driver says of itself.

use std::collections::BTreeSet;
use std::time::Duration;

use pitcrew_core::recovery::{CheckLevel, CheckOutcome};
use pitcrew_exec::gpu::check::{Ask, check_script, read_check};
use pitcrew_exec::limited::was_ended;
use pitcrew_health::Tables;
use pitcrew_health::check::{Device, Ended, Expected, read_diag};
use pitcrew_store::StoreError;

use super::perform::Hands;
use super::reach::{NotRun, Ran, quoted, script};

/// For ending what may still run of a check.
const END_WITHIN: Duration = Duration::from_secs(60);
/// A check of the user's own says by it that it could not be run (`EX_TEMPFAIL`).
const COULD_NOT: i32 = 75;

/// A check of this name with its environment. What a shell sets itself is seen by nobody but those that it begins, so one is
/// begun, and stays until the end.
pub fn named(name: &str, env: &[(&str, String)], body: &str) -> String {
    // No name of a check is the beginning of another one's.
    let name = format!("export PITCREW_CHECK={}\n", quoted(&format!("{name};")));
    script(env, &format!("{name}exec /bin/sh -c {}", quoted(&format!("{body}\nexit $?"))))
}

/// Ends whatever runs under this name, root's as well: politely, since `dcgmi` then ends what it has begun elsewhere, and by force
/// where that does not help. Whoever has no `/proc` has nothing of the kind.
pub fn end_script(name: &str) -> String {
    script(&[("PITCREW_ENDS", name.to_owned())], END)
}

/// The groups of those that have the name in their environment; what `sudo` began has another, and is of the same group.
const END: &str = r#"groups() {
    for at in $(grep -lF "PITCREW_CHECK=$PITCREW_ENDS;" /proc/[0-9]*/environ 2>/dev/null); do
        stat=$(cat "${at%/environ}/stat" 2>/dev/null) || continue
        set -- ${stat##*) }
        [ "$1" = Z ] || echo "$3"
    done | sort -u
}
end() {
    kill -s "$1" -- "-$2" 2>/dev/null
    [ "$(id -u)" = 0 ] || sudo -n kill -s "$1" -- "-$2" 2>/dev/null
}
for group in $(groups); do end TERM "$group"; done
left=20
while [ -n "$(groups)" ] && [ "$left" -gt 0 ]; do sleep 0.5; left=$((left - 1)); done
for group in $(groups); do end KILL "$group"; done
exit 0"#;

/// What is run there, and what comes of it.
pub enum How {
    /// A command of the user's, which passes with exit code 0, fails with 1, and could not be run with 75; unless it prints
    /// what `dcgmi diag -j` does.
    Own,
    Usual(Ask),
}

impl How {
    /// A check of these GPUs (UUIDs; none: of all that the node has), and what is to be seen there. `devices`: those of the
    /// node by their numbers.
    pub fn of(
        own: Option<&str>,
        level: CheckLevel,
        passive: bool,
        gpus: &BTreeSet<String>,
        devices: Vec<(u32, String)>,
        most: u32,
    ) -> (How, String, Expected) {
        let is_meant = |uuid: &str| gpus.is_empty() || gpus.contains(uuid);
        let meant: Vec<(u32, String)> = devices.iter().filter(|(_, uuid)| is_meant(uuid)).cloned().collect();
        let only: Vec<u32> = if gpus.is_empty() { Vec::new() } else { meant.iter().map(|(index, _)| *index).collect() };
        // One that the node does not tell of any more is missed, which is a fault of its own.
        let lost = gpus.iter().filter(|uuid| devices.iter().all(|(_, there)| there != *uuid));
        let lost: Vec<(u32, String)> = (u32::MAX / 2..).zip(lost.cloned()).collect();
        let device = |(index, uuid)| Device { index, uuid, pci: None };
        let expected = Expected { devices: meant.iter().cloned().chain(lost.iter().cloned()).map(device).collect() };
        if let Some(own) = own {
            // It may find another one than the suspect.
            let all = devices.into_iter().chain(lost).map(device).collect();
            return (How::Own, own.to_owned(), Expected { devices: all });
        }
        // Where none of them can be named, nobody may be disturbed.
        let is_nameless = !gpus.is_empty() && only.is_empty();
        let ask = if passive || is_nameless { Ask::Watch } else { Ask::Diagnose(level) };
        let (script, _) = check_script(ask, &only, most);
        (How::Usual(ask), script, expected)
    }
}

/// What a check says, and the words for it.
pub fn judge(ran: Result<Ran, NotRun>, how: &How, expected: &Expected, tables: &Tables) -> (CheckOutcome, String) {
    let ran = match ran {
        Ok(ran) => ran,
        Err(NotRun { why, certain: true, .. }) => return (CheckOutcome::Infrastructure, why),
        Err(NotRun { why, certain: false, .. }) => return (CheckOutcome::Inconclusive, why),
    };
    // By these it was ended at its limit.
    let ended = ran.code.filter(|code| !was_ended(*code)).map_or(Ended::TimedOut, Ended::Code);
    let printed = ran.stdout.as_bytes();
    let report = match how {
        How::Usual(ask) => read_check(*ask, &ended, printed, expected, tables),
        How::Own if ran.stdout.contains("DCGM") && ran.stdout.contains('{') => {
            read_diag(&ended, printed, expected, tables)
        }
        How::Own => return own(&ran, expected),
    };
    (report.outcome(), report.in_words())
}

impl Hands {
    /// What checks of a node are called, by whichever server of this store.
    pub(super) async fn name_of_checks(&self, node: &str) -> Result<String, StoreError> {
        let store = self.store.setting_or_insert("recovery.owner", &uuid::Uuid::now_v7().to_string()).await?;
        Ok(format!("{store}/{node}"))
    }

    /// Ends checks that nobody waits for any more: that somebody stopped waiting for one, or died, has not ended it there.
    pub(super) async fn end_checks(&self, node: &str) {
        let ended = match self.name_of_checks(node).await {
            Ok(name) => self.reached.run(node, &end_script(&name), END_WITHIN).await.map(drop).map_err(|not| not.why),
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = ended {
            tracing::warn!(node, "a check that may still run there cannot be ended: {why}");
        }
    }
}

/// A command of the user's. The UUIDs that it prints are the bad ones.
fn own(ran: &Ran, expected: &Expected) -> (CheckOutcome, String) {
    let outcome = match ran.code {
        Some(0) => CheckOutcome::Pass,
        Some(1) => {
            let named = |device: &&Device| ran.stdout.contains(&device.uuid);
            let gpus = expected.devices.iter().filter(named).map(|device| device.uuid.clone()).collect();
            CheckOutcome::Fail { gpus, advice: pitcrew_core::recovery::Advice::Check }
        }
        Some(COULD_NOT | 126 | 127) => CheckOutcome::Infrastructure,
        Some(_) | None => CheckOutcome::Inconclusive,
    };
    (outcome, ran.words())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use pitcrew_core::recovery::Advice;
    use pitcrew_exec::limited::limited;

    use super::*;

    fn ran(code: Option<i32>, stdout: &str) -> Result<Ran, NotRun> {
        Ok(Ran { code, stdout: stdout.to_owned(), stderr: String::new() })
    }

    fn devices() -> Vec<(u32, String)> {
        vec![(0, "GPU-a".to_owned()), (1, "GPU-b".to_owned())]
    }

    fn how(own: Option<&str>, passive: bool, gpus: &[&str]) -> (How, String, Expected) {
        let gpus = gpus.iter().map(|gpu| (*gpu).to_owned()).collect();
        How::of(own, CheckLevel::Medium, passive, &gpus, devices(), 3600)
    }

    fn outcome(how: &(How, String, Expected), ran: Result<Ran, NotRun>) -> CheckOutcome {
        judge(ran, &how.0, &how.2, Tables::usual()).0
    }

    #[test]
    fn a_command_of_the_users_says_it_by_its_exit_code() {
        let own = how(Some("check"), false, &[]);
        let of = |code, text: &str| outcome(&own, ran(code, text));
        assert_eq!(of(Some(0), "fine"), CheckOutcome::Pass);
        let bad = CheckOutcome::Fail { gpus: vec!["GPU-b".to_owned()], advice: Advice::Check };
        assert_eq!(of(Some(1), "GPU-b is broken"), bad);
        assert_eq!(of(Some(75), ""), CheckOutcome::Infrastructure);
        assert_eq!(of(Some(127), ""), CheckOutcome::Infrastructure);
        assert_eq!(of(Some(9), ""), CheckOutcome::Inconclusive);
        assert_eq!(of(None, ""), CheckOutcome::Inconclusive);
    }

    #[test]
    fn only_the_gpus_that_are_meant_are_put_under_load() {
        let (_, script, expected) = how(None, false, &["GPU-b"]);
        assert!(script.contains("dcgmi diag -r 2 -j -i 1\n") && expected.devices.len() == 1, "{script}");
        assert!(how(None, false, &[]).1.contains("dcgmi diag -r 2 -j\n"));
        assert!(how(None, true, &["GPU-b"]).1.contains("dcgmi health -c -j\n"));
        // Nobody knows its number, so all of them would be.
        let (usual, script, expected) = how(None, false, &["GPU-gone"]);
        assert!(script.contains("dcgmi health -c -j\n"), "{script}");
        let smi = "pitcrew-check\nnone dcgm\nout GPU 00000000:10:00.0\nout     GPU UUID : GPU-a\nend smi 0\ndone\n";
        let CheckOutcome::Fail { gpus, .. } = judge(ran(Some(0), smi), &usual, &expected, Tables::usual()).0 else {
            panic!()
        };
        assert_eq!(gpus, ["GPU-gone"]);
    }

    #[test]
    fn diagnostics_of_dcgm_are_read() {
        let diag = r#"pitcrew-check
out {"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software","results":[
out  {"entity_group":"GPU","entity_group_id":1,"entity_id":0,"status":"Pass"},
out  {"entity_group":"GPU","entity_group_id":1,"entity_id":1,"status":"Fail","warnings":[
out   {"warning":"row remappings are pending","error_id":85,"error_category":10,"error_severity":6}]}],
out  "test_summary":{"status":"Fail"}}]}]}}
end dcgm 226
none smi
done
"#;
        let usual = how(None, false, &[]);
        let bad = CheckOutcome::Fail { gpus: vec!["GPU-b".to_owned()], advice: Advice::ResetGpu };
        assert_eq!(outcome(&usual, ran(Some(0), diag)), bad);
        // Another one is under way: that says nothing.
        let busy = "pitcrew-check\nend dcgm 217\nnone smi\ndone\n";
        assert_eq!(outcome(&usual, ran(Some(0), busy)), CheckOutcome::Infrastructure);
        let none = "pitcrew-check\nnone dcgm\nnone smi\ndone\n";
        assert_eq!(outcome(&usual, ran(Some(0), none)), CheckOutcome::Infrastructure);
    }

    /// Nobody waits for a check any more, and it goes on: it ends, with all that it began, before something is done to its GPUs.
    #[tokio::test]
    async fn a_check_that_still_runs_is_ended_where_it_runs_and_no_other_is() {
        let dir = tempfile::tempdir().unwrap();
        let begun = |name: &str, body: &str| {
            let pid = dir.path().join(name);
            // What it begins may have lost its environment, as by `sudo`.
            let body = format!("{body}\nenv -i /bin/sh -c 'echo $$ >{}; exec sleep 1000'", pid.display());
            let script = limited(&named(name, &[], &body), Duration::from_secs(900));
            let mut shell = Command::new("/bin/sh").arg("-s").stdin(Stdio::piped()).spawn().unwrap();
            shell.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
            (shell, pid)
        };
        let name = |name: &str| format!("{name}-{}", std::process::id());
        let (mut check, pid) = begun(&name("check"), ":");
        let (mut other, others) = begun(&name("check-of-another"), "trap '' TERM");
        let read = |pid: &Path| std::fs::read_to_string(pid).unwrap_or_default().trim().to_owned();
        while read(&pid).is_empty() || read(&others).is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let runs = |pid: &str| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let end = |name: String| {
            let ended = Command::new("/bin/sh").args(["-c", &end_script(&name)]).status().unwrap();
            assert!(ended.success());
        };
        end(name("check"));
        let ended = tokio::task::spawn_blocking(move || check.wait()).await.unwrap().unwrap();
        assert!(!ended.success());
        while runs(&read(&pid)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(runs(&read(&others)), "another one goes on");
        // It does not listen, and is ended all the same.
        end(name("check-of-another"));
        tokio::task::spawn_blocking(move || other.wait()).await.unwrap().unwrap();
        while runs(&read(&others)) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        end(name("nobody"));
    }
}
