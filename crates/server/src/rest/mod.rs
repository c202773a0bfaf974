//! Airflow's REST API: its paths, its shapes, its words for errors.
//!
//! Its clients check answers strictly, so every key is there, `null` where Pitcrew has nothing to say. What Airflow has
//! no word for is under `/api/pitcrew/v1`.

mod absent;
mod backfills;
mod bulk;
mod clear;
mod connections;
pub mod dags;
mod delete;
mod event_logs;
mod instance_list;
mod instances;
mod instances_across;
mod logs;
mod mark;
mod meta;
mod mwaa;
pub mod pools;
mod run_list;
mod runs;
mod server;
mod shapes;
mod stats;
mod tasks;
pub mod v1;
mod variables;
mod versions;
mod wait;
mod xcoms;

pub use shapes::short;

use super::auth::Role::{Op, User, Viewer};
use super::openapi::doc;
use super::routes::Access::Role;
use super::routes::Routes;

pub fn routes() -> Routes {
    meta::routes()
        .merge(dags::routes())
        .merge(run_routes())
        .merge(instance_routes())
        .merge(absent::routes())
        .merge(backfills::routes())
        .merge(connections::routes())
        .merge(event_logs::routes())
        .merge(mwaa::routes())
        .merge(pools::routes())
        .merge(server::routes())
        .merge(stats::routes())
        .merge(tasks::routes())
        .merge(v1::routes())
        .merge(variables::routes())
        .merge(versions::routes())
        .merge(xcoms::routes())
}

const RUN: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}";

fn run_routes() -> Routes {
    const RUNS: &str = "/api/v2/dags/{dag_id}/dagRuns";
    let at = |rest: &str| format!("{RUN}{rest}");
    let patterns = "run_id_pattern: text, run_id_prefix_pattern: text, dag_id_pattern: text, dag_id_prefix_pattern: text, \
                    triggering_user_name_pattern: text, triggering_user_name_prefix_pattern: text";
    Routes::api()
        .get(RUNS, Role(Viewer), run_list::list)
        .doc(
            doc("DagRun", "Lists the runs of a workflow, or with `~` of all workflows")
                .paged()
                .query("order_by: text, state: [text], run_type: text, dag_ids: [text], conf_contains: text")
                .query("bundle_version: text")
                .query(patterns)
                .ranges("time", &["run_after", "logical_date", "start_date", "end_date", "updated_at"])
                .ranges("number", &["duration"])
                .answer(200, "DAGRunCollectionResponse"),
        )
        .post(RUNS, Role(User), runs::trigger)
        .doc(doc("DagRun", "Triggers a run").body("TriggerDAGRunPostBody").answer(200, "DAGRunResponse"))
        .post(format!("{RUNS}/list"), Role(Viewer), run_list::list_batch)
        .doc(doc("DagRun", "Lists runs").body("DAGRunsBatchBody").answer(200, "DAGRunCollectionResponse"))
        .get(RUN, Role(Viewer), runs::get)
        .doc(doc("DagRun", "Shows a run").answer(200, "DAGRunResponse"))
        .patch(RUN, Role(User), runs::patch)
        .doc(
            doc("DagRun", "Stops a run (`failed`), or changes its note")
                .query("update_mask: [text]")
                .body("DAGRunPatchBody")
                .answer(200, "DAGRunResponse"),
        )
        .delete(RUN, Role(Op), delete::run)
        .doc(doc("DagRun", "Deletes a run that is over, with its files").nothing(204))
        .post(at("/clear"), Role(User), runs::clear)
        .doc(
            doc("DagRun", "Lets the tasks of a run go again, or says which it would be")
                .body("DAGRunClearBody")
                .answer(200, "DAGRunResponse or ClearTaskInstanceCollectionResponse"),
        )
        .get(at("/wait"), Role(Viewer), wait::wait)
        .doc(
            doc("DagRun", "Waits for the end of a run, with a line for each interval")
                .query("interval: number, result: [text]")
                .answer(200, "RunProgress")
                .media("application/x-ndjson"),
        )
}

fn instance_routes() -> Routes {
    const TASK: &str = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}";
    let at = |rest: &str| format!("{TASK}{rest}");
    let list = || {
        doc("TaskInstance", "Lists the task instances of a run, or with `~` of many")
            .paged()
            .query("order_by: text, state: [text], task_id: text, map_index: [int], try_number: [int], pool: [text]")
            .query("queue: [text], executor: [text], operator: [text], task_display_name_pattern: text")
            .query("task_display_name_prefix_pattern: text")
            .ranges("time", &["run_after", "logical_date", "start_date", "end_date", "updated_at"])
            .ranges("number", &["duration"])
            .answer(200, "TaskInstanceCollectionResponse")
    };
    let one = || doc("TaskInstance", "Shows a task instance").answer(200, "TaskInstanceResponse");
    let mark = || {
        doc("TaskInstance", "Says how instances ended (`success` or `failed`)")
            .query("update_mask: [text]")
            .body("PatchTaskInstanceBody")
            .answer(200, "TaskInstanceCollectionResponse")
    };
    let would = || {
        doc("TaskInstance", "Says which instances would be marked")
            .body("PatchTaskInstanceBody")
            .answer(200, "TaskInstanceCollectionResponse")
    };
    let tries = || {
        doc("TaskInstance", "Lists the attempts of an instance").answer(200, "TaskInstanceHistoryCollectionResponse")
    };
    let attempt = || doc("TaskInstance", "Shows an attempt").answer(200, "TaskInstanceHistoryResponse");
    let why =
        || doc("TaskInstance", "Says why an instance is not running").answer(200, "TaskDependencyCollectionResponse");
    Routes::api()
        .get(format!("{RUN}/taskInstances"), Role(Viewer), instance_list::list)
        .doc(list())
        .post(format!("{RUN}/taskInstances/list"), Role(Viewer), instance_list::list_batch)
        .doc(
            doc("TaskInstance", "Lists task instances")
                .body("TaskInstancesBatchBody")
                .answer(200, "TaskInstanceCollectionResponse"),
        )
        .post("/api/v2/dags/{dag_id}/clearTaskInstances", Role(User), clear::clear)
        .doc(
            doc("TaskInstance", "Lets instances run again, or says which it would be")
                .query("dag_run_id: text")
                .body("ClearTaskInstancesBody")
                .answer(200, "ClearTaskInstanceCollectionResponse"),
        )
        .get(TASK, Role(Viewer), instances::get)
        .doc(one())
        .patch(TASK, Role(User), mark::task)
        .doc(mark())
        .patch(at("/dry_run"), Role(Viewer), mark::task_dry_run)
        .doc(would())
        .get(at("/listMapped"), Role(Viewer), instances::list_mapped)
        .doc(list())
        .get(at("/tries"), Role(Viewer), instances::tries)
        .doc(tries().query("map_index: int"))
        .get(at("/tries/{task_try_number}"), Role(Viewer), instances::attempt)
        .doc(attempt().query("map_index: int"))
        .get(at("/dependencies"), Role(Viewer), instances::dependencies)
        .doc(why().query("map_index: int"))
        .get(at("/links"), Role(Viewer), instances::links)
        .doc(
            doc("TaskInstance", "Lists the links of a task: there are none")
                .query("map_index: int")
                .answer(200, "ExtraLinkCollectionResponse"),
        )
        .get(at("/logs/{try_number}"), Role(Viewer), logs::get)
        .doc(
            doc("TaskInstance", "Reads the log of an attempt; as lines for `Accept: application/x-ndjson`")
                .query("map_index: int, full_content: bool, token: text")
                .answer(200, "TaskInstancesLogResponse"),
        )
        .get(at("/{map_index}"), Role(Viewer), instances::get_mapped)
        .doc(one())
        .patch(at("/{map_index}"), Role(User), mark::instance)
        .doc(mark())
        .patch(at("/{map_index}/dry_run"), Role(Viewer), mark::instance_dry_run)
        .doc(would())
        .get(at("/{map_index}/tries"), Role(Viewer), instances::tries_mapped)
        .doc(tries())
        .get(at("/{map_index}/tries/{task_try_number}"), Role(Viewer), instances::attempt_mapped)
        .doc(attempt())
        .get(at("/{map_index}/dependencies"), Role(Viewer), instances::dependencies_mapped)
        .doc(why())
}
