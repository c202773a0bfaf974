//! A host that tells by itself: a small loop in a shell there looks every so often, and at once when something wakes it, and
//! says what it found. Nobody here asks, so a host to which nothing happens costs little more than a message now and then.
//!
//! Invariants: the loop and what wakes it are one process group, which ends with the connection, by the end of its input; and by
//! itself after [`LIMIT`], whatever became of the connection. A look that has limits of its own ends by those. It leaves no file
//! there. What it says is bounded, as an answer of [`Talk`](super::Talk) is; that it says nothing for long is for whoever listens
//! to find out.

use super::error::LinkError;
use super::exec::{Frame, Lease, RemoteProcess};
use super::talk::{MOST, Said, read};

/// Reads the loop, which is lines up to one of its own, and runs it in a group of its own. Needs no line break and no quoting that
/// shells understand in their own ways. 127: there is no `timeout`, which would make that group.
const COMMAND: &str = "exec /bin/sh -c 'IFS= read -r b; eval \"$b\"' pitcrew";
const BEGIN: &str = "export LC_ALL=C; command -v timeout >/dev/null 2>&1 || { echo 'pitcrew-talk 0 127'; exit; }; n=$(printf '\\nx'); n=${n%x}; b=; \
                     while IFS= read -r l && [ \"$l\" != '#end' ]; do b=$b$l$n; done; exec timeout -k 2 LIMIT /bin/sh -c \"$b\" pitcrew\n";
/// Seconds after which a loop ends by itself; whoever listens for longer begins another one.
pub const LIMIT: u32 = 900;

/// The codes of what is said.
pub const BY_ITSELF: u32 = 0;
pub const ASKED: u32 = 1;

/// What is looked for on a host.
#[derive(Debug, Clone, Copy)]
pub struct Followed<'a> {
    /// A script that prints what there is; its variables are nobody else's.
    pub look: &'a str,
    /// Commands that print a line `wake NUMBER` whenever there may be something new, and go on with that; what is numbered not
    /// above `$after`, which is set before, wakes nobody.
    pub wake: &'a str,
    /// Commands that read what was found, `$o`, and may set `after`.
    pub found: &'a str,
    /// Seconds between two looks when nothing wakes it.
    pub every: u64,
}

impl Followed<'_> {
    /// All lines of the loop. What asks it, and the time, come by the same pipe as what wakes it.
    fn script(&self) -> String {
        let Followed { look, wake, found, every } = self;
        let every = (*every).max(1);
        format!(
            "n='\n'\n\
             look() {{\n{look}\n}}\n\
             wake() {{\n:\n{wake}\n}}\n\
             found() {{\n:\n{found}\n}}\n\
             {{ echo ask; wake 2>/dev/null & while sleep {every}; do echo time; done 2>/dev/null &\n\
             while IFS= read -r l; do echo ask; done; kill -s TERM -- \"-$PPID\"; }} | while IFS= read -r w; do\n\
             case $w in 'wake '*) [ \"${{w#wake }}\" -gt \"$after\" ] 2>/dev/null || continue;; esac\n\
             case $w in ask) c=1;; *) c=0;; esac\n\
             o=$( (look) </dev/null 2>/dev/null; echo x); o=${{o%x}}; printf 'pitcrew-talk %s %s\\n%s' \"${{#o}}\" \"$c\" \"$o\" || break\n\
             found\n\
             case $w in 'wake '*) sleep 1;; esac\n\
             done\n\
             kill -s TERM -- \"-$PPID\"\n"
        )
    }
}

/// See the module.
pub struct Follow {
    process: RemoteProcess,
    /// What came and was not read yet.
    rest: Vec<u8>,
}

impl Follow {
    /// Takes the session for as long as it lasts. `first`: commands before all others.
    pub async fn open(lease: Lease, first: &str, what: Followed<'_>) -> Result<Follow, LinkError> {
        let mut process = lease.open(COMMAND).await?;
        let begin = BEGIN.replace("LIMIT", &LIMIT.to_string());
        process.input.write(format!("{begin}after=-1\n{first}\n{}#end\n", what.script()).as_bytes()).await?;
        Ok(Follow { process, rest: Vec::new() })
    }

    /// What it found next. The code is [`BY_ITSELF`], or [`ASKED`] for the first and then once for each time that it was asked, in
    /// that order; any other: it cannot be followed there. Whoever is left waiting loses nothing.
    pub async fn next(&mut self) -> Result<Said, LinkError> {
        loop {
            if let Some((said, used)) = read(&self.rest) {
                self.rest.drain(..used);
                return Ok(said);
            }
            match self.process.output.next().await {
                Some(Frame::Stdout(bytes)) if self.rest.len() + bytes.len() <= MOST => {
                    self.rest.extend_from_slice(&bytes);
                }
                // What the shell itself has to complain about is of no use.
                Some(Frame::Stderr(_)) => {}
                Some(Frame::Stdout(_)) | None => return Err(self.process.input.lost()),
            }
        }
    }

    /// It is to look now.
    pub async fn ask(&mut self) -> Result<(), LinkError> {
        self.process.input.write(b"\n").await
    }
}
