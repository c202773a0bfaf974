//! A web server for git repositories, by git's own `http-backend`, that lets in nobody without the token. It can hold an
//! answer back in the middle of what is fetched, and break off there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

use base64::Engine as _;

/// What becomes of a pack that somebody fetches.
#[derive(Clone, Copy, PartialEq)]
pub enum Pack {
    Whole,
    /// Its second half comes when this is no more so.
    Held,
    /// Once; the next is whole.
    Cut,
}

pub struct GitHttp {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    login: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    pack: Pack,
    /// Packs that were begun, each with whether its reader told what it had.
    begun: Vec<bool>,
}

impl GitHttp {
    /// Serves the repositories below `root` to the user `x-access-token` with this token, until the process ends.
    pub fn start(root: PathBuf, token: &str) -> GitHttp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        let state = Mutex::new(State { pack: Pack::Whole, begun: Vec::new() });
        let shared = Arc::new(Shared { root, login, state, changed: Condvar::new() });
        let server = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let server = server.clone();
                std::thread::spawn(move || {
                    // A client that went away is its own affair.
                    let _ = server.answer(&mut stream.unwrap());
                });
            }
        });
        GitHttp { address, shared }
    }

    pub fn set(&self, pack: Pack) {
        self.shared.state.lock().unwrap().pack = pack;
        self.shared.changed.notify_all();
    }

    /// Of each pack that was begun so far: whether it is only what its reader did not have.
    pub fn packs(&self) -> Vec<bool> {
        self.shared.state.lock().unwrap().begun.clone()
    }
}

impl Shared {
    fn answer(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (method, target) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut heads: Vec<(String, String)> = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            heads.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        let head = |name: &str| heads.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
        if head("authorization") != format!("Basic {}", self.login) {
            return stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        let mut body = vec![0; head("content-length").parse().unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let answer = backend(&self.root, &method, path, query, &head, &body)?;
        let end = find(&answer, b"\r\n\r\n").unwrap_or(0);
        let status = String::from_utf8_lossy(&answer[..end]);
        let status = status.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
        let length = answer.len().saturating_sub(end + 4);
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n")?;
        if find(&answer, b"PACK\0\0\0").is_none() {
            return stream.write_all(&answer);
        }
        let (one, two) = answer.split_at(end + 4 + length / 2);
        stream.write_all(one)?;
        let mut state = self.state.lock().unwrap();
        state.begun.push(find(&body, b"have ").is_some());
        if state.pack == Pack::Cut {
            state.pack = Pack::Whole;
            return Ok(());
        }
        drop(self.changed.wait_while(state, |state| state.pack == Pack::Held).unwrap());
        stream.write_all(two)
    }
}

fn backend<'a>(
    root: &Path,
    method: &str,
    path: &str,
    query: &str,
    head: &dyn Fn(&str) -> &'a str,
    body: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut backend = Command::new("git")
        .arg("http-backend")
        .envs([
            ("GIT_PROJECT_ROOT", root.to_str().unwrap()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REQUEST_METHOD", method),
            ("PATH_INFO", path),
            ("QUERY_STRING", query),
            ("CONTENT_TYPE", head("content-type")),
            ("HTTP_CONTENT_ENCODING", head("content-encoding")),
            ("GIT_PROTOCOL", head("git-protocol")),
            ("REMOTE_USER", "x-access-token"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    backend.stdin.take().unwrap().write_all(body)?;
    Ok(backend.wait_with_output()?.stdout)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
