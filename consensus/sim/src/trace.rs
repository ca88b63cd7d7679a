//! What happened, as a running hash and, when asked for, as lines to read.
//!
//! Always true: the hash covers the same events whether or not lines are kept, so two runs with one
//! hash did the same in the same order.

use consensus::{Body, LogPosition, Membership, Message};

use crate::plan::TICK;
use crate::random::fold;

#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// `is_kept`: keep lines as well.
    pub fn new(is_kept: bool) -> Trace {
        Trace {
            hash: 0,
            lines: is_kept.then(Vec::new),
        }
    }

    /// One event: `words` identify it, `line` says it to a reader.
    pub fn note(&mut self, now: u64, words: &[u64], line: impl FnOnce() -> String) {
        self.hash = fold(self.hash, now);
        for word in words {
            self.hash = fold(self.hash, *word);
        }
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>10}  {}", time(now), line()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

/// Time in nominal ticks, with thousandths.
pub fn time(now: u64) -> String {
    format!("{}.{:03}", now / TICK, now % TICK)
}

/// A number that tells messages apart.
pub fn fingerprint(message: &Message) -> u64 {
    let at = |p: LogPosition| fold(p.index.0, p.term.0);
    let (kind, a, b, c) = match &message.body {
        Body::PreVote { last } => (1, at(*last), 0, 0),
        Body::PreVoteReply { granted } => (2, u64::from(*granted), 0, 0),
        Body::Vote { last, transfer } => (3, at(*last), u64::from(*transfer), 0),
        Body::VoteReply { granted } => (4, u64::from(*granted), 0, 0),
        Body::Append {
            prev,
            commit,
            entries,
        } => (5, at(*prev), commit.0, entries.len() as u64),
        Body::AppendAck { matched, commit } => (6, matched.0, commit.0, 0),
        Body::AppendReject {
            rejected,
            hint,
            last,
        } => (7, rejected.0, at(*hint), last.0),
        Body::Heartbeat { commit, round } => (8, commit.0, *round, 0),
        Body::HeartbeatAck { round, commit } => (9, *round, commit.0, 0),
        Body::Snapshot { snapshot } => (10, at(snapshot.last), 0, 0),
        Body::TimeoutNow => (11, 0, 0, 0),
        Body::ReadIndex {
            incarnation,
            context,
        } => (12, *incarnation, *context, 0),
        Body::ReadIndexReply {
            incarnation,
            context,
            index,
        } => (13, *incarnation, *context, index.map_or(0, |i| i.0 + 1)),
        Body::Propose {
            batch, proposals, ..
        } => (14, *batch, proposals.len() as u64, 0),
        Body::ProposeReply { batch, accepted } => (15, *batch, u64::from(*accepted), 0),
        Body::Committed { at: known } => (16, at(*known), 0, 0),
    };
    [message.term.0, a, b, c].into_iter().fold(kind, fold)
}

/// A message in a few words.
pub fn describe(message: &Message) -> String {
    let at = |p: LogPosition| format!("{}.{:?}", p.index, p.term);
    let yes = |granted: bool| if granted { "yes" } else { "no" };
    let text = match &message.body {
        Body::PreVote { last } => format!("pre-vote? log ends at {}", at(*last)),
        Body::PreVoteReply { granted } => format!("pre-vote: {}", yes(*granted)),
        Body::Vote { last, transfer } => {
            let why = if *transfer { ", by hand-over" } else { "" };
            format!("vote? log ends at {}{why}", at(*last))
        }
        Body::VoteReply { granted } => format!("vote: {}", yes(*granted)),
        Body::Committed { at: known } => format!("{} is committed", at(*known)),
        Body::Append {
            prev,
            commit,
            entries,
        } => {
            let terms: Vec<String> = entries.iter().map(|e| format!("{:?}", e.term)).collect();
            let entries = match terms.len() {
                0 => "nothing new".to_owned(),
                count => format!("{count} new ({})", runs(&terms)),
            };
            format!("append after {}: {entries}, commit {commit}", at(*prev))
        }
        Body::AppendAck { matched, commit } => {
            format!("have through {matched}, commit {commit}")
        }
        Body::AppendReject {
            rejected,
            hint,
            last,
        } => {
            format!(
                "have no such {rejected}, perhaps {}, last {last}",
                at(*hint)
            )
        }
        Body::Heartbeat { commit, round } => format!("heartbeat, commit {commit}, round {round}"),
        Body::HeartbeatAck { round, commit } => {
            format!("heard, round {round}, commit {commit}")
        }
        Body::Snapshot { snapshot } => format!(
            "snapshot through {}, {}",
            at(snapshot.last),
            members(&snapshot.membership)
        ),
        Body::TimeoutNow => "campaign now".to_owned(),
        Body::ReadIndex { context, .. } => format!("where may read {context} start?"),
        Body::ReadIndexReply { context, index, .. } => match index {
            Some(index) => format!("read {context} at {index}"),
            None => format!("read {context}: ask another"),
        },
        Body::Propose {
            batch, proposals, ..
        } => format!("batch {batch} of {} proposals", proposals.len()),
        Body::ProposeReply { batch, accepted } => format!("batch {batch}: {}", yes(*accepted)),
    };
    format!("{:?} {text}", message.term)
}

/// `t2 t2 t3` as `t2 x2, t3`.
fn runs(terms: &[String]) -> String {
    let mut out: Vec<(&str, usize)> = Vec::new();
    for term in terms {
        match out.last_mut() {
            Some((last, count)) if last == term => *count += 1,
            _ => out.push((term, 1)),
        }
    }
    let words: Vec<String> = out
        .into_iter()
        .map(|(term, count)| match count {
            1 => term.to_owned(),
            _ => format!("{term} x{count}"),
        })
        .collect();
    words.join(", ")
}

/// A membership in a few words.
pub fn members(membership: &Membership) -> String {
    let list = |ids: &[consensus::MemberId]| {
        let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
        words.join(" ")
    };
    let mut text = format!("voters {}", list(&membership.voters));
    if membership.is_joint() {
        text += &format!(" and {}", list(&membership.voters_outgoing));
    }
    if !membership.learners.is_empty() {
        text += &format!(", learners {}", list(&membership.learners));
    }
    if !membership.learners_next.is_empty() {
        text += &format!(", soon learners {}", list(&membership.learners_next));
    }
    text
}
