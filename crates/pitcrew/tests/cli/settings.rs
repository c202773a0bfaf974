//! Variables, pools, and where each setting comes from.

use serde_json::json;

use crate::harness::Place;
use crate::snapshot;

#[test]
fn variables_are_kept_and_travel_as_a_file() {
    let place = Place::new();
    place.run("variables set model big --description which").ends(0);
    place.file("more.json", r#"{"list": [1, 2], "text": "a b", "both": {"value": "v", "description": "d"}}"#);
    place.run("variables import more.json").ends(0);
    assert_eq!(place.run("variables get list").ends(0).stdout, "[1,2]\n");
    let exported = place.run("variables export").ends(0).json();
    let expected = json!({
        "both": {"value": "v", "description": "d"}, "list": "[1,2]",
        "model": {"value": "big", "description": "which"}, "text": "a b",
    });
    assert_eq!(exported, expected);
    place.run("variables delete text").ends(0);
    let lists = [
        place.run("variables list").ends(0),
        place.run("variables get texd").ends(2),
        place.run("variables set ../x y"),
    ];
    place.run("pools set gpu 2").ends(0);
    let pools = place.run("pools list").ends(0);
    snapshot!("variables", format!("{}\n{pools}", lists.map(|ran| format!("{ran}\n")).concat()));
}

#[test]
fn a_workflow_reads_variables_that_were_set() {
    let place = Place::new();
    place.run("variables set city Seoul").ends(0);
    place.file("w.yaml", "workflow: w\ntasks:\n  a: {run: 'echo in {{ var.city }}'}\n");
    place.run("run w.yaml").ends(0);
    assert_eq!(place.run("logs latest").ends(0).stdout, "in Seoul\n");
}

#[test]
fn the_environment_gives_variables_and_connections_and_wins() {
    let place = Place::new();
    place.run("variables set city Seoul").ends(0);
    place.run("variables set bucket s3://stored").ends(0);
    place.file(
        "w.yaml",
        "workflow: w\ntasks:\n  a:\n    env: {P: '{{ conn.db.port | default(5432) }}'}\n    run: 'echo {{ var.city }} {{ var.BUCKET }} {{ conn.db.host }} $P {{ conn.db.password }} {{ conn.db.extra.mode }}'\n  b: {uses: variables.set, with: {values: {city: x}}, retries: 3}\n",
    );
    let given = |arguments: &str| {
        let mut command = place.command(arguments);
        command.env("PITCREW_VAR_CITY", "Busan").env("PITCREW_VAR_BUCKET", "s3://given");
        command.env("PITCREW_CONN_DB", "postgres://u:hunter2@db.example/main?mode=ro");
        place.ran(arguments, command.output().unwrap())
    };
    let ran = given("run w.yaml --output json").ends(1);
    assert_eq!(place.run("logs latest a").ends(0).stdout, "Busan s3://given db.example 5432 conn:db ro\n");
    let told = "the variable `city` cannot be set: it is given by `PITCREW_VAR_CITY`, which wins";
    assert!(ran.stderr.contains(told) && ran.json()["tasks"][1]["attempts"] == 1, "{ran}");

    let list = given("variables list --output json").ends(0).json();
    let bucket = json!({"key": "bucket", "value": "s3://given", "description": "given by `PITCREW_VAR_BUCKET`"});
    assert_eq!(list.as_array().unwrap()[0], bucket);
    assert_eq!(given("variables export").ends(0).json(), json!({}));
    let refused = given("variables delete city").ends(2);
    assert!(refused.stderr.contains("given by `PITCREW_VAR_CITY` in the environment of the server"), "{refused}");
    assert!(given("connections list").ends(0).stdout.contains("given by `PITCREW_CONN_DB`"));
    assert_eq!(place.run("variables get city").ends(0).stdout, "Seoul\n");

    let mut wrong = place.command("variables list");
    let wrong = place.ran("variables list", wrong.env("PITCREW_CONN_DB", "hunter2").output().unwrap()).ends(2);
    assert!(wrong.stderr.contains("`PITCREW_CONN_DB`: is no URI") && !wrong.stderr.contains("hunter2"), "{wrong}");
}

#[test]
fn config_show_tells_where_each_value_comes_from() {
    let place = Place::new();
    let defaults = place.run("config show --output json").ends(0).json();
    assert_eq!(defaults["listen"], json!({"value": "127.0.0.1:8793", "origin": "default"}));
    place.file(
        "pitcrew.yaml",
        "parallelism: 7\nworkflows: flows\nenvironments:\n  prod:\n    store: postgres://u:hunter2@db/p\n    listen: 127.0.0.1:9000\n",
    );
    let shown = place.run("config show --env prod --data-dir elsewhere").ends(0);
    assert!(!shown.stdout.contains("hunter2"), "{shown}");
    let unknown = place.run("config show --env prd").ends(2);
    place.file("pitcrew.yaml", "paralelism: 7\nlisten: 80\nretention_days: [1]\n");
    let wrong = place.run("config show").ends(2);
    let log = place.command("runs list --config none.yaml").output().unwrap();
    let missing = place.ran("runs list --config none.yaml", log).ends(2);
    snapshot!("config", format!("{shown}\n{unknown}\n{wrong}\n{missing}"));
}

#[test]
fn doctor_finds_what_is_there() {
    let place = Place::new();
    let found = place.run("doctor --output json");
    let found = found.json();
    let check = |name: &str| {
        let finding = found.as_array().unwrap().iter().find(|f| f["check"] == name);
        finding.unwrap_or_else(|| panic!("no check `{name}` in {found}"))["grade"].clone()
    };
    assert_eq!((check("data"), check("database")), (json!("good"), json!("good")));
    let bad = place.run("doctor --data-dir /proc/nowhere").ends(1);
    assert!(bad.stdout.contains("✗ data"), "{bad}");
}

#[test]
fn connections_keep_their_secrets_and_travel_as_a_file() {
    let place = Place::new();
    place.run("connections add db --conn-uri postgresql://u:hunter2@db.example:5433/main?sslmode=require").ends(0);
    place.run("connections add gpu-1 --conn-type ssh --conn-host gpu-1.internal --conn-login ubuntu").ends(0);
    let shown = place.run("connections list").ends(0);
    assert!(shown.stdout.contains("db.example:5433") && shown.stdout.contains("password, extra"), "{shown}");
    let got = place.run("connections get db --output json").ends(0);
    assert_eq!((&got.json()[0]["conn_type"], &got.json()[0]["has_password"]), (&"postgres".into(), &true.into()));
    for text in [&shown.stdout, &got.stdout] {
        assert!(!text.contains("hunter2"), "{text}");
    }
    // On the disk the password is sealed; only an export has it, in a file of its user's.
    let database = std::fs::read(place.path("data/pitcrew.db")).unwrap();
    let log = std::fs::read(place.path("data/pitcrew.db-wal")).unwrap_or_default();
    assert!(![database, log].iter().any(|bytes| bytes.windows(7).any(|part| part == b"hunter2")));
    place.run("connections export out.json").ends(0);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(place.path("out.json")).unwrap().permissions().mode() & 0o777, 0o600);
    place.run("connections delete db").ends(0);
    let kept = place.run("connections import out.json").ends(0);
    assert!(kept.stderr.contains("set 1 connection") && kept.stderr.contains("--overwrite"), "{kept}");
    let exported = place.run("connections export").ends(0).json();
    assert_eq!((&exported["db"]["password"], &exported["db"]["port"]), (&"hunter2".into(), &5433.into()));
    for (line, what) in [
        ("connections add db --conn-type x", "there is a connection `db` already"),
        ("connections add x", "required"),
        ("connections add x --conn-uri nothing", "is no URI"),
        ("connections add x --conn-json {\"host\":1}", "`conn_type` is missing"),
        ("connections get bd", "did you mean `db`?"),
        ("connections delete nothing", "there is no connection `nothing`"),
    ] {
        let ran = place.run(line).ends(2);
        assert!(ran.stderr.contains(what), "{ran}");
    }
}
