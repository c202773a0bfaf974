//! The grid of 500 tasks and 100 runs, from the navigation until Chromium has painted it.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::WIDE;
use super::serve::{Server, json_of, percentile, send};

const TIMES: usize = 20;

/// Begins before the page does. A frame is committed only when the one before it is drawn, so the third after the
/// page is complete comes when the first, which shows all of it, was painted.
const WATCH: &str = "addEventListener('load', () => {
    let frames = 0;
    const frame = () => ++frames < 3 ? requestAnimationFrame(frame) : window.painted = performance.now();
    requestAnimationFrame(frame);
});";

/// Tells when the page is painted: that moment, and how many cells there are.
const TELL: &str = "const done = arguments[0];
const look = () => window.painted === undefined ? setTimeout(look, 20) : done([
    window.painted,
    document.querySelectorAll('.grid-names li').length * document.querySelectorAll('.grid-head a').length,
]);
look();";

pub fn measure(server: &Server) {
    let Ok(mut driver) = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn() else {
        println!("grid       not measured: needs Chromium and `chromedriver` (Debian: apt install chromium-driver)");
        return;
    };
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines().map_while(Result::ok);
    let port =
        lines.find_map(|line| Some(line.split_once("successfully on port ")?.1.trim_end_matches('.').to_owned()));
    let port = port.filter(|port| port.parse::<u16>().is_ok()).expect("`chromedriver` tells its port");
    std::thread::spawn(move || lines.for_each(drop));
    let driver_at = format!("127.0.0.1:{port}");
    let ask = |method: &str, path: &str, body: Value| -> Value {
        let answer = json_of(send(&driver_at, method, path, &body.to_string())).unwrap();
        assert!(answer["value"]["error"].is_null(), "{answer}");
        answer["value"].clone()
    };
    let options = json!({ "args": ["--headless=new", "--no-sandbox", "--window-size=1400,1000"] });
    let wanted =
        json!({ "capabilities": { "alwaysMatch": { "browserName": "chrome", "goog:chromeOptions": options } } });
    let session = ask("POST", "/session", wanted)["sessionId"].as_str().unwrap().to_owned();
    let at = |what: &str| format!("/session/{session}/{what}");
    let watch = json!({ "cmd": "Page.addScriptToEvaluateOnNewDocument", "params": { "source": WATCH } });
    ask("POST", &at("goog/cdp/execute"), watch);
    let page = format!("http://{}/workflows/{WIDE}?runs=100", server.address);
    let (mut painted, mut cells) = (Vec::new(), 0);
    for _ in 0..TIMES {
        ask("POST", &at("url"), json!({ "url": page }));
        let answer = ask("POST", &at("execute/async"), json!({ "script": TELL, "args": [] }));
        painted.push(answer[0].as_f64().unwrap());
        cells = answer[1].as_u64().unwrap();
    }
    let _ = ask("DELETE", &format!("/session/{session}"), json!({}));
    let _ = driver.kill();
    let _ = driver.wait();
    println!(
        "grid       500 × 100 in Chromium       painted after p50 {:.0} ms, p95 {:.0} ms (aim ≤ 1000); \
         {cells} cells, with groups",
        percentile(&mut painted, 0.5),
        percentile(&mut painted, 0.95),
    );
}
