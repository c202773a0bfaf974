//! Noise: whatever a reader is given, it answers, and soon. Bytes at random, and real lines cut, doubled and mixed.

use std::sync::LazyLock;

use pitcrew_health::check::{
    Ended, Expected, parse_link_errors, parse_links, parse_remapped_rows, parse_smi, read_diag, read_health, read_smi,
};
use pitcrew_health::kernel::{Judging, Watch, read_journal, read_kmsg, read_log_line, read_message};
use pitcrew_health::{LogRules, LogState, LogWatch, Tables};
use proptest::prelude::*;

const LINES: [&str; 18] = [
    "NVRM: Xid (PCI:0000:66:00): 32, pid=2280636, name=train.3, Channel ID 0000000d intr0 00040000",
    "NVRM: Xid (PCI:0000:b5:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception",
    "NVRM: Xid (PCI:0000:01:00 GPU-I:05): 94, pid=7194, name=python3, Contained: SM (0x1)",
    "NVRM: Xid (PCI:0008:01:00): 154, GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)",
    "NVRM: Xid (PCI:0018:01:00): 149, NETIR_LINK_EVT  Fatal   XC0 i0 Link 08 (0x004505c6)",
    "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d",
    "NVRM: GPU 0000:a1:00.0: GPU has fallen off the bus.",
    "nvidia-nvswitch0: SXid (PCI:0000:05:00.0): 20034, Fatal, Link 30 LTSSM Fault Up",
    "4,339,5140900,-;NVRM: Xid (PCI:0000:66:00): 79\n SUBSYSTEM=pci\n",
    "[Sun Feb 23 16:24:18 2025] NVRM: Xid (PCI:0000:9b:00): 119, pid=2024380, name=nvidia-smi, Timeout",
    "Feb 23 16:24:18 gpu-1 kernel: NVRM: Xid (0000:01:00): 31, Ch 0000000b",
    r#"{"_BOOT_ID":"ab","_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","__MONOTONIC_TIMESTAMP":"5","MESSAGE":"NVRM: Xid (PCI:0000:66:00): 79, x"}"#,
    r#"{"DCGM Diagnostic":{"test_categories":[{"tests":[{"name":"m","results":[{"entity_group":"GPU","entity_id":3,"status":"Fail","warnings":[{"warning":"w","error_id":85}]}]}]}]}}"#,
    r#"{"DCGM GPU Diagnostic":{"test_categories":[{"tests":[{"name":"m","results":[{"gpu_ids":"0,1","status":"Fail"}]}]}]}}"#,
    "| GPU Memory | Pass - GPUs: 1, 2, 3 |\n|            | Fail - GPU: 0 |\n| Warning | x |\n",
    r#"{"body":{"GPU":{"children":{"5":{"children":{"Errors":{"children":{"Memory system":{"overflow":["x"],"value":"Failure"}}}}}}}}}"#,
    "GPU 00000000:10:00.0\n    GPU UUID : GPU-0\n    ECC Errors\n        Aggregate\n            SRAM Uncorrectable : 5\n",
    "    gpuId 0:\n        U U D X _\n00000000:10:1C.0, GPU-a, 1, 0, Yes, No\n",
];

/// Its patterns take longer to read than all that it is fed.
static WATCH: LazyLock<LogWatch> = LazyLock::new(|| LogRules::default().read().unwrap());

fn read_all(bytes: &[u8]) {
    read_after(bytes, &[Ended::Code(0), Ended::Code(226), Ended::TimedOut]);
}

fn read_after(bytes: &[u8], ends: &[Ended]) {
    read_message(bytes);
    read_log_line(bytes);
    read_journal(bytes);
    parse_links(bytes);
    parse_link_errors(bytes);
    parse_remapped_rows(bytes);
    parse_smi(bytes);
    let expected = Expected::default();
    for ended in ends {
        for report in [
            read_diag(ended, bytes, &expected, Tables::usual()),
            read_health(ended, bytes, &expected),
            read_smi(ended, bytes, &expected),
        ] {
            assert!(!report.in_words().contains('\u{1b}'), "{report:?}");
            report.outcome();
        }
    }
    if let Some(record) = read_kmsg(bytes) {
        let mut watch = Watch::default();
        watch.begin("ab", 0);
        let how = Judging { tables: Tables::usual(), driver: None, is_drill: true };
        for sign in watch.take("ab", &record, how) {
            assert!(sign.evidence.len() <= 300 && !sign.evidence.contains(char::is_control), "{sign:?}");
        }
    }
}

/// Real lines with pieces taken out, put in twice, or broken.
fn mangled() -> impl Strategy<Value = Vec<u8>> {
    let piece = (0..LINES.len(), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (prop::collection::vec(piece, 1..4), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4))
        .prop_map(|(pieces, breaks)| {
            let mut out = Vec::new();
            for (line, from, to) in pieces {
                let line = LINES[line].as_bytes();
                let (from, to) = (from.index(line.len() + 1), to.index(line.len() + 1));
                out.extend_from_slice(&line[from.min(to)..from.max(to)]);
            }
            for (at, byte) in breaks {
                if !out.is_empty() {
                    let at = at.index(out.len());
                    out[at] = byte;
                }
            }
            out
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn bytes_at_random_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn a_log_says_the_same_however_it_is_cut(bytes in mangled(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let watch = &*WATCH;
        let now = jiff::Timestamp::UNIX_EPOCH;
        let text = [b"CUDA out of memory\n".as_slice(), &bytes, b"\nGPU is lost\n"].concat();
        let mut whole = LogState::new(now);
        let expected = watch.feed(&mut whole, &text, now);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len())).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        let mut state = LogState::new(now);
        let found: Vec<_> = cuts.windows(2).flat_map(|cut| watch.feed(&mut state, &text[cut[0]..cut[1]], now)).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(state, whole);
    }

    #[test]
    fn broken_lines_are_answered(bytes in mangled()) {
        read_all(&bytes);
        read_all(&[b"4,1,2,-;", &bytes[..]].concat());
    }
}

#[test]
fn lines_without_end_are_answered_by_their_beginning() {
    // Each of these would take hours, if any reader looked at every pair of bytes.
    for piece in [
        "NVRM: Xid (",
        "PCI:",
        "): ",
        ",",
        "[",
        "\\x",
        " kernel: ",
        "GPU at ",
        "pid=",
        "\u{1b}",
        "é",
        ";",
        "{\"a\":",
        "| a | Fail |\n",
        "gpuId 0:\n U\n",
        "GPU 0000:10:00.0\n  a : [x]\n",
        "  a\n   b\n",
        "\"{[",
    ] {
        let long = piece.repeat((4 << 20) / piece.len());
        for before in ["", "NVRM: Xid (PCI:0000:66:00): 79, ", "4,1,2,-;", "NVRM: GPU at "] {
            read_after(format!("{before}{long}").as_bytes(), &[Ended::Code(226)]);
        }
    }
}
