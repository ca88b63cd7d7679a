//! What a story can say.
//!
//! ```text
//! cluster 1 2 3 [learners 4] [joining 5] [OPTION ...]
//!       OPTION: no-pre-vote, no-check-quorum, lease, trim EVERY KEEP
//! member 1 log 1 1 4 term 5      a cluster's member whose log has entries of these terms
//! campaign 1                     its patience ends
//! tick 1 10 | tick all 10        time passes
//! propose 1 WORD                 a client asks it
//! read 1 NAME                    a client wants to read there
//! change 1 [joint|joint-auto] add 4 remove 1 learner 5 ... | change 1 leave
//! transfer 1 to 2
//! deliver [1->2 | to 1 | from 1] [once]    messages arrive, until none is under way
//! lose [1->2 | to 1 | from 1]    messages are lost
//! cut 1 2 | isolate 1 | heal     links
//! disk 1 stuck | disk 1 back
//! crash 1 | restart 1            what was not durable is gone
//! wake 1                         it had stood still
//! checkpoint 1                   its state machine is durable
//! quiet ... | COMMAND            the same without saying what happens
//! status | log | followers 1 | reads
//! ```
//!
//! Each command is followed by all that the members then do by themselves.

use consensus::*;

use crate::cluster::{Cluster, Member, Packet, say_entry};

#[derive(Default)]
pub struct Script {
    cluster: Cluster,
}

fn number(word: &str) -> u64 {
    word.parse()
        .unwrap_or_else(|_| panic!("{word:?} is no number"))
}

/// Which messages a command means.
#[derive(Clone, Copy)]
enum Which {
    All,
    Link(u64, u64),
    To(u64),
    From(u64),
}

impl Which {
    fn parse(words: &[&str]) -> Which {
        match words {
            [] => Which::All,
            ["to", id] => Which::To(number(id)),
            ["from", id] => Which::From(number(id)),
            [link] => {
                let (from, to) = link.split_once("->").expect("1->2");
                Which::Link(number(from), number(to))
            }
            _ => panic!("which messages? {words:?}"),
        }
    }

    fn fits(self, packet: &Packet) -> bool {
        match self {
            Which::All => true,
            Which::Link(from, to) => (packet.from, packet.to) == (from, to),
            Which::To(to) => packet.to == to,
            Which::From(from) => packet.from == from,
        }
    }
}

/// The settings of a story's cluster.
struct Options {
    voters: Vec<u64>,
    learners: Vec<u64>,
    joining: Vec<u64>,
    pre_vote: bool,
    check_quorum: bool,
    lease: bool,
    trim: Option<(u64, u64)>,
}

impl Options {
    fn parse(words: &[&str]) -> Options {
        let mut options = Options {
            voters: Vec::new(),
            learners: Vec::new(),
            joining: Vec::new(),
            pre_vote: true,
            check_quorum: true,
            lease: false,
            trim: None,
        };
        let mut list = 0;
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "learners" => list = 1,
                "joining" => list = 2,
                "no-pre-vote" => options.pre_vote = false,
                "no-check-quorum" => options.check_quorum = false,
                "lease" => options.lease = true,
                "trim" => {
                    let mut value = || number(words.next().expect("trim EVERY KEEP"));
                    options.trim = Some((value(), value()));
                }
                id => {
                    let lists = [
                        &mut options.voters,
                        &mut options.learners,
                        &mut options.joining,
                    ];
                    lists[list].push(number(id));
                }
            }
        }
        options
    }

    fn config(&self, id: u64) -> Config {
        let mut config = Config::new(MemberId(id), id);
        config.pre_vote = self.pre_vote;
        config.check_quorum = self.check_quorum;
        config.lease_reads = self.lease;
        if let Some((every, keep)) = self.trim {
            (config.trim_every_entries, config.trim_keep_entries) = (every, keep);
            config.trim_hold_entries_max = every;
        }
        config
    }
}

impl Script {
    /// Carries out one command; what happened, line by line.
    pub fn run(&mut self, command: &str) -> Vec<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let (words, is_quiet) = match words.as_slice() {
            ["quiet", rest @ ..] => (rest, true),
            all => (all, false),
        };
        self.act(words);
        let said = std::mem::take(&mut self.cluster.said);
        if is_quiet { Vec::new() } else { said }
    }

    fn act(&mut self, words: &[&str]) {
        let cluster = &mut self.cluster;
        match words {
            ["cluster", rest @ ..] => self.found(&Options::parse(rest)),
            ["member", id, "log", rest @ ..] => self.preset(number(id), rest),
            ["campaign", id] => {
                cluster.raft(number(id)).campaign();
                cluster.settle(number(id));
            }
            ["tick", id, ticks] => self.tick(id, number(ticks)),
            ["propose", id, word] => self.propose(number(id), word),
            ["read", id, name] => self.read(number(id), name),
            ["change", id, rest @ ..] => self.change(number(id), rest),
            ["transfer", id, "to", to] => {
                let asked = cluster
                    .raft(number(id))
                    .transfer_leadership(MemberId(number(to)));
                if let Err(error) = asked {
                    cluster.say(format!("{id}: {error}"));
                }
                cluster.settle(number(id));
            }
            ["deliver", rest @ .., "once"] => self.deliver_once(Which::parse(rest)),
            ["deliver", rest @ ..] => {
                let which = Which::parse(rest);
                while cluster.deliver_one(|packet| which.fits(packet)) {}
            }
            ["lose", rest @ ..] => {
                let which = Which::parse(rest);
                let before = cluster.under_way.len();
                cluster.under_way.retain(|packet| !which.fits(packet));
                let lost = before - cluster.under_way.len();
                cluster.say(format!("{lost} messages are lost"));
            }
            ["cut", a, b] => {
                cluster.cut.insert((number(a), number(b)));
                cluster.cut.insert((number(b), number(a)));
            }
            ["isolate", id] => {
                for other in cluster.members.keys() {
                    cluster.cut.insert((number(id), *other));
                    cluster.cut.insert((*other, number(id)));
                }
            }
            ["heal"] => cluster.cut.clear(),
            ["disk", id, how @ ("stuck" | "back")] => {
                let member = cluster.members.get_mut(&number(id)).expect("a member");
                member.is_disk_stuck = *how == "stuck";
                cluster.settle(number(id));
            }
            ["crash", id] => cluster
                .members
                .get_mut(&number(id))
                .expect("a member")
                .crash(),
            ["restart", id] => {
                let member = cluster.members.get_mut(&number(id)).expect("a member");
                member.start();
                cluster.settle(number(id));
            }
            ["wake", id] => cluster.raft(number(id)).on_woken(),
            ["checkpoint", id] => self.checkpoint(number(id)),
            ["status"] => self.status(),
            ["log"] => self.logs(),
            ["followers", id] => self.followers(number(id)),
            _ => panic!("a story cannot say {words:?}"),
        }
    }

    fn found(&mut self, options: &Options) {
        let ids = |list: &[u64]| list.iter().copied().map(MemberId).collect::<Vec<_>>();
        let membership = Membership::new(ids(&options.voters), ids(&options.learners));
        for id in options.voters.iter().chain(&options.learners) {
            let start = Restored::founding(membership.clone());
            let member = Member::new(options.config(*id), start);
            self.cluster.members.insert(*id, member);
        }
        for id in &options.joining {
            let member = Member::new(options.config(*id), Restored::joining());
            self.cluster.members.insert(*id, member);
        }
        let all: Vec<u64> = self.cluster.members.keys().copied().collect();
        for id in all {
            self.cluster.settle(id);
        }
    }

    /// Gives a member a history: entries of these terms behind the founding.
    fn preset(&mut self, id: u64, words: &[&str]) {
        let split = words.iter().position(|word| *word == "term");
        let split = split.expect("log TERMS term T");
        let terms: Vec<u64> = words[..split].iter().map(|word| number(word)).collect();
        let member = self.cluster.members.get_mut(&id).expect("a member");
        let entry = |(slot, term): (usize, &u64)| Entry {
            term: Term(*term),
            index: LogIndex(slot as u64 + 2),
            kind: EntryKind::Normal,
            payload: format!("{term}").into(),
        };
        member.disk.entries = terms.iter().enumerate().map(entry).collect();
        member.disk.state.term = Term(number(words[split + 1]));
        member.start();
        self.cluster.settle(id);
    }

    fn tick(&mut self, who: &str, ticks: u64) {
        let ids: Vec<u64> = match who {
            "all" => self.cluster.members.keys().copied().collect(),
            id => vec![number(id)],
        };
        for _ in 0..ticks {
            for id in &ids {
                if self.cluster.members[id].raft.is_some() {
                    self.cluster.raft(*id).tick();
                    self.cluster.settle(*id);
                }
            }
        }
    }

    fn propose(&mut self, id: u64, word: &str) {
        let payload = bytes::Bytes::from(word.to_owned());
        let raft = self.cluster.raft(id);
        let said = match raft.propose(payload.clone()) {
            Ok(index) => format!("{id}: \"{word}\" is entry {index}"),
            Err(ProposeError::NotLeader { leader: Some(_) }) => match raft.forward(payload) {
                Ok(leader) => format!("{id}: sends \"{word}\" to {leader}"),
                Err(error) => format!("{id}: {error}"),
            },
            Err(error) => format!("{id}: {error}"),
        };
        self.cluster.say(said);
        self.cluster.settle(id);
    }

    fn read(&mut self, id: u64, name: &str) {
        let context = self.cluster.reads.len() as u64;
        self.cluster.reads.push(name.to_owned());
        if let Err(error) = self.cluster.raft(id).read_index(context) {
            self.cluster.say(format!("{id}: {error}"));
        }
        self.cluster.settle(id);
    }

    fn change(&mut self, id: u64, words: &[&str]) {
        let (words, joint) = match words {
            ["joint", rest @ ..] => (rest, Some(false)),
            ["joint-auto", rest @ ..] => (rest, Some(true)),
            all => (all, None),
        };
        let steps: Vec<ConfStep> = words
            .chunks_exact(2)
            .map(|pair| {
                let member = MemberId(number(pair[1]));
                match pair[0] {
                    "add" => ConfStep::AddVoter(member),
                    "learner" => ConfStep::AddLearner(member),
                    "remove" => ConfStep::Remove(member),
                    other => panic!("a change cannot {other:?}"),
                }
            })
            .collect();
        let change = match (words, joint) {
            (["leave"], None) => ConfChange::leave_joint(),
            (_, Some(auto_leave)) => ConfChange::joint(steps, auto_leave),
            _ => ConfChange::simple(steps[0]),
        };
        let said = match self.cluster.raft(id).propose_conf_change(&change) {
            Ok(index) => format!("{id}: the change is entry {index}"),
            Err(error) => format!("{id}: {error}"),
        };
        self.cluster.say(said);
        self.cluster.settle(id);
    }

    /// Those under way now arrive, not what they cause.
    fn deliver_once(&mut self, which: Which) {
        let fits = |packet: &&Packet| which.fits(packet);
        let now = self.cluster.under_way.iter().filter(fits).count();
        for _ in 0..now {
            self.cluster.deliver_one(|packet| which.fits(packet));
        }
    }

    fn checkpoint(&mut self, id: u64) {
        let raft = self.cluster.raft(id);
        let (applied, membership) = (raft.status().applied, raft.membership().clone());
        raft.on_checkpoint(applied);
        let disk = &mut self.cluster.members.get_mut(&id).expect("a member").disk;
        (disk.applied, disk.membership) = (applied, membership);
        self.cluster.settle(id);
    }

    fn status(&mut self) {
        let mut lines = Vec::new();
        for (id, member) in &self.cluster.members {
            let Some(raft) = &member.raft else {
                lines.push(format!("{id}: down"));
                continue;
            };
            let s = raft.status();
            let who = match (s.role, s.leader) {
                (Role::Leader, _) => "leader".to_owned(),
                (Role::Follower, Some(leader)) => format!("follows {leader}"),
                (Role::Follower, None) => "follows nobody".to_owned(),
                (Role::PreCandidate, _) => "asks whether it could win".to_owned(),
                (Role::Candidate, _) => "candidate".to_owned(),
            };
            lines.push(format!(
                "{id}: {who} in {:?}, log {}..{}, durable {}, commit {}, applied {}",
                s.term, s.first_index, s.last_index, s.durable, s.commit, s.applied
            ));
        }
        self.cluster.said.append(&mut lines);
    }

    fn logs(&mut self) {
        let mut lines = Vec::new();
        for (id, member) in &self.cluster.members {
            let entries: Vec<String> = member.disk.entries.iter().map(say_entry).collect();
            let base = member.disk.base;
            lines.push(format!(
                "{id}: behind {}.{:?}: {}",
                base.index,
                base.term,
                entries.join(", ")
            ));
        }
        self.cluster.said.append(&mut lines);
    }

    fn followers(&mut self, id: u64) {
        let lines: Vec<String> = self
            .cluster
            .raft(id)
            .followers()
            .map(|f| {
                let learner = if f.is_learner { ", learner" } else { "" };
                format!(
                    "{}: {:?}, has {}, next {}{learner}",
                    f.id, f.state, f.matched, f.next
                )
            })
            .collect();
        self.cluster.said.extend(lines);
    }
}
