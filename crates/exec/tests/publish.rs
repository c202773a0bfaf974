//! Publishing to a directory, and to a real S3-compatible server (moto, from the package index).

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use pitcrew_exec::publish::{MANIFEST, PublishError, Published, Target, publish};
use pitcrew_exec::python::{EnvRequest, ensure, ensure_in};
use serde_json::Value;

fn now() -> Timestamp {
    "2026-03-01T02:00:00Z".parse().unwrap()
}

fn files(root: &Path) {
    fs::create_dir_all(root.join("results/deep")).unwrap();
    fs::write(root.join("results/report.html"), "<html>").unwrap();
    fs::write(root.join("results/deep/run 1.ipynb"), "{}").unwrap();
}

fn go(root: &Path, what: &str, to: &str) -> Result<Vec<Published>, String> {
    let target: Target = to.parse().map_err(|e: PublishError| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let env = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hush-hush"),
        ("AWS_REGION", "us-east-1"),
        ("PATH", "/bin"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    runtime.block_on(publish(root, &[what.to_owned()], &target, &env, now(), &mut |_| {})).map_err(|e| e.to_string())
}

#[test]
fn a_directory_gets_whole_files_and_a_manifest_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("run");
    files(&root);
    let out = dir.path().join("out");
    let target = out.to_str().unwrap();
    let published = go(&root, "results", target).unwrap();
    let names: Vec<_> = published.iter().map(|p| (p.name.as_str(), p.bytes, p.content_type.as_str())).collect();
    assert_eq!(
        names,
        [("deep/run 1.ipynb", 2, "application/x-ipynb+json"), ("report.html", 6, "text/html; charset=utf-8")]
    );
    assert_eq!(published[1].sha256, "b7d082ee12e91b756ea22e8513b8594eebcf5d39fab813da3cb55794dc888ad7");
    assert_eq!(fs::read_to_string(&published[1].url).unwrap(), "<html>");
    let manifest: Value = serde_json::from_slice(&fs::read(out.join(MANIFEST)).unwrap()).unwrap();
    assert_eq!(manifest["files"][1]["name"], "report.html");

    fs::write(root.join("results/report.html"), "<html>2").unwrap();
    go(&root, "results", target).unwrap();
    assert_eq!(fs::read_to_string(out.join("report.html")).unwrap(), "<html>2", "published again");
    let mut left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["deep", MANIFEST, "report.html"]);

    let outside = dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::remove_dir_all(out.join("deep")).unwrap();
    std::os::unix::fs::symlink(&outside, out.join("deep")).unwrap();
    assert!(go(&root, "results", target).unwrap_err().contains("leads out of the target by a link"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

/// A server of S3, for as long as this lives.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let kept = std::env::var_os("PITCREW_TEST_CACHE")
            .map_or_else(|| std::env::temp_dir().join("pitcrew-test-cache"), Into::into);
        let cache = kept.join("python");
        let of = |requirements: &[&str]| EnvRequest {
            requirements: requirements.iter().map(|r| (*r).to_owned()).collect(),
            ..EnvRequest::default()
        };
        let mut say = |line: &str| eprintln!("{line}");
        let uv = ensure(&of(&["uv"]), &cache, &mut say).unwrap();
        let path = format!("{}:{}", uv.bin().display(), std::env::var("PATH").unwrap());
        let env = ensure_in(&of(&["moto[s3]>=5,<6", "flask", "flask-cors"]), &cache, &path, &mut say).unwrap();
        let mut process = Command::new(env.bin().join("moto_server"))
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut lines = lines.skip_while(|line| !line.contains("Running on http://"));
        let address = lines.next().unwrap().rsplit_once("http://").unwrap().1.trim().to_owned();
        // What it goes on to say must not fill the pipe.
        std::thread::spawn(move || lines.count());
        let server = Server { process, address };
        assert!(server.call("PUT", "/bucket").starts_with("HTTP/1.1 200"));
        server
    }

    /// The whole answer.
    fn call(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        // The server looks whose key it is, and not at the signature.
        let key = "AWS4-HMAC-SHA256 Credential=id/20260301/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: {key}\r\n", self.address);
        write!(stream, "{head}Content-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A way to the server on which the first request meets an overloaded one.
    fn flaky(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, server) = (listener.local_addr().unwrap().to_string(), self.address.clone());
        std::thread::spawn(move || {
            let (mut first, _) = listener.accept().unwrap();
            let _ = first.read(&mut [0; 8192]).unwrap();
            first.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
            for mut client in listener.incoming().map(Result::unwrap) {
                let mut upstream = TcpStream::connect(&server).unwrap();
                let (mut back, mut forth) = (upstream.try_clone().unwrap(), client.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut back, &mut forth));
                std::thread::spawn(move || std::io::copy(&mut client, &mut upstream));
            }
        });
        address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_bucket_gets_objects_with_their_types_also_when_a_request_fails_for_a_moment() {
    let server = Server::start();
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let large: Vec<u8> = (0..17 << 20).map(|i: u32| i as u8).collect();
    fs::write(dir.path().join("results/large.bin"), &large).unwrap();
    let target = format!("s3://bucket/runs/1?endpoint=http://{}&allow_http=true", server.flaky());
    let published = go(dir.path(), "results", &target).unwrap();
    let urls: Vec<_> = published.iter().map(|p| p.url.as_str()).collect();
    assert_eq!(
        urls,
        ["s3://bucket/runs/1/deep/run 1.ipynb", "s3://bucket/runs/1/large.bin", "s3://bucket/runs/1/report.html"]
    );

    let page = server.call("GET", "/bucket/runs/1/report.html");
    assert!(
        page.to_lowercase().contains("content-type: text/html; charset=utf-8") && page.ends_with("<html>"),
        "{page}"
    );
    assert!(server.call("GET", "/bucket/runs/1/deep/run%201.ipynb").ends_with("{}"));
    let head = server.call("HEAD", "/bucket/runs/1/large.bin").to_lowercase();
    assert!(head.contains(&format!("content-length: {}", large.len())), "in parts, and whole: {head}");
    let manifest = server.call("GET", &format!("/bucket/runs/1/{MANIFEST}"));
    assert!(manifest.contains("\"name\": \"large.bin\"") && manifest.to_lowercase().contains("application/json"));

    let nowhere = format!("s3://nobody/x?endpoint=http://{}&allow_http=true", server.address);
    let error = go(dir.path(), "results", &nowhere).unwrap_err();
    assert!(
        error.contains("cannot publish `deep/run 1.ipynb` to `s3://nobody/x/`") && error.contains("404"),
        "{error}"
    );
    assert!(!error.contains("hush"));
}
