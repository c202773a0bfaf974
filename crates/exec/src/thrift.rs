//! An idle process gives back the memory that it does not need.
//!
//! Two kinds of it. The allocator keeps what was freed, for later: it is asked to return the whole pages among that. And
//! the kernel maps 64 KiB of the program around each place that is ever used, so whatever a start or a busy hour touched
//! stays mapped: those pages are let go, and those that are used again come back one by one, from the page cache.
//!
//! Invariant: only mappings are let go in which no page was ever written to, so what comes back is what was there.

use std::ops::Range;
use std::time::Duration;

use crate::clock;
use crate::local::blocking;

/// How long nothing happens before it is worth it. What is used again comes back in less than a millisecond.
pub const REST: Duration = Duration::from_secs(2);
/// How often a process is looked at that always does a little.
const LOOK: Duration = Duration::from_secs(20);
/// After less work than this there is nothing to give back.
const LITTLE: Duration = Duration::from_millis(50);

/// Gives back whenever this process had little to do for a while: less than a twentieth of one core. It does so for as long
/// as it is polled.
pub async fn watch() {
    let (mut before, mut given) = (Duration::ZERO, Duration::ZERO);
    loop {
        tokio::time::sleep(LOOK).await;
        let used = clock::processor_time();
        if used - before < LOOK / 20 && used - given >= LITTLE {
            // It holds up whoever wants memory meanwhile, but nobody else.
            let _ = blocking(|| {
                give_back();
                Ok(())
            })
            .await;
            given = clock::processor_time();
        }
        before = used;
    }
}

/// Gives back what can be had again. For a process that waits: one that works would have most of it back at once.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer; the allocator locks what it looks at.
    unsafe {
        libc::malloc_trim(0);
    }
    // Where the kernel does not tell, all stays as it is.
    let Ok(smaps) = std::fs::read_to_string("/proc/self/smaps") else { return };
    for range in unchanged(&smaps) {
        let first = range.start as *mut libc::c_void;
        // SAFETY: the range is one mapping of a file without a page of its own, so each page reads the same when it is
        // mapped again. One that is gone by now, or locked, is refused, which changes nothing.
        unsafe {
            libc::madvise(first, range.len(), libc::MADV_DONTNEED);
        }
    }
}

/// The mappings of files that cannot be written to now, and in which nothing was written before: code and constants, but
/// not what the loader wrote to and then protected.
fn unchanged(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current: Option<Range<usize>> = None;
    for line in smaps.lines() {
        if let Some((range, of_file)) = mapping(line) {
            current = of_file.then_some(range);
        } else if let Some(size) = line.strip_prefix("Anonymous:")
            && size.trim() == "0 kB"
        {
            found.extend(current.take());
        }
    }
    found
}

/// A line such as `7f00-7f80 r-xp 00001000 fe:00 1234 /usr/bin/pitcrew`: where it lies, and whether it is a file that cannot
/// be written to. `None`: the line is one of the details below.
fn mapping(line: &str) -> Option<(Range<usize>, bool)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let address = |text: &str| usize::from_str_radix(text, 16).ok();
    let range = address(start)?..address(end)?;
    let may = words.next()?;
    let inode = words.nth(2)?;
    Some((range, may.starts_with('r') && !may.contains('w') && inode != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    const LENGTH: usize = 1 << 20;

    /// KiB of a mapping that are in memory, as this process has it.
    fn resident(address: usize) -> u64 {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut lines = smaps.lines().skip_while(|line| mapping(line).is_none_or(|(range, _)| range.start != address));
        let line = lines.find_map(|line| line.strip_prefix("Rss:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Maps a file of ones for reading; the first byte is made a two before, if asked for.
    fn map(file: &std::fs::File, change: bool) -> &'static [u8] {
        // SAFETY: a new private mapping of a file that nobody else has, which is never unmapped.
        unsafe {
            let (may, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
            let start = libc::mmap(std::ptr::null_mut(), LENGTH, may, kind, file.as_raw_fd(), 0);
            assert_ne!(start, libc::MAP_FAILED);
            if change {
                start.cast::<u8>().write(2);
            }
            assert_eq!(libc::mprotect(start, LENGTH, libc::PROT_READ), 0);
            std::slice::from_raw_parts(start.cast::<u8>(), LENGTH)
        }
    }

    #[test]
    fn what_was_only_read_is_let_go_and_what_was_written_stays() {
        let make = || {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(&file, vec![1; LENGTH]).unwrap();
            file
        };
        // Two files, so that the kernel does not join the mappings.
        let (one, other) = (make(), make());
        let (read, written) = (map(one.as_file(), false), map(other.as_file(), true));
        let sum = |bytes: &[u8]| bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>();
        assert_eq!((sum(read), sum(written)), (LENGTH, LENGTH + 1));
        let address = |bytes: &[u8]| bytes.as_ptr() as usize;
        assert_eq!((resident(address(read)), resident(address(written))), (1024, 1024));
        give_back();
        assert_eq!((resident(address(read)), resident(address(written))), (0, 1024));
        assert_eq!((sum(read), sum(written)), (LENGTH, LENGTH + 1), "it comes back");
    }

    #[test]
    fn mappings_are_told_from_their_details() {
        let smaps = "\
55d0-55e0 r--p 00000000 fe:00 1234                       /usr/bin/pit crew
Size:                 12 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
55e0-55f0 r--p 00010000 fe:00 1234                       /usr/bin/pit crew
Anonymous:             4 kB
AnonHugePages:         0 kB
55f0-5600 rw-p 00020000 fe:00 1234                       /usr/bin/pit crew
Anonymous:             0 kB
7f00-7f10 r--p 00000000 00:00 0
Anonymous:             0 kB
7f20-7f30 ---p 00000000 fe:00 9                          /lib/x
Anonymous:             0 kB
7f30-7f40 r-xp 00000000 fe:00 9                          /lib/x
Anonymous:             0 kB
";
        assert_eq!(unchanged(smaps), [0x55d0..0x55e0, 0x7f30..0x7f40]);
    }
}
