//! A machine with the driver's library and no `nvidia-smi`: a library with NVML's names is built on the spot.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Place, Ran};

/// A place with the library, and a `PATH` without `nvidia-smi`.
struct Machine {
    place: Place,
    library: PathBuf,
    path: PathBuf,
}

impl Machine {
    fn new() -> Machine {
        let place = Place::new();
        let source = place.file("lib/nvml.c", include_str!("library.c"));
        let library = place.path("lib");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-w", "-o"]).arg(library.join("libnvidia-ml.so.1")).arg(source);
        assert!(cc.status().unwrap().success());
        let path = place.path("bin");
        std::fs::create_dir(&path).unwrap();
        let dirs: Vec<PathBuf> = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
        for program in ["sh", "sed", "cat", "nproc", "timeout", "uname"] {
            let found = dirs.iter().map(|dir| dir.join(program)).find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(found, path.join(program)).unwrap();
        }
        Machine { place, library, path }
    }

    fn run(&self, line: &str, mode: &str) -> Ran {
        let mut command = self.place.command(line);
        command.env("PATH", &self.path).env("LD_LIBRARY_PATH", &self.library).env("FAKE_NVML", mode);
        self.place.ran(line, command.output().unwrap())
    }
}

#[test]
fn without_nvidia_smi_the_devices_are_found_by_the_library_of_the_driver() {
    let machine = Machine::new();
    let node = machine.run("nodes show local --output json", "").ends(0).json();
    let gpu = &node["gpus"][0];
    assert_eq!(gpu["id"], "GPU-0", "{node:#}");
    assert_eq!(
        (&gpu["memory_mib"], &gpu["use_percent"], &gpu["power_watts"]),
        (&40960.into(), &37.0.into(), &69.22.into())
    );
    assert!(node["gpus"][1]["sharing"].as_str().unwrap().contains("MIG, 1 instances"), "{node:#}");
    let remarks = node["remarks"].to_string();
    assert!(remarks.contains("15 (a GPU has fallen off the bus)"), "{node:#}");
}

#[test]
fn a_library_without_a_driver_and_no_library_are_told_apart() {
    let machine = Machine::new();
    let node = machine.run("nodes show local --output json", "driver").ends(0).json();
    assert!(node.to_string().contains("the driver is not loaded"), "{node:#}");
    std::fs::remove_file(machine.library.join("libnvidia-ml.so.1")).unwrap();
    let bare = machine.place.path("bare");
    let line = format!("--data-dir {} nodes show local --output json", bare.display());
    let node = machine.run(&line, "").ends(0).json();
    assert_eq!((&node["gpus"], &node["remarks"]), (&serde_json::json!([]), &serde_json::json!([])), "{node:#}");
}

#[test]
fn it_answers_what_nvidia_smi_answers_and_nothing_else() {
    let machine = Machine::new();
    let ask = |args: &str| machine.run(&format!("internal nvml {args}"), "");
    let rows = ask("--query-gpu=index,uuid,utilization.gpu,memory.used,power.draw --format=csv,noheader,nounits");
    assert!(
        rows.stdout.starts_with("0, GPU-0, 37, 512, 69.22\n1, GPU-1, [N/A], 512, 69.22\nUnable to determine"),
        "{rows}"
    );
    assert_eq!(rows.status, Some(15), "{rows}");
    let list = ask("-L").stdout;
    assert!(
        list.contains("GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-1)\n  MIG 1g.5gb Device 4: (UUID: MIG-1)\n"),
        "{list}"
    );
    assert!(ask("--query-gpu=serial").ends(2).stdout.contains("\"serial\""));
    ask("--reset").ends(2);
}
