//! The shapes of our own API.

use super::Api;

pub const API: Api = Api {
    title: "Pitcrew",
    description: "What Airflow has no word for: why a task waits, kept files, reports, events as they happen.",
    prefixes: &["/api/pitcrew/v1/"],
    components: COMPONENTS,
    errors: "application/json",
};

const COMPONENTS: &str = "
Error
  detail: text or [Problem]
Problem
  loc: [text or int], msg: text, type: text
Run
  key: int, workflow: text, run_id: text, run_type: manual|scheduled|backfill|event
  state: queued|running|success|failed|cancelled, params: object, logical_date: time?, queued_at: time, start: time?
  end: time?, triggered_by: text, stop: object?, note: text, page: text
Explanation
  task: text, map_index: int, state: text?, reasons: [text]
Artifact
  path: text, bytes: int, modified: time?, content_type: text, url: text
Report
  folder: text, modified: time?, html: text?, pdf: text?, json: text?
Reports
  reports: [Report], total_entries: int
Artifacts
  artifacts: [Artifact], total_entries: int
";
