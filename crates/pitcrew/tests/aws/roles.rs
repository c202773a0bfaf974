//! Whose name requests carry: each way to credentials, with a service that answers only to the right one; and what
//! happens when AWS is busy, or a session is over.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::harness::World;
use crate::moto::Moto;
use crate::service::{Asked, serve};

const KEYS: &str = r#""SecretAccessKey": "hush-hush", "Token": "session", "Expiration": "2999-01-01T00:00:00Z""#;

/// The Secrets Manager, for whoever signs with this key.
fn secrets_manager(asked: &Asked, key: &str) -> (u16, String) {
    match asked.is_by(key) {
        true => (200, json!({"ARN": "arn", "Name": "n", "VersionId": "v", "SecretString": "opened"}).to_string()),
        false => (400, json!({"__type": "UnrecognizedClientException", "message": asked.authorization}).to_string()),
    }
}

fn world(endpoint: &str, env: &[(&'static str, &str)]) -> World {
    let mut world = World::new();
    world.env.push(("AWS_ENDPOINT_URL", endpoint.to_owned()));
    world.env.push(("AWS_REGION", "us-east-1".to_owned()));
    world.env.extend(env.iter().map(|(name, value)| (*name, (*value).to_owned())));
    world
}

fn opened(world: &World) -> String {
    world.ok(&["secrets", "get", "aws-sm:n", "--show"])
}

#[test]
fn a_profile_assumes_a_role_and_has_what_the_role_may() {
    let moto = Moto::start();
    let mut world = World::new();
    moto.serve(&mut world);
    let secret = json!({"Name": "n", "SecretString": "opened", "ClientRequestToken": "0".repeat(32)});
    moto.json("secretsmanager", "secretsmanager.CreateSecret", &secret);
    let trust = "%7B%22Version%22:%222012-10-17%22,%22Statement%22:[%7B%22Effect%22:%22Allow%22,%22Principal%22:%7B%22AWS%22:%22*%22%7D,%22Action%22:%22sts:AssumeRole%22%7D]%7D";
    moto.form("iam", &format!("Version=2010-05-08&Action=CreateRole&RoleName=reader&AssumeRolePolicyDocument={trust}"));
    let policy = "%7B%22Version%22:%222012-10-17%22,%22Statement%22:[%7B%22Effect%22:%22Allow%22,%22Action%22:[%22secretsmanager:GetSecretValue%22],%22Resource%22:%22*%22%7D]%7D";
    moto.form(
        "iam",
        &format!("Version=2010-05-08&Action=PutRolePolicy&RoleName=reader&PolicyName=p&PolicyDocument={policy}"),
    );
    let (key, secret) = moto.user("ci", &["sts:AssumeRole"]);
    moto.check_everything();

    world.env.retain(|(name, _)| !name.starts_with("AWS_ACCESS") && !name.starts_with("AWS_SECRET"));
    std::fs::create_dir(world.path(".aws")).unwrap();
    let credentials = format!("[base]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    std::fs::write(world.path(".aws/credentials"), credentials).unwrap();
    let role = "arn:aws:iam::123456789012:role";
    let config = format!("[profile ci]\nrole_arn = {role}/reader\nsource_profile = base\n");
    std::fs::write(world.path(".aws/config"), config).unwrap();
    world.env.push(("AWS_PROFILE", "base".to_owned()));
    let denied = world.fails(2, &["secrets", "get", "aws-sm:n"]);
    assert!(denied.contains("AWS denies `secretsmanager:GetSecretValue` on `aws-sm:n` to"), "{denied}");
    world.env.push(("AWS_PROFILE", "ci".to_owned()));
    assert_eq!(opened(&world), "opened");
}

#[test]
fn a_pod_and_a_machine_have_their_roles() {
    // A pod of EKS: an agent beside it knows.
    let endpoint = serve(|asked| match asked.path.as_str() {
        "/v1/credentials" if asked.authorization == "pod-token" => {
            (200, format!("{{\"AccessKeyId\": \"ASIAPOD\", {KEYS}}}"))
        }
        "/v1/credentials" => (401, String::new()),
        _ => secrets_manager(asked, "ASIAPOD"),
    });
    let mut pod = world(&endpoint, &[]);
    std::fs::write(pod.path("token"), "pod-token").unwrap();
    let token = pod.path("token").display().to_string();
    pod.env.push(("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token));
    pod.env.push(("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{endpoint}/v1/credentials")));
    assert_eq!(opened(&pod), "opened");

    // A machine of EC2, by its metadata, the second version of it.
    let endpoint = serve(|asked| match (asked.method.as_str(), asked.path.as_str()) {
        ("PUT", "/latest/api/token") => (200, "metadata-token".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "gpu-role".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/gpu-role") => {
            (200, format!("{{\"Code\": \"Success\", \"AccessKeyId\": \"ASIAEC2\", {KEYS}}}"))
        }
        _ => secrets_manager(asked, "ASIAEC2"),
    });
    let machine = world(&endpoint, &[("AWS_METADATA_ENDPOINT", &endpoint), ("AWS_EC2_METADATA_DISABLED", "false")]);
    assert_eq!(opened(&machine), "opened");
}

#[test]
fn a_busy_service_is_asked_again_and_not_for_ever_and_a_session_that_is_over_is_renewed() {
    let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "x")];
    let throttled = || (400, json!({"__type": "ThrottlingException", "message": "Rate exceeded"}).to_string());
    let calls = Arc::new(AtomicUsize::new(0));
    let (count, most) = (calls.clone(), Arc::new(AtomicUsize::new(2)));
    let limit = most.clone();
    let endpoint = serve(move |asked| match count.fetch_add(1, Ordering::SeqCst) < limit.load(Ordering::SeqCst) {
        true => throttled(),
        false => secrets_manager(asked, "AKIA"),
    });
    let busy = world(&endpoint, &keys);
    assert_eq!(opened(&busy), "opened");
    assert_eq!(calls.swap(0, Ordering::SeqCst), 3);
    most.store(usize::MAX, Ordering::SeqCst);
    let told = busy.fails(1, &["secrets", "get", "aws-sm:n"]);
    assert!(told.contains("Rate exceeded"), "{told}");
    assert_eq!(calls.load(Ordering::SeqCst), 5, "the first, and four more");

    // The first session of the role is over before its time.
    let sessions: Arc<Mutex<usize>> = Arc::default();
    let endpoint = serve(move |asked| {
        let mut sessions = sessions.lock().unwrap();
        if asked.body.contains("Action=AssumeRole&") {
            *sessions += 1;
            let keys = format!(
                "<AccessKeyId>ASIA{sessions}</AccessKeyId><SecretAccessKey>x</SecretAccessKey>\
                 <SessionToken>t</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration>"
            );
            return (200, format!("<AssumeRoleResponse><Credentials>{keys}</Credentials></AssumeRoleResponse>"));
        }
        match asked.is_by("ASIA1") {
            true => (400, json!({"__type": "ExpiredTokenException", "message": "over"}).to_string()),
            false => secrets_manager(asked, "ASIA2"),
        }
    });
    let world = world(&endpoint, &[("AWS_PROFILE", "ci")]);
    std::fs::create_dir(world.path(".aws")).unwrap();
    let config = "[profile ci]\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = ci\naws_access_key_id = AKIA\n\
                  aws_secret_access_key = x\n";
    std::fs::write(world.path(".aws/config"), config).unwrap();
    assert_eq!(opened(&world), "opened");
}
