//! Answers a transaction of nothing but ranges, in steps, without the log.
//!
//! Always true: comparisons and ranges all read the revision that was the newest when the job began; a step is bounded.
//! Should a compaction pass that revision between two steps, the job starts again at the newest. Runs on the net cores.
//! Does not check the request.

use std::ops::ControlFlow;

use wire::error::EtcdError;
use wire::kv::{OpRef, ReplyKind, ResponseHeader, TxnReply, TxnRequestRef};

use super::apply::check_range_revision;
use super::command::compare;
use super::compare::Operand;
use super::range::{Budget, RangeJob};
use super::store::{KeyRange, Progress, ReadStore, ScanMode};

/// Operations a step may begin.
const OPS_PER_STEP: usize = 16;

/// How often compactions may make a job start again before it answers `Compacted`.
const RESTARTS_MAX: u32 = 8;

/// A read-only transaction under way. Reusable.
pub struct ReadTxnJob<Scan> {
    /// The request as sent; the connection's buffer moves on between steps.
    message: Vec<u8>,
    header: ResponseHeader,
    /// Revision all reads are at.
    snapshot: i64,
    phase: Phase,
    /// Place of the next or current comparison or operation.
    at: usize,
    /// The current comparison's scan, and whether it has met a key.
    scan: Option<Scan>,
    found: bool,
    succeeded: bool,
    /// The current operation has begun.
    in_op: bool,
    range: RangeJob<Scan>,
    reply: TxnReply,
    reply_base: usize,
    restarts: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Compare,
    Operate,
    Done,
}

impl<Scan> Default for ReadTxnJob<Scan> {
    fn default() -> Self {
        ReadTxnJob {
            message: Vec::new(),
            header: ResponseHeader::default(),
            snapshot: 0,
            phase: Phase::Done,
            at: 0,
            scan: None,
            found: false,
            succeeded: false,
            in_op: false,
            range: RangeJob::default(),
            reply: TxnReply::default(),
            reply_base: 0,
            restarts: 0,
        }
    }
}

impl<Scan> ReadTxnJob<Scan> {
    /// Begins a checked request for which [`super::validate::is_readonly`] holds; `message` is its encoding.
    pub fn begin<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        message: &[u8],
        header: &ResponseHeader,
    ) {
        self.message.clear();
        self.message.extend_from_slice(message);
        self.header = *header;
        self.restarts = 0;
        self.start(store);
    }

    /// Goes on with the reply in `out`, which must not change between steps. After an error the job is over, and what
    /// was appended is worthless.
    pub fn step<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<Progress, EtcdError> {
        let message = std::mem::take(&mut self.message);
        let request = TxnRequestRef::decode(&message).expect("decoded before it was begun");
        let mut result = Ok(Progress::More);
        for _ in 0..OPS_PER_STEP {
            result = match self.phase {
                Phase::Compare => self.compare(store, &request, budget, out),
                Phase::Operate => self.operate(store, &request, budget, out),
                Phase::Done => Ok(Progress::Done),
            };
            if result == Err(EtcdError::Compacted)
                && self.snapshot < store.compact_revision()
                && self.restarts < RESTARTS_MAX
            {
                if self.phase == Phase::Operate {
                    out.truncate(self.reply_base);
                }
                self.restarts += 1;
                self.start(store);
                result = Ok(Progress::More);
            }
            if result != Ok(Progress::Done) || self.phase == Phase::Done {
                break;
            }
        }
        self.message = message;
        match result {
            Ok(_) if self.phase == Phase::Done => Ok(Progress::Done),
            Ok(_) => Ok(Progress::More),
            Err(error) => Err(error),
        }
    }

    fn start<S: ReadStore<Scan = Scan>>(&mut self, store: &S) {
        self.snapshot = store.revision();
        self.phase = Phase::Compare;
        self.at = 0;
        self.scan = None;
        self.in_op = false;
    }

    /// One comparison, or a slice of one. `Done` means it is decided.
    fn compare<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &TxnRequestRef<'_>,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<Progress, EtcdError> {
        let Some(next) = request.compares().nth(self.at) else {
            self.begin_branch(store, request, true, out)?;
            return Ok(Progress::Done);
        };
        let next = compare(next);
        let operand = Operand::from(&next);
        let range = KeyRange::new(next.key, next.range_end);
        let mut holds = true;
        if range.is_single() {
            self.found = false;
            let found = &mut self.found;
            store.get(range.key, self.snapshot, &mut |item| {
                *found = true;
                holds = operand.holds_for(item);
            })?;
        } else {
            if self.scan.is_none() {
                self.found = false;
                self.scan = Some(store.scan(range, self.snapshot, ScanMode::Items { limit: 0 })?);
            }
            let scan = self.scan.as_mut().expect("begun above");
            let found = &mut self.found;
            let progress = store.step(scan, range, budget.keys, &mut |item| {
                *found = true;
                holds = operand.holds_for(item);
                if holds {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            })?;
            if holds && progress == Progress::More {
                return Ok(Progress::More);
            }
            self.scan = None;
        }
        if !self.found {
            holds = operand.holds_for_nothing();
        }
        if holds {
            self.at += 1;
        } else {
            self.begin_branch(store, request, false, out)?;
        }
        Ok(Progress::Done)
    }

    fn begin_branch<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &TxnRequestRef<'_>,
        succeeded: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), EtcdError> {
        self.succeeded = succeeded;
        let mut checks = |op| match op {
            OpRef::Range(range) => {
                check_range_revision(range.revision, self.snapshot, store.compact_revision())
            }
            _ => unreachable!("a read-only transaction holds ranges"),
        };
        if succeeded {
            request.success().try_for_each(&mut checks)?;
        } else {
            request.failure().try_for_each(&mut checks)?;
        }
        self.phase = Phase::Operate;
        self.at = 0;
        self.reply_base = out.len();
        self.reply.begin(out, succeeded);
        Ok(())
    }

    /// One operation, or a slice of one. `Done` means it is answered, or there was none left.
    fn operate<S: ReadStore<Scan = Scan>>(
        &mut self,
        store: &S,
        request: &TxnRequestRef<'_>,
        budget: Budget,
        out: &mut Vec<u8>,
    ) -> Result<Progress, EtcdError> {
        let op = if self.succeeded {
            request.success().nth(self.at)
        } else {
            request.failure().nth(self.at)
        };
        let Some(op) = op else {
            let header = ResponseHeader {
                revision: self.snapshot,
                ..self.header
            };
            self.reply.finish(out, &header);
            self.phase = Phase::Done;
            return Ok(Progress::Done);
        };
        let OpRef::Range(range) = op else {
            unreachable!("a read-only transaction holds ranges");
        };
        if !self.in_op {
            self.reply.begin_op(out, ReplyKind::Range);
            let no_header = ResponseHeader::default();
            self.range
                .begin_at(store, &range, Some(self.snapshot), &no_header, out)?;
            self.in_op = true;
        }
        if self.range.step(store, budget, out)? == Progress::More {
            return Ok(Progress::More);
        }
        self.reply.end_op(out);
        self.in_op = false;
        self.at += 1;
        Ok(Progress::Done)
    }
}
