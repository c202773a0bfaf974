//! What events pass, one interceptor at a time.

use super::*;

#[test]
fn a_merge_request_brings_its_token_and_a_tag_of_bitbucket_a_signature() {
    let gitlab = "{ref: {name: gitlab}, params: [{name: secretRef, value: {secretName: hook, secretKey: token}}, \
                  {name: eventTypes, value: [Merge Request Hook]}]}";
    let trigger = with_interceptor(gitlab).unwrap();
    let body = json!({"object_kind": "merge_request", "object_attributes": {"iid": 3, "state": "opened"}}).to_string();
    let of = |token: &str, kind: &str| event(&[("X-Gitlab-Token", token), ("X-Gitlab-Event", kind)], body.clone());
    assert_eq!(extensions(&trigger, &of("s3cret", "Merge Request Hook")).unwrap(), json!({}));
    let kind = |event: &Event| extensions(&trigger, event).unwrap_err().kind;
    assert_eq!(kind(&of("s3cre", "Merge Request Hook")), StopKind::Refused);
    assert_eq!(kind(&of("s3cret", "Push Hook")), StopKind::Filtered);
    assert_eq!(kind(&event(&[("X-Gitlab-Event", "Merge Request Hook")], body.clone())), StopKind::Refused);

    let bitbucket =
        "{ref: {name: bitbucket}, params: [{name: secretRef, value: {secretName: hook, secretKey: token}}]}";
    let trigger = with_interceptor(bitbucket).unwrap();
    let body = json!({"push": {"changes": [{"new": {"type": "tag", "name": "v1"}}]}}).to_string();
    let signature = signature::sign(body.as_bytes(), b"s3cret");
    assert!(extensions(&trigger, &event(&[("X-Hub-Signature", &signature)], body.clone())).is_ok());
    let wrong = event(&[("X-Hub-Signature", &signature)], format!("{body} "));
    assert_eq!(extensions(&trigger, &wrong).unwrap_err().kind, StopKind::Refused);
}

#[test]
fn a_slash_command_brings_fields_of_a_form() {
    let form = "token=t&command=%2Fdeploy&text=main+now&response_url=https%3A%2F%2Fexample.com";
    let kind = ("Content-Type", "application/x-www-form-urlencoded");
    let plain =
        with_interceptor("{ref: {name: slack}, params: [{name: requestedFields, value: [text, command]}]}").unwrap();
    let posted = event(&[kind, ("X-Slack-Signature", "v0=00")], form);
    assert_eq!(extensions(&plain, &posted).unwrap(), json!({"text": ["main now"], "command": ["/deploy"]}));
    assert_eq!(extensions(&plain, &event(&[kind], form)).unwrap_err().kind, StopKind::Refused);
    assert_eq!(extensions(&plain, &event(&[], "{}")).unwrap_err().kind, StopKind::Refused);

    let checked = with_interceptor(
        "{ref: {name: slack}, params: [{name: requestedFields, value: [nothing]}, \
         {name: secretRef, value: {secretName: slack, secretKey: signing}}]}",
    )
    .unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"sl4ck");
    let sign = |time: &str| {
        let tag = ring::hmac::sign(&key, format!("v0:{time}:{form}").as_bytes());
        format!("v0={}", tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let sent = |time: &str, signature: &str| {
        let posted = [kind, ("X-Slack-Signature", signature), ("X-Slack-Request-Timestamp", time)];
        extensions(&checked, &event(&posted, form)).unwrap_err()
    };
    let near = "1772366340";
    assert_eq!(sent(near, &sign(near)).to_string(), "slack: the form has no field `nothing`");
    assert_eq!(sent(near, &sign("1772366341")).kind, StopKind::Refused);
    let old = "1772366000";
    assert!(sent(old, &sign(old)).message.contains("five minutes"));
}

#[test]
fn what_only_others_know_is_asked() {
    let files = "{ref: {name: github}, params: [{name: addChangedFiles, value: {enabled: true, \
                 personalAccessToken: {secretName: hook, secretKey: pat}}}]}";
    let trigger = with_interceptor(files).unwrap();
    let posted = event(&[("X-GitHub-Event", "pull_request")], pull_request().to_string());
    let mut chain = Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::new()).unwrap();
    let Next::Ask(Question::ChangedFiles { owner, repository, number, .. }) = chain.advance(&secrets()).unwrap() else {
        panic!("the files are not known here");
    };
    assert_eq!((owner.as_str(), repository.as_str(), number), ("acme", "app", 17));
    chain.answer(Answer::ChangedFiles(vec!["x".into(), "y".into()])).unwrap();
    assert_eq!(chain.advance(&secrets()), Ok(Next::Passed));
    assert!(chain.clone().answer(Answer::Owner(true)).is_err());
    assert_eq!(Value::Object(chain.finish().2), json!({"changed_files": "x,y"}));
    assert_eq!(resolve(&trigger, &posted, "el", &secrets(), "u").unwrap_err().kind, StopKind::Failed);

    let trigger =
        with_interceptor("{ref: {name: mine, kind: NamespacedInterceptor}, params: [{name: p, value: [1]}]}").unwrap();
    let mut chain = Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::new()).unwrap();
    let Next::Ask(Question::Interceptor { name, namespaced: true, request }) = chain.advance(&secrets()).unwrap()
    else {
        panic!("it is elsewhere");
    };
    assert_eq!((name.as_str(), &request["interceptor_params"]), ("mine", &json!({"p": [1]})));
    assert_eq!(request["context"]["trigger_id"], "namespaces/ci/triggers/t");
    assert_eq!(request["header"], json!({"X-Github-Event": ["pull_request"]}));
    let mut no = chain.clone();
    let stop =
        no.answer(Answer::Interceptor(json!({"continue": false, "status": {"message": "not today"}}))).unwrap_err();
    assert_eq!((stop.kind, stop.to_string()), (StopKind::Filtered, "mine: not today".into()));
    assert_eq!(chain.clone().answer(Answer::Interceptor(json!("x"))).unwrap_err().kind, StopKind::Failed);
    chain.answer(Answer::Interceptor(json!({"continue": true, "extensions": {"a": 1}}))).unwrap();
    assert_eq!(chain.advance(&secrets()), Ok(Next::Passed));

    let trigger = with_interceptor("{webhook: {objectRef: {kind: Service, apiVersion: v1, name: s}}}").unwrap();
    let mut chain =
        Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::from_iter([("e".into(), json!(1))])).unwrap();
    let Next::Ask(Question::Webhook { body, .. }) = chain.advance(&secrets()).unwrap() else {
        panic!("it is elsewhere")
    };
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["extensions"], json!({"e": 1}));
    chain.answer(Answer::Webhook { headers: Headers::default(), body: b"{\"new\": 1}".to_vec() }).unwrap();
    assert_eq!(chain.finish().1.json(), Ok(&json!({"new": 1})));
}

#[test]
fn a_comment_has_a_pull_request_built_when_an_owner_says_so() {
    let owners = "{ref: {name: github}, params: [{name: githubOwners, value: {enabled: true, checkType: orgMembers, \
                  personalAccessToken: {secretName: hook, secretKey: pat}}}]}";
    let trigger = with_interceptor(owners).unwrap();
    let comment = |text: &str| {
        let body = json!({"issue": {"number": 17}, "comment": {"body": text}, "sender": {"login": "kim"},
            "repository": {"full_name": "acme/app"}});
        event(&[("X-GitHub-Event", "issue_comment")], body.to_string())
    };
    let posted = comment("thanks\r\n/ok-to-test\r\n");
    let mut chain = Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::new()).unwrap();
    let asked = chain.advance(&secrets()).unwrap();
    let Next::Ask(Question::Owner { sender, check, .. }) = asked else { panic!("owners are not known here") };
    assert_eq!((sender.as_str(), check), ("kim", interceptors::CheckType::OrgMembers));
    assert_eq!(chain.clone().answer(Answer::Owner(false)).unwrap_err().kind, StopKind::Filtered);
    chain.answer(Answer::Owner(true)).unwrap();
    assert_eq!(chain.advance(&secrets()), Ok(Next::Passed));
    let posted = comment("please /ok-to-test");
    let mut chain = Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::new()).unwrap();
    assert_eq!(chain.advance(&secrets()).unwrap_err().kind, StopKind::Filtered);
    // Other events are not asked about.
    let posted = event(&[("X-GitHub-Event", "push")], "{}");
    let mut chain = Chain::new(&trigger.interceptors, &posted, trigger.id(), Map::new()).unwrap();
    assert_eq!(chain.advance(&secrets()), Ok(Next::Passed));
}

#[test]
fn overlays_are_put_in_place_and_secrets_compared() {
    let cel = "{ref: {name: cel}, params: [{name: filter, value: \"header.canonical('x-t').compareSecret('token', 'hook')\"}, \
               {name: overlays, value: [{key: a.b, expression: '[1, 2.5]'}, {key: a.c, expression: requestURL}, \
               {key: 'x\\.y', expression: 'body.n + 1.0'}, {key: a.b.1, expression: \"b'hi'\"}]}]}";
    let trigger = with_interceptor(cel).unwrap();
    let found = extensions(&trigger, &event(&[("X-T", "s3cret")], "{\"n\": 1}")).unwrap();
    assert_eq!(found, json!({"a": {"b": [1, "aGk="], "c": "/hooks/ci/forge?x=1"}, "x.y": 2}));
    assert_eq!(extensions(&trigger, &event(&[("X-T", "s3cre")], "{}")).unwrap_err().kind, StopKind::Filtered);
    let missing = extensions(&trigger, &event(&[("X-T", "s3cret")], "{}")).unwrap_err();
    assert!(missing.message.starts_with("the overlay `x\\.y`: no such key: n"), "{missing}");
    let null =
        with_interceptor("{ref: {name: cel}, params: [{name: overlays, value: [{key: a, expression: body.x}]}]}");
    assert_eq!(extensions(&null.unwrap(), &event(&[], "{\"x\": null}")).unwrap_err().kind, StopKind::Failed);
}
