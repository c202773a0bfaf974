//! The form of the example, as a browser sends it: logged in, from a page of ours, with every field.

use serde_json::{Value, json};

use crate::world::{Delivery, PASSWORD};

const FORM: &str = "/workflows/gpu-server-cicd/trigger";

/// The arguments with which `curl` sends these fields.
fn sent(fields: &Value) -> Vec<String> {
    let field = |(name, value): (&String, &Value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        ["--data-urlencode".to_owned(), format!("{name}={text}")]
    };
    fields.as_object().unwrap().iter().flat_map(field).collect()
}

fn as_text(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_browser_starts_a_run_by_the_form_and_is_shown_the_field_that_is_wrong() {
    let world = Delivery::new(&["127.0.0.1"]).await;
    world.commit("www/version.yaml", "a: 1\n");
    let jar = world.pitcrew.path("jar").display().to_string();
    let origin = format!("Origin: {}", world.url);
    let browser = ["-b", &jar, "-c", &jar, "-H", &origin];
    let login = sent(&json!({ "username": "admin", "password": PASSWORD, "next": FORM }));
    assert_eq!(world.curl("/login", &[&browser[..], &as_text(&login)].concat()).0, 303);

    // Every control of the page, as it stands there, with what somebody types.
    let (status, page) = world.curl(FORM, &browser);
    assert_eq!(status, 200, "{page}");
    let conf = world.conf("127.0.0.1");
    let mut fields = json!({ "run_id": "by-form", "logical_date": "", "note": "" });
    let mut asked = 0;
    for control in page.split(" name=\"param.").skip(1) {
        let name = control.split('"').next().unwrap();
        let default = control
            .split('>')
            .next()
            .unwrap()
            .split(" value=\"")
            .nth(1)
            .map_or("", |rest| rest.split('"').next().unwrap());
        fields[format!("param.{name}")] = conf.get(name).cloned().unwrap_or_else(|| json!(default));
        asked += usize::from(conf.get(name).is_some());
    }
    assert_eq!(asked, conf.as_object().unwrap().len(), "a field for each param: {page}");

    let send = |fields: &Value, from: &[&str]| world.curl(FORM, &[from, &as_text(&sent(fields))[..]].concat());
    let mut wrong = fields.clone();
    wrong["param.gpu_server_ip"] = json!("a b");
    wrong["param.git_branch"] = json!("--upload-pack=id");
    let (status, page) = send(&wrong, &browser);
    assert!((400..500).contains(&status), "{status} {page}");
    for name in ["gpu_server_ip", "git_branch", "workspace_path"] {
        let control = page.split(&format!(" name=\"param.{name}\"")).nth(1).unwrap().split("</div>").next().unwrap();
        let is_marked = control.contains("aria-invalid=\"true\"") && control.contains("role=\"alert\"");
        assert_eq!(is_marked, name != "workspace_path", "{name}: {control}");
    }
    assert!(page.contains("a workspace\""), "what was typed is still there: {page}");

    // A page of another site, and nobody.
    let other = ["-b", &jar, "-H", "Origin: https://elsewhere.example"];
    assert_eq!(send(&fields, &other).0, 403);
    let (status, _) = send(&fields, &["-H", &origin]);
    assert!([303, 401, 403].contains(&status), "{status}");
    assert_eq!(world.runs(), 0);

    assert_eq!(send(&fields, &browser).0, 303);
    assert_eq!(world.ended("by-form"), "success", "{}", world.story("by-form"));
    assert_eq!(world.pitcrew.ok(&["variables", "get", "a"]), "1\n");
    world.leaves_nothing();
}
