//! Images that are admitted and images that are not: signatures that `openssl` made, and registries over HTTP. One registry is the
//! test's own, so that it can misbehave; the other is the one of Debian, where `PITCREW_TEST_REGISTRY` names its program.

mod maker;
mod registry;

use std::collections::BTreeMap;

use pitcrew_exec::signed::policy::{Identity, Pattern, PublicKey};
use pitcrew_exec::signed::{Gate, Login, Policy, Refusal, Registry, Rule, Signer, Signers, Trust};
use serde_json::json;

use maker::{Maker, PROVIDER};
use registry::{Debian, Own};

fn rule(pattern: &str, signers: Signers) -> Rule {
    Rule { pattern: Pattern::new(pattern), signers }
}

fn gate(rules: Vec<Rule>, trust: Trust) -> Gate {
    Gate::new(Policy { rules, trust }, Registry::new(BTreeMap::new()).unwrap())
}

fn keys(pems: &[String]) -> Signers {
    Signers::Keys(pems.iter().map(|pem| PublicKey::from_pem(pem).unwrap()).collect())
}

fn named(subject: &str) -> Signers {
    Signers::Identities(vec![Identity { issuer: PROVIDER.to_owned(), subject: subject.to_owned() }])
}

fn refused(found: Result<pitcrew_exec::signed::Admitted, Refusal>) -> String {
    match found {
        Err(Refusal::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn who_has_a_key_of_the_rule_signs_and_the_digest_is_used_from_then_on() {
    let maker = Maker::new();
    let (ours, theirs) = (maker.key("ours"), maker.key("theirs"));
    let own = Own::start().await;
    let image = own.image("ml/train", "1", "the first");
    let name = format!("{}/ml/train:1", own.host);
    let gate = gate(vec![rule(&format!("{}/ml/*", own.host), keys(std::slice::from_ref(&ours)))], Trust::default());

    let why = refused(gate.admit(&name).await);
    assert!(why.contains(&format!("nobody has signed {image}")), "{why}");
    own.signed("ml/train", &image, &[maker.signature("theirs", &image)]);
    assert!(refused(gate.admit(&name).await).contains("it was made by none of the keys of the rule"));

    // One good one is enough, wherever it lies.
    own.signed("ml/train", &image, &[maker.signature("theirs", &image), maker.signature("ours", &image)]);
    let admitted = gate.admit(&name).await.unwrap();
    assert_eq!(admitted.image, format!("{}/ml/train@{image}", own.host));
    assert_eq!(admitted.signer, Some(Signer::Key(PublicKey::from_pem(&ours).unwrap().id)));
    assert_eq!(gate.admit(&admitted.image).await.unwrap(), admitted, "what came out may go in");
    assert_ne!(ours, theirs);

    // The name means something else now: what was signed before says nothing of it.
    let other = own.image("ml/train", "1", "the second");
    assert!(refused(gate.admit(&name).await).contains(&format!("nobody has signed {other}")));
    own.signed("ml/train", &other, &[maker.signature("ours", &image)]);
    assert!(refused(gate.admit(&name).await).contains("it is of another image"));

    // A payload that was changed after it was signed.
    let mut changed = maker.signature("ours", &image);
    changed.payload = String::from_utf8(changed.payload).unwrap().replace(&image, &other).into_bytes();
    own.signed("ml/train", &other, &[changed]);
    assert!(refused(gate.admit(&name).await).contains("it was made by none of the keys"));
    own.signed("ml/train", &other, &[maker.signature("ours", &other)]);
    assert_eq!(gate.admit(&name).await.unwrap().image, format!("{}/ml/train@{other}", own.host));
}

#[tokio::test]
async fn the_first_rule_about_an_image_counts_and_without_one_it_is_refused() {
    let maker = Maker::new();
    let ours = maker.key("ours");
    let own = Own::start().await;
    own.image("tools/box", "local", "a box");
    let box_ = format!("{}/tools/box:local", own.host);
    let rules = vec![
        rule(&box_, Signers::Anybody),
        rule(&format!("{}/tools/*", own.host), keys(&[ours])),
        rule("*", Signers::Anybody),
    ];
    let gate_ = gate(rules[..2].to_vec(), Trust::default());
    let admitted = gate_.admit(&box_).await.unwrap();
    assert_eq!((admitted.image, admitted.signer), (box_.clone(), None));
    assert!(refused(gate_.admit("busybox").await).contains("no rule of `signatures` is about it"));
    own.image("tools/box", "other", "another box");
    assert!(refused(gate_.admit(&format!("{}/tools/box:other", own.host)).await).contains("nobody has signed"));
    assert!(refused(gate_.admit("no image").await).contains("is no name of an image"));
    assert!(gate(rules, Trust::default()).admit("busybox").await.is_ok());
    assert_eq!(own.asked("tools/box/manifests/local"), 0, "what needs no signature is not asked for");
}

#[tokio::test]
async fn a_certificate_counts_for_whom_it_names_while_the_log_says_that_it_was_good() {
    let maker = Maker::new();
    let own = Own::start().await;
    let image = own.image("ci/app", "1", "built by a pipeline");
    let name = format!("{}/ci/app:1", own.host);
    let subject = "https://git.example.com/team/app/.ci/release.yaml@refs/heads/main";
    let trust = maker.trust();
    let of = |subject: &str| gate(vec![rule("*", named(subject))], trust.clone());
    let put = |signature| own.signed("ci/app", &image, &[signature]);

    let leaf = maker.leaf("app", &format!("URI:{subject}"));
    put(maker.keyless(&leaf, &image));
    let admitted = of("https://git.example.com/team/*").admit(&name).await.unwrap();
    assert_eq!(admitted.signer, Some(Signer::Identity { issuer: PROVIDER.into(), subject: subject.into() }));
    assert!(of(subject).admit(&name).await.is_ok());

    let why = refused(of("https://git.example.com/others/*").admit(&name).await);
    assert!(why.contains(&format!("it was made by {subject} ({PROVIDER}), whom the rule does not name")), "{why}");
    let elsewhere = Identity { issuer: "https://login.example.org".to_owned(), subject: "*".to_owned() };
    let gate_ = gate(vec![rule("*", Signers::Identities(vec![elsewhere]))], trust.clone());
    assert!(refused(gate_.admit(&name).await).contains("whom the rule does not name"));

    // Whom nobody here believes.
    let mut other = maker.trust();
    other.roots = Maker::new().trust().roots;
    let gate_ = gate(vec![rule("*", named("*"))], other);
    assert!(refused(gate_.admit(&name).await).contains("its certificate cannot be believed"));
    let mut other = maker.trust();
    other.logs = Maker::new().trust().logs;
    let gate_ = gate(vec![rule("*", named("*"))], other);
    assert!(refused(gate_.admit(&name).await).contains("is not believed"));

    let all = of("*");
    assert!(all.admit(&name).await.is_ok());
    // Each part that is missing, or another one's.
    let good = maker.keyless(&leaf, &image);
    put(maker::Signature { bundle: None, ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("no log says when it was made"));
    put(maker::Signature { certificate: None, ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("it has no certificate"));
    let later = maker.bundle(&good, leaf.from + 3 * 24 * 3600);
    put(maker::Signature { bundle: Some(later), ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("its certificate cannot be believed: CertExpired"));
    let before = maker.bundle(&good, leaf.from - 60);
    put(maker::Signature { bundle: Some(before), ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("its certificate cannot be believed: CertNotValidYet"));
    let moved = good.bundle.clone().unwrap().replace(&leaf.from.to_string(), &(leaf.from + 1).to_string());
    put(maker::Signature { bundle: Some(moved), ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("the log did not sign"));
    let ada = maker.leaf("other", "email:ada@example.com");
    let other = maker.keyless(&ada, &image);
    put(maker::Signature { bundle: other.bundle.clone(), ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("what the log has written down is another signature"));
    put(maker::Signature { certificate: other.certificate.clone(), ..good.clone() });
    assert!(refused(all.admit(&name).await).contains("what the log has written down is another signature"));
    // Somebody else's certificate with a log that says so: but the key is not that one's.
    let mut lent = maker::Signature { certificate: other.certificate.clone(), ..good.clone() };
    lent.bundle = Some(maker.bundle(&lent, ada.from));
    put(lent);
    assert!(refused(all.admit(&name).await).contains("the key of its certificate did not make it"));
    put(other);
    assert!(of("ada@example.com").admit(&name).await.is_ok());
    // One for machines, by the same authority.
    let machine = maker.leaf_for("machine", "URI:https://git.example.com/team/x", "serverAuth");
    put(maker.keyless(&machine, &image));
    assert!(refused(all.admit(&name).await).contains("its certificate cannot be believed"));
    // Two names: which of them it was is not to be guessed.
    let two = maker.leaf("two", "email:ada@example.com,email:eve@example.com");
    put(maker.keyless(&two, &image));
    assert!(refused(all.admit(&name).await).contains("does not say for whom it is"));
}

#[tokio::test]
async fn a_registry_that_asks_who_one_is_is_told_and_one_that_lies_is_found_out() {
    let maker = Maker::new();
    let ours = maker.key("ours");
    let own = Own::start().await;
    let image = own.image("private/app", "1", "ours alone");
    own.signed("private/app", &image, &[maker.signature("ours", &image)]);
    let name = format!("{}/private/app:1", own.host);
    let rules = vec![rule("*", keys(&[ours]))];
    own.private("ada", "a password");
    let stranger = gate(rules.clone(), Trust::default());
    let why = refused(stranger.admit(&name).await);
    assert!(why.contains("gives no token: 401"), "{why}");
    let login = |password: &str| {
        let login = Login { user: "ada".to_owned(), password: password.to_owned().into() };
        let registry = Registry::new([(own.host.clone(), login)].into()).unwrap();
        Gate::new(Policy { rules: rules.clone(), trust: Trust::default() }, registry)
    };
    let why = refused(login("a wrong password").admit(&name).await);
    assert!(why.contains("401") && !why.contains("a wrong password"), "{why}");
    let known = login("a password");
    assert!(known.admit(&name).await.is_ok());

    own.lie("private/app", &image);
    assert!(refused(known.admit(&name).await).contains("the registry gave other bytes"));
    own.broken(503);
    let unknown = known.admit(&name).await;
    assert!(matches!(&unknown, Err(Refusal::Unknown(why)) if why.contains("503")), "{unknown:?}");
    own.broken(404);
    assert!(refused(known.admit(&name).await).contains("its registry has no such image"));
    let gone = own.host.clone();
    drop(own);
    let away = known.admit(&format!("{gone}/private/app:1")).await;
    assert!(matches!(&away, Err(Refusal::Unknown(_))), "{away:?}");
}

#[tokio::test]
async fn the_registry_of_debian_gives_what_was_pushed_to_it() {
    let Some(debian) = Debian::start() else { return };
    let maker = Maker::new();
    let ours = maker.key("ours");
    let image = debian.push_image("team/app", "1").await;
    let name = format!("{}/team/app:1", debian.host);
    let key = gate(vec![rule("*", keys(&[ours]))], Trust::default());
    assert!(refused(key.admit(&name).await).contains(&format!("nobody has signed {image}")));
    assert!(refused(key.admit(&format!("{}/team/none:1", debian.host)).await).contains("no such image"));
    let leaf = maker.leaf("app", "email:ada@example.com");
    debian.push_signatures("team/app", &image, &[maker.keyless(&leaf, &image), maker.signature("ours", &image)]).await;
    assert_eq!(key.admit(&name).await.unwrap().image, format!("{}/team/app@{image}", debian.host));
    let keyless = gate(vec![rule("*", named("ada@*"))], maker.trust());
    assert_eq!(
        serde_json::to_value(keyless.admit(&name).await.unwrap().signer).unwrap(),
        json!({ "identity": { "issuer": PROVIDER, "subject": "ada@example.com" } })
    );
}
