//! The pages for administration: what they show, what they hide, and what they refuse.

use axum::body::Body;
use axum::http::{Method, StatusCode, header};

use pitcrew_control::app::Trigger;
use pitcrew_control::connection::Connection;
use pitcrew_store::{NewNotice, Paging, Settled};

use super::{Answer, Rig};
use crate::auth::Role;

const EMPTY: &str = "workflow: demo\ntags: [nightly]\ntasks:\n  a: {backend: fake, run: x}\n";
/// What nobody may see as it is.
const SCRIPT: &str = "<script>alert(1)</script>";

async fn get_as(rig: &Rig, role: Role, path: &str) -> Answer {
    let token = rig.token_for(role).await;
    let request = rig.request(Method::GET, path).header(header::AUTHORIZATION, format!("Bearer {token}"));
    rig.send(request.body(Body::empty()).unwrap()).await
}

/// The errors at the fields of a form, and the one above them.
fn errors(page: &Answer) -> Vec<String> {
    let said = page.said();
    let marked = said.split("role=\"alert\">").skip(1);
    marked.filter_map(|rest| rest.split('<').next()).map(str::to_owned).collect()
}

fn encoded(text: &str) -> String {
    pitcrew_control::links::encode(text)
}

#[tokio::test]
async fn a_variable_is_made_changed_and_deleted_and_shown_without_harm() {
    let rig = Rig::with(EMPTY).await;
    let name = encoded(SCRIPT);
    let made = rig.submit("/variables/new", &format!("key={name}&value=a%0D%0Ab&description={name}")).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::SEE_OTHER, "/variables"));
    assert_eq!(rig.app.store.variable(SCRIPT).await.unwrap().unwrap().value, "a\nb");
    for page in ["/variables", &format!("/variables/edit?key={name}"), "/variables?q=SCRIPT"] {
        let text = rig.get(page).await.text;
        assert!(!text.contains("<script>alert") && text.contains("alert(1)"), "{page}: {text}");
    }
    let twice = rig.submit("/variables/new", &format!("key={name}&value=kept")).await;
    assert_eq!(twice.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(errors(&twice), ["there is a variable of this name already"]);
    assert!(twice.text.contains("kept</textarea>"), "{}", twice.text);
    rig.submit("/variables/edit", &format!("key={name}&value=c&description=")).await;
    assert_eq!(rig.app.store.variable(SCRIPT).await.unwrap().unwrap().value, "c");
    rig.submit("/variables/delete", &format!("key={name}")).await;
    assert!(rig.app.store.variable(SCRIPT).await.unwrap().is_none());
    assert_eq!(rig.submit("/variables/delete", "key=none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_secret_leaves_the_server_only_in_the_export_of_an_admin() {
    let rig = Rig::with(EMPTY).await;
    for form in ["key=slack_token&value=xoxb-hidden", "key=bucket&value=s3%3A%2F%2Fplates&description=where"] {
        rig.submit("/variables/new", form).await;
    }
    let shown = ["/variables", "/variables/edit?key=slack_token", "/variables/export", "/variables?q=token"];
    for page in shown {
        let answer = rig.get(page).await;
        assert!(answer.status == StatusCode::OK && !answer.text.contains("xoxb"), "{page}: {}", answer.text);
    }
    // An empty field keeps it.
    rig.submit("/variables/edit", "key=slack_token&value=&description=bot").await;
    assert_eq!(rig.app.store.variable("slack_token").await.unwrap().unwrap().value, "xoxb-hidden");
    let plain = rig.get("/variables/export").await;
    assert_eq!(plain.json(), serde_json::json!({ "bucket": { "value": "s3://plates", "description": "where" } }));
    assert!(plain.header("content-disposition").contains("variables.json"));
    let whole = rig.submit("/variables/export", "").await.json();
    assert_eq!(whole["slack_token"]["value"], "xoxb-hidden");
    let audit = rig.app.store.audit(&Default::default(), pitcrew_store::Paging::first(1)).await.unwrap().rows;
    assert!(format!("{audit:?}").contains("variable.export"), "{audit:?}");
}

#[tokio::test]
async fn an_import_takes_airflow_documents_whole_or_not_at_all() {
    let rig = Rig::with(EMPTY).await;
    let import = async |json: &str, existing: &str| {
        rig.submit("/variables/import", &format!("json={}&existing={existing}", encoded(json))).await
    };
    let document = r#"{"a": "text", "b": {"value": 3, "description": "d"}, "c": {"k": [1]}}"#;
    assert_eq!(import(document, "overwrite").await.status, StatusCode::SEE_OTHER);
    let value = async |key: &str| rig.app.store.variable(key).await.unwrap().map(|v| v.value);
    assert_eq!(value("b").await.as_deref(), Some("3"));
    assert_eq!(value("c").await.as_deref(), Some(r#"{"k":[1]}"#));
    assert_eq!(import(r#"{"a": "new", "d": "1"}"#, "skip").await.status, StatusCode::SEE_OTHER);
    assert_eq!((value("a").await.as_deref(), value("d").await.as_deref()), (Some("text"), Some("1")));
    for (json, existing, why) in [
        (r#"{"a": "new", "e": "1"}"#, "fail", "there already: a"),
        ("[1]", "skip", "must be a JSON object of names with what they stand for"),
        ("{\"a\": ", "skip", "is not JSON (line 1, column 6)"),
        (r#"{"": 1}"#, "skip", "a name is empty"),
        ("{}", "sometimes", "choose one of these"),
        ("", "skip", "this is needed"),
    ] {
        let refused = import(json, existing).await;
        assert_eq!(
            (refused.status, errors(&refused)),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![why.to_owned()]),
            "{json}"
        );
    }
    assert!(value("e").await.is_none());
}

#[tokio::test]
async fn a_pool_is_made_changed_and_deleted_and_its_slots_are_numbers() {
    let rig = Rig::with(EMPTY).await;
    for (form, why) in [
        ("name=gpu&slots=many", "must be a whole number from 0, found `many`"),
        ("name=gpu&slots=-1", "must be a whole number from 0, found `-1`"),
        ("name=gpu&slots=99999999999", "must be a whole number from 0, found `99999999999`"),
        ("slots=1", "this is needed"),
        ("name=default_pool&slots=1", "there is a pool of this name already"),
    ] {
        let refused = rig.submit("/pools/new", form).await;
        assert_eq!(
            (refused.status, errors(&refused)),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![why.to_owned()]),
            "{form}"
        );
    }
    assert_eq!(rig.submit("/pools/new", "name=gpu&slots=2&description=cards").await.status, StatusCode::SEE_OTHER);
    assert!(rig.get("/pools").await.text.contains(">gpu<"));
    rig.submit("/pools/edit", "name=gpu&slots=3&description=").await;
    assert_eq!(rig.app.store.pool("gpu").await.unwrap().unwrap().slots, 3);
    rig.submit("/pools/delete", "name=gpu").await;
    assert!(rig.app.store.pool("gpu").await.unwrap().is_none());
    let kept = rig.submit("/pools/delete", "name=default_pool").await;
    assert_eq!(kept.status, StatusCode::BAD_REQUEST);
    assert_eq!(rig.submit("/pools/edit", "name=none&slots=1").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_form_with_what_it_does_not_know_changes_nothing() {
    let rig = Rig::with(EMPTY).await;
    let unknown = rig.submit("/variables/new", "key=a&value=1&colour=red").await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(unknown.said().contains("`colour` is not a field of this form"), "{}", unknown.text);
    let json = rig.post("/variables/new", serde_json::json!({ "key": "a" })).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let huge = rig.submit("/variables/new", &format!("key=a&value={}", "x".repeat(3 << 20))).await;
    assert_eq!(huge.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(rig.app.store.variable("a").await.unwrap().is_none());
    let elsewhere = rig
        .request(Method::POST, "/variables/new")
        .header(header::AUTHORIZATION, format!("Bearer {}", rig.token))
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header(header::ORIGIN, "https://evil.example");
    let answer = rig.send(elsewhere.body("key=a&value=1".into()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn nobody_is_shown_a_button_that_the_role_does_not_allow() {
    let rig = Rig::with(EMPTY).await;
    rig.submit("/variables/new", "key=a&value=1").await;
    rig.submit("/pools/new", "name=gpu&slots=1").await;
    let forms = |page: &Answer| page.text.matches("method=\"post\"").count();
    // Without a way out there is one form less; the frame has one.
    for path in ["/", "/workflows", "/runs", "/variables", "/pools", "/fleet", "/audit"] {
        let page = get_as(&rig, Role::Viewer, path).await;
        assert_eq!((page.status, forms(&page)), (StatusCode::OK, 1), "{path}: {}", page.text);
        assert!(!page.text.contains("/new\"") && !page.text.contains("/settings"), "{path}");
    }
    assert!(get_as(&rig, Role::User, "/workflows").await.text.contains(">Pause<"));
    assert!(get_as(&rig, Role::Op, "/variables").await.text.contains("/variables/delete"));
    assert!(!get_as(&rig, Role::Op, "/variables").await.text.contains("Export with secrets"));
    assert!(rig.get("/variables").await.text.contains("Export with secrets"));
}

#[tokio::test]
async fn the_settings_tell_where_each_value_is_from() {
    let rig = Rig::with(EMPTY).await;
    let page = rig.get("/settings").await.text;
    for part in ["target_success", "retention_days", env!("CARGO_PKG_VERSION"), "PITCREW_ADMIN_PASSWORD"] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains(super::PASSWORD));
}

#[tokio::test]
async fn runs_are_narrowed_by_the_address_and_paged_from_the_last_one_shown() {
    let rig = Rig::with(EMPTY).await;
    for at in 0..53 {
        let id = format!("r{at:02}").parse().unwrap();
        let trigger = Trigger { run_id: Some(id), by: "ada".into(), ..Trigger::default() };
        rig.app.trigger(&"demo".parse().unwrap(), trigger).await.unwrap();
    }
    let first = rig.get("/runs?workflow=demo&type=manual").await.text;
    assert!(first.contains(">r52<") && !first.contains(">r02<"));
    let older = first.split("rel=\"next\" href=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let older = older.replace("&#38;", "&");
    assert!(older.starts_with("/runs?workflow=demo&type=manual&before="), "{older}");
    let second = rig.get(&older).await.text;
    assert!(second.contains(">r02<") && second.contains(">r00<") && !second.contains(">r03<"));
    assert!(rig.get("/runs?from=2100-01-01T00:00").await.text.contains("Nothing found"));
    assert!(rig.get("/runs?workflow=other").await.text.contains("Nothing found"));
    for bad in ["state=odd", "type=odd", "from=soon", "before=x", "workflow=a%2Fb", "done=x"] {
        let page = rig.get(&format!("/runs?{bad}")).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}: {}", page.text);
    }
}

#[tokio::test]
async fn chosen_runs_are_retried_or_cancelled_at_once_and_others_left() {
    let source = "workflow: bad\ntasks:\n  a: {backend: fake, run: x, env: {FAKE_EXIT_CODE: '1'}}\n";
    let rig = Rig::with(&format!("{EMPTY}---\n{source}")).await;
    let (good, bad) = (rig.finish("demo").await, rig.finish("bad").await);
    let mut changes = rig.app.scheduler.subscribe();
    let form = format!("action=retry&run={}&run={}&run=999", good.key, bad.key);
    let told = rig.submit("/runs/bulk?state=failed", &form).await;
    assert_eq!(told.header("location"), "/runs?state=failed&action=retry&done=1&left=2");
    assert!(rig.get(told.header("location")).await.text.contains("1 run started again; 2 were left as they are."));
    while !changes.recv().await.unwrap().finished {}
    let cancel = rig.submit("/runs/bulk", &format!("action=cancel&run={}", bad.key)).await;
    assert_eq!(cancel.header("location"), "/runs?action=cancel&done=0&left=1");
    for refused in ["action=retry", "action=delete&run=1", "action=retry&run=x", "action=retry&run=1&x=1", "run=1"] {
        assert_eq!(rig.submit("/runs/bulk", refused).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{refused}");
    }
}

#[tokio::test]
async fn the_audit_log_is_filtered_paged_and_escaped() {
    let rig = Rig::with(EMPTY).await;
    rig.submit("/variables/new", &format!("key={}&value=1", encoded(SCRIPT))).await;
    rig.submit("/workflows/demo/pause", "paused=true").await;
    let all = rig.get("/audit").await.text;
    assert!(all.contains("variable.set") && all.contains("workflow.pause") && !all.contains(SCRIPT));
    let some = rig.get("/audit?event=workflow.pause&workflow=demo&who=admin").await.text;
    assert!(some.contains("<code>workflow.pause</code>") && !some.contains("<code>variable.set</code>"));
    assert!(rig.get("/audit?who=nobody").await.text.contains("Nothing found"));
    for bad in ["workflow=a%2Fb", "from=soon", "before=x"] {
        assert_eq!(rig.get(&format!("/audit?{bad}")).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad}");
    }
}

#[tokio::test]
async fn users_are_made_changed_and_kept_out() {
    let rig = Rig::with(EMPTY).await;
    let made = rig.submit("/users/new", "name=ada&role=user&password=a+long+enough+one&full_name=&email=").await;
    assert_eq!((made.status, made.header("location")), (StatusCode::SEE_OTHER, "/users"), "{}", made.text);
    let refused = async |form: &str| {
        let page = rig.submit("/users/new", form).await;
        assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY, "{form}: {}", page.text);
        assert!(!errors(&page).is_empty() && !page.text.contains("short1"), "{form}: {}", page.text);
    };
    for form in ["name=ada&role=user", "name=b&role=king", "name=&role=user", "name=c&role=user&password=short1"] {
        refused(form).await;
    }
    refused(&format!("name={}&role=user", encoded(SCRIPT))).await;
    let edit = async |form: &str| rig.submit("/users/edit", form).await;
    assert_eq!(edit("name=ada&action=role&role=op").await.status, StatusCode::SEE_OTHER);
    let row = rig.app.store.user("ada").await.unwrap().unwrap();
    assert_eq!((row.role, row.active), (Role::Op, true));
    edit("name=ada&action=deactivate").await;
    assert!(!rig.app.store.user("ada").await.unwrap().unwrap().active);
    assert!(rig.get("/users").await.text.contains("deactivated"));
    for (form, status) in [
        ("name=ada&action=promote", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=ada&action=role&role=king", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=ada&action=password&password=short1", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=admin&action=role&role=viewer", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=admin&action=delete", StatusCode::UNPROCESSABLE_ENTITY),
        ("name=nobody&action=delete", StatusCode::NOT_FOUND),
        ("name=ada&action=delete&x=1", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        assert_eq!(edit(form).await.status, status, "{form}");
    }
    assert_eq!(edit("name=ada&action=delete").await.header("location"), "/users");
    assert!(rig.app.store.user("ada").await.unwrap().is_none());
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_until_it_is_revoked() {
    let rig = Rig::with(EMPTY).await;
    let form = format!("user=admin&name={}&role=viewer&workflows=demo&days=7", encoded(SCRIPT));
    let made = rig.submit("/tokens/new", &form).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    assert_eq!(made.header("cache-control"), "no-store");
    let secret = made.text.split("<code class=\"secret\">").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    let ask = async || {
        let request =
            rig.request(Method::GET, "/api/v2/dags/demo").header(header::AUTHORIZATION, format!("Bearer {secret}"));
        rig.send(request.body(Body::empty()).unwrap()).await.status
    };
    assert_eq!(ask().await, StatusCode::OK);
    let list = rig.get("/tokens").await.text;
    assert!(!list.contains(secret) && !list.contains(SCRIPT), "{list}");
    let id = rig.app.store.tokens(None).await.unwrap()[0].id.clone();
    for bad in [
        "user=admin&name=x&role=viewer&workflows=none&days=7",
        "user=admin&name=x&role=viewer&workflows=a%2Fb&days=7",
        "user=admin&name=x&role=king&days=7",
        "user=admin&name=x&role=viewer&days=soon",
        "user=nobody&name=x&role=viewer&days=7",
        "user=admin&name=&role=viewer&days=7",
    ] {
        let page = rig.submit("/tokens/new", bad).await;
        assert_eq!((page.status, errors(&page).len()), (StatusCode::UNPROCESSABLE_ENTITY, 1), "{bad}: {}", page.text);
    }
    assert_eq!(rig.submit("/tokens/revoke", &format!("id={id}")).await.status, StatusCode::SEE_OTHER);
    assert_eq!(ask().await, StatusCode::UNAUTHORIZED);
    assert_eq!(rig.submit("/tokens/revoke", "id=none").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_secrets_of_a_connection_go_in_and_do_not_come_out() {
    let rig = Rig::with(EMPTY).await;
    let extra = encoded(r#"{"key": "hidden-extra"}"#);
    let made = format!("id=db&conn_type=postgres&host=db.example&port=5432&login=u&password=hidden-word&extra={extra}");
    assert_eq!(rig.submit("/connections/new", &made).await.header("location"), "/connections");
    let stored = async || rig.app.store.connection("db").await.unwrap().unwrap();
    let open = async || Connection::open(stored().await, &rig.app.vault).unwrap();
    assert!(!format!("{:?}", stored().await).contains("hidden"));
    for page in ["/connections", "/connections/edit?id=db", "/connections/export", "/connections?q=DB", "/audit"] {
        let answer = rig.get(page).await;
        assert!(answer.status == StatusCode::OK && !answer.text.contains("hidden-"), "{page}: {}", answer.text);
    }
    // Left empty they stay; a wrong form does not send them back.
    rig.submit("/connections/edit", "id=db&conn_type=postgres&host=new.example&port=&password=&extra=").await;
    let kept = open().await;
    assert_eq!((kept.host.as_str(), kept.port, kept.password.as_deref()), ("new.example", None, Some("hidden-word")));
    for (form, why) in [
        ("id=x&conn_type=a&port=70000&password=hidden-1", "must be a number from 0 to 65535"),
        ("id=x&conn_type=a&port=many&password=hidden-1", "must be a whole number from 0, found `many`"),
        ("id=x&conn_type=&password=hidden-1", "this is needed"),
        ("id=db&conn_type=a&password=hidden-1", "there is a connection of this id already"),
        ("id=x&conn_type=a&extra=hidden-1+%7B", "`extra` is not JSON (line 1, column 1)"),
    ] {
        let refused = rig.submit("/connections/new", form).await;
        assert_eq!(
            (refused.status, errors(&refused)),
            (StatusCode::UNPROCESSABLE_ENTITY, vec![why.to_owned()]),
            "{form}"
        );
        assert!(!refused.text.contains("hidden-1"), "{form}");
    }
    let whole = rig.submit("/connections/export", "").await.json();
    assert_eq!(whole["db"]["password"], "hidden-word");
    rig.submit("/connections/edit", "id=db&conn_type=postgres&no_password=true&no_extra=true").await;
    assert!(open().await.password.is_none() && open().await.extra.is_none());
    let import = format!("existing=skip&json={}", encoded(&whole.to_string().replace("\"db\"", "\"copy\"")));
    assert_eq!(rig.submit("/connections/import", &import).await.status, StatusCode::SEE_OTHER);
    assert!(rig.app.store.connection("copy").await.unwrap().unwrap().password.is_some());
    let wrong =
        rig.submit("/connections/import", "existing=skip&json=%7B%22a%22%3A%7B%22hots%22%3A%22hidden-2%22%7D%7D").await;
    assert!(wrong.text.contains("no field of a connection") && !wrong.text.contains("hidden-2"), "{}", wrong.text);
    assert_eq!(rig.submit("/connections/delete", "id=db").await.status, StatusCode::SEE_OTHER);
    assert_eq!(rig.submit("/connections/delete", "id=db").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_outbox_is_shown_and_what_was_given_up_can_be_sent_again() {
    let rig = Rig::with(EMPTY).await;
    let notice = NewNotice {
        dedupe: "n".into(),
        channel: SCRIPT.into(),
        event: "run.failed".into(),
        workflow: None,
        run: None,
        body: serde_json::json!({}),
        created: pitcrew_control::clock::now(),
    };
    let store = &rig.app.store;
    store.add_notices(vec![notice]).await.unwrap();
    let id = store.notices(&Default::default(), Paging::first(1)).await.unwrap().rows[0].id;
    let again = async |id: &str| rig.submit("/notifications/again", &format!("id={id}")).await.status;
    assert_eq!(again(&id.to_string()).await, StatusCode::CONFLICT);
    store.settle_notice(id, Settled::Failed { error: SCRIPT.into() }).await.unwrap();
    let page = rig.get("/notifications?state=failed").await.text;
    assert!(page.contains("Send again") && page.contains("alert(1)") && !page.contains(SCRIPT), "{page}");
    for _ in 0..2 {
        assert_eq!(again(&id.to_string()).await, StatusCode::SEE_OTHER);
    }
    assert_eq!(store.notices(&Default::default(), Paging::first(9)).await.unwrap().total, 2);
    assert_eq!((again("999").await, again("x").await), (StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY));
    assert_eq!(rig.get("/notifications?state=odd").await.status, StatusCode::UNPROCESSABLE_ENTITY);
}
