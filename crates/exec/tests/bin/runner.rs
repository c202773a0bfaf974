//! The program that becomes the runner in the tests of this crate: `exec-test-runner --dir DIR`, and what the runner starts of itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [flag, dir] if flag == "--dir" => pitcrew_exec::local::runner::main(dir.as_ref()),
        [internal, name] if internal == "internal" && name == "box" => pitcrew_exec::sandbox::main(),
        [internal, name] if internal == "internal" && name == "keeper" => pitcrew_exec::docker::keeper::main(),
        _ => ExitCode::from(2),
    }
}
