//! A web server for git repositories, by git's own `http-backend`, that lets in nobody without the token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;

pub struct GitHttp {
    pub address: String,
}

impl GitHttp {
    /// Serves the repositories below `root` to the user `x-access-token` with this token, until the process ends.
    pub fn start(root: PathBuf, token: &str) -> GitHttp {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let login = base64::engine::general_purpose::STANDARD.encode(format!("x-access-token:{token}"));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (root, login) = (root.clone(), login.clone());
                std::thread::spawn(move || {
                    // A client that went away is its own affair.
                    let _ = answer(&mut stream.unwrap(), &root, &login);
                });
            }
        });
        GitHttp { address }
    }
}

fn answer(stream: &mut TcpStream, root: &Path, login: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut heads: Vec<(String, String)> = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        heads.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    let head = |name: &str| heads.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str());
    if head("authorization") != format!("Basic {login}") {
        return stream.write_all(
            b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    }
    let mut body = vec![0; head("content-length").parse().unwrap_or(0)];
    reader.read_exact(&mut body)?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .envs([
            ("GIT_PROJECT_ROOT", root.to_str().unwrap()),
            ("GIT_HTTP_EXPORT_ALL", "1"),
            ("REQUEST_METHOD", &method),
            ("PATH_INFO", path),
            ("QUERY_STRING", query),
            ("CONTENT_TYPE", head("content-type")),
            ("HTTP_CONTENT_ENCODING", head("content-encoding")),
            ("GIT_PROTOCOL", head("git-protocol")),
            ("REMOTE_USER", "x-access-token"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    backend.stdin.take().unwrap().write_all(&body)?;
    let answer = backend.wait_with_output()?.stdout;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(0);
    let status = String::from_utf8_lossy(&answer[..end]);
    let status = status.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let length = answer.len().saturating_sub(end + 4);
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n")?;
    stream.write_all(&answer)
}
