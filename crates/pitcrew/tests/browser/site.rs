//! A server with its workflows, and a browser before it.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::Signal;
use serde_json::json;

use crate::driver::Browser;
use crate::harness::{Place, line_with, signal};

pub struct Site {
    pub browser: Browser,
    pub place: Place,
    pub base: String,
    pub password: String,
    server: Running,
    workers: Vec<Running>,
}

impl Site {
    /// With workflows as `(name, source)`, before the login page.
    pub fn new(workflows: &[(&str, &str)]) -> Site {
        let place = Place::new();
        Site::at(place, workflows)
    }

    /// The same in a place that is prepared already.
    pub fn at(place: Place, workflows: &[(&str, &str)]) -> Site {
        for (name, source) in workflows {
            place.file(&format!("flows/{name}.yaml"), source);
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = Running::start(&place, port);
        let line = line_with(&mut server.0, "password");
        let password = line.split_once("password ").and_then(|(_, rest)| rest.split(' ').next()).unwrap().to_owned();
        let browser = Browser::start();
        let base = format!("http://127.0.0.1:{port}");
        Site { browser, place, base, password, server, workers: Vec::new() }
    }

    /// The same, logged in, with the workflows read.
    pub fn entered(workflows: &[(&str, &str)]) -> Site {
        let site = Site::new(workflows);
        site.log_in();
        site
    }

    pub fn log_in(&self) {
        self.open("/workflows");
        self.browser.fill("#username", "admin");
        self.browser.fill("#password", &self.password);
        self.browser.click("main form button");
        self.browser.until("location.pathname === '/workflows'");
    }

    pub fn open(&self, path: &str) {
        self.browser.open(&format!("{}{path}", self.base));
    }

    /// A worker of this name that takes work of a queue, with a directory of its own.
    pub fn add_worker(&mut self, name: &str, queue: &str) {
        let token = self.place.run(&format!("workers token --queue {queue}")).ends(0).stdout;
        let line = format!("worker --name {name} --server {} --queue {queue} --slots 2", self.base);
        let mut command = self.place.command(&line);
        command.env("PITCREW_WORKER_TOKEN", token.trim()).env("PITCREW_DATA_DIR", self.place.path(name));
        self.workers.push(Running(command.spawn().unwrap()));
        line_with(&mut self.workers.last_mut().unwrap().0, "takes work from");
    }

    /// Ends the server; tasks go on.
    pub fn stop(&mut self) {
        self.server.end();
    }

    /// The server once more, at the same address.
    pub fn start_again(&mut self) {
        let port = self.base.rsplit_once(':').unwrap().1.parse().unwrap();
        self.server = Running::start(&self.place, port);
        line_with(&mut self.server.0, "Ctrl-C ends the server");
    }
}

/// Ended when the test does, however it does.
struct Running(Child);

impl Running {
    fn start(place: &Place, port: u16) -> Running {
        let mut command = place.command(&format!("server --workflows flows --listen 127.0.0.1:{port}"));
        // Programs that a test has made come before those of the machine.
        let dirs = std::env::var_os("PATH").unwrap_or_default();
        let dirs = [place.path("bin")].into_iter().chain(std::env::split_paths(&dirs));
        Running(command.env("PATH", std::env::join_paths(dirs).unwrap()).spawn().unwrap())
    }

    fn end(&mut self) {
        // Whoever was waited for has no process any more.
        if matches!(self.0.try_wait(), Ok(None)) {
            signal(&self.0, Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Marks the page, so that a reload would be noticed.
pub fn mark(browser: &Browser) {
    browser.run("window.marked = true;", json!([]));
}

pub fn is_same_page(browser: &Browser) {
    assert_eq!(browser.value("window.marked === true"), json!(true), "the page was loaded anew");
}

/// Whether the graph of a run shows a task so.
pub fn state_of(task: &str, state: &str) -> String {
    format!("$('#task-{task}')?.classList.contains('state-{state}')")
}

/// A pipe that a task reads: it goes on, line by line, as the test lets it, and ends with the gate.
pub struct Gate {
    path: PathBuf,
    file: File,
}

impl Gate {
    pub fn new(place: &Place, name: &str) -> Gate {
        let path = place.pipe(name);
        // Open for both, it waits for nobody, and neither does who reads.
        let file = File::options().read(true).write(true).open(&path).unwrap();
        Gate { path, file }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().unwrap()
    }

    pub fn say(&mut self, line: &str) {
        writeln!(self.file, "{line}").unwrap();
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // Who comes later finds nothing to wait at.
        let _ = std::fs::remove_file(&self.path);
    }
}
