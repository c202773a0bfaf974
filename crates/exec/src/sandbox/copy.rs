//! What a program writes, to files of its container as well.
//!
//! A process of the container stands between the program and the log, one for each stream that is copied. It is over when all who
//! could write are gone; so when the program has ended the others are ended too, before it is waited for.

use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsFd;
use std::path::Path;

use super::plan::Work;
use super::sys::{self, Fork};

/// The copies of one container's streams.
pub struct Copies {
    /// Where the program is to write, by the number of the stream.
    pipes: Vec<(i32, PipeWriter)>,
    processes: Vec<libc::pid_t>,
}

impl Copies {
    /// Starts them, inside the container.
    pub fn start(work: &Work) -> Result<Copies, String> {
        let mut copies = Copies { pipes: Vec::new(), processes: Vec::new() };
        for (stream, path) in [(1, &work.stdout_to), (2, &work.stderr_to)] {
            let Some(path) = path else { continue };
            let failed = |e: std::io::Error| format!("cannot copy what it writes to `{path}`: {e}");
            let (read, write) = pipe().map_err(failed)?;
            match sys::fork().map_err(failed)? {
                Fork::Child => {
                    drop((write, std::mem::take(&mut copies.pipes)));
                    std::process::exit(pour(stream, read, path, work))
                }
                Fork::Parent(pid) => {
                    copies.pipes.push((stream, write));
                    copies.processes.push(pid);
                }
            }
        }
        Ok(copies)
    }

    /// Makes them what this process writes to.
    pub fn take(&self) -> std::io::Result<()> {
        self.pipes.iter().try_for_each(|(stream, pipe)| sys::replace(*stream, pipe.as_fd()))
    }

    /// The program is over: waits until all that was written is where it belongs.
    pub fn finish(self) {
        if self.processes.is_empty() {
            return;
        }
        let Copies { pipes, mut processes } = self;
        drop(pipes);
        // Who is made while the list is read may not be in it, and is found after the end of whoever made it.
        while !processes.is_empty() {
            let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
            let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<libc::pid_t>().ok());
            pids.filter(|pid| *pid != 1 && !processes.contains(pid)).for_each(sys::kill);
            match sys::wait(-1) {
                Ok((pid, _)) => processes.retain(|copy| *copy != pid),
                Err(_) => return,
            }
        }
    }
}

/// Writes what comes to both, as the container's own user, until nobody writes any more.
fn pour(stream: i32, mut from: PipeReader, path: &str, work: &Work) -> i32 {
    let person = &work.person;
    let told = |what: &str, error: std::io::Error| eprintln!("cannot {what}: {error}");
    let became = person.become_it(person.gid.unwrap_or(0));
    let opened = became.and_then(|()| {
        if let Some(parent) = Path::new(path).parent() {
            std::fs::create_dir_all(parent)?;
        }
        OpenOptions::new().create(true).append(true).open(path)
    });
    let mut file: Option<File> = opened.map_err(|e| told(&format!("copy what it writes to `{path}`"), e)).ok();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let bytes = match from.read(&mut buffer) {
            Ok(0) => return 0,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return 1,
        };
        // The log comes first; a copy that cannot be written is no reason to stop the program.
        let shown = if stream == 1 {
            std::io::stdout().write_all(bytes).and_then(|()| std::io::stdout().flush())
        } else {
            std::io::stderr().write_all(bytes)
        };
        if shown.is_err() {
            return 1;
        }
        if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(bytes)) {
            told(&format!("write to `{path}`"), error);
            file = None;
        }
    }
}
