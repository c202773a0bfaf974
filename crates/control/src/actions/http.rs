//! `http`: one request, with retries for what may pass; the answer becomes outputs.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Action, Call, Job, Plan, WrongInput, block_on, object, read, write_outputs};

pub struct Http;

/// An answer longer than this is cut in the outputs.
const KEPT_BODY: usize = 256 * 1024;

#[derive(Deserialize)]
struct With {
    url: String,
    #[serde(default = "get")]
    method: String,
    json: Option<Value>,
    body: Option<String>,
    #[serde(default)]
    expect_status: Vec<u16>,
    #[serde(default = "three")]
    retries: u32,
    #[serde(default = "thirty")]
    timeout: f64,
}

fn get() -> String {
    "GET".to_owned()
}

fn three() -> u32 {
    3
}

fn thirty() -> f64 {
    30.0
}

/// Why a try failed, and whether another one may help.
struct Failed {
    error: anyhow::Error,
    passing: bool,
}

impl Action for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn schema(&self) -> Value {
        object(
            &["url"],
            json!({
                "url": { "type": "string" },
                "method": { "type": "string", "enum": ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"], "default": "GET" },
                "headers": { "type": "object", "description": "Names and values. They are never written to a disk or a log." },
                "json": { "description": "A body, sent as JSON." },
                "body": { "type": "string", "description": "A body, sent as it is." },
                "expect_status": { "type": "array", "items": { "type": "integer" }, "description": "Statuses that are a success. Default: 200 to 299." },
                "retries": { "type": "integer", "minimum": 0, "description": "More tries after a failed connection, a time-out, 429 or 5xx. Default: 3." },
                "timeout": { "type": "number", "exclusiveMinimum": 0, "description": "Seconds for one try. Default: 30." }
            }),
        )
    }

    fn plan(&self, call: &Call<'_>) -> Result<Plan, String> {
        let mut with = call.with.clone();
        let headers = with.as_object_mut().and_then(|map| map.remove("headers")).unwrap_or(Value::Null);
        Ok(Plan::Process { with, facts: Value::Null, secret: headers, inherit: "" })
    }

    fn execute(&self, job: Job) -> anyhow::Result<ExitCode> {
        let with: With = read(&job.with)?;
        let headers: BTreeMap<String, Value> = match &job.secret {
            Value::Null => BTreeMap::new(),
            secret => serde_json::from_value(secret.clone()).context("`headers` is not an object")?,
        };
        block_on(async {
            let client = reqwest::Client::builder().timeout(Duration::from_secs_f64(with.timeout)).build()?;
            for attempt in 0.. {
                match send(&client, &with, &headers).await {
                    Ok(outputs) => {
                        write_outputs(&outputs)?;
                        break;
                    }
                    Err(failed) if failed.passing && attempt < with.retries => {
                        let wait = Duration::from_millis(500 << attempt.min(6));
                        println!("{:#}; trying again in {wait:?}", failed.error);
                        tokio::time::sleep(wait).await;
                    }
                    Err(failed) => return Err(failed.error),
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn send(client: &reqwest::Client, with: &With, headers: &BTreeMap<String, Value>) -> Result<Value, Failed> {
    let lasting = |error: anyhow::Error| Failed { error, passing: false };
    let wrong = |why: String| lasting(WrongInput(why).into());
    let method = with.method.parse().map_err(|_| wrong(format!("`{}` is no HTTP method", with.method)))?;
    let mut request = client.request(method, &with.url);
    for (name, value) in headers {
        request = request.header(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    if let Some(json) = &with.json {
        request = request.json(json);
    } else if let Some(body) = &with.body {
        request = request.body(body.clone());
    }
    // Address and headers are read here; what is wrong with them stays wrong.
    let request = request.build().map_err(|error| wrong(format!("{:#}", anyhow::Error::new(error.without_url()))))?;
    let answer = client.execute(request).await.map_err(|error| Failed {
        passing: error.is_connect() || error.is_timeout(),
        // The address may hold a token; the user's own log shows what the user wrote, not more.
        error: anyhow::Error::new(error.without_url()).context(format!("{} {} failed", with.method, host(&with.url))),
    })?;
    let status = answer.status();
    let text = answer.text().await.map_err(|error| Failed {
        passing: true,
        error: anyhow::Error::new(error.without_url()).context("the answer broke off"),
    })?;
    println!("{} {} → {status}, {} bytes", with.method, host(&with.url), text.len());
    let fine = match with.expect_status.as_slice() {
        [] => status.is_success(),
        expected => expected.contains(&status.as_u16()),
    };
    if !fine {
        let start: String = text.chars().take(500).collect();
        let passing = status.is_server_error() || status.as_u16() == 429;
        let fail = || -> anyhow::Result<Value> { bail!("the server answered {status}: {start}") };
        return fail().map_err(|error| Failed { error, passing });
    }
    let body: String = text.chars().take(KEPT_BODY).collect();
    let parsed = serde_json::from_str::<Value>(&body).unwrap_or(Value::Null);
    Ok(json!({ "status": status.as_u16(), "body": body, "json": parsed }))
}

/// The address without path, query and login, for the log.
fn host(url: &str) -> String {
    match reqwest::Url::parse(url) {
        Ok(url) => format!("{}://{}", url.scheme(), url.host_str().unwrap_or("?")),
        Err(_) => "the address".to_owned(),
    }
}
