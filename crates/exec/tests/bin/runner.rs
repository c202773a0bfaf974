//! The program that becomes the runner in the tests of this crate: `exec-test-runner --dir DIR`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match &arguments[..] {
        [flag, dir] if flag == "--dir" => pitcrew_exec::local::runner::main(dir.as_ref()),
        _ => ExitCode::from(2),
    }
}
