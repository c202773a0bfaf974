//! Logging in at a real provider of OpenID Connect, `oidc-provider` from npm, with the real binary.
//!
//! The packages are kept in `PITCREW_TEST_CACHE`, or in the system's directory for temporary files.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use reqwest::{Client, StatusCode, Url, header, redirect};

const PACKAGE: &str = "oidc-provider@9.13.3";
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/oidc/provider.mjs");

/// Ended when the test does, however it does.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the packages are; installed by whoever comes first.
fn packages() -> PathBuf {
    let cache = std::env::var_os("PITCREW_TEST_CACHE").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| std::env::temp_dir().join("pitcrew-test-cache"));
    let kept = cache.join("npm").join(PACKAGE);
    if kept.exists() {
        return kept;
    }
    std::fs::create_dir_all(kept.parent().unwrap()).unwrap();
    let fresh = tempfile::tempdir_in(kept.parent().unwrap()).unwrap();
    let install = Command::new("npm")
        .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", ".", PACKAGE])
        .current_dir(&fresh)
        .status()
        .expect("this test needs `node` and `npm`: install the packages `nodejs` and `npm`");
    assert!(install.success(), "npm cannot install {PACKAGE}");
    // Somebody else may have been quicker.
    let _ = std::fs::rename(fresh.keep(), &kept);
    kept
}

/// Reads lines until one contains `wanted`; the rest is read by a thread, so that nobody waits for a full pipe.
fn line_with(from: impl Read + Send + 'static, wanted: &str) -> String {
    let mut lines = BufReader::new(from);
    let mut seen = String::new();
    loop {
        let mut line = String::new();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "it ended before it said `{wanted}`:\n{seen}");
        if line.contains(wanted) {
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return line;
        }
        seen.push_str(&line);
    }
}

fn pitcrew(dir: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pitcrew"));
    command
        .args(line.split(' '))
        .current_dir(dir)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("PITCREW_DATA_DIR", dir.join("data"))
        .env("PITCREW_CONFIG", dir.join("pitcrew.yaml"))
        .env("USER", "tester")
        .stdin(Stdio::null());
    command
}

/// A browser: it keeps cookies and goes where it is sent.
struct Browser {
    http: Client,
    cookies: BTreeMap<String, String>,
}

struct Seen {
    status: StatusCode,
    url: Url,
    text: String,
}

impl Browser {
    fn new(user: &str) -> Browser {
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Browser { http, cookies: BTreeMap::from([("login".to_owned(), user.to_owned())]) }
    }

    /// One request; where it leads to, if it leads on.
    async fn step(&mut self, url: &Url) -> (Seen, Option<Url>) {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let answer = self.http.get(url.clone()).header(header::COOKIE, cookies.join("; ")).send().await.unwrap();
        for cookie in answer.headers().get_all(header::SET_COOKIE) {
            let (pair, rest) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match value.is_empty() || rest.contains("Max-Age=0") {
                true => drop(self.cookies.remove(name)),
                false => drop(self.cookies.insert(name.to_owned(), value.to_owned())),
            }
        }
        let next = answer.headers().get(header::LOCATION).map(|to| url.join(to.to_str().unwrap()).unwrap());
        let status = answer.status();
        (Seen { status, url: url.clone(), text: answer.text().await.unwrap() }, next)
    }

    async fn visit(&mut self, url: &str) -> Seen {
        let mut url: Url = url.parse().unwrap();
        for _ in 0..10 {
            let (seen, next) = self.step(&url).await;
            let Some(next) = next else { return seen };
            url = next;
        }
        panic!("it goes round in circles at {url}");
    }

    /// Goes on until the provider leads back, and stays before that door.
    async fn until_led_back(&mut self, url: &str) -> Url {
        let mut url: Url = url.parse().unwrap();
        while url.path() != "/login/oidc/callback" {
            url = self.step(&url).await.1.unwrap_or_else(|| panic!("{url} leads nowhere"));
        }
        url
    }
}

#[tokio::test]
async fn users_log_in_at_a_real_provider_and_get_the_role_of_their_groups() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let packages = packages();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let provider = format!("http://127.0.0.1:{port}");
    std::fs::write(dir.join("secret"), "a secret/with +signs\n").unwrap();
    let config = format!(
        "listen: 127.0.0.1:0\noidc_issuer: {provider}\noidc_client_id: pitcrew\noidc_client_secret_file: secret\n\
         oidc_name: Test ID\noidc_roles: devs=user, admins=admin\noidc_domains: example.com\n"
    );
    std::fs::write(dir.join("pitcrew.yaml"), config).unwrap();
    let mut server = Running(pitcrew(dir, "server --workflows flows").stderr(Stdio::piped()).spawn().unwrap());
    let line = line_with(server.0.stderr.take().unwrap(), "pages");
    let base = line.split_whitespace().last().unwrap().to_owned();
    let mut nobody = Browser::new("nobody");
    let early = nobody.visit(&format!("{base}/login/oidc")).await;
    assert_eq!(early.status, StatusCode::BAD_GATEWAY, "the provider does not answer yet: {}", early.text);
    let mut node = Running(
        Command::new("node")
            .args([Path::new(SCRIPT), &packages, Path::new(&port.to_string())])
            .arg(format!("{base}/login/oidc/callback"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    line_with(node.0.stdout.take().unwrap(), "ready");

    let form = nobody.visit(&format!("{base}/login?next=%2Fruns")).await.text;
    assert!(form.contains("Log in with Test ID") && form.contains("/login/oidc?next=%2Fruns"), "{form}");
    let start = format!("{base}/login/oidc?next=%2Fruns");

    let mut ada = Browser::new("ada");
    let seen = ada.visit(&start).await;
    assert_eq!((seen.status, seen.url.path()), (StatusCode::OK, "/runs"), "{}", seen.text);
    assert!(seen.text.contains("ada"), "{}", seen.text);
    assert_eq!(ada.visit(&format!("{base}/settings")).await.status, StatusCode::FORBIDDEN);
    let mut boss = Browser::new("boss");
    boss.visit(&start).await;
    assert_eq!(boss.visit(&format!("{base}/settings")).await.status, StatusCode::OK);

    for (user, why) in
        [("guest", "no role here"), ("outsider", "not of a domain that is let in"), ("nobody", "nobody is there")]
    {
        let mut browser = Browser::new(user);
        let seen = browser.visit(&start).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN, "{user}: {}", seen.text);
        assert!(seen.text.contains(why), "{user}: {}", seen.text);
        assert_eq!(browser.visit(&format!("{base}/runs")).await.url.path(), "/login");
    }

    // The provider takes new keys of another kind; its old ones are gone.
    let rotated = Client::new().post(format!("{provider}/rotate")).send().await.unwrap();
    assert!(rotated.status().is_success());
    let seen = Browser::new("ada").visit(&start).await;
    assert_eq!((seen.status, seen.url.path()), (StatusCode::OK, "/runs"), "{}", seen.text);

    // The way back is good once, in the browser that began it, and as the provider gave it.
    let mut victim = Browser::new("ada");
    let back = victim.until_led_back(&start).await;
    let changed = |name: &str| {
        let mut url = back.clone();
        let pairs: Vec<(String, String)> = back.query_pairs().into_owned().collect();
        url.query_pairs_mut().clear().extend_pairs(
            pairs
                .iter()
                .map(|(key, value)| (key.as_str(), if key == name { "https://evil.example" } else { value.as_str() })),
        );
        url.to_string()
    };
    assert_eq!(Browser::new("mallory").visit(back.as_str()).await.status, StatusCode::FORBIDDEN);
    let cookies = victim.cookies.clone();
    for (name, status) in
        [("state", StatusCode::FORBIDDEN), ("iss", StatusCode::FORBIDDEN), ("code", StatusCode::BAD_GATEWAY)]
    {
        victim.cookies = cookies.clone();
        assert_eq!(victim.visit(&changed(name)).await.status, status, "{name}");
    }
    victim.cookies = cookies;
    assert_eq!(victim.visit(back.as_str()).await.url.path(), "/runs");
    assert_eq!(victim.visit(back.as_str()).await.status, StatusCode::FORBIDDEN);

    assert!(pitcrew(dir, "users deactivate ada").status().unwrap().success());
    assert!(Browser::new("ada").visit(&start).await.text.contains("deactivated"));
    let users = pitcrew(dir, "users list --output json").output().unwrap();
    let users: serde_json::Value = serde_json::from_slice(&users.stdout).unwrap();
    let known: Vec<String> = users.as_array().unwrap().iter().map(|u| format!("{} {}", u["name"], u["role"])).collect();
    assert_eq!(known, [r#""ada" "user""#, r#""admin" "admin""#, r#""boss" "admin""#]);
}
