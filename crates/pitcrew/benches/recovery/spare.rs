//! With a spare node: how soon the job of a node that is fenced begins elsewhere, after it was told to end here.

use crate::site::Site;
use crate::work::{self, Work};
use crate::{POLICY, ROUNDS, left, machine, spread};

pub async fn spare() {
    let site = Site::with(&["s21", "s22"], &format!("{POLICY}\n  watch: 1s")).await;
    work::make(&site);
    let _server = site.serve();
    let mut took = Vec::new();
    for round in 0..=ROUNDS {
        let (mut work, first) = Work::begin(&site);
        let machine = site.machine(&first.node);
        machine.name_gpu(&first.gpu);
        machine.log(machine::FALLEN);
        work.ended(&site);
        let second = work.begun(&site);
        assert_ne!(second.node, first.node);
        let incident = site.until_over(&first.node, "repaired");
        work.finish(&site);
        if round > 0 {
            // It is fenced in the moment in which it is suspected.
            took.push(second.at - left(&incident, "suspected"));
        }
    }
    println!("spare      fenced → its job begins on the spare node  {} (aim ≤ 5)", spread(took));
}
