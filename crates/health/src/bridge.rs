//! Signs in the words of [`pitcrew_core::recovery`].

use jiff::Timestamp;
use pitcrew_core::recovery::{Signal, SignalKind};

use crate::kernel::{Sign, SignKind};

impl Sign {
    /// As recovery takes it; `at` is when it happened by the server's clock. `None`: it is about no fault.
    pub fn signal(&self, node: &str, at: Timestamp) -> Option<Signal> {
        let kind = match &self.kind {
            SignKind::Xid(line) => SignalKind::Xid { code: line.code },
            SignKind::FallenOffBus => SignalKind::LostGpu,
            SignKind::Switch { .. } => SignalKind::NvLink,
            SignKind::Garbled | SignKind::Lost { .. } => return None,
        };
        Some(Signal {
            id: self.id.clone(),
            node: node.to_owned(),
            boot_id: Some(self.boot.clone()),
            gpu: self.gpu.clone(),
            job: None,
            at,
            kind,
            advice: self.judgement.action.advice(),
            evidence: format!("{} ({})", self.evidence, self.judgement.why),
        })
    }
}

#[cfg(test)]
mod tests {
    use pitcrew_core::recovery::Advice;

    use crate::Tables;
    use crate::kernel::{Judging, Watch, read_kmsg};

    use super::*;

    fn signals(lines: &[&str]) -> Vec<Option<Signal>> {
        let boot = "810fca1e-916b-414a-8cbd-baae91c90d6a";
        let how = Judging { tables: Tables::usual(), driver: None, is_drill: false };
        let mut watch = Watch::default();
        watch.begin(boot, 0);
        let records =
            lines.iter().zip(1..).map(|(line, n)| read_kmsg(format!("4,{n},{n}000,-;{line}").as_bytes()).unwrap());
        let signs: Vec<_> = records.flat_map(|record| watch.take(boot, &record, how)).collect();
        signs.iter().map(|sign| sign.signal("s21", Timestamp::UNIX_EPOCH)).collect()
    }

    #[test]
    fn signs_are_signals_of_a_node_and_a_boot() {
        let all = signals(&[
            "NVRM: GPU at PCI:0000:9b:00: GPU-509665ad-b600-ac93-3616-d754b23d636d",
            "NVRM: Xid (PCI:0000:9b:00): 48, pid=1, name=x, DBE",
            "NVRM: GPU 0000:a1:00.0: GPU has fallen off the bus.",
            "NVRM: Xid (garbled",
        ]);
        let [Some(xid), Some(lost), None] = &all[..] else { panic!("{all:?}") };
        assert_eq!((xid.kind.clone(), xid.advice), (SignalKind::Xid { code: 48 }, Advice::ResetGpu));
        assert_eq!(xid.gpu.as_deref(), Some("GPU-509665ad-b600-ac93-3616-d754b23d636d"));
        assert_eq!(xid.boot_id.as_deref(), Some("810fca1e-916b-414a-8cbd-baae91c90d6a"));
        assert!(xid.evidence.contains("48, pid=1") && xid.evidence.contains("double-bit"), "{}", xid.evidence);
        assert_eq!((lost.kind.clone(), lost.advice), (SignalKind::LostGpu, Advice::Reboot));
        assert_ne!(xid.id, lost.id);
    }
}
