//! Files as engines take and give them: tar archives, written and read in memory.
//!
//! What is read comes from a container, so nobody wrote it but whoever runs there: names are only given on, lengths are checked
//! against what is there, and an archive that makes no sense is an error.

use std::collections::BTreeMap;

const BLOCK: usize = 512;
/// The longest name that fits into a header.
const NAME: usize = 100;

/// One thing in an archive.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, with `/` between its parts and none at its end.
    pub path: String,
    pub what: What,
    /// Permission bits.
    pub mode: u32,
    pub group: u32,
    /// Its owner.
    pub user: u32,
}

#[derive(Clone, PartialEq, Eq)]
pub enum What {
    Directory,
    File(Vec<u8>),
    /// Where it leads.
    Link(String),
    /// A device, a pipe, or another name of the same file.
    Other,
}

/// Contents may be secrets.
impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match &self.what {
            What::Directory => "directory".to_owned(),
            What::File(bytes) => format!("{} bytes", bytes.len()),
            What::Link(to) => format!("link to {to}"),
            What::Other => "other".to_owned(),
        };
        write!(f, "{} ({what}, {:o})", self.path, self.mode)
    }
}

impl Entry {
    pub fn directory(path: impl Into<String>, mode: u32) -> Entry {
        Entry { path: path.into(), what: What::Directory, mode, group: 0, user: 0 }
    }

    pub fn file(path: impl Into<String>, bytes: impl Into<Vec<u8>>, mode: u32) -> Entry {
        Entry { path: path.into(), what: What::File(bytes.into()), mode, group: 0, user: 0 }
    }

    pub fn link(path: impl Into<String>, to: impl Into<String>) -> Entry {
        Entry { path: path.into(), what: What::Link(to.into()), mode: 0o777, group: 0, user: 0 }
    }
}

/// The bytes of an archive.
pub fn write(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        let (kind, body, target): (u8, &[u8], &str) = match &entry.what {
            What::Directory => (b'5', &[], ""),
            What::File(bytes) => (b'0', bytes, ""),
            What::Link(to) => (b'2', &[], to),
            What::Other => continue,
        };
        let path = if kind == b'5' { format!("{}/", entry.path) } else { entry.path.clone() };
        let long: String = [("path", path.as_str()), ("linkpath", target)]
            .into_iter()
            .filter(|(_, text)| text.len() > NAME || !text.is_ascii())
            .map(|(key, text)| record(key, text))
            .collect();
        if !long.is_empty() {
            header(&mut out, "names", long.len(), b'x', "", entry);
            body_of(&mut out, long.as_bytes());
        }
        header(&mut out, &path, body.len(), kind, target, entry);
        body_of(&mut out, body);
    }
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// `LENGTH key=value\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length.to_string().len() + rest.len() != length {
        length += 1;
    }
    format!("{length}{rest}")
}

fn header(out: &mut Vec<u8>, path: &str, length: usize, kind: u8, target: &str, entry: &Entry) {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, most: usize, bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(most)];
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(0, NAME, path.as_bytes());
    put(100, 8, format!("{:07o}\0", entry.mode & 0o7777).as_bytes());
    put(108, 8, &digits(entry.user));
    put(116, 8, &digits(entry.group));
    put(124, 12, format!("{length:011o}\0").as_bytes());
    put(136, 12, b"00000000000\0");
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(157, NAME, target.as_bytes());
    put(257, 8, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    out.extend_from_slice(&block);
}

/// Octal digits; what they are too few for as plain bytes, highest first.
fn digits(number: u32) -> [u8; 8] {
    let mut field = [0; 8];
    match number {
        0..=0o777_7777 => field[..7].copy_from_slice(format!("{number:07o}").as_bytes()),
        _ => {
            field[0] = 0x80;
            field[4..].copy_from_slice(&number.to_be_bytes());
        }
    }
    field
}

fn body_of(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// What is in an archive.
///
/// # Errors
/// A sentence, if it is none.
pub fn read(mut bytes: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    while let Some((block, rest)) = bytes.split_first_chunk::<BLOCK>() {
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        let length = usize::try_from(number(&block[124..136])?).map_err(|_| "a file in it is too long")?;
        let body = rest.get(..length).ok_or("the archive ends in the middle of a file")?;
        bytes = rest.get(length.next_multiple_of(BLOCK)..).unwrap_or_default();
        match block[156] {
            b'x' => names.extend(records(body)?),
            // What GNU's has instead.
            b'L' => drop(names.insert("path".to_owned(), text(body))),
            b'K' => drop(names.insert("linkpath".to_owned(), text(body))),
            b'g' => {}
            kind => {
                let prefix = if block[257..263] == *b"ustar\0" { text(&block[345..500]) } else { String::new() };
                let own = text(&block[..NAME]);
                let own = if prefix.is_empty() { own } else { format!("{prefix}/{own}") };
                let path = names.remove("path").unwrap_or(own);
                let target = names.remove("linkpath").unwrap_or_else(|| text(&block[157..257]));
                let what = match kind {
                    b'5' => What::Directory,
                    b'0' | 0 => What::File(body.to_vec()),
                    b'2' => What::Link(target),
                    _ => What::Other,
                };
                let mode = u32::try_from(number(&block[100..108])?).unwrap_or(0) & 0o7777;
                let group = u32::try_from(number(&block[116..124])?).unwrap_or(0);
                let user = u32::try_from(number(&block[108..116])?).unwrap_or(0);
                entries.push(Entry { path: path.trim_end_matches('/').to_owned(), what, mode, group, user });
                names.clear();
            }
        }
    }
    Ok(entries)
}

fn records(mut body: &[u8]) -> Result<Vec<(String, String)>, String> {
    let wrong = || "the archive has a name that cannot be read".to_owned();
    let mut all = Vec::new();
    while !body.is_empty() {
        let space = body.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
        let length: usize = text(&body[..space]).parse().map_err(|_| wrong())?;
        let record = body.get(space + 1..length).ok_or_else(wrong)?;
        let record = String::from_utf8_lossy(record);
        let (key, value) = record.trim_end_matches('\n').split_once('=').ok_or_else(wrong)?;
        all.push((key.to_owned(), value.to_owned()));
        body = &body[length..];
    }
    Ok(all)
}

/// Octal digits; or, with the highest bit set, plain bytes.
fn number(field: &[u8]) -> Result<u64, String> {
    if field[0] & 0x80 != 0 {
        // The highest bit only says that it is so; the fields are 8 and 12 bytes long.
        let bytes = field.iter().skip(1.max(field.len().saturating_sub(8)));
        return Ok(bytes.fold(0, |sum, byte| sum << 8 | u64::from(*byte)));
    }
    let digits = text(field);
    let digits = digits.trim();
    if digits.is_empty() {
        Ok(0)
    } else {
        u64::from_str_radix(digits, 8).map_err(|_| "what came is no archive".to_owned())
    }
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_with_long_names_too() {
        let long = "d/".repeat(80) + "näme";
        let all = vec![
            Entry::directory("a", 0o1777),
            Entry::file("a/b", b"x".repeat(513), 0o640),
            Entry::file(long.clone(), "", 0o644),
            Entry::link("a/l", "x".repeat(150)),
            Entry { group: 1000, user: 1_000_650_000, ..Entry::file("g", "g", 0o600) },
        ];
        let bytes = write(&all);
        assert_eq!(bytes.len() % BLOCK, 0);
        assert!(read(&bytes).unwrap() == all);
    }

    #[test]
    fn the_tar_of_this_machine_reads_and_writes_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("a.tar");
        std::fs::write(&archive, write(&[Entry::directory("d", 0o755), Entry::file("d/f", "hello\n", 0o600)])).unwrap();
        let tar = |args: &[&str]| {
            let done = std::process::Command::new("tar").current_dir(dir.path()).args(args).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        tar(&["xf", "a.tar"]);
        assert_eq!(std::fs::read_to_string(dir.path().join("d/f")).unwrap(), "hello\n");
        std::os::unix::fs::symlink("f", dir.path().join("d/l")).unwrap();
        tar(&["cf", "b.tar", "d"]);
        let mut found = read(&std::fs::read(dir.path().join("b.tar")).unwrap()).unwrap();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        let paths: Vec<&str> = found.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(paths, ["d", "d/f", "d/l"]);
        assert!(found[1].what == What::File(b"hello\n".to_vec()) && found[2].what == What::Link("f".to_owned()));
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        assert!(read(&[b'z'; 600]).is_err());
        let mut cut = write(&[Entry::file("f", "hello", 0o600)]);
        cut.truncate(BLOCK);
        assert!(read(&cut).is_err());
    }
}
