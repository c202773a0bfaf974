//! Programs of the servers that can be held: each step runs one that the others do not.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::World;
use crate::program::write_program;

/// The step, and the program that is held in it: only calls with this word among their arguments.
pub const GATES: [(&str, &str, &str); 3] =
    [("connect", "whoami", ""), ("versions", "wc", ""), ("clean-up", "find", ".git.broken-")];

pub struct Gates(PathBuf);

impl Gates {
    pub fn new(world: &World) -> Gates {
        let dir = world.path("gates");
        std::fs::create_dir(&dir).unwrap();
        for (_, program, word) in GATES {
            let at = dir.join(program);
            let text = format!(
                "#!/bin/sh\nPATH=${{PATH#*:}}\ncase \"$*\" in *'{word}'*)\n    echo >>'{0}.calls'\n    \
                 if [ -p '{0}.shut' ]; then : >'{0}.held'; read -r _ <'{0}.shut'; fi ;;\nesac\nexec {program} \"$@\"\n",
                at.display()
            );
            write_program(&at, &text);
        }
        Gates(dir)
    }

    /// The `PATH` of a server with these programs.
    pub fn path(&self) -> String {
        format!("{}:/usr/local/bin:/usr/bin:/bin", self.0.display())
    }

    fn file(&self, step: &str, what: &str) -> PathBuf {
        let (_, program, _) = GATES.iter().find(|(known, ..)| *known == step).unwrap();
        self.0.join(format!("{program}.{what}"))
    }

    /// From now on the step stands still in the middle.
    pub fn shut(&self, step: &str) {
        let made = Command::new("mkfifo").arg(self.file(step, "shut")).status().unwrap();
        assert!(made.success());
    }

    pub fn is_held(&self, step: &str) -> bool {
        self.file(step, "held").exists()
    }

    /// Lets it go on, and all that come later.
    pub fn open(&self, step: &str) {
        let pipe = self.file(step, "shut");
        // For both, so that it waits for nobody.
        let mut gate = std::fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
        std::fs::remove_file(pipe).unwrap();
        gate.write_all(b"\n").unwrap();
    }

    /// How often the program ran so far.
    pub fn calls(&self, step: &str) -> usize {
        std::fs::read_to_string(self.file(step, "calls")).unwrap_or_default().len()
    }
}
