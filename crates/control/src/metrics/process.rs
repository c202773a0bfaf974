//! What the kernel knows of this process, read when somebody asks. A value that cannot be read is left out.

use rustix::process::{Resource, getrlimit};

/// The usual `process_*` facts.
#[derive(Debug, Default, PartialEq)]
pub struct Process {
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub open_fds: Option<f64>,
    pub max_fds: Option<f64>,
    /// Seconds since 1970.
    pub started_at: Option<f64>,
}

pub fn read() -> Process {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the program's name in parentheses, and may hold anything; count from behind it.
    let fields: Vec<f64> =
        stat.rsplit(')').next().unwrap_or("").split_whitespace().map(|f| f.parse().unwrap_or(0.0)).collect();
    let ticks = rustix::param::clock_ticks_per_second() as f64;
    let field = |number: usize| fields.get(number - 3).copied();
    let boot = || {
        let stat = std::fs::read_to_string("/proc/stat").ok()?;
        stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()
    };
    Process {
        cpu_seconds: field(14).zip(field(15)).map(|(user, system)| (user + system) / ticks),
        resident_bytes: field(24).map(|pages| pages * rustix::param::page_size() as f64),
        // The directory that is being read is one of them.
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|dir| dir.count().saturating_sub(1) as f64),
        max_fds: getrlimit(Resource::Nofile).current.map(|max| max as f64),
        started_at: field(22).zip(boot()).map(|(since, boot)| boot + since / ticks),
    }
}
