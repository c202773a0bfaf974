//! The same commands, asking a server over its API instead of a data directory.

use std::process::Child;

use serde_json::{Value, json};

use crate::harness::{Place, Ran, line_with, signal};

const NIGHTLY: &str = "workflow: nightly
schedule: {cron: '0 2 * * *', timezone: UTC}
params: {n: {type: integer, default: 1}}
tasks:
  a: {run: 'echo n={{ params.n }}'}
  b: {needs: [a], run: 'test {{ params.n }} -lt 10', retries: 0}
";

/// A server, and how it is called from elsewhere: a place that has nothing of it.
struct Served {
    server: Child,
    url: String,
    elsewhere: Place,
}

impl Served {
    fn new(place: &Place, options: &str) -> Served {
        place.file("flows/nightly.yaml", NIGHTLY);
        let mut server = place.start(&format!("server --workflows flows --listen 127.0.0.1:0 {options}"));
        let line = line_with(&mut server, "http://127.0.0.1:");
        let at = line.find("http://").unwrap();
        let url = line[at..].split_whitespace().next().unwrap();
        let end = url["http://".len()..].find('/').map_or(url.len(), |at| at + "http://".len());
        Served { server, url: url[..end].to_owned(), elsewhere: Place::new() }
    }

    fn run(&self, line: &str) -> Ran {
        self.elsewhere.run(&format!("--server {} {line}", self.url))
    }

    /// Until it works: the server reads its folder in its own time.
    fn eventually(&self, line: &str) -> Value {
        for _ in 0..200 {
            let ran = self.run(line);
            if ran.status == Some(0) {
                return ran.json();
            }
        }
        panic!("{}", self.run(line));
    }

    fn end(self) {
        signal(&self.server, rustix::process::Signal::TERM);
        assert!(self.server.wait_with_output().unwrap().status.success());
    }
}

#[test]
fn a_server_elsewhere_is_asked_with_the_same_words() {
    let place = Place::new();
    let there = Served::new(&place, "--no-auth");
    let made = there.eventually("dags trigger nightly -c {\"n\":5} --run-id mine --wait --output json");
    assert_eq!((&made["state"], &made["tasks"][0]["id"]), (&json!("success"), &json!("a")));
    let failed = there.run("dags trigger nightly -p n=50 --run-id bad --wait --output json").ends(1).json();
    assert_eq!(failed["state"], "failed");

    // Looking gives what it gives beside the database.
    for line in [
        "runs list --output json",
        "runs show mine --output json",
        "runs show bad",
        "logs mine",
        "logs bad b -f",
        "dags list --output json",
        "dags list-runs nightly --state failed --output json",
        "dags state nightly bad",
        "dags details nightly",
        "tasks list nightly",
        "tasks state nightly b bad",
        "tasks states-for-dag-run nightly mine --output json",
        "explain bad b",
        "backfill list --output json",
        "notify list --output json",
        "pools list --output json",
        "variables list --output json",
        "incidents list --output json",
    ] {
        let (here, there) = (place.run(line).ends(0), there.run(line).ends(0));
        // Only a data directory has files to point to.
        let without_files =
            |text: &str| text.lines().filter(|line| !line.contains("files")).collect::<Vec<_>>().join("\n");
        let plain = |ran: &Ran| without_files(&ran.stdout).replace(&format!(" --server {}", there.url()), "");
        assert_eq!(plain(&here), plain(&there), "{line}");
    }
    assert_eq!(there.run("dags state nightly bad").stdout, "failed\n");
    let none = |more: &str| there.run(&format!("incidents list {more}")).ends(0).stderr;
    assert_eq!(
        (none("").trim(), none("--open --node s21").trim()),
        ("there were no incidents", "no incident is open of the node `s21`")
    );

    let digest = there.run("report digest --since 24h --output json").ends(0).json();
    assert_eq!(
        (&digest["now"]["runs"], &digest["failures"][0]["workflow"]),
        (&json!(2), &json!("nightly")),
        "{digest}"
    );

    // Changing.
    there.run("dags pause nightly").ends(0);
    assert_eq!(place.run("dags list --output json").json()[0]["is_paused"], true);
    there.run("dags unpause nightly").ends(0);
    there.run("variables set colour blue").ends(0);
    there.run("variables set colour green --description why").ends(0);
    assert_eq!(place.run("variables get colour").ends(0).stdout, "green\n");
    there.run("variables delete colour").ends(0);
    there.run("pools set gpus 3").ends(0);
    there.run("pools set gpus 4 large").ends(0);
    let pools = place.run("pools get gpus --output json").ends(0).json();
    assert_eq!((&pools[0]["slots"], &pools[0]["description"]), (&json!(4), &json!("large")));
    there.run("pools delete gpus").ends(0);
    there.run("connections add db --conn-uri postgres://u:hunter2@h/d").ends(0);
    let got = there.run("connections get db --output json").ends(0);
    assert!(got.json()[0]["login"] == "u" && !got.stdout.contains("hunter2"), "{got}");
    assert_eq!(place.run("connections export").ends(0).json()["db"]["password"], "hunter2");
    there.run("connections delete db").ends(0);
    let span = "--dag-id nightly --from-date 2026-01-01 --to-date 2026-01-03";
    let planned = there.run(&format!("backfill create {span} --dry-run --output json")).ends(0).json();
    assert_eq!((planned.as_array().unwrap().len(), &planned[0]["logical_date"]), (3, &json!("2026-01-01T02:00:00Z")));
    // Its runs do not begin, so it is not over before it is cancelled.
    there.run("dags pause nightly").ends(0);
    there.run(&format!("backfill create {span}")).ends(0);
    there.run("backfill pause 1").ends(0);
    assert_eq!(place.run("backfill list --output json").ends(0).json()[0]["state"], "paused");
    there.run("backfill cancel 1").ends(0);
    there.run("dags unpause nightly").ends(0);
    let planned = there.run("tasks clear nightly -t ^b$ -f").ends(2);
    assert_eq!((planned.stdout.trim(), planned.stderr.contains("--yes")), ("bad  b", true));
    there.run("tasks clear nightly -t ^b$ -f --yes").ends(0);
    there.run("runs retry mine").ends(0);

    // Refusals are the server's, and as clear as here.
    for (line, what) in [
        ("dags trigger nigtly", "did you mean `nightly`?"),
        ("dags trigger nightly -p n=x", "whole number"),
        ("dags trigger nightly -c {\"n\":\"x\"}", "`n`"),
        ("dags trigger nightly --run-id mine", "already"),
        ("runs show nothing", "there is no run `nothing`"),
        ("runs show ../../etc", "there is no run"),
        ("runs resume mine", "is for a data directory"),
        ("variables get nothing", "there is no variable `nothing`"),
        ("pools delete default_pool", "cannot be deleted"),
        ("connections get nothing", "there is no connection `nothing`"),
        ("backfill pause 99", "99"),
        ("notify retry 99", "there is no notice 99"),
        ("incidents show 99", "there is no incident `99`"),
        ("incidents approve x", "`x` is no incident"),
        ("notify test mail", "on its machine"),
        ("report mine", "has no report"),
        ("users list", "does not go with this command"),
        ("tasks clear nightly -t [", "is not right"),
        ("run flows/nightly.yaml", "does not go with this command"),
    ] {
        let ran = there.run(line).ends(2);
        assert!(ran.stderr.contains(what), "{ran}");
    }
    there.end();
}

impl Ran {
    /// The address in the command line of this call.
    fn url(&self) -> String {
        let shown = self.to_string();
        let words: Vec<&str> = shown.split_whitespace().collect();
        let at = words.iter().position(|word| *word == "--server");
        at.and_then(|at| words.get(at + 1)).map_or_else(String::new, |url| (*url).to_owned())
    }
}

#[test]
fn a_server_that_asks_who_is_there_gets_a_token_from_the_environment_or_a_file() {
    let place = Place::new();
    let there = Served::new(&place, "");
    let ran = there.run("runs list").ends(2);
    assert!(ran.stderr.contains("PITCREW_TOKEN"), "{ran}");
    let with = |name: &str, value: &str| {
        let mut command = there.elsewhere.command(&format!("--server {} runs list", there.url));
        let output = command.env(name, value).output().unwrap();
        there.elsewhere.ran("runs list", output)
    };
    let ran = with("PITCREW_TOKEN", "wrong").ends(2);
    assert!(ran.stderr.contains("does not take this token") && !ran.stderr.contains("wrong"), "{ran}");
    let ran = with("PITCREW_TOKEN_FILE", "missing").ends(2);
    assert!(ran.stderr.contains("cannot read the token file"), "{ran}");
    there.end();
}

#[test]
fn a_server_that_is_not_there_is_a_failure_that_says_so() {
    let place = Place::new();
    // A port that was just free; nobody listens on it.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ran = place.run(&format!("--server http://127.0.0.1:{port} runs list")).ends(1);
    assert!(ran.stderr.contains(&format!("cannot reach the server `http://127.0.0.1:{port}`")), "{ran}");
    let ran = place.run("--server ftp://x runs list").ends(2);
    assert!(ran.stderr.contains("must be an address such as"), "{ran}");
}
