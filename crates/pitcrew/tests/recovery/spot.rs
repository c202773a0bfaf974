//! Spot machines outside of ECS: EC2 says on the machine itself that it takes it away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use crate::site::{Site, state_of};

const TOKEN: &str = "c2VjcmV0LW9mLXRoaXMtc2Vzc2lvbg==";
const ACTION: &str = r#"{"action": "terminate", "time": "2026-11-24T08:22:00Z"}"#;

/// Answers like the metadata service of machines: below the name of each, what there is; nothing without a token.
struct Imds {
    port: u16,
    paths: Arc<Mutex<BTreeMap<String, String>>>,
    /// What was asked, and what the answer was.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Imds {
    fn serve() -> Imds {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let imds = Imds { port: listener.local_addr().unwrap().port(), paths: Arc::default(), asked: Arc::default() };
        let (paths, asked) = (imds.paths.clone(), imds.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // Who goes away in between asks again.
                let _ = answer(stream, &paths.lock().unwrap(), &asked);
            }
        });
        imds
    }

    fn set(&self, machine: &str, path: &str, body: &str) {
        self.paths.lock().unwrap().insert(format!("/{machine}/latest/meta-data/{path}"), body.to_owned());
    }

    fn asked(&self, what: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|line| *line == what).count()
    }
}

fn answer(stream: TcpStream, paths: &BTreeMap<String, String>, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let (mut has_token, mut has_ttl) = (false, false);
    for line in lines {
        let line = line?.to_ascii_lowercase();
        has_token |= line == format!("x-aws-ec2-metadata-token: {TOKEN}").to_ascii_lowercase();
        has_ttl |= line.starts_with("x-aws-ec2-metadata-token-ttl-seconds: ");
        if line.is_empty() {
            break;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, body) = match method {
        "PUT" if path.ends_with("/latest/api/token") && has_ttl => ("200 OK", TOKEN),
        "GET" if !has_token => ("401 Unauthorized", ""),
        "GET" => paths.get(path).map_or(("404 Not Found", ""), |body| ("200 OK", body.as_str())),
        _ => ("400 Bad Request", ""),
    };
    asked.lock().unwrap().push(format!("{method} {path} {}", &status[..3]));
    let mut stream = stream;
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spot_machine_that_ec2_takes_away_is_left_by_its_job_and_no_budget_is_drawn_on() {
    let imds = Imds::serve();
    let port = imds.port;
    let env = |name: &str| format!("AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:{port}/{name}");
    let site = Site::with_env(&["s21", "s22"], "  mode: auto\n  watch: 1s\n  deadlines: {observe: 1s}", env).await;
    imds.set("s22", "instance-life-cycle", "on-demand");
    imds.set("s21", "instance-life-cycle", "spot");
    site.world.ok(&["nodes", "label", "s21", "place=here"]);
    // Not once may it begin anew because of machines.
    site.job("train", 1, "    node_selector: {place: here}\n    recovery: {infrastructure_restarts: 0}\n");
    let _server = site.serve();
    let run = site.trigger("train");
    let first = site.until_begun(&["train.1.0"]).remove(0);
    assert_eq!(first.node, "s21");
    site.world.ok(&["nodes", "label", "s22", "place=here"]);
    let action = |of: &str| format!("GET /{of}/latest/meta-data/spot/instance-action 404");
    site.world.wait("it is asked again and again", || imds.asked(&action("s21")) > 1);
    imds.set("s21", "events/recommendations/rebalance", r#"{"noticeTime": "2026-11-24T08:20:00Z"}"#);
    let log = || std::fs::read_to_string(site.world.path("server.log")).unwrap();
    site.world.wait("a recommendation is told", || log().contains("recommended at 2026-11-24T08:20:00Z"));
    assert!(site.incidents().is_empty(), "and nothing is done about it");
    imds.set("s21", "spot/instance-action", ACTION);
    let second = site.until_begun(&["train.1.0", "train.2.0"]).remove(1);
    assert_eq!((second.node.as_str(), &*site.stopped()), ("s22", &["train.1.0".to_owned()][..]));
    let incident = site.until_incident("s21", "waits", |incident| state_of(incident) == "suspected");
    assert_eq!(incident["signals"][0]["kind"]["kind"], "spot_interruption", "{incident:#}");
    assert!(incident["signals"][0]["evidence"].to_string().contains("2026-11-24T08:22:00Z: terminate"), "{incident:#}");
    assert_eq!(site.node("s21")["standing"], "cordoned");
    site.end("train.2.0", 0);
    site.until_run(&run, "success");
    assert_eq!((site.incidents().len(), site.machine("s21").done().len()), (1, 0));
    assert_eq!((imds.asked(&action("s22")), log().contains(TOKEN)), (1, false));
    let asked = imds.asked.lock().unwrap();
    assert!(asked.iter().all(|line| !line.ends_with(" 401") && !line.ends_with(" 400")), "{asked:?}");
}
