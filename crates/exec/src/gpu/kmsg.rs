//! The kernel log of this machine, record by record as the kernel writes them, out of `/dev/kmsg`.
//!
//! Reading is all that is done here; what records mean is `pitcrew_health::kernel`'s. The device tells when it has a record,
//! so nobody polls. It keeps as much as its ring holds: whoever is too slow hears that records were thrown away.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use pitcrew_health::kernel::{Judging, Record, Sign, Watch, read_kmsg};
use rustix::fs::OFlags;
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Where the kernel log is.
pub const DEVICE: &str = "/dev/kmsg";
/// The kernel's longest record is shorter; a smaller buffer would be refused.
const BUFFER: usize = 16 << 10;

/// The log, open for reading at the oldest record that there is.
#[derive(Debug)]
pub struct Kmsg {
    file: AsyncFd<std::fs::File>,
    buffer: Vec<u8>,
}

/// What one look at the log gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    Record(Record),
    /// Records were thrown away before they were read; the next one is the oldest that is left.
    Lost,
}

impl Kmsg {
    /// Needs root, or `CAP_SYSLOG`, or a kernel with `kernel.dmesg_restrict=0`.
    pub fn open(device: &Path) -> io::Result<Kmsg> {
        let file = std::fs::OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(device)?;
        // SAFETY: the file owns its descriptor, and is neither replaced nor closed while it is registered.
        let file = unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?;
        Ok(Kmsg { file, buffer: vec![0; BUFFER] })
    }

    /// All that the log holds by now.
    pub fn backlog(&mut self) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        while let Some(read) = self.look()? {
            match read {
                Read::Record(record) => records.push(record),
                // Numbers that are missing say the same.
                Read::Lost => {}
            }
        }
        Ok(records)
    }

    /// All that the log holds by now, into the watch of this machine; what of it is new. Always before [`Kmsg::signs`].
    pub fn begin(&mut self, watch: &mut Watch, boot: &str, how: Judging<'_>) -> io::Result<Vec<Sign>> {
        let backlog = self.backlog()?;
        watch.begin(boot, backlog.last().map_or(0, |record| record.micros));
        Ok(backlog.iter().flat_map(|record| watch.take(boot, record, how)).collect())
    }

    /// Waits until the log says something that is a sign.
    pub async fn signs(&mut self, watch: &mut Watch, boot: &str, how: Judging<'_>) -> io::Result<Vec<Sign>> {
        loop {
            // What is lost is seen by the number of the next.
            let Read::Record(record) = self.next().await? else { continue };
            let signs = watch.take(boot, &record, how);
            if !signs.is_empty() {
                return Ok(signs);
            }
        }
    }

    /// The next record, as soon as there is one.
    pub async fn next(&mut self) -> io::Result<Read> {
        loop {
            if let Some(read) = self.look()? {
                return Ok(read);
            }
            self.file.readable().await?.clear_ready();
            // Between the look and the clearing a record may have come, which makes nobody ready any more.
            if let Some(read) = self.look()? {
                return Ok(read);
            }
        }
    }

    /// What there is at once. A record that is none is passed over.
    fn look(&mut self) -> io::Result<Option<Read>> {
        loop {
            match rustix::io::read(self.file.get_ref(), &mut self.buffer[..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => {
                    if let Some(record) = read_kmsg(&self.buffer[..length]) {
                        return Ok(Some(Read::Record(record)));
                    }
                }
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::PIPE) => return Ok(Some(Read::Lost)),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Which boot this machine is in.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use pitcrew_health::Tables;

    use super::*;

    /// The log of this machine, if this process may read and write it.
    fn log() -> Option<(Kmsg, std::fs::File)> {
        let write = std::fs::OpenOptions::new().write(true).open(DEVICE);
        match (Kmsg::open(Path::new(DEVICE)), write) {
            (Ok(kmsg), Ok(write)) => Some((kmsg, write)),
            (kmsg, write) => {
                let why = kmsg.err().or(write.err()).map(|error| error.to_string());
                eprintln!("NOT TESTED: {DEVICE} cannot be read and written: {}", why.unwrap_or_default());
                None
            }
        }
    }

    #[tokio::test]
    async fn a_line_that_is_written_to_the_real_log_is_one_sign() {
        let Some((mut kmsg, write)) = log() else { return };
        let boot = boot_id().unwrap();
        let mut watch = Watch::default();
        let how = Judging { tables: Tables::usual(), driver: None, is_drill: true };
        assert_eq!(kmsg.begin(&mut watch, &boot, how).unwrap(), [], "what was there before is history");
        // Nobody else's line is like it: other tests may run at the same time.
        let pid = std::process::id();
        let address = format!("00fe:{:02x}:{:02x}", pid / 32 % 256, pid % 32);
        let line = format!("NVRM: Xid (PCI:{address}): 79, pid={pid}, drill \u{1b} by a test");
        // Without the end of the line the kernel would wait for the rest of it.
        let whole = format!("{line}\n");
        assert_eq!(rustix::io::write(&write, whole.as_bytes()).unwrap(), whole.len());
        let sign = loop {
            let read =
                tokio::time::timeout(std::time::Duration::from_secs(120), kmsg.signs(&mut watch, &boot, how)).await;
            let signs = read.expect("the log tells of the line").unwrap();
            if let Some(sign) = signs.into_iter().find(|sign| sign.evidence.contains(&format!("pid={pid},"))) {
                break sign;
            }
        };
        assert_eq!(sign.judgement.action, pitcrew_health::Action::RebootNode);
        assert_eq!(sign.pci.unwrap().to_string(), address);
        // Whoever reads the log anew finds it there, and takes it for what it is: known.
        let mut again = Kmsg::open(Path::new(DEVICE)).unwrap();
        let mut kept: Watch = serde_json::from_str(&serde_json::to_string(&watch).unwrap()).unwrap();
        let signs = again.begin(&mut kept, &boot, how).unwrap();
        assert!(signs.iter().all(|other| other.id != sign.id), "{signs:?}");
        // The kernel says that a program wrote it, so outside of a drill it is nothing.
        let backlog = Kmsg::open(Path::new(DEVICE)).unwrap().backlog().unwrap();
        let record = backlog.iter().find(|record| record.message == line).expect("it is still there");
        assert_eq!((record.facility, record.event(false)), (1, None));
    }

    #[tokio::test]
    async fn what_is_no_log_is_an_error() {
        let kind = |device: &str| Kmsg::open(Path::new(device)).map_err(|error| error.kind()).err();
        assert_eq!(kind("/nowhere/kmsg"), Some(io::ErrorKind::NotFound));
        assert!(kind("/dev/zero").is_some(), "it never says when there is more");
    }
}
