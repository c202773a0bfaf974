//! Checks of a node: what is run there, and what came of it.
//!
//! By DCGM where it is; its health watches alone while others' work goes on; else by what the driver says of itself.

use pitcrew_core::recovery::CheckOutcome;
use pitcrew_health::Tables;
use pitcrew_health::check::{Device, Ended, Expected, read_diag, read_health, read_smi};

use super::reach::{NotRun, Ran};

/// The first line tells which program answers.
pub const SCRIPT: &str = "\
if command -v dcgmi >/dev/null 2>&1; then
    if [ -n \"$PITCREW_CHECK_PASSIVE\" ]; then echo 'pitcrew-check health'; exec dcgmi health -c -j; fi
    echo 'pitcrew-check diag'; exec dcgmi diag -r \"$PITCREW_CHECK_LEVEL\" -j
fi
if command -v nvidia-smi >/dev/null 2>&1; then echo 'pitcrew-check smi'; exec nvidia-smi -q; fi
echo 'pitcrew-check none'";
/// The first line of an answer that ours is.
const MARK: &str = "pitcrew-check ";
/// A check of the user's own says by it that it could not be run (`EX_TEMPFAIL`).
const COULD_NOT: i32 = 75;

/// What a check says, and the words for it. `is_own`: it was a command of the user's, which passes with exit code 0, fails
/// with 1, and could not be run with 75; unless it prints what `dcgmi diag -j` does.
pub fn judge(
    ran: Result<Ran, NotRun>,
    devices: Vec<(u32, String)>,
    is_own: bool,
    tables: &Tables,
) -> (CheckOutcome, String) {
    let ran = match ran {
        Ok(ran) => ran,
        Err(NotRun { why, certain: true }) => return (CheckOutcome::Infrastructure, why),
        Err(NotRun { why, certain: false }) => return (CheckOutcome::Inconclusive, why),
    };
    let devices = devices.into_iter().map(|(index, uuid)| Device { index, uuid, pci: None }).collect();
    let expected = Expected { devices };
    let ended = ran.code.map_or(Ended::TimedOut, Ended::Code);
    let (kind, output) = match ran.stdout.split_once('\n') {
        Some((first, rest)) if first.starts_with(MARK) => (first[MARK.len()..].trim(), rest),
        _ => ("", ran.stdout.as_str()),
    };
    let report = match kind {
        "diag" => read_diag(&ended, output.as_bytes(), &expected, tables),
        "health" => read_health(&ended, output.as_bytes(), &expected),
        "smi" => read_smi(&ended, output.as_bytes(), &expected),
        "none" => {
            let why = "the node has neither `dcgmi` nor `nvidia-smi`, so nothing can check its GPUs";
            return (CheckOutcome::Infrastructure, why.to_owned());
        }
        _ if is_own && output.contains("DCGM") && output.contains('{') => {
            read_diag(&ended, output.as_bytes(), &expected, tables)
        }
        _ => return own(&ran, &expected),
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

    #[test]
    fn a_command_of_the_users_says_it_by_its_exit_code() {
        let of = |code, text: &str| judge(ran(code, text), devices(), true, Tables::usual()).0;
        assert_eq!(of(Some(0), "fine"), CheckOutcome::Pass);
        let bad = CheckOutcome::Fail { gpus: vec!["GPU-b".to_owned()], advice: Advice::Check };
        assert_eq!(of(Some(1), "GPU-b is broken"), bad);
        assert_eq!(of(Some(75), ""), CheckOutcome::Infrastructure);
        assert_eq!(of(Some(127), ""), CheckOutcome::Infrastructure);
        assert_eq!(of(Some(9), ""), CheckOutcome::Inconclusive);
        assert_eq!(of(None, ""), CheckOutcome::Inconclusive);
    }

    #[test]
    fn what_could_not_be_run_is_no_verdict() {
        let never = Err(NotRun { why: "no route to host".to_owned(), certain: true });
        assert_eq!(judge(never, devices(), false, Tables::usual()).0, CheckOutcome::Infrastructure);
        let late = Err(NotRun { why: "it took longer than 360 s".to_owned(), certain: false });
        assert_eq!(judge(late, devices(), false, Tables::usual()).0, CheckOutcome::Inconclusive);
        assert_eq!(
            judge(ran(Some(0), "pitcrew-check none\n"), devices(), false, Tables::usual()).0,
            CheckOutcome::Infrastructure
        );
    }

    #[test]
    fn diagnostics_of_dcgm_are_read() {
        let diag = r#"pitcrew-check diag
{"DCGM Diagnostic":{"test_categories":[{"category":"Deployment","tests":[{"name":"software","results":[
 {"entity_group":"GPU","entity_group_id":1,"entity_id":0,"status":"Pass"},
 {"entity_group":"GPU","entity_group_id":1,"entity_id":1,"status":"Fail","warnings":[
  {"warning":"row remappings are pending","error_id":85,"error_category":10,"error_severity":6}]}],
 "test_summary":{"status":"Fail"}}]}]}}"#;
        let (outcome, words) = judge(ran(Some(226), diag), devices(), false, Tables::usual());
        let bad = CheckOutcome::Fail { gpus: vec!["GPU-b".to_owned()], advice: Advice::ResetGpu };
        assert_eq!(outcome, bad, "{words}");
        // Another one is under way: that says nothing.
        assert_eq!(
            judge(ran(Some(217), "pitcrew-check diag\n"), devices(), false, Tables::usual()).0,
            CheckOutcome::Infrastructure
        );
    }
}
