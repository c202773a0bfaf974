//! The examples that docs/tekton.md shows.

use crate::harness::{Place, contents, example, has_sandbox};

#[test]
fn a_task_run_says_hello_and_its_document_says_what_became_of_it() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let ran = place.run(&format!("run -f {} -p name=Ada -o json", example("hello.yaml"))).ends(0);
    assert!(ran.stderr.contains("[task : greet] hello Ada\n"), "{ran:#?}");
    let run = ran.json();
    assert_eq!(run["kind"], "TaskRun");
    let name = run["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("hello-") && name.len() == 11, "{name}");
    let condition = &run["status"]["conditions"][0];
    assert_eq!((&condition["status"], &condition["reason"]), (&"True".into(), &"Succeeded".into()), "{run:#}");
    assert_eq!(run["status"]["results"][0]["value"], "9", "{run:#}");
    let steps = run["status"]["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["greet", "measure"]);
    assert_eq!(steps[0]["terminated"]["exitCode"], 0, "{run:#}");

    // It can be asked for again, in the columns of `tkn`.
    let list = place.run("taskruns list").ends(0);
    assert!(list.stdout.starts_with("NAME") && list.stdout.contains(name), "{list:#?}");
    let described = place.run(&format!("tr desc {name}")).ends(0);
    assert!(described.stdout.contains("Succeeded") && described.stdout.contains("length"), "{described:#?}");
    let logs = place.run(&format!("tr logs {name}")).ends(0);
    assert_eq!(logs.stdout, "[task : greet] hello Ada\n", "{logs:#?}");
    place.run("tr delete --keep 0").ends(0);
    assert_eq!(place.run("tr list -o name").ends(0).stdout, "");
}

#[test]
fn a_document_that_was_written_is_read_again() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let ran = place.run(&format!("run -f {} -o yaml", example("hello.yaml"))).ends(0);
    assert!(ran.stdout.starts_with("apiVersion: tekton.dev/v1\n"), "{ran:#?}");
    let again = place.file("again.yaml", &ran.stdout);
    // The name is taken, so it runs elsewhere.
    let elsewhere = Place::new();
    let ran = elsewhere.run(&format!("run -f {}", again.display())).ends(0);
    assert_eq!(ran.stdout, "[task : greet] hello world\n", "{ran:#?}");
}

#[test]
fn a_step_that_fails_fails_the_run_and_ends_with_status_one() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: broken}\nspec:\n  taskSpec:\n    steps:\n      \
         - {name: break, image: busybox, script: 'echo before; exit 3'}\n      \
         - {name: never, image: busybox, script: echo after}\n";
    let file = place.file("broken.yaml", text);
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(1);
    assert!(ran.stderr.contains("[task : break] before\n") && !ran.stderr.contains("after"), "{ran:#?}");
    let run = ran.json();
    assert_eq!(run["status"]["conditions"][0]["status"], "False", "{run:#}");
    assert_eq!(run["status"]["steps"][0]["terminated"]["exitCode"], 3, "{run:#}");
    // The same name once more is refused, and nothing is done.
    let ran = place.run(&format!("run -f {}", file.display())).ends(2);
    assert!(ran.stderr.contains("there is a TaskRun `broken` already"), "{ran:#?}");
}

#[test]
fn what_a_secret_holds_reaches_its_step_and_no_log_and_no_file() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {generateName: secret-}\nspec:\n  taskSpec:\n    volumes:\n      \
         - {name: keys, secret: {secretName: token}}\n    steps:\n      - name: use\n        image: busybox\n        env:\n          \
         - {name: TOKEN, valueFrom: {secretKeyRef: {name: token, key: value}}}\n        volumeMounts:\n          \
         - {name: keys, mountPath: /keys}\n        script: |\n          test \"$TOKEN\" = \"$(cat /keys/value)\"\n          \
         echo \"the token is $TOKEN, of ${#TOKEN}\"\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {value: \
         correct-horse-battery}\n";
    let file = place.file("secret.yaml", text);
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(0);
    assert!(ran.stderr.contains("the token is ***, of 21"), "{ran:#?}");
    let mut found = Vec::new();
    contents(&place.path("data"), &mut found);
    let text = String::from_utf8_lossy(&found);
    assert!(text.contains("the token is") && !text.contains("correct-horse-battery"), "it lies on a disk");
    assert!(!ran.stdout.contains("correct-horse-battery"), "{ran:#?}");
}

#[test]
fn what_a_step_refers_to_and_is_not_there_ends_it_with_words() {
    if !has_sandbox() {
        return;
    }
    let place = Place::new();
    let text = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: lost}\nspec:\n  taskSpec:\n    steps:\n      - name: use\n        \
         image: busybox\n        env:\n          - {name: TOKEN, valueFrom: {secretKeyRef: {name: nobody, key: value}}}\n        \
         script: echo never\n";
    let file = place.file("lost.yaml", text);
    let ran = place.run(&format!("run -f {} -o json", file.display())).ends(1);
    let condition = ran.json()["status"]["conditions"][0].to_string();
    assert!(condition.contains("nobody") && condition.contains("not found"), "{condition}");
}

#[test]
fn a_task_that_fits_on_no_machine_says_so() {
    let place = Place::new();
    let text = "apiVersion: tekton.dev/v1\nkind: TaskRun\nmetadata: {name: huge}\nspec:\n  taskSpec:\n    steps:\n      - name: never\n        \
         image: busybox\n        script: echo never\n        computeResources: {limits: {memory: 1000Ti}}\n";
    let ran = place.run(&format!("run -f {}", place.file("huge.yaml", text).display())).ends(1);
    assert!(ran.stdout.contains("[task] ") && ran.stdout.contains("memory"), "{ran:#?}");
}
