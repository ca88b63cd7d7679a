//! Feature gates: `--feature-gates=Name=true,Other=false`, with etcd's names, stages and defaults.
//!
//! Always true here: every gate of etcd is known, so nobody is told `unrecognized feature gate` about one etcd has; a
//! group (`AllAlpha`, `AllBeta`) sets what is not named itself. Pure; read by `raw` (spelling) and `check`.

use super::values;

/// Which features are on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// The leader notes the remaining time of leases in the log.
    pub lease_checkpoint: bool,
    /// And it is kept in their records (from cluster version 3.6 on it always is).
    pub lease_checkpoint_persist: bool,
    /// A keepalive waits for what is committed only if its lease is unknown.
    pub fast_lease_keep_alive: bool,
    /// Revocations of leases may queue twice as long as other writes.
    pub priority_request: bool,
    /// In the order of [`GATES`].
    enabled: [bool; GATES.len()],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Alpha,
    Beta,
}

struct Gate {
    name: &'static str,
    stage: Stage,
    default: bool,
    /// Why it changes nothing here; `None` for one that does.
    no_effect: Option<&'static str>,
}

const fn gate(name: &'static str, stage: Stage, default: bool, no_effect: &'static str) -> Gate {
    Gate {
        name,
        stage,
        default,
        no_effect: Some(no_effect),
    }
}

const fn here(name: &'static str, stage: Stage, default: bool) -> Gate {
    Gate {
        name,
        stage,
        default,
        no_effect: None,
    }
}

/// By name.
const GATES: [Gate; 9] = [
    gate(
        "CompactHashCheck",
        Stage::Alpha,
        false,
        "there are no other members to compare with",
    ),
    here("FastLeaseKeepAlive", Stage::Beta, true),
    gate(
        "InitialCorruptCheck",
        Stage::Alpha,
        false,
        "there are no other members to compare with",
    ),
    here("LeaseCheckpoint", Stage::Alpha, false),
    here("LeaseCheckpointPersist", Stage::Alpha, false),
    here("PriorityRequest", Stage::Alpha, false),
    gate(
        "SetMemberLocalAddr",
        Stage::Alpha,
        false,
        "there are no peer connections yet",
    ),
    gate(
        "StopGRPCServiceOnDefrag",
        Stage::Alpha,
        false,
        "service never stops for a defragmentation",
    ),
    gate(
        "TxnModeWriteWithSharedBuffer",
        Stage::Beta,
        true,
        "a write reads the store without a copy, always",
    ),
];

const GROUPS: [(&str, Stage); 2] = [("AllAlpha", Stage::Alpha), ("AllBeta", Stage::Beta)];

impl Default for Features {
    fn default() -> Features {
        Features::from(GATES.each_ref().map(|gate| gate.default))
    }
}

impl From<[bool; GATES.len()]> for Features {
    fn from(enabled: [bool; GATES.len()]) -> Features {
        let is_on = |name: &str| {
            let place = GATES.iter().position(|gate| gate.name == name);
            enabled[place.expect("a gate of the table")]
        };
        Features {
            lease_checkpoint: is_on("LeaseCheckpoint"),
            lease_checkpoint_persist: is_on("LeaseCheckpointPersist"),
            fast_lease_keep_alive: is_on("FastLeaseKeepAlive"),
            priority_request: is_on("PriorityRequest"),
            enabled,
        }
    }
}

impl Features {
    /// # Errors
    /// What is wrong with the text, in etcd's words.
    pub(super) fn parse(text: &str) -> Result<Features, String> {
        let mut named: [Option<bool>; GATES.len()] = [None; GATES.len()];
        let mut groups: [Option<bool>; GROUPS.len()] = [None; GROUPS.len()];
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) = match part.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim()),
                None => return Err(format!("missing bool value for {}", part.trim())),
            };
            let is_on = values::parse_bool(value).map_err(|_| {
                format!(
                    "invalid value of {name}={value}, err: strconv.ParseBool: parsing {value:?}: invalid syntax"
                )
            })?;
            if let Some(place) = GATES.iter().position(|gate| gate.name == name) {
                named[place] = Some(is_on);
            } else if let Some(place) = GROUPS.iter().position(|(group, _)| *group == name) {
                groups[place] = Some(is_on);
            } else {
                return Err(format!("unrecognized feature gate: {name}"));
            }
        }
        let mut enabled = GATES.each_ref().map(|gate| gate.default);
        for ((is_on, gate), named) in enabled.iter_mut().zip(&GATES).zip(named) {
            let group = GROUPS.iter().position(|(_, stage)| *stage == gate.stage);
            let group = group.and_then(|place| groups[place]);
            *is_on = named.or(group).unwrap_or(*is_on);
        }
        Ok(Features::from(enabled))
    }

    /// Gates that were set and change nothing, with the reason.
    pub(super) fn ineffective(&self) -> impl Iterator<Item = (&'static str, bool, &'static str)> {
        let given = GATES.iter().zip(self.enabled);
        given.filter_map(|(gate, is_on)| {
            let why = gate.no_effect.filter(|_| is_on != gate.default)?;
            Some((gate.name, is_on, why))
        })
    }

    /// Whether the gate of this name is on; false for a group or an unknown name.
    pub fn is_on(&self, name: &str) -> bool {
        let place = GATES.iter().position(|gate| gate.name == name);
        place.is_some_and(|place| self.enabled[place])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_set_what_is_not_named() {
        assert_eq!(Features::parse("").unwrap(), Features::default());
        assert!(Features::default().fast_lease_keep_alive);
        let all = Features::parse("AllAlpha=true, LeaseCheckpoint=false").unwrap();
        assert!(all.priority_request && all.lease_checkpoint_persist);
        assert!(!all.lease_checkpoint);
        let none = Features::parse("FastLeaseKeepAlive=T,,AllBeta=0").unwrap();
        assert!(none.fast_lease_keep_alive);
        let names: Vec<&str> = none.ineffective().map(|(name, ..)| name).collect();
        assert_eq!(names, ["TxnModeWriteWithSharedBuffer"]);
        assert!(none.is_on("FastLeaseKeepAlive") && !none.is_on("AllBeta"));
    }

    #[test]
    fn refusals_are_etcds() {
        for (text, wanted) in [
            ("Speed=true", "unrecognized feature gate: Speed"),
            ("LeaseCheckpoint", "missing bool value for LeaseCheckpoint"),
            (
                "LeaseCheckpoint=yes",
                "invalid value of LeaseCheckpoint=yes, err: strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
        ] {
            assert_eq!(Features::parse(text), Err(wanted.to_owned()));
        }
    }
}
