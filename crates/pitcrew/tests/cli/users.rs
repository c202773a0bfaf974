//! Users and tokens, and a real server that asks for them.

use std::io::Write;
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::json;

use crate::harness::{Place, Ran, line_with, signal};

/// Runs a command that reads `input`.
fn with_input(place: &Place, line: &str, input: &str) -> Ran {
    let mut child = place.command(line).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    place.ran(line, child.wait_with_output().unwrap())
}

/// The status of a request to a server with a header of its own.
fn get(address: &str, path: &str, header: &str) -> String {
    use std::io::Read;
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap().split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn users_are_made_and_changed_and_their_passwords_come_from_stdin() {
    let place = Place::new();
    with_input(&place, "users create boss --role admin", "a good password\n").ends(0);
    with_input(&place, "users create Ada --role op --email ada@example.com", "another password\n").ends(0);
    place.run("users create bot --role viewer --no-password").ends(0);
    place.run("users set-role ada user").ends(0);
    place.run("users deactivate bot").ends(0);
    let users = place.run("users list --output json").ends(0).json();
    let shown: Vec<_> = users.as_array().unwrap().iter().map(|u| json!([u["name"], u["role"], u["active"]])).collect();
    assert_eq!(shown, [json!(["ada", "user", true]), json!(["boss", "admin", true]), json!(["bot", "viewer", false])]);
    assert!(!users.to_string().contains("argon2"));
    for (line, input, why) in [
        ("users create ada --role op", "another password\n", "there is a user `ada` already"),
        ("users create eve --role op", "short\n", "at least 10 characters"),
        ("users create eve --role op", "", "no password was given"),
        ("users create ../x --role op", "another password\n", "a user's name has"),
        ("users create eve --role root", "", "is not a role"),
        ("users set-role boss op", "", "the only admin left"),
        ("users deactivate boss", "", "the only admin left"),
        ("users delete boss", "", "the only admin left"),
        ("users set-password eve", "another password\n", "there is no user `eve`"),
        ("tokens create x --user eve", "", "there is no user `eve`"),
        ("tokens create x --user ada --role admin", "", "cannot be `admin`"),
        ("tokens create x --user ada --workflow none", "", "there is no workflow `none`"),
        ("tokens create x --user ada --days 0", "", "0 is not in"),
        ("tokens revoke nope", "", "there is no token `nope`"),
    ] {
        let ran = with_input(&place, line, input).ends(2);
        assert!(ran.stderr.contains(why), "{ran}");
    }
}

#[test]
fn a_server_lets_in_whom_the_commands_say_and_forgets_them_at_once() {
    let place = Place::new();
    let mut server = place.start("server --workflows flows --listen 127.0.0.1:0");
    let pages = line_with(&mut server, "pages");
    let address = pages.rsplit_once("http://").unwrap().1.trim().to_owned();
    with_input(&place, "users create ada --role viewer", "a good password\n").ends(0);
    let token = place.run("tokens create ci --user ada --days 7").ends(0).stdout.trim().to_owned();
    assert!(token.starts_with("pct_"), "{token}");
    let ask = |header: &str| get(&address, "/api/v2/dags", header);
    let bearer = format!("authorization: Bearer {token}");
    assert_eq!(ask(&bearer), "200");
    assert_eq!(ask("x: y"), "401");
    let listed = place.run("tokens list --output json").ends(0);
    assert!(!listed.stdout.contains(&token), "{listed}");
    let id = listed.json()[0]["id"].as_str().unwrap().to_owned();
    place.run(&format!("tokens revoke {id}")).ends(0);
    // What another process did is noticed within a second, however long that takes here.
    while ask(&bearer) == "200" {}
    assert_eq!(ask(&bearer), "401");
    signal(&server, Signal::TERM);
    assert!(server.wait_with_output().unwrap().status.success());
}
