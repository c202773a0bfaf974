//! A browser by the W3C protocol: chromedriver, and the Chromium that it starts.
//!
//! Invariant: both are ended with the value, however the test ends. A test that fails leaves a picture of the page
//! behind, and says where.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::{Client, Method};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The key under which the protocol hands over elements.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// How often [`Browser::until`] looks, a second each time.
const LOOKS: usize = 30;
/// What scripts of the tests may call: the first element that fits, and its text.
const WORDS: &str = "const $ = (css) => document.querySelector(css);
    const $$ = (css) => [...document.querySelectorAll(css)];
    const text = (css) => $(css)?.textContent.replace(/\\s+/g, ' ').trim();\n";

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
pub const ESCAPE: &str = "\u{e00c}";
pub const LEFT: &str = "\u{e012}";
pub const DOWN: &str = "\u{e015}";

pub struct Browser {
    runtime: Runtime,
    http: Client,
    driver: Child,
    /// Address of the driver, and of the session when there is one.
    at: String,
    /// Chromium has a group of its own.
    chromium: Option<Pid>,
    profile: tempfile::TempDir,
    /// What the console said and nobody has asked for yet.
    said: RefCell<Vec<String>>,
}

/// Why the browser did not do it: the protocol's word, and what the driver says.
#[derive(Debug)]
pub struct Refused(pub String);

impl Browser {
    pub fn start() -> Browser {
        use std::os::unix::process::CommandExt as _;
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs `chromedriver`: install the packages `chromium` and `chromium-driver`");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| line.split_once("successfully on port ").map(|(_, port)| port.to_owned()));
        let at = format!("http://127.0.0.1:{}", port.expect("chromedriver says its port").trim_end_matches('.'));
        std::thread::spawn(move || lines.for_each(drop));
        let mut browser = Browser {
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            http: Client::new(),
            driver,
            at,
            chromium: None,
            profile: tempfile::tempdir().unwrap(),
            said: RefCell::default(),
        };
        let profile = format!("--user-data-dir={}", browser.profile.path().display());
        let args = [
            "--headless=new",
            // Tests may run as root, in containers with little shared memory and no GPU.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            "--lang=en-US",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": args },
            "goog:loggingPrefs": { "browser": "ALL" },
            "timeouts": { "script": 30_000, "pageLoad": 30_000 },
        } } });
        let session = browser.ask(Method::POST, "/session", wanted).expect("chromedriver starts `chromium`");
        let group = session["capabilities"]["goog:processID"].as_i64();
        browser.chromium = group.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        browser.at = format!("{}/session/{}", browser.at, session["sessionId"].as_str().unwrap());
        browser
    }

    fn ask(&self, method: Method, path: &str, body: Value) -> Result<Value, Refused> {
        let request = self.http.request(method.clone(), format!("{}{path}", self.at));
        let request = if method == Method::POST { request.json(&body) } else { request };
        let answer: Result<Value, reqwest::Error> = self.runtime.block_on(async { request.send().await?.json().await });
        let value = answer.map_err(|error| Refused(error.to_string()))?["value"].take();
        match value["error"].as_str() {
            None => Ok(value),
            Some(error) => Err(Refused(format!("{error}: {}", value["message"].as_str().unwrap_or_default()))),
        }
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.ask(Method::POST, path, body).unwrap_or_else(|error| panic!("{path}: {}\n{}", error.0, self.seen()))
    }

    /// Opens an address, and returns when its page is loaded.
    pub fn open(&self, url: &str) {
        // On a busy machine a new Chromium may lose its first page; a page that hangs does so once more.
        match self.ask(Method::POST, "/url", json!({ "url": url })) {
            Err(error) if error.0.starts_with("timeout") => drop(self.post("/url", json!({ "url": url }))),
            Err(error) => panic!("{url}: {}\n{}", error.0, self.seen()),
            Ok(_) => {}
        }
    }

    /// The path of the page, with its query.
    pub fn path(&self) -> String {
        self.value("location.pathname + location.search").as_str().unwrap().to_owned()
    }

    /// Runs a script, and gives what it returns. It may await.
    pub fn run(&self, script: &str, args: Value) -> Value {
        self.post("/execute/sync", json!({ "script": format!("{WORDS}{script}"), "args": args }))
    }

    /// What an expression is in the page.
    pub fn value(&self, expression: &str) -> Value {
        self.run(&format!("return ({expression});"), json!([]))
    }

    pub fn text(&self, css: &str) -> String {
        self.run("return text(arguments[0]) ?? null;", json!([css]))
            .as_str()
            .unwrap_or_else(|| panic!("there is no `{css}`\n{}", self.seen()))
            .to_owned()
    }

    /// Waits until an expression is true, over as many pages as it takes, and gives what it is then.
    pub fn until(&self, expression: &str) -> Value {
        self.until_late(expression, LOOKS)
    }

    /// The same for what takes longer, in seconds.
    pub fn until_late(&self, expression: &str, most: usize) -> Value {
        let script = format!(
            "{WORDS}const done = arguments[arguments.length - 1], end = Date.now() + 1000;
            const look = () => {{
                let found = null;
                try {{ found = ({expression}); }} catch {{}}
                if (found || Date.now() > end) done(found ?? null); else setTimeout(look, 20);
            }};
            look();"
        );
        let mut last = String::new();
        for _ in 0..most {
            match self.ask(Method::POST, "/execute/async", json!({ "script": script, "args": [] })) {
                Ok(found) if found != Value::Null && found != json!(false) && found != json!("") => return found,
                Ok(found) => last = found.to_string(),
                // The page went away meanwhile.
                Err(error) => last = error.0,
            }
        }
        panic!("this never came: {expression}\nit is {last}\n{}", self.seen())
    }

    fn find(&self, css: &str) -> String {
        let found = self.post("/element", json!({ "using": "css selector", "value": css }));
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Clicks as a person does: it is brought into sight, and nothing may be before it.
    pub fn click(&self, css: &str) {
        self.click_on("return $(arguments[0]) ?? null;", css);
    }

    fn click_on(&self, find: &str, what: &str) {
        let find = format!(
            "{WORDS}const found = (() => {{ {find} }})(); found?.scrollIntoView({{ block: 'center' }}); return found;"
        );
        let mut last = String::new();
        // What is live may be replaced between being found and being clicked.
        for _ in 0..5 {
            let found = self.post("/execute/sync", json!({ "script": find, "args": [what] }));
            let element = found[ELEMENT].as_str();
            let element = element.unwrap_or_else(|| panic!("there is no `{what}`\n{}", self.seen()));
            match self.ask(Method::POST, &format!("/element/{element}/click"), json!({})) {
                Ok(_) => return,
                Err(error) if error.0.starts_with("stale element") => last = error.0,
                Err(error) => panic!("{}\n{}", error.0, self.seen()),
            }
        }
        panic!("{last}\n{}", self.seen())
    }

    /// Clicks the button, link or label that says this.
    pub fn press(&self, words: &str) {
        self.click_on(
            "return $$('button, a, label, summary').find((e) => e.checkVisibility() && e.innerText.trim() === arguments[0]) ?? null;",
            words,
        );
    }

    /// Types into a field, in place of what is there.
    pub fn fill(&self, css: &str, text: &str) {
        let element = self.find(css);
        self.post(&format!("/element/{element}/clear"), json!({}));
        self.post(&format!("/element/{element}/value"), json!({ "text": text }));
    }

    /// Presses keys one after the other, wherever the focus is.
    pub fn keys(&self, keys: &str) {
        let presses: Vec<Value> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.post("/actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": presses }] }));
    }

    /// What the browser asks in a box of its own; it is answered with yes.
    pub fn agree(&self) -> String {
        let asked = self.ask(Method::GET, "/alert/text", Value::Null).unwrap_or_else(|error| panic!("{}", error.0));
        self.post("/alert/accept", json!({}));
        asked.as_str().unwrap().to_owned()
    }

    /// The same, answered with no.
    pub fn refuse(&self) {
        self.post("/alert/dismiss", json!({}));
    }

    /// Goes into a frame of the page, where all that follows happens.
    pub fn enter(&self, css: &str) {
        let frame = self.find(css);
        self.post("/frame", json!({ "id": { ELEMENT: frame } }));
    }

    /// Back to the page itself.
    pub fn leave(&self) {
        self.post("/frame", json!({ "id": null }));
    }

    /// A command of Chromium's own protocol.
    pub fn devtools(&self, command: &str, params: Value) -> Value {
        self.post("/goog/cdp/execute", json!({ "cmd": command, "params": params }))
    }

    fn listen(&self) -> Result<(), Refused> {
        let entries = self.ask(Method::POST, "/se/log", json!({ "type": "browser" }))?;
        let said = entries.as_array().into_iter().flatten();
        let said =
            said.map(|entry| format!("{} {}", entry["level"].as_str().unwrap(), entry["message"].as_str().unwrap()));
        self.said.borrow_mut().extend(said);
        Ok(())
    }

    /// The console has said this, once; it is forgotten.
    pub fn complained(&self, words: &str) {
        self.listen().unwrap();
        let mut said = self.said.borrow_mut();
        let found = said.iter().position(|entry| entry.contains(words));
        let found = found.unwrap_or_else(|| panic!("the console did not say `{words}` but {said:#?}"));
        said.remove(found);
    }

    /// How often the console has said something with these words; it is forgotten.
    pub fn complaints(&self, words: &str) -> usize {
        self.listen().unwrap();
        let mut said = self.said.borrow_mut();
        let before = said.len();
        said.retain(|entry| !entry.contains(words));
        before - said.len()
    }

    /// Panics if the console said anything more.
    pub fn is_quiet(&self) {
        self.listen().unwrap();
        let said = self.said.borrow();
        assert!(said.is_empty(), "the console said: {said:#?}");
    }

    /// The page in words, for whoever has to find out why a test failed.
    fn seen(&self) -> String {
        let script = "return `at ${location.href}\n${document.body?.innerText}`;";
        let seen = self.ask(Method::POST, "/execute/sync", json!({ "script": script, "args": [] }));
        let _ = self.listen();
        let page = seen.map_or_else(|error| error.0, |text| text.as_str().unwrap_or_default().to_owned());
        format!("{page}\nconsole: {:#?}", self.said.borrow())
    }

    fn keep_picture(&self) -> Option<()> {
        let picture = self.ask(Method::GET, "/screenshot", Value::Null).ok()?;
        let picture = BASE64.decode(picture.as_str()?).ok()?;
        let name = std::thread::current().name()?.replace("::", "-");
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&file, picture).ok()?;
        eprintln!("what the browser showed is in {}", file.display());
        Some(())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep_picture();
        }
        let _ = self.ask(Method::DELETE, "", Value::Null);
        // What is left if the session did not end as it should.
        for group in [self.chromium, Some(Pid::from_child(&self.driver))].into_iter().flatten() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.driver.wait();
    }
}
