//! What can go wrong in a drill, and what recovery should make of it.

use clap::ValueEnum;

/// Something that breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// A GPU falls off the bus, and the kernel says so: the node is rebooted
    Xid79,
    /// The memory of a GPU is broken: the GPU is reset
    Ecc,
    /// A GPU is not there any more, and nobody says why
    LostGpu,
    /// A node loses its power, and comes back by itself: nothing is repaired
    NodeLost,
    /// The training hangs and writes nothing any more: it is ended, and the nodes are checked
    Hang,
    /// The program fails by its own fault: the node is checked, and is well
    AppFailure,
    /// As xid79, and the node does not come back from its reboot: people are needed
    RebootFails,
}

impl Fault {
    /// The one that a seed stands for.
    pub fn random(number: u64) -> Fault {
        let all = Fault::value_variants();
        all[(number % all.len() as u64) as usize]
    }

    pub fn name(self) -> &'static str {
        match self {
            Fault::Xid79 => "xid79",
            Fault::Ecc => "ecc",
            Fault::LostGpu => "lost-gpu",
            Fault::NodeLost => "node-lost",
            Fault::Hang => "hang",
            Fault::AppFailure => "app-failure",
            Fault::RebootFails => "reboot-fails",
        }
    }

    /// What happens, to this GPU where it is one's.
    pub fn happens(self, gpu: &str) -> String {
        match self {
            Fault::Xid79 => format!("{gpu} falls off the bus"),
            Fault::Ecc => format!("the memory of {gpu} is broken"),
            Fault::LostGpu => format!("{gpu} is not there any more"),
            Fault::NodeLost => "it loses its power".to_owned(),
            Fault::Hang => "the training waits for a member for ever".to_owned(),
            Fault::AppFailure => "the training program fails by its own fault".to_owned(),
            Fault::RebootFails => format!("{gpu} falls off the bus, and the next reboot will fail"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_command_line_and_every_fault_has_a_seed() {
        let all = Fault::value_variants();
        for (number, fault) in all.iter().enumerate() {
            assert_eq!(fault.to_possible_value().unwrap().get_name(), fault.name());
            assert_eq!(Fault::random((number + all.len()) as u64), *fault);
        }
    }
}
