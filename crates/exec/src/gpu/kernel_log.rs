//! What the kernel log of another machine says about GPUs, asked by one script that runs there and leaves nothing.
//!
//! The script reads the log once, from its oldest record, and prints only what is about GPUs, after a number; so what
//! travels is small. It says which records there are, so the reader knows when some were thrown away in between. Without
//! the right to read `/dev/kmsg` it tries `sudo -n`, and then the journal; without any it says so.

use jiff::{SignedDuration, Timestamp};
use pitcrew_health::kernel::{Judging, Record, Sign, Watch, happened, read_journal, read_kmsg};
use serde::{Deserialize, Serialize};

/// Before this line a shell's own files may have said something.
const MARK: &str = "pitcrew-kernel-log";
/// Lines of an answer that are looked at.
const MOST_LINES: usize = 20_000;
/// How long reading may take there, in seconds.
const SECONDS: u32 = 10;

/// What a machine answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelLog {
    pub boot: String,
    /// Since that boot, when it was asked.
    pub up: Option<SignedDuration>,
    pub told: Told,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Told {
    /// Of the records from number `first` to number `last` those about GPUs; when the last one came, since the boot.
    Records { first: u64, last: u64, micros: u64, records: Vec<Record> },
    /// Of the journal, which has no numbers that could be missing.
    Journal { records: Vec<Record> },
    /// Nothing can be read there, and why.
    Denied(String),
}

/// What wakes whoever follows the log on a host: a line about GPUs, by its number; of the journal, any. Only what ends with whoever
/// follows is begun: so nothing is read here that takes `sudo`, and where that is needed the time alone wakes him.
pub const KERNEL_LOG_WAKE: &str = "\
if dd if=/dev/kmsg iflag=nonblock bs=16384 count=1 >/dev/null 2>&1; then dd if=/dev/kmsg bs=16384 conv=noerror 2>/dev/null
elif command -v journalctl >/dev/null 2>&1; then journalctl -k -f -q -n 0 -o cat --no-pager 2>/dev/null; fi |
grep --line-buffered -a -e ';NVRM: ' -e ';nvidia-nvswitch' -e '^NVRM: ' -e '^nvidia-nvswitch' | while IFS= read -r l; do
case $l in NVRM*|nvidia-nvswitch*) echo 'wake 9223372036854775807';; *) l=${l#*,}; echo \"wake ${l%%,*}\";; esac; done";
/// What was found says how far the log was read.
pub const KERNEL_LOG_FOUND: &str = "\
case $o in *\"${n}range \"*) l=${o##*\"${n}range \"}; l=${l#* }; after=${l%% *}
known=${o#*\"${n}boot \"}; known=${known%%\"$n\"*};; esac";

/// The script, for `/bin/sh -s`, after [`kernel_log_since`].
pub fn kernel_log_script(since: Option<(&str, u64)>) -> String {
    format!("{}{}", kernel_log_since(since), kernel_log_look())
}

/// From where the log is read: the boot, and the number of the last record that was read in it.
pub fn kernel_log_since(since: Option<(&str, u64)>) -> String {
    match since {
        Some((boot, after)) if boot.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
            format!("known={boot} after={after}\n")
        }
        Some(_) | None => "known= after=-1\n".to_owned(),
    }
}

/// The same for whoever follows: `$after` is the number of the last record that was read in the boot `$known`.
pub fn kernel_log_look() -> String {
    // Each `read` of the device is one record, and `dd` ends where there is none; `cat` has to be ended.
    format!(
        "limit() {{ if command -v timeout >/dev/null 2>&1; then timeout -k 2 \"$@\"; else shift; \"$@\"; fi; }}\n\
         echo {MARK}\n\
         boot=$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)\n\
         echo \"boot $boot\"\n\
         # Numbers are of one boot.\n\
         [ \"$boot\" = \"$known\" ] || after=-1\n\
         echo \"up $(cut -d' ' -f1 /proc/uptime 2>/dev/null)\"\n\
         some() {{ awk -F'[,;]' -v after=\"$after\" '/^ /{{next}} NF>3{{if(first==\"\")first=$2; last=$2; at=$3;\n\
         if($2+0>after+0 && (index($0,\";NVRM: \")||index($0,\";nvidia-nvswitch\")))print \"kmsg \" $0}}\n\
         END{{if(first!=\"\")print \"range \" first \" \" last \" \" at}}'; }}\n\
         try() {{ \"$@\" dd if=/dev/kmsg iflag=nonblock bs=16384 2>/dev/null | some; }}\n\
         found=$(try limit {SECONDS})\n\
         if [ -z \"$found\" ] && command -v sudo >/dev/null 2>&1; then found=$(try limit {SECONDS} sudo -n); fi\n\
         if [ -n \"$found\" ]; then printf '%s\\n' \"$found\"; exit 0; fi\n\
         command -v journalctl >/dev/null 2>&1 || {{ echo 'denied /dev/kmsg cannot be read, and there is no journal'; exit 0; }}\n\
         found=$(limit {SECONDS} journalctl -k -b -q -o json --no-pager -n 5000 2>&1) || {{ echo \"denied $found\"; exit 0; }}\n\
         [ -n \"$found\" ] || {{ echo 'denied neither /dev/kmsg nor the kernel log in the journal can be read'; exit 0; }}\n\
         echo journal\n\
         printf '%s\\n' \"$found\" | grep -a -e NVRM -e nvidia-nvswitch | sed 's/^/line /'\n\
         exit 0\n"
    )
}

/// Reads what the script printed; `None`: it did not run.
pub fn parse_kernel_log(text: &[u8]) -> Option<KernelLog> {
    let mut lines = text.split(|b| *b == b'\n').skip_while(|line| line.trim_ascii_end() != MARK.as_bytes()).skip(1);
    let first = String::from_utf8_lossy(lines.next()?).into_owned();
    let boot = first.strip_prefix("boot ")?.trim().to_owned();
    let mut up = None;
    let mut told = Told::Denied("the machine did not say what it found".to_owned());
    let mut records = Vec::new();
    for line in lines.take(MOST_LINES) {
        let split = line.iter().position(|b| *b == b' ').unwrap_or(line.len());
        let (word, rest) = (&line[..split], line.get(split + 1..).unwrap_or_default());
        match word {
            b"up" => {
                up = String::from_utf8_lossy(rest)
                    .trim()
                    .parse()
                    .ok()
                    .and_then(|up| SignedDuration::try_from_secs_f64(up).ok())
            }
            b"kmsg" => records.extend(read_kmsg(rest)),
            b"line" => records.extend(read_journal(rest).map(|line| line.record)),
            b"range" => {
                let text = String::from_utf8_lossy(rest);
                let numbers: Vec<u64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
                if let [first, last, micros] = numbers[..] {
                    told = Told::Records { first, last, micros, records: Vec::new() };
                }
            }
            b"journal" => told = Told::Journal { records: Vec::new() },
            b"denied" => told = Told::Denied(super::shorten(&String::from_utf8_lossy(rest))),
            _ => {}
        }
    }
    match &mut told {
        Told::Records { records: all, .. } | Told::Journal { records: all } => *all = records,
        Told::Denied(_) => {}
    }
    Some(KernelLog { boot, up, told })
}

impl KernelLog {
    /// When a sign of it happened, where it is `now`.
    pub fn at(&self, sign: &Sign, now: Timestamp) -> Timestamp {
        self.up.map_or(now, |up| happened(sign.micros, up, now))
    }

    /// What of it is new to the watch of that machine.
    pub fn signs(&self, watch: &mut Watch, how: Judging<'_>) -> Vec<Sign> {
        match &self.told {
            Told::Records { first, last, micros, records } => {
                if !watch.begin(&self.boot, *micros) {
                    return Vec::new();
                }
                watch.take_some(&self.boot, records, *first, *last, how)
            }
            Told::Journal { records } => {
                // The first answer is history, up to its last record; what is new comes with the next.
                let latest = records.iter().map(|record| record.micros).max().unwrap_or(0);
                if !watch.begin(&self.boot, latest) {
                    return Vec::new();
                }
                records.iter().flat_map(|record| watch.take(&self.boot, record, how)).collect()
            }
            Told::Denied(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_health::kernel::SignKind;
    use pitcrew_health::{Action, Tables};

    use super::*;

    fn how() -> Judging<'static> {
        Judging { tables: Tables::usual(), driver: None, is_drill: false }
    }

    fn answer(rest: &str) -> KernelLog {
        parse_kernel_log(format!("Welcome!\n{MARK}\nboot 810fca1e-916b\n{rest}").as_bytes()).unwrap()
    }

    #[test]
    fn each_answer_tells_what_the_last_one_did_not() {
        let mut watch = Watch::default();
        let xid = |sequence: u64, code: u32| {
            format!("kmsg 4,{sequence},{}000,-;NVRM: Xid (PCI:0000:66:00): {code}, x\n", sequence * 1000)
        };
        assert_eq!(answer(&(xid(3, 79) + "range 1 10 10000000\n")).signs(&mut watch, how()), []);
        assert_eq!(watch.follower().sequence(), Some(10));
        let log = answer(&(xid(12, 48) + "up 112.5\nrange 1 20 20000000\n"));
        let signs = log.signs(&mut watch, how());
        let now = Timestamp::from_second(1000).unwrap();
        assert_eq!(log.at(&signs[0], now), Timestamp::from_millisecond(899_500).unwrap());
        assert_eq!(signs.iter().map(|sign| sign.judgement.action).collect::<Vec<_>>(), [Action::ResetGpu]);
        assert_eq!(answer(&(xid(12, 48) + "range 1 20 20000000\n")).signs(&mut watch, how()), []);
        // The ring went round in between.
        let signs = answer(&(xid(60, 95) + "range 51 70 70000000\n")).signs(&mut watch, how());
        let kinds: Vec<_> = signs.iter().map(|sign| &sign.kind).collect();
        assert!(matches!(kinds[..], [SignKind::Lost { records: 30 }, SignKind::Xid(_)]), "{kinds:?}");
        assert_eq!(answer("range 51 70 70000000\n").signs(&mut watch, how()), []);
    }

    #[test]
    fn a_journal_and_a_machine_that_tells_nothing_are_answers() {
        let line = |micros: u64, message: &str| {
            format!(
                "line {{\"_BOOT_ID\":\"810fca1e916b\",\"_TRANSPORT\":\"kernel\",\"SYSLOG_FACILITY\":\"0\",\
                 \"_SOURCE_MONOTONIC_TIMESTAMP\":\"{micros}\",\"MESSAGE\":\"{message}\"}}\n"
            )
        };
        let xid = "NVRM: Xid (PCI:0000:66:00): 79, x";
        let mut watch = Watch::default();
        assert_eq!(answer(&format!("journal\n{}", line(5, xid))).signs(&mut watch, how()), []);
        let both = format!("journal\n{}{}", line(5, xid), line(9_000_000, xid));
        assert_eq!(answer(&both).signs(&mut watch, how()).len(), 1);
        assert_eq!(answer(&both).signs(&mut watch, how()), []);
        let denied = answer("denied dd: failed to open '/dev/kmsg': \u{1b}Operation not permitted\n");
        assert!(matches!(&denied.told, Told::Denied(why) if why.contains("not permitted") && !why.contains('\u{1b}')));
        assert_eq!(denied.signs(&mut watch, how()), []);
        assert!(matches!(answer("").told, Told::Denied(_)));
        assert_eq!(parse_kernel_log(b"This account is not available.\n"), None);
        assert!(matches!(answer("range 1 x\nkmsg é\n").told, Told::Denied(_)));
    }

    #[test]
    fn the_script_runs_here_and_tells_where_the_log_ends() {
        let mut shell = std::process::Command::new("/bin/sh")
            .arg("-s")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = shell.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, kernel_log_script(Some(("another", 3))).as_bytes()).unwrap();
        drop(stdin);
        let output = shell.wait_with_output().unwrap();
        assert!(output.status.success());
        let log = parse_kernel_log(&output.stdout).expect("the script ran");
        assert_eq!(log.boot, super::super::kmsg::boot_id().unwrap());
        assert!(log.up.is_some_and(|up| up.is_positive()));
        match log.told {
            Told::Records { first, last, micros, .. } => {
                assert!(first <= last && micros > 0, "{first} {last} {micros}")
            }
            Told::Journal { .. } => eprintln!("NOT TESTED: `/dev/kmsg` cannot be read here; the journal can"),
            Told::Denied(why) => eprintln!("NOT TESTED: the kernel log cannot be read here: {why}"),
        }
    }
}
