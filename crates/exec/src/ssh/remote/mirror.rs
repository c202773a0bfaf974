//! The copy of an attempt's log, and of its end, on this machine: all that readers, pages and outputs look at.
//!
//! Invariant: the log here is made of exactly the first [`Cursor::remote`] bytes of the log on the host, and of nothing
//! twice. What a killed server wrote beyond its cursor is cut off and made again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use pitcrew_core::state::Exit;

use super::marks::{Cursor, Sent};
use super::servant::time_here;
use crate::backend::{Ended, StepEnded};
use crate::log::{LogStream, LogWriter, Masker};
use crate::spec::MAX_OUTPUT;
use crate::{attempt_dir, log, outputs};

/// Bytes that are fetched at once.
pub const CHUNK: u64 = 512 << 10;

/// See the module.
pub struct Mirror {
    dir: PathBuf,
    writer: LogWriter,
    masker: Option<Arc<Masker>>,
    remote: u64,
}

impl Mirror {
    /// Goes on where the cursor stands; begins a log if there is none.
    pub fn open(dir: &Path, sent: &Sent, masker: Option<Arc<Masker>>, now: Timestamp) -> io::Result<Mirror> {
        let path = attempt_dir::log(dir);
        let cursor = Cursor::read(dir)?.filter(|_| path.exists());
        let writer = match cursor {
            Some(at) => LogWriter::reopen(&path, at.here, sent.log_limit, at.full)?,
            None => {
                std::fs::remove_file(&path)
                    .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
                LogWriter::create(&path, sent.log_limit)?
            }
        };
        let remote = cursor.map_or(0, |at| at.remote);
        let mut mirror = Mirror { dir: dir.to_owned(), writer, masker, remote };
        mirror.writer.mask(mirror.masker.clone());
        if cursor.is_none() {
            sent.notices.iter().for_each(|notice| mirror.writer.say(now, 0, notice));
            mirror.save()?;
        }
        Ok(mirror)
    }

    /// Bytes of the log on the host that are here.
    pub fn offset(&self) -> u64 {
        self.remote
    }

    /// Takes the next bytes of the log on the host. Half a line at their end is left for the next time, unless these are
    /// the last ones, or all of them are one line.
    pub fn append(&mut self, bytes: &[u8], last: bool, now: Timestamp, ahead: SignedDuration) -> io::Result<()> {
        let whole = match bytes.iter().rposition(|b| *b == b'\n') {
            Some(at) if !last => at + 1,
            None if !last && bytes.len() < CHUNK as usize => 0,
            _ => bytes.len(),
        };
        if whole == 0 {
            return Ok(());
        }
        for line in bytes[..whole].split_inclusive(|b| *b == b'\n') {
            let text = line.strip_suffix(b"\n");
            let record = parse(text.unwrap_or(line));
            let at = Some(record.micros).filter(|micros| *micros > 0);
            let at = at.and_then(|micros| time_here(micros.checked_mul(1000)?, ahead)).unwrap_or(now);
            self.writer.record(
                at,
                record.stream,
                record.step,
                record.text,
                record.continues || (text.is_none() && !last),
            );
        }
        self.remote += whole as u64;
        self.save()
    }

    /// Adds a line of Pitcrew's own words.
    pub fn say(&mut self, now: Timestamp, step: u32, text: &str) -> io::Result<()> {
        self.writer.say(now, step, text);
        self.save()
    }

    /// Adds a line as one that the first step wrote. Line breaks in it become spaces.
    pub fn tell(&mut self, now: Timestamp, stream: LogStream, text: &str) -> io::Result<()> {
        self.writer.record(now, stream, 0, text.replace('\n', " ").as_bytes(), false);
        self.save()
    }

    fn save(&mut self) -> io::Result<()> {
        self.writer.flush();
        if self.writer.is_holding() {
            // It would be lost with this process; the cursor waits for the end of the line.
            return Ok(());
        }
        Cursor { remote: self.remote, here: self.writer.length(), full: self.writer.is_full() }.write(&self.dir)
    }

    /// Makes the end out of what the host told, with its last words in the log.
    pub fn end(&mut self, sent: &Sent, fetched: Fetched, now: Timestamp) -> Ended {
        let mut ended = fetched.whole(&self.dir, self.masker.as_ref());
        let about = sent.steps.iter().position(|step| Some(step) == ended.failed_step.as_ref());
        let about = u32::try_from(about.unwrap_or(sent.steps.len().saturating_sub(1))).unwrap_or(u32::MAX);
        for text in ended.output_problems.clone().into_iter().chain(ended.notice()) {
            self.writer.say(now, about, &text);
        }
        // Not counted by the cursor: if the end is not recorded after all, the next try says it again.
        self.writer.flush();
        if !ended.exit.is_success() {
            ended.tail = log::tail(&attempt_dir::log(&self.dir), 10, 4 << 10);
        }
        ended
    }
}

/// The end of an attempt as its host told it; its output files lie in the attempt's directory by now.
pub struct Fetched {
    pub ended: Ended,
    pub problems: Vec<String>,
}

impl Fetched {
    /// An attempt that left nothing.
    pub fn bare(exit: Exit, now: Timestamp) -> Fetched {
        Fetched { ended: Ended::bare(exit, now), problems: Vec::new() }
    }

    /// The whole end, with the outputs that lie in `dir`, masked; an attempt that wrote no log has outputs too.
    pub fn whole(self, dir: &Path, masker: Option<&Arc<Masker>>) -> Ended {
        let mut ended = self.ended;
        if ended.started_at.is_some() {
            let outputs = outputs::collect(&attempt_dir::output(dir));
            ended.outputs = outputs.values;
            ended.output_problems.extend(outputs.problems);
        }
        ended.output_problems.extend(self.problems);
        if let Some(masker) = masker {
            ended.mask(masker);
        }
        ended
    }

    /// Reads `exit` and `steps` of the host.
    pub fn read(text: &str, sent: &Sent, place: &str, ahead: SignedDuration, now: Timestamp) -> Fetched {
        let mut fetched = Fetched::bare(Exit::Lost { reason: format!("`{place}` does not say how it ended") }, now);
        let ended = &mut fetched.ended;
        ended.usage.connect_seconds = sent.connect_seconds;
        let name = |number: &str| number.parse().ok().and_then(|number: usize| sent.steps.get(number)).cloned();
        let time = |nanos: &str| nanos.parse().ok().and_then(|nanos| time_here(nanos, ahead)).unwrap_or(now);
        let mut why = "";
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["exit", word, argument, about] => {
                    ended.exit = exit(word, argument);
                    ended.failed_step = name(about).filter(|_| !ended.exit.is_success());
                }
                ["at", nanos] => ended.at = time(nanos),
                ["why", ..] => why = &line["why ".len()..],
                ["step", number, begun, over, word, argument] => ended.steps.push(StepEnded {
                    name: name(number).unwrap_or_else(|| number.to_owned()),
                    exit: exit(word, argument),
                    started_at: time(begun),
                    at: time(over),
                }),
                [user, system] => {
                    // Two lines of `times`: the keeper's own and that of its children.
                    ended.usage.user_cpu_seconds += cpu_seconds(user);
                    ended.usage.system_cpu_seconds += cpu_seconds(system);
                }
                _ => {}
            }
        }
        if let Exit::StartFailed { reason, .. } = &mut ended.exit {
            *reason = why.to_owned();
        }
        ended.started_at = ended.steps.first().map(|step| step.started_at);
        let last = ended.steps.last().map_or(ended.at, |step| step.at);
        ended.usage.wall_seconds =
            ended.started_at.map_or(0.0, |begun| last.duration_since(begun).as_secs_f64().max(0.0));
        fetched
    }

    /// Takes what a file of the host holds that is not read from the attempt's directory.
    pub fn take(&mut self, file: &str, bytes: Vec<u8>, sent: &Sent) {
        let (kind, number) = file.split_once('-').unwrap_or((file, ""));
        let Ok(number) = number.parse::<usize>() else { return };
        let large = bytes.len() > MAX_OUTPUT;
        let mut text = String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned());
        match kind {
            "stdout" => {
                if large {
                    let step = sent.steps.get(number).map_or("", String::as_str);
                    self.problems.push(format!("the stdout of step `{step}` exceeds {MAX_OUTPUT} bytes"));
                    let cut = text.floor_char_boundary(MAX_OUTPUT);
                    text.truncate(cut);
                }
                // The last one counts; files come in the order of their names, not of the steps.
                self.ended.stdout = Some(text);
            }
            _ => {
                let Some(path) = sent.fetch.get(number) else { return };
                if large {
                    self.problems.push(format!("`{path}` has more than {MAX_OUTPUT} bytes; make it an artifact"));
                } else {
                    self.ended.files.insert(path.clone(), text);
                }
            }
        }
    }
}

/// Sorts the files that a host has into the order in which they are to be fetched, with how much of each is wanted.
pub fn wanted(files: Vec<(String, u64)>) -> Vec<(String, u64)> {
    let mut wanted = BTreeMap::new();
    for (name, size) in files {
        let number = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<u32>().ok());
        let (order, limit) = if name == "output" {
            ((0, 0), outputs::MAX_TOTAL as u64 + 1)
        } else if let Some(number) = number("stdout-").or_else(|| number("file-")) {
            ((1, number), MAX_OUTPUT as u64 + 1)
        } else if outputs::is_file_name(&name) {
            ((2, 0), MAX_OUTPUT as u64 + 1)
        } else {
            continue;
        };
        wanted.insert((order, name), size.min(limit));
    }
    wanted.into_iter().map(|((_, name), size)| (name, size)).collect()
}

fn exit(word: &str, argument: &str) -> Exit {
    let number = argument.parse().unwrap_or(-1);
    match word {
        "code" => Exit::Code { code: number },
        "signal" => Exit::Signal { signal: number },
        "out_of_memory" => Exit::OutOfMemory,
        "timed_out" => Exit::TimedOut,
        "cancelled" => Exit::Cancelled,
        "start_failed" => Exit::start_failed(""),
        _ => Exit::Lost { reason: format!("its keeper left the unknown word `{word}`") },
    }
}

/// As `times` writes it: `1m2.34s`.
fn cpu_seconds(text: &str) -> f64 {
    let parse = || {
        let (minutes, seconds) = text.strip_suffix('s')?.split_once('m')?;
        Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
    };
    parse().filter(|seconds| seconds.is_finite()).unwrap_or(0.0)
}

struct Record<'a> {
    /// 0: when it came.
    micros: i64,
    stream: LogStream,
    step: u32,
    continues: bool,
    text: &'a [u8],
}

/// `MICROS o0 text`, as in the log here. What is no record, which a full disk can leave, is text.
fn parse(line: &[u8]) -> Record<'_> {
    let split = || {
        let space = line.iter().position(|b| *b == b' ')?;
        let micros = std::str::from_utf8(&line[..space]).ok()?.parse().ok()?;
        let rest = &line[space + 1..];
        let stream = match rest.first()? {
            b'o' => LogStream::Stdout,
            b'e' => LogStream::Stderr,
            b's' => LogStream::System,
            _ => return None,
        };
        let separator = rest.iter().position(|b| matches!(b, b' ' | b'+'))?;
        let step = std::str::from_utf8(&rest[1..separator]).ok()?.parse().ok()?;
        Some(Record { micros, stream, step, continues: rest[separator] == b'+', text: &rest[separator + 1..] })
    };
    split().unwrap_or(Record { micros: 0, stream: LogStream::Stdout, step: 0, continues: false, text: line })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at() -> Timestamp {
        Timestamp::from_microsecond(1_767_225_600_000_000).unwrap()
    }

    fn sent() -> Sent {
        Sent { steps: vec!["one".into(), "two".into()], log_limit: 1 << 20, ..Sent::default() }
    }

    /// A server may be killed at any byte; the next one must make the same log.
    #[test]
    fn a_mirror_goes_on_after_any_death_without_a_byte_twice_or_lost() {
        let remote = b"1767225600000001 o0 one\n1767225600000002 o0+hal\n0 e1 \xff\0\n1767225600000003 o0 f\n";
        let whole = {
            let dir = tempfile::tempdir().unwrap();
            let mut mirror = Mirror::open(dir.path(), &sent(), None, at()).unwrap();
            mirror.append(remote, true, at(), SignedDuration::ZERO).unwrap();
            std::fs::read(dir.path().join("log")).unwrap()
        };
        assert_eq!(whole.split(|b| *b == b'\n').count(), 5);
        for cut in 1..remote.len() {
            let dir = tempfile::tempdir().unwrap();
            let mut mirror = Mirror::open(dir.path(), &sent(), None, at()).unwrap();
            mirror.append(&remote[..cut], false, at(), SignedDuration::ZERO).unwrap();
            // It wrote more, and died before it moved the cursor.
            let more = std::fs::OpenOptions::new().append(true).open(dir.path().join("log")).unwrap();
            io::Write::write_all(&mut &more, b"1767225600000009 o0 never men").unwrap();
            let mut next = Mirror::open(dir.path(), &sent(), None, at()).unwrap();
            let from = usize::try_from(next.offset()).unwrap();
            next.append(&remote[from..], true, at(), SignedDuration::ZERO).unwrap();
            assert_eq!(std::fs::read(dir.path().join("log")).unwrap(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_line_without_an_end_and_one_that_is_no_record_are_text() {
        let dir = tempfile::tempdir().unwrap();
        let mut mirror = Mirror::open(dir.path(), &sent(), None, at()).unwrap();
        let endless = [b"0 o0 ".to_vec(), vec![b'x'; CHUNK as usize - 5]].concat();
        mirror.append(&endless, false, at(), SignedDuration::ZERO).unwrap();
        mirror.append(b"end\n torn\n0 o0 last", true, at(), SignedDuration::ZERO).unwrap();
        let records = log::read(&dir.path().join("log"), 0, 1 << 20, true).unwrap().records;
        let (last, long) = records.split_last_chunk::<3>().map(|(a, b)| (b, a)).unwrap();
        assert!(long.iter().all(|r| r.continues && r.text.bytes().all(|b| b == b'x')));
        let texts: Vec<_> = last.iter().map(|r| (r.text.as_str(), r.continues)).collect();
        assert_eq!(texts, [("end", false), (" torn", false), ("last", false)]);
    }

    #[test]
    fn ends_are_read_as_they_were_written_also_by_a_full_disk() {
        let read = |text: &str| Fetched::read(text, &sent(), "h", SignedDuration::from_secs(10), at()).ended;
        let ended = read(
            "exit signal 11 1\nat 1767225615000000000\nwhy \n0m0.01s 0m0.02s\n1m2.50s 0m0.25s\n\
             step 0 1767225611000000000 1767225612000000000 code 0\nstep 1 1767225612000000000 1767225614500000000 signal 11\nstep 1 17",
        );
        assert_eq!((&ended.exit, ended.failed_step.as_deref()), (&Exit::Signal { signal: 11 }, Some("two")));
        assert_eq!((ended.steps.len(), ended.usage.wall_seconds), (2, 3.5));
        assert_eq!((ended.usage.user_cpu_seconds, ended.usage.system_cpu_seconds), (62.51, 0.27));
        // The clock of the host is 10 s ahead.
        assert_eq!(ended.at, at() + SignedDuration::from_secs(5));
        // Only a name was left.
        let ended = read("exit code 0 -\n");
        assert_eq!((ended.exit.is_success(), ended.started_at, ended.failed_step), (true, None, None));
        let ended = read("exit start_failed 0 0\nwhy no  such place\n");
        assert_eq!(ended.exit, Exit::start_failed("no  such place"));
        assert!(matches!(read("").exit, Exit::Lost { .. }));
        assert!(matches!(read("exit odd 0 -\n").exit, Exit::Lost { .. }));
    }

    #[test]
    fn only_known_files_are_wanted_and_not_more_of_them_than_is_kept() {
        let names =
            ["file-1", "output.b", "stdout-10", "stdout-2", "output", "output.a/b", "output.new\n", "step-0", "log"];
        let files = names.map(|name| (name.to_owned(), 1 << 40)).to_vec();
        let names: Vec<_> = wanted(files)
            .into_iter()
            .map(|(name, size)| {
                assert!(size < 10 << 20);
                name
            })
            .collect();
        assert_eq!(names, ["output", "file-1", "stdout-2", "stdout-10", "output.b"]);
    }
}
