//! What Pitcrew starts of itself: hidden, and looked for before anything else happens, because they must start fast
//! and must not depend on the user's settings.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::error::INVALID;

/// Runs `internal …`, if that is what the arguments say.
pub fn dispatch(mut args: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    args.next();
    if args.next()? != "internal" {
        return None;
    }
    let rest: Vec<OsString> = args.collect();
    let words: Vec<Option<&str>> = rest.iter().map(|word| word.to_str()).collect();
    Some(match (words.as_slice(), rest.as_slice()) {
        ([Some("runner"), Some("--dir"), _], [.., dir]) => pitcrew_exec::local::runner::main(Path::new(dir)),
        ([Some("box")], _) => pitcrew_exec::sandbox::main(),
        ([Some("keeper")], _) => pitcrew_exec::docker::keeper::main(),
        ([Some("action"), Some(name), _], [.., input]) => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            pitcrew_control::actions::internal(name, Path::new(input))
        }
        ([Some("nvml"), args @ ..], _) => {
            let args: Vec<&str> = args.iter().copied().flatten().collect();
            let (text, code) = pitcrew_exec::gpu::nvml::answer(&args);
            print!("{text}");
            ExitCode::from(code)
        }
        ([Some("routes")], _) => {
            pitcrew_server::routes().for_each(|route| println!("{route}"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("`pitcrew internal` is for Pitcrew itself; see `pitcrew --help`");
            ExitCode::from(INVALID)
        }
    })
}
