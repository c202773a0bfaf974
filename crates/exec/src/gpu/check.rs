//! A check of the GPUs of a machine, asked by one script that runs here or over a connection, and leaves nothing there.
//!
//! The script asks DCGM for a diagnosis where there is `dcgmi`, and `nvidia-smi` in any case; so where DCGM is missing, or
//! cannot run now, what the driver itself says is still heard. Each program is ended at its deadline, and its end is an
//! answer. What all of it means is `pitcrew_health::check`'s.

use pitcrew_core::recovery::CheckLevel;
use pitcrew_health::check::{
    Checker, Ended, Expected, Fault, Report, Verdict, level, parse_link_errors, parse_links, parse_smi, read_diag,
    read_health, read_smi,
};
use pitcrew_health::{Shown, Tables, kernel::Pci};

/// Before this line, which [`ASK`] prints, a shell's own files may have said something.
const MARK: &str = "pitcrew-check";
const SMI_SECONDS: u32 = 60;
/// For DCGM's host engine to tell what it knows.
const DCGM_SECONDS: u32 = 20;
/// How programs are asked: each is ended at its limit, by whom it may be ended. One that root runs takes root, so `timeout` runs
/// as whoever runs the program.
const ASK: &str = "limit() { if command -v timeout >/dev/null 2>&1; then $as timeout -k 5 \"$@\"; else shift; $as \"$@\"; fi; }\n\
     as=; sudo=; out=; if [ \"$(id -u)\" != 0 ] && sudo -n true 2>/dev/null; then sudo='sudo -n'; fi\n\
     ask() { name=$1 limit=$2; shift 2; out=; if command -v \"$1\" >/dev/null 2>&1; then :; else echo \"none $name\"; return; fi\n\
     out=$(limit \"$limit\" \"$@\" 2>&1); code=$?; printf '%s\\n' \"$out\" | sed 's/^/out /'; echo \"end $name $code\"; }\n\
     echo pitcrew-check\n";
/// Bytes of an answer that are looked at.
const MOST: usize = 4 << 20;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// The GPUs have to be idle.
    Diagnose(CheckLevel),
    /// Only what disturbs nobody.
    Watch,
}

/// What one program said.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    name: String,
    ended: Ended,
    output: Vec<u8>,
}

/// The script, for `/bin/sh -s`, and how long it may take at most, in seconds. A diagnosis is of `only` these GPUs, in
/// DCGM's numbering, or of all, and ends before `most` seconds are over; what is expected of the answer has to be the same ones.
pub fn check_script(ask: Ask, only: &[u32], most: u32) -> (String, u32) {
    let (arguments, seconds) = match ask {
        Ask::Diagnose(of) => {
            let (level, seconds) = level(of);
            let only: Vec<String> = only.iter().map(u32::to_string).collect();
            let only = if only.is_empty() { String::new() } else { format!(" -i {}", only.join(",")) };
            (format!("diag -r {level} -j{only}"), seconds)
        }
        Ask::Watch => ("health -c -j".to_owned(), 30),
    };
    // An end that nobody waits for any more is no answer.
    let seconds = seconds.min(most.saturating_sub(SMI_SECONDS + 30).max(60));
    // Output goes on lines of its own, each with a word before it, so no program can forge the end of another.
    let script = format!(
        "{ASK}\
         as=$sudo\n\
         ask dcgm {seconds} dcgmi {arguments}\n\
         as=\n\
         ask smi {SMI_SECONDS} nvidia-smi -q\n\
         echo done\n\
         exit 0\n"
    );
    (script, seconds + SMI_SECONDS + 30)
}

/// A script, for `/bin/sh -s`, that asks what disturbs nobody: the driver, and, where DCGM is, its watches and the links.
pub fn look_script() -> String {
    format!(
        "{ASK}\
         ask smi {SMI_SECONDS} nvidia-smi -q\n\
         as=$sudo\n\
         ask health {DCGM_SECONDS} dcgmi health -c -j\n\
         ask links {DCGM_SECONDS} dcgmi nvlink -s\n\
         if printf '%s\\n' \"$out\" | grep -Eq '^ *([UDX_] )*U( [UDX_])* *$'; then\n\
         for gpu in $(printf '%s\\n' \"$out\" | sed -n 's/^ *gpuId \\([0-9][0-9]*\\):.*/\\1/p'); do\n\
         ask \"errors-$gpu\" {DCGM_SECONDS} dcgmi nvlink -e -g \"$gpu\" -j\n\
         done; fi\n\
         echo done\n\
         exit 0\n"
    )
}

/// How long a look may take at most, where a driver hangs, and not each answer does.
pub const LOOK_SECONDS: u32 = SMI_SECONDS + 3 * DCGM_SECONDS + 10;

/// What a look has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    pub shown: Shown,
    /// Devices that say by themselves that they are broken, and what DCGM's watches say.
    pub faults: Vec<Fault>,
}

/// Reads what [`look_script`] printed. `None`: the driver did not tell of any device.
pub fn read_look(printed: &[u8]) -> Option<Looked> {
    let (all, _) = said(&printed[..printed.len().min(MOST)]);
    let of = |name: &str| all.iter().find(|said| said.name == name);
    let smi = of("smi")?;
    let gpus = parse_smi(&smi.output);
    let expected = devices(&smi.output);
    let faults = |report: Report| match report.verdict {
        Verdict::Fail { faults } => faults,
        Verdict::Pass | Verdict::Inconclusive { .. } | Verdict::Infrastructure { .. } => Vec::new(),
    };
    let mut found = faults(read_smi(&smi.ended, &smi.output, &expected));
    found.extend(of("health").into_iter().flat_map(|said| faults(read_health(&said.ended, &said.output, &expected))));
    let links = of("links").map(|said| parse_links(&said.output)).unwrap_or_default();
    let number =
        |said: &Said| Some((said.name.strip_prefix("errors-")?.parse().ok()?, parse_link_errors(&said.output)?));
    let errors = all.iter().filter_map(number).collect();
    Some(Looked { shown: Shown { gpus, links, errors }, faults: found })
}

/// Reads what the script printed. `ended` is how whoever ran it saw it end.
pub fn read_check(ask: Ask, ended: &Ended, printed: &[u8], expected: &Expected, tables: &Tables) -> Report {
    let by = match ask {
        Ask::Diagnose(_) => Checker::DcgmDiag,
        Ask::Watch => Checker::DcgmHealth,
    };
    let (all, is_whole) = said(&printed[..printed.len().min(MOST)]);
    let of = |name: &str| all.iter().find(|said| said.name == name);
    let dcgm = of("dcgm").map(|said| match ask {
        Ask::Diagnose(_) => read_diag(&said.ended, &said.output, expected, tables),
        Ask::Watch => read_health(&said.ended, &said.output, expected),
    });
    let smi = of("smi").map(|said| read_smi(&said.ended, &said.output, expected));
    let verdict = |why: &str, ended: &Ended| match ended {
        Ended::NeverRan(reason) => Verdict::Infrastructure { why: reason.clone(), again_after: 60 },
        // It ran for too long there: that is what a driver that hangs looks like.
        Ended::TimedOut => Verdict::Inconclusive { why: "the check did not end in time".to_owned() },
        Ended::Code(_) | Ended::Signal(_) => Verdict::Infrastructure { why: why.to_owned(), again_after: 60 },
    };
    match (dcgm, smi) {
        // What the driver says of itself counts beside any diagnosis.
        (Some(dcgm), Some(smi)) => together(ask, dcgm, smi),
        (Some(report), None) if is_whole => report,
        (None, Some(report)) => report,
        (Some(_), None) => Report { by, verdict: verdict("the check broke off", ended), remarks: Vec::new() },
        (None, None) if is_whole => {
            let why = "there is neither `dcgmi` nor `nvidia-smi`".to_owned();
            Report { by, verdict: Verdict::Infrastructure { why, again_after: 300 }, remarks: Vec::new() }
        }
        (None, None) => Report { by, verdict: verdict("the check did not run", ended), remarks: Vec::new() },
    }
}

/// A fault that either of them tells is one. A pass of the weaker one stands where the stronger cannot be run; also where it only
/// was to tell what it has watched, which is nothing unless somebody switched that on.
fn together(ask: Ask, mut dcgm: Report, mut smi: Report) -> Report {
    let both = |mut report: Report, other: Report| {
        report.remarks.push(other.in_words());
        report.remarks.extend(other.remarks);
        report
    };
    match (&mut dcgm.verdict, &mut smi.verdict) {
        (Verdict::Fail { faults }, Verdict::Fail { faults: more }) => {
            faults.append(more);
            dcgm.remarks.extend(smi.remarks);
            dcgm
        }
        (_, Verdict::Fail { .. }) => both(smi, dcgm),
        (Verdict::Infrastructure { why, .. }, Verdict::Pass) if ask == Ask::Watch || is_absent(why) => both(smi, dcgm),
        // A driver that hangs is no pass, whatever the host engine remembers.
        (Verdict::Pass, Verdict::Inconclusive { .. }) => both(smi, dcgm),
        (
            Verdict::Pass | Verdict::Fail { .. } | Verdict::Inconclusive { .. } | Verdict::Infrastructure { .. },
            Verdict::Pass | Verdict::Inconclusive { .. } | Verdict::Infrastructure { .. },
        ) => both(dcgm, smi),
    }
}

/// DCGM is there by half: waiting does not bring it.
fn is_absent(why: &str) -> bool {
    ["not installed", "does not run", "is not there", "needs root"].iter().any(|words| why.contains(words))
}

/// What each program said, and whether the script came to its end.
fn said(printed: &[u8]) -> (Vec<Said>, bool) {
    let mut lines = printed.split(|b| *b == b'\n').skip_while(|line| line.trim_ascii_end() != MARK.as_bytes()).skip(1);
    let (mut all, mut output, mut is_whole) = (Vec::new(), Vec::new(), false);
    for line in &mut lines {
        if let Some(rest) = line.strip_prefix(b"out ") {
            output.extend_from_slice(rest);
            output.push(b'\n');
        } else if let Some(rest) = line.strip_prefix(b"end ") {
            let text = String::from_utf8_lossy(rest);
            let mut words = text.split_whitespace();
            if let (Some(name), Some(Ok(code))) = (words.next(), words.next().map(str::parse)) {
                let ended = if code == 124 { Ended::TimedOut } else { Ended::Code(code) };
                all.push(Said { name: name.to_owned(), ended, output: std::mem::take(&mut output) });
            }
        } else if line.trim_ascii_end() == b"done" {
            is_whole = true;
        }
    }
    (all, is_whole)
}

/// The devices of an answer of `nvidia-smi -q`, in its order, which is DCGM's: what a check of the same machine expects.
pub fn devices(smi: &[u8]) -> Expected {
    let gpus = parse_smi(smi);
    let named = gpus
        .into_iter()
        .zip(0..)
        .filter_map(|(gpu, index)| Some(pitcrew_health::check::Device { index, uuid: gpu.uuid?, pci: gpu.pci }));
    Expected { devices: named.collect() }
}

/// What a check expects of a machine whose GPUs are known by number and UUID.
pub fn expected<'a>(gpus: impl Iterator<Item = (u32, &'a str, Option<Pci>)>) -> Expected {
    let device = |(index, uuid, pci): (u32, &str, Option<Pci>)| pitcrew_health::check::Device {
        index,
        uuid: uuid.to_owned(),
        pci,
    };
    Expected { devices: gpus.map(device).collect() }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use pitcrew_core::recovery::{Advice, CheckOutcome};

    use super::*;

    const SMI: &str = "GPU 00000000:10:00.0\n    GPU UUID                              : GPU-0\n    Remapped Rows\n        Pending : No\n";
    const PASS: &str = r#"{"DCGM Diagnostic":{"test_categories":[{"tests":[{"name":"memory","results":[{"entity_group":"GPU","entity_id":0,"status":"Pass"}]}]}]}}"#;

    /// Runs the script on this machine, with programs of ours in the place of NVIDIA's.
    fn check(ask: Ask, dcgmi: Option<&str>, nvidia_smi: Option<&str>) -> Report {
        let programs = [("dcgmi", dcgmi), ("nvidia-smi", nvidia_smi)];
        let programs: Vec<_> = programs.into_iter().filter_map(|(name, body)| Some((name, body?))).collect();
        let printed = run(&check_script(ask, &[], 3600).0, &programs);
        let expected = expected([(0, "GPU-0", None)].into_iter());
        read_check(ask, &Ended::Code(0), &printed, &expected, Tables::usual())
    }

    /// What a script prints where there are these programs.
    fn run(script: &str, programs: &[(&str, &str)]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        for (name, body) in programs {
            // By a process of its own: a file that somebody has open for writing cannot be run.
            let write = r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#;
            let mut command = Command::new("/bin/sh");
            assert!(command.args(["-c", write]).arg(dir.path().join(name)).arg(body).status().unwrap().success());
        }
        let mut shell = Command::new("/bin/sh");
        shell.arg("-s").env("PATH", format!("{}:/usr/bin:/bin", dir.path().display()));
        let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, script.as_bytes()).unwrap();
        drop(stdin);
        shell.wait_with_output().unwrap().stdout
    }

    fn print(text: &str, code: i32) -> String {
        format!("cat <<'EOF'\n{text}\nEOF\nexit {code}")
    }

    #[test]
    fn both_are_asked_and_the_worse_answer_counts() {
        let medium = Ask::Diagnose(CheckLevel::Medium);
        let well = print(SMI, 0);
        // The level is what was asked for.
        let asked = format!("[ \"$*\" = 'diag -r 2 -j' ] || exit 1\n{}", print(PASS, 0));
        let report = check(medium, Some(&asked), Some(&well));
        assert_eq!((report.by, report.outcome()), (Checker::DcgmDiag, CheckOutcome::Pass));
        let sick = print(&SMI.replace("Pending : No", "Pending : Yes"), 0);
        let report = check(medium, Some(&asked), Some(&sick));
        let expected = CheckOutcome::Fail { gpus: vec!["GPU-0".to_owned()], advice: Advice::ResetGpu };
        assert_eq!((report.outcome(), report.remarks.len()), (expected, 1));
        let failed = print(&PASS.replace("Pass", "Fail"), 226);
        let report = check(medium, Some(&failed), Some(&sick));
        let expected = CheckOutcome::Fail { gpus: vec!["GPU-0".to_owned()], advice: Advice::Reboot };
        assert_eq!((report.by, report.outcome()), (Checker::DcgmDiag, expected));
        let lost = print("Unable to determine the device handle for GPU 0000:10:00.0: Unknown Error", 15);
        assert!(matches!(check(medium, Some(&asked), Some(&lost)).outcome(), CheckOutcome::Fail { .. }));
    }

    #[test]
    fn some_gpus_may_be_all_that_is_asked_about() {
        let (script, seconds) = check_script(Ask::Diagnose(CheckLevel::Quick), &[0, 3], 3600);
        assert!(script.contains("ask dcgm 120 dcgmi diag -r 1 -j -i 0,3\n") && seconds > 120 + SMI_SECONDS, "{script}");
        assert!(check_script(Ask::Watch, &[3], 3600).0.contains("dcgmi health -c -j\n"));
    }

    #[test]
    fn what_root_runs_is_ended_by_root() {
        // Somebody who is not root, and may become it.
        let (id, sudo) = ("echo 1000", "shift; [ \"$*\" = true ] || echo \"as root: $*\"");
        let programs = [("id", id), ("sudo", sudo), ("dcgmi", "exit 0"), ("nvidia-smi", "echo \"$*\"")];
        let printed = run(&check_script(Ask::Diagnose(CheckLevel::Quick), &[], 3600).0, &programs);
        let text = String::from_utf8(printed).unwrap();
        assert!(text.contains("out as root: timeout -k 5 120 dcgmi diag -r 1 -j\nend dcgm 0\nout -q\n"), "{text}");
    }

    #[test]
    fn a_look_asks_for_links_and_their_errors_where_there_are_any() {
        let smi = print(
            "GPU 00000000:10:00.0\n    GPU UUID : GPU-0\n    Clocks Event Reasons\n        HW Thermal Slowdown : Active\nGPU 00000000:20:00.0\n    GPU UUID : GPU-1\n",
            0,
        );
        let links = "GPUs:\n    gpuId 0:\n        U U D _\n    gpuId 1:\n        U U U _";
        let errors = r#"{"body":{"Link 0":{"children":{"Replay Error":{"value":"'$4'7"}}}}}"#;
        let health = r#"{"body":{"Overall Health":{"value":"Failure"},"GPU":{"children":{"1":{"children":{"Errors":{"children":{"NVLink system":{"value":"Failure","overflow":["a link is down"]}}}}}}}}}"#;
        let dcgmi = format!(
            "case \"$1 $2\" in 'nvlink -s') echo '{links}';; 'nvlink -e') echo '{errors}';; 'health -c') echo '{health}';; esac"
        );
        let looked = read_look(&run(&look_script(), &[("nvidia-smi", &smi), ("dcgmi", &dcgmi)])).unwrap();
        assert_eq!(looked.shown.gpus.iter().map(|gpu| gpu.hot).collect::<Vec<_>>(), [Some(true), None]);
        assert_eq!(looked.shown.links[0].down().collect::<Vec<_>>(), [2]);
        let error = |count| vec![("Link 0".to_owned(), "Replay Error".to_owned(), count)];
        assert_eq!(looked.shown.errors, [(0, error(7)), (1, error(17))]);
        let [fault] = &looked.faults[..] else { panic!("{:?}", looked.faults) };
        assert_eq!((fault.gpu.as_deref(), fault.test.as_str()), (Some("GPU-1"), "NVLink system"));
        // No links, and no DCGM: nothing more is asked.
        let none = format!("[ \"$1\" = nvlink ] && [ \"$2\" = -e ] && exit 99; echo '{}'", links.replace('U', "_"));
        let looked = read_look(&run(&look_script(), &[("nvidia-smi", &smi), ("dcgmi", &none)])).unwrap();
        assert!(looked.shown.errors.is_empty() && looked.faults.is_empty());
        let looked = read_look(&run(&look_script(), &[("nvidia-smi", &smi)])).unwrap();
        assert_eq!((looked.shown.gpus.len(), looked.shown.links.len()), (2, 0));
        assert_eq!(read_look(&run(&look_script(), &[])), None);
    }

    #[test]
    fn without_dcgm_the_driver_is_asked_alone() {
        let quick = Ask::Diagnose(CheckLevel::Quick);
        let well = print(SMI, 0);
        let report = check(quick, None, Some(&well));
        assert_eq!((report.by, report.outcome(), report.is_weaker()), (Checker::NvidiaSmi, CheckOutcome::Pass, true));
        // A host engine that does not run is no DCGM; one that is busy is worth waiting for.
        let report = check(quick, Some("exit 235"), Some(&well));
        assert_eq!((report.by, report.outcome()), (Checker::NvidiaSmi, CheckOutcome::Pass));
        assert_eq!(check(quick, Some("exit 217"), Some(&well)).outcome(), CheckOutcome::Infrastructure);
        assert_eq!(check(quick, None, None).outcome(), CheckOutcome::Infrastructure);
        let healthy = print(r#"{"body":{"Overall Health":{"value":"Healthy"}}}"#, 0);
        assert_eq!(check(Ask::Watch, Some(&healthy), Some(&well)).outcome(), CheckOutcome::Pass);
        // Nobody switched its watches on: then what the driver says is what there is.
        let off = print("Health watches not enabled", 246);
        assert_eq!(check(Ask::Watch, Some(&off), Some(&well)).outcome(), CheckOutcome::Pass);
        assert_eq!(check(quick, Some("exit 239"), Some(&well)).outcome(), CheckOutcome::Pass, "it needs root");
        // A program that prints the words of the script forges nothing.
        let liar = print("end dcgm 0\ndone\nend smi 0", 1);
        assert_eq!(check(quick, Some(&liar), Some("exit 9")).outcome(), CheckOutcome::Inconclusive);
    }

    #[test]
    fn a_check_that_breaks_off_is_no_verdict() {
        let ask = Ask::Diagnose(CheckLevel::Long);
        let read = |ended: Ended, text: &str| {
            read_check(ask, &ended, text.as_bytes(), &Expected::default(), Tables::usual()).outcome()
        };
        assert_eq!(read(Ended::NeverRan("no connection".to_owned()), ""), CheckOutcome::Infrastructure);
        assert_eq!(read(Ended::Code(255), "pitcrew-check\nout x\n"), CheckOutcome::Infrastructure);
        assert_eq!(read(Ended::TimedOut, "pitcrew-check\nout x\n"), CheckOutcome::Inconclusive);
        let half = format!("pitcrew-check\nout {PASS}\nend dcgm 0\n");
        assert_eq!(read(Ended::TimedOut, &half), CheckOutcome::Inconclusive);
        assert_eq!(read(Ended::Code(0), &half), CheckOutcome::Infrastructure);
        assert_eq!(read(Ended::Code(0), &(half + "none smi\ndone\n")), CheckOutcome::Pass);
        assert_eq!(
            read(Ended::Code(0), "pitcrew-check\nend dcgm 124\nend smi 124\ndone\n"),
            CheckOutcome::Inconclusive
        );
        assert_eq!(devices(SMI.as_bytes()).devices[0].uuid, "GPU-0");
    }
}
