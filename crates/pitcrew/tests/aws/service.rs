//! A small server of our own, where moto has nothing: what it answers is up to the test.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::Arc;

/// A request, as far as tests look at it.
#[derive(Debug, Default)]
pub struct Asked {
    pub method: String,
    pub path: String,
    /// Which operation, for services that say so in a header.
    pub target: String,
    /// `authorization`; a signature begins with `AWS4-HMAC-SHA256 Credential=KEY/…`.
    pub authorization: String,
    pub body: String,
}

impl Asked {
    /// It is signed with this key.
    pub fn is_by(&self, key: &str) -> bool {
        self.authorization.contains(&format!("Credential={key}/"))
    }
}

/// The status, what stands in the head beside the usual, and the body.
pub struct Answer(pub u16, pub &'static str, pub String);

impl From<(u16, String)> for Answer {
    fn from((status, body): (u16, String)) -> Answer {
        Answer(status, "", body)
    }
}

/// Serves until the test is over; its URL.
pub fn serve<A: Into<Answer>>(answer: impl Fn(&Asked) -> A + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || {
                let asked = read(&mut BufReader::new(stream.try_clone().unwrap()));
                let Answer(status, head, body) = answer(&asked).into();
                let length = body.len();
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status} X\r\nETag: \"e\"\r\n{head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
            });
        }
    });
    format!("http://{address}")
}

fn read(reader: &mut impl BufRead) -> Asked {
    let mut asked = Asked::default();
    let mut length = 0;
    let mut line = String::new();
    let _ = reader.read_line(&mut line);
    let mut words = line.split(' ').map(str::to_owned);
    asked.method = words.next().unwrap_or_default();
    asked.path = words.next().unwrap_or_default();
    loop {
        let mut head = String::new();
        if reader.read_line(&mut head).unwrap_or(0) == 0 || head.trim().is_empty() {
            break;
        }
        let (name, value) = head.split_once(':').unwrap_or_default();
        match name.to_ascii_lowercase().as_str() {
            "x-amz-target" => asked.target = value.trim().to_owned(),
            "authorization" => asked.authorization = value.trim().to_owned(),
            "content-length" => length = value.trim().parse().unwrap(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    asked.body = String::from_utf8_lossy(&body).into_owned();
    asked
}
