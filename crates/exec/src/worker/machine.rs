//! What the machine of a worker does.

use super::protocol::Load;

/// Nothing where the system does not tell.
pub fn load() -> Option<Load> {
    let average = std::fs::read_to_string("/proc/loadavg").ok()?;
    let mut average = average.split(' ').map(|number| number.parse().ok());
    let load1 = average.next()??;
    let (load5, load15) = (average.next().flatten(), average.next().flatten());
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let used = field("MemTotal:")?.saturating_sub(field("MemAvailable:")?);
    Some(Load { load1, load5, load15, memory_used_mib: used >> 10 })
}

/// Another number each time.
pub fn between_half_and_one() -> f64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    0.5 + (random >> 11) as f64 / (1u64 << 53) as f64 / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_tells_what_it_does() {
        let load = load().unwrap();
        assert!(load.load1 >= 0.0 && load.load5.is_some() && load.load15.is_some() && load.memory_used_mib > 0);
        assert!((0..100).map(|_| between_half_and_one()).all(|n| (0.5..=1.0).contains(&n)));
    }
}
