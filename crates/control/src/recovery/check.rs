//! Checks of a node: what is run there, and what came of it.
//!
//! By DCGM where it is; its health watches alone while others' work goes on; else by what the driver says of itself.

use std::collections::BTreeSet;

use pitcrew_core::recovery::{CheckLevel, CheckOutcome};
use pitcrew_exec::gpu::check::{Ask, check_script, read_check};
use pitcrew_health::Tables;
use pitcrew_health::check::{Device, Ended, Expected, read_diag};

use super::reach::{NotRun, Ran};

/// A check of the user's own says by it that it could not be run (`EX_TEMPFAIL`).
const COULD_NOT: i32 = 75;

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
    let ended = ran.code.filter(|code| !matches!(code, 124 | 137)).map_or(Ended::TimedOut, Ended::Code);
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
    use pitcrew_core::recovery::Advice;

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
}
