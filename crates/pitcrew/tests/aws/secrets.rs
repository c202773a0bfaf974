//! Secrets of the store and of the Secrets Manager, by the command line.

use serde_json::json;

use crate::harness::{World, text};
use crate::moto::Moto;

const CANARY: &str = "c4nary-Value/of+the=secret";

#[test]
fn a_secret_of_the_store_is_readable_by_nobody_who_has_the_files() {
    let world = World::new();
    let out =
        world.feed(&["secrets", "put", "gpu/ssh"], &format!("{{\"private_key\":\"{CANARY}\",\"user\":\"ci\"}}\n"));
    assert!(out.status.success() && text(&out).contains("version 1"), "{}", text(&out));
    assert!(world.feed(&["secrets", "put", "plain"], "one\ntwo\n").status.success());
    let shown = world.ok(&["secrets", "get", "gpu/ssh"]);
    assert_eq!(shown, "store:gpu/ssh: an object with private_key, user, 56 bytes, version 1\n");
    let list = world.json(&["secrets", "list", "--output", "json"]);
    assert_eq!((list[0]["name"].as_str(), list[1]["version"].as_u64()), (Some("gpu/ssh"), Some(1)));
    assert_eq!(world.ok(&["secrets", "get", "store:gpu/ssh#private_key", "--show"]), CANARY);
    assert_eq!(world.ok(&["secrets", "get", "plain", "--show"]), "one\ntwo");
    assert_eq!(world.files_with(CANARY), Vec::<std::path::PathBuf>::new());

    assert!(world.fails(2, &["secrets", "get", "gpu/shh"]).contains("did you mean `gpu/ssh`?"));
    assert!(
        world
            .fails(2, &["secrets", "get", "store:gpu/ssh#pem"])
            .contains("has no text `pem`; it has: private_key, user")
    );
    assert!(world.fails(2, &["secrets", "put", "env:HOME"]).contains("secret has 1 to"), "nothing on stdin");
    assert!(text(&world.feed(&["secrets", "put", "env:HOME"], "x")).contains("can only be read"));
    let test = world.fails(1, &["secrets", "test", "plain", "env:PITCREW_NONE", "file:/no/such"]);
    assert!(
        test.starts_with("yes  store:plain: text, 7 bytes, version 1\nno   the server's environment has no"),
        "{test}"
    );
    world.ok(&["secrets", "delete", "plain"]);
    assert!(world.fails(2, &["secrets", "delete", "plain"]).contains("no secret `plain`"));

    // Without its key the store gives nothing away, and says what is missing.
    std::fs::remove_file(world.path("data/secret.key")).unwrap();
    assert!(world.fails(2, &["secrets", "get", "gpu/ssh"]).contains("the key of secrets is missing"));
}

#[test]
fn secrets_of_aws_are_made_changed_and_refused_in_words() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let put = |value: &str| text(&world.feed(&["secrets", "put", "aws-sm:gpu/ssh"], value));
    let first = put(&json!({ "private_key": CANARY }).to_string());
    let second = put(&json!({ "private_key": format!("{CANARY}2") }).to_string());
    assert!(first.contains("set the secret `aws-sm:gpu/ssh`") && first != second, "{first}{second}");
    assert_eq!(world.ok(&["secrets", "get", "aws-sm:gpu/ssh#private_key", "--show"]), format!("{CANARY}2"));
    assert_eq!(world.ok(&["secrets", "get", "aws-sm:gpu/ssh#private_key@AWSPREVIOUS", "--show"]), CANARY);
    let of = |id: &str| moto.json("secretsmanager", "secretsmanager.DescribeSecret", &json!({ "SecretId": id }));
    let arn = of("gpu/ssh")["ARN"].as_str().unwrap().to_owned();
    // An ARN is asked for in its own region, whatever the environment says.
    world.env.push(("AWS_REGION", "eu-west-1".to_owned()));
    assert_eq!(world.ok(&["secrets", "get", &format!("{arn}#private_key"), "--show"]), format!("{CANARY}2"));
    let elsewhere = world.fails(2, &["secrets", "get", "aws-sm:gpu/ssh"]);
    assert!(elsewhere.contains("there is no secret `aws-sm:gpu/ssh` in eu-west-1"), "{elsewhere}");
    world.env.pop();
    let stage = world.fails(2, &["secrets", "get", "aws-sm:gpu/ssh@NONE"]);
    assert!(stage.contains("or it has no version `NONE`"), "{stage}");

    let bytes = json!({ "Name": "raw", "SecretBinary": "/wECAw==", "ClientRequestToken": "0".repeat(32) });
    moto.json("secretsmanager", "secretsmanager.CreateSecret", &bytes);
    assert!(world.ok(&["secrets", "get", "aws-sm:raw"]).starts_with("aws-sm:raw: bytes, 4 bytes"));
    moto.json("secretsmanager", "secretsmanager.DeleteSecret", &json!({ "SecretId": "raw" }));
    assert!(world.fails(2, &["secrets", "get", "aws-sm:raw"]).contains("is marked for deletion"));

    let (key, secret) = moto.user("ci", &["sns:Publish"]);
    let (allowed_key, allowed_secret) = moto.user("ops", &["secretsmanager:GetSecretValue"]);
    moto.check_everything();
    let with = |world: &mut World, key: &str, secret: &str| {
        world.env.extend([("AWS_ACCESS_KEY_ID", key.to_owned()), ("AWS_SECRET_ACCESS_KEY", secret.to_owned())]);
    };
    with(&mut world, &allowed_key, &allowed_secret);
    assert!(world.ok(&["secrets", "get", "aws-sm:gpu/ssh"]).contains("an object with private_key"), "a good signature");
    with(&mut world, &allowed_key, "wrong-wrong-wrong");
    let wrong = world.fails(2, &["secrets", "get", "aws-sm:gpu/ssh"]);
    assert!(wrong.contains("check the secret key, and the clock"), "{wrong}");
    with(&mut world, &key, &secret);
    let denied = world.fails(2, &["secrets", "get", "aws-sm:gpu/ssh"]);
    let expected =
        "AWS denies `secretsmanager:GetSecretValue` on `aws-sm:gpu/ssh` to `arn:aws:iam::123456789012:user/ci`";
    assert!(denied.contains(expected), "{denied}");
    with(&mut world, "", "");
    let none = world.fails(2, &["secrets", "get", "aws-sm:gpu/ssh"]);
    assert!(none.contains("no AWS credentials were found: set `AWS_ACCESS_KEY_ID`"), "{none}");
    std::fs::create_dir(world.path(".aws")).unwrap();
    let profile = format!("[default]\naws_access_key_id = {allowed_key}\naws_secret_access_key = {allowed_secret}\n");
    std::fs::write(world.path(".aws/credentials"), profile).unwrap();
    assert!(world.ok(&["secrets", "test", "aws-sm:gpu/ssh"]).starts_with("yes  "), "keys of a profile");
    std::fs::remove_dir_all(world.path(".aws")).unwrap();
    assert_eq!(world.files_with(CANARY), Vec::<std::path::PathBuf>::new());
}
