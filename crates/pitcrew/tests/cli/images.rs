//! Images and the rules that they come through. That signatures themselves count or do not is tried where they are checked, in
//! `crates/exec/tests/signed`.

use crate::harness::Place;

#[test]
fn an_image_is_admitted_as_its_rule_says_and_without_one_refused() {
    let place = Place::new();
    let none = place.run("images verify busybox").ends(2);
    assert!(none.stderr.contains("there is no `signatures` in the configuration"), "{none}");

    // Nobody listens there: port 1 of this machine.
    let rules = "signatures:\n  images:\n  - {match: busybox, unsigned: true}\n  - {match: '127.0.0.1:1/*', keys: [team.pub]}\n";
    place.file("pitcrew.yaml", rules);
    let missing = place.run("images verify busybox").ends(2);
    assert!(missing.stderr.contains("`keys`: cannot read") && missing.stderr.contains("pitcrew.yaml:4:"), "{missing}");
    let out = std::process::Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out"])
        .arg(place.path("team.key"))
        .output()
        .unwrap();
    assert!(out.status.success());
    let out = std::process::Command::new("openssl")
        .args(["pkey", "-pubout", "-in"])
        .arg(place.path("team.key"))
        .arg("-out")
        .arg(place.path("team.pub"))
        .output()
        .unwrap();
    assert!(out.status.success());

    assert_eq!(place.run("images verify busybox").ends(0).stdout, "busybox  it needs no signature\n");
    let told = place.run("images verify busybox other/tool:1 127.0.0.1:1/a --output json").ends(1).json();
    assert_eq!(told[0], serde_json::json!({ "image": "busybox", "admitted": "busybox", "signer": null }));
    let why = |at: usize| told[at]["refused"].as_str().unwrap();
    assert!(why(1).contains("the image `other/tool:1` is not admitted: no rule of `signatures` is about it"), "{told}");
    assert!(why(2).contains("cannot be found out: 127.0.0.1:1: it cannot be connected to"), "{told}");
    let shown = place.run("config show").ends(0);
    assert!(shown.stdout.lines().any(|line| line.starts_with("signatures") && line.contains("2 rules")), "{shown}");
}
