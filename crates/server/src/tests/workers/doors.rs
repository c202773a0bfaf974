//! Who is let in as a worker, and who is turned away: tokens, credentials, names.

use super::*;

#[tokio::test]
async fn only_a_token_that_works_enrols_and_only_a_free_name() {
    let rig = rig().await;
    let two = token(&rig, json!({ "queues": ["s21"], "uses": 2 })).await;
    let refused = async |token: &str, name: &str, about: About| {
        let (status, text) = enrol(&rig, token, name, about).await;
        let detail: Value = serde_json::from_str(&text).unwrap();
        format!("{} {}", status.as_u16(), detail["detail"].as_str().unwrap_or_default())
    };
    for (token, why) in [
        ("", "enrols with a token"),
        ("pwt_guessed", "there is no such token"),
        (rig.token.as_str(), "enrols with a token"),
    ] {
        let told = refused(token, "w1", about(&["s21"])).await;
        assert!(told.starts_with("401") && told.contains(why), "{told}");
    }
    let told = refused(&two, "w1", about(&["s21", "other"])).await;
    assert!(
        told.starts_with("400") && told.contains("its token is for the queues `s21`, and not for `other`"),
        "{told}"
    );
    for (wrong, why) in [
        (About { slots: 0, ..about(&["s21"]) }, "1 to 10000 slots"),
        (About { data_dir: "relative".into(), ..about(&["s21"]) }, "absolute paths"),
        (About { labels: [("pitcrew/queue.x".into(), "true".into())].into(), ..about(&["s21"]) }, "Pitcrew's own"),
        (About { resources: [("gpu".into(), Amount::ONE)].into(), ..about(&["s21"]) }, "GPUs are found"),
        (About { queues: Vec::new(), ..about(&[]) }, "serves 1 to"),
    ] {
        let told = refused(&two, "w1", wrong).await;
        assert!(told.starts_with("400") && told.contains(why), "{told}");
    }
    assert!(refused(&two, "a b", about(&["s21"])).await.contains("`a b` is no name of a worker"));
    assert!(refused(&two, "local", about(&["s21"])).await.starts_with("409 there is a node `local` already"));
    assert_eq!(enrol(&rig, &two, "w1", about(&["s21"])).await.0, StatusCode::OK);
    assert!(refused(&two, "w1", about(&["s21"])).await.starts_with("409 there is a node `w1` already"));
    assert_eq!(enrol(&rig, &two, "w2", about(&["s21"])).await.0, StatusCode::OK);
    assert_eq!(
        refused(&two, "w3", about(&["s21"])).await,
        "401 the token has no use left: an administrator makes one with `pitcrew workers token`"
    );
    // One that is over.
    let row = WorkerToken {
        id: "old".into(),
        hash: digest("pwt_old"),
        queues: Vec::new(),
        made_by: "admin".into(),
        created: Timestamp::UNIX_EPOCH,
        expires: Some(clock::now() - SignedDuration::from_secs(1)),
        uses: None,
    };
    rig.app.store.put_worker_token(row, AuditEntry::new(clock::now(), "test", "worker.token")).await.unwrap();
    assert!(refused("pwt_old", "w3", about(&["s21"])).await.starts_with("401 the token has expired"));
    let newer = Enrol { protocol: PROTOCOL + 2, name: "w3".into(), about: about(&["s21"]), credential: None };
    let any = token(&rig, json!({})).await;
    let (status, text) = call(&rig, &any, "enrol", serde_json::to_string(&newer).unwrap()).await;
    assert!(status == StatusCode::UPGRADE_REQUIRED && text.contains("upgrade the server"), "{text}");
}

#[tokio::test]
async fn a_credential_opens_the_calls_of_its_worker_until_it_is_revoked_and_nothing_else() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    for bearer in ["", "pw_guessed", rig.token.as_str()] {
        let (status, _) = call(&rig, bearer, "sync", "{}").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
    }
    let request = rig.request(Method::GET, "/api/pitcrew/v1/workers");
    let request = request.header(header::AUTHORIZATION, format!("Bearer {}", machine.credential));
    assert_eq!(rig.send(request.body(Body::empty()).unwrap()).await.status, StatusCode::UNAUTHORIZED);
    let op = rig.token_for(Role::Op).await;
    for (path, status) in [("workers/token", StatusCode::FORBIDDEN), ("workers/w1/revoke", StatusCode::FORBIDDEN)] {
        let request = rig.request(Method::POST, &format!("/api/pitcrew/v1/{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {op}"));
        assert_eq!(rig.send(request.body(Body::from("{}")).unwrap()).await.status, status, "{path}");
    }
    let later = Machine { rig: &rig, credential: machine.credential.clone(), incarnation: 2, seq: AtomicU64::new(0) };
    later.appears().await;
    let (status, text) = machine.ask(&machine.says(Vec::new())).await;
    assert!(status == StatusCode::CONFLICT && text.contains("started later") && text.contains(REPLACED), "{text}");
    let drained = rig.post("/api/pitcrew/v1/workers/w1/drain", json!({})).await.json();
    assert_eq!((&drained["standing"], &drained["drain"]), (&json!("draining"), &json!(true)));
    assert!(later.sync(later.says(Vec::new())).await.drain);
    rig.post("/api/pitcrew/v1/workers/w1/undrain", json!({})).await;
    assert!(!later.sync(later.says(Vec::new())).await.drain);
    rig.post("/api/pitcrew/v1/workers/w1/drain", json!({})).await;
    assert_eq!(rig.post("/api/pitcrew/v1/workers/w1/revoke", json!({})).await.status, StatusCode::OK);
    let (status, text) = later.ask(&later.says(Vec::new())).await;
    assert!(status == StatusCode::UNAUTHORIZED && text.contains("it was revoked") && text.contains(REVOKED), "{text}");
    assert_eq!(rig.get("/api/pitcrew/v1/workers/w1").await.status, StatusCode::NOT_FOUND);
    assert_eq!(rig.get("/api/pitcrew/v1/nodes/w1").await.status, StatusCode::NOT_FOUND);
    let audit = rig.get("/api/v2/eventLogs?limit=100").await.text;
    for event in ["worker.token", "worker.enrol", "worker.drain", "worker.undrain", "worker.revoke"] {
        assert!(audit.contains(event), "{event}: {audit}");
    }
    assert!(!audit.contains("pw_") && !audit.contains("pwt_"));
    // The next one of that name is not drained.
    Machine::new(&rig, "w1", &["s21"]).await.appears().await;
    assert_eq!(rig.get("/api/pitcrew/v1/workers/w1").await.json()["standing"], "ready");
}

#[tokio::test]
async fn a_cordon_of_a_person_outlives_a_drain_and_goes_after_the_worker_was_revoked() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    machine.appears().await;
    let cordon = rig.patch("/api/pitcrew/v1/nodes/w1", json!({ "cordoned": true })).await;
    assert_eq!(cordon.status, StatusCode::OK);
    rig.post("/api/pitcrew/v1/workers/w1/drain", json!({})).await;
    rig.post("/api/pitcrew/v1/workers/w1/undrain", json!({})).await;
    let worker = rig.get("/api/pitcrew/v1/workers/w1").await.json();
    assert_eq!((&worker["standing"], &worker["drain"]), (&json!("cordoned"), &json!(false)));
    assert_eq!(rig.get("/api/pitcrew/v1/nodes/w1").await.json()["is_cordoned"], true);
    assert_eq!(rig.post("/api/pitcrew/v1/workers/w1/revoke", json!({})).await.status, StatusCode::OK);
    // Else it would be given work in between.
    let log = rig.get("/api/v2/eventLogs?order_by=-when&limit=2").await.json();
    let events: Vec<&str> =
        log["event_logs"].as_array().unwrap().iter().map(|e| e["event"].as_str().unwrap()).collect();
    assert_eq!(events, ["node.uncordon", "worker.revoke"]);
    Machine::new(&rig, "w1", &["s21"]).await.appears().await;
    assert_eq!(rig.get("/api/pitcrew/v1/workers/w1").await.json()["standing"], "ready");
    // A drain alone leaves no cordon behind.
    rig.post("/api/pitcrew/v1/workers/w1/drain", json!({})).await;
    assert_eq!(rig.get("/api/pitcrew/v1/workers/w1").await.json()["standing"], "draining");
    assert_eq!(rig.get("/api/pitcrew/v1/nodes/w1").await.json()["is_cordoned"], false);
}

#[tokio::test]
async fn the_calls_of_workers_are_not_open_and_their_attempts_have_names_that_are_safe() {
    let rig = rig().await;
    for path in ["enrol", "sync", "log"] {
        let request = rig.request(Method::POST, &format!("/api/pitcrew/v1/worker/{path}"));
        assert_eq!(rig.send(request.body(Body::empty()).unwrap()).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert!("../x/a.1".parse::<AttemptId>().is_err());
}

#[tokio::test]
async fn a_worker_that_is_revoked_while_its_question_waits_gets_no_order() {
    let rig = rig().await;
    let machine = Machine::new(&rig, "w1", &["s21"]).await;
    let server = machine.appears().await.server;
    let question = Sync { wait_ms: 20_000, server: Some(server), ..machine.says(Vec::new()) };
    let (answer, ()) = tokio::join!(machine.ask(&question), async {
        rig.post("/api/pitcrew/v1/workers/w1/revoke", json!({})).await;
    });
    assert!(answer.0 == StatusCode::UNAUTHORIZED && answer.1.contains("it was revoked"), "{}", answer.1);
}

#[tokio::test]
async fn tokens_are_good_for_an_hour_are_listed_and_taken_back_and_a_lost_answer_costs_no_second_use() {
    let rig = rig().await;
    let secret = token(&rig, json!({ "uses": 1 })).await;
    let list = || async { rig.get("/api/pitcrew/v1/workers/token").await };
    let row = list().await.json()["tokens"][0].clone();
    assert_eq!((&row["works"], &row["uses"], &row["made_by"]), (&json!(true), &json!(1), &json!("admin")));
    let expires: Timestamp = row["expires"].as_str().unwrap().parse().unwrap();
    assert!(expires.duration_since(clock::now()) <= SignedDuration::from_hours(1));
    assert!(!list().await.text.contains("pwt_"));
    let never = rig.post("/api/pitcrew/v1/workers/token", json!({ "expires": "never" })).await.json();
    assert_eq!(never["expires"], Value::Null);
    let made = format!("pw_{}", "a1".repeat(20));
    let wish = |name: &str, own: &str| Enrol {
        protocol: PROTOCOL,
        name: name.into(),
        about: about(&["s21"]),
        credential: Some(own.to_owned()),
    };
    let ask = async |token: &str, wish: Enrol| call(&rig, token, "enrol", serde_json::to_string(&wish).unwrap()).await;
    assert_eq!(ask(&secret, wish("w1", "pw_short")).await.0, StatusCode::BAD_REQUEST);
    let (status, first) = ask(&secret, wish("w1", &made)).await;
    assert_eq!(status, StatusCode::OK, "{first}");
    assert_eq!(ask(&secret, wish("w1", &made)).await, (StatusCode::OK, first), "the same, though the token is used up");
    assert_eq!(ask(&secret, wish("w2", &made)).await.0, StatusCode::CONFLICT);
    let other = format!("pw_{}", "b2".repeat(20));
    assert_eq!(ask(&secret, wish("w2", &other)).await.0, StatusCode::UNAUTHORIZED, "another one needs another use");
    assert_eq!(rig.get("/api/pitcrew/v1/workers").await.json()["total_entries"], 1);
    let path = format!("/api/pitcrew/v1/workers/token/{}", row["id"].as_str().unwrap());
    let delete = || async {
        rig.send(
            rig.request(Method::DELETE, &path)
                .header(header::AUTHORIZATION, format!("Bearer {}", rig.token))
                .body(Body::empty())
                .unwrap(),
        )
        .await
        .status
    };
    assert_eq!((delete().await, delete().await), (StatusCode::NO_CONTENT, StatusCode::NOT_FOUND));
    assert_eq!(list().await.json()["total_entries"], 1);
    assert!(rig.get("/api/v2/eventLogs?limit=100").await.text.contains("worker.token.delete"));
}
