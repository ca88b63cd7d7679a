//! Which stage runs on which core.
//!
//! | cores | net | log | apply |
//! | --- | --- | --- | --- |
//! | 1 | all on the one | | |
//! | 2 | first | second | second |
//! | 3 | first | second | third |
//! | n | all but two | next to last | last |
//!
//! Always true: every stage has exactly one core, except net, which has at least one. Decided once,
//! at start, from `--cores` or the affinity mask; nothing moves later.

/// More net cores than this gain nothing before the log core saturates.
const NET_CORES_MAX: usize = 16;

/// What one core does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorePlan {
    /// The operating system's number of the processor.
    pub cpu: usize,
    pub is_net: bool,
    pub is_log: bool,
    pub is_apply: bool,
}

/// Gives every stage its core.
pub fn plan(cores: &[usize]) -> Vec<CorePlan> {
    assert!(!cores.is_empty(), "a member runs on at least one core");
    let cores = &cores[..cores.len().min(NET_CORES_MAX + 2)];
    let count = cores.len();
    cores
        .iter()
        .enumerate()
        .map(|(place, &cpu)| match count {
            1 => CorePlan {
                cpu,
                is_net: true,
                is_log: true,
                is_apply: true,
            },
            2 => CorePlan {
                cpu,
                is_net: place == 0,
                is_log: place == 1,
                is_apply: place == 1,
            },
            _ => CorePlan {
                cpu,
                is_net: place < count - 2,
                is_log: place == count - 2,
                is_apply: place == count - 1,
            },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_has_its_core() {
        for count in 1..40 {
            let cores: Vec<usize> = (0..count).collect();
            let plan = plan(&cores);
            assert!(plan.iter().filter(|core| core.is_net).count() >= 1);
            assert_eq!(plan.iter().filter(|core| core.is_log).count(), 1);
            assert_eq!(plan.iter().filter(|core| core.is_apply).count(), 1);
            assert!(
                plan.iter()
                    .all(|core| core.is_net || core.is_log || core.is_apply)
            );
        }
    }
}
