//! What time does to a connection: deadlines, keepalive, time-outs of handshake, SETTINGS, shutdown
//! and slow readers.
//!
//! There is no timer queue. `deadline_due_ns` is a lower bound of all open deadlines: most calls
//! finish long before theirs, so it is enough to look through the open calls when the bound is
//! reached and to compute the next one. Deadlines are rounded up to about four milliseconds, which
//! bounds how often that can happen.

use super::{Connection, Draining, Handled, Handshake};
use crate::grpc::service::{CancelReason, Service};
use crate::grpc::{Code, ConnectionError, ErrorCode};
use crate::h2::frame;

#[derive(Debug)]
pub(super) struct Timers {
    started_ns: u64,
    last_read_ns: u64,
    /// When our keepalive ping went out, if nothing has been read since.
    ping_sent_ns: Option<u64>,
    /// When the client's last ping came, and how many came too early.
    pub(super) last_ping_ns: Option<u64>,
    pub(super) ping_strikes: u32,
    /// No open call has an earlier deadline.
    deadline_due_ns: u64,
    /// Since when `takes` has been what it is while output was waiting.
    untaken: Option<(u64, u64)>,
}

/// 2^22 ns, about four milliseconds.
const DEADLINE_STEP_NS: u64 = 1 << 22;

impl Timers {
    pub(super) fn new(now_ns: u64) -> Self {
        Self {
            started_ns: now_ns,
            last_read_ns: now_ns,
            ping_sent_ns: None,
            last_ping_ns: None,
            ping_strikes: 0,
            deadline_due_ns: u64::MAX,
            untaken: None,
        }
    }

    #[inline]
    pub(super) fn on_read(&mut self, now_ns: u64) {
        self.last_read_ns = now_ns;
        self.ping_sent_ns = None;
    }

    /// Notes the deadline of a new call.
    #[inline]
    pub(super) fn add_deadline(&mut self, deadline_ns: u64) {
        self.deadline_due_ns = self.deadline_due_ns.min(round_up(deadline_ns));
    }
}

fn round_up(deadline_ns: u64) -> u64 {
    deadline_ns | (DEADLINE_STEP_NS - 1)
}

impl Connection {
    /// Does what is due at `now_ns`. May be called at any time; see
    /// [`next_timer_ns`](Self::next_timer_ns).
    pub fn on_timer<S: Service>(
        &mut self,
        now_ns: u64,
        service: &mut S,
    ) -> Result<(), ConnectionError> {
        if let Some(error) = self.sender.error {
            return Err(error);
        }
        self.sender.now_ns = now_ns;
        self.reap(service);
        if let Err(error) = self.check_timeouts(now_ns) {
            self.sender.fail(error);
        }
        self.reap(service);
        self.sender.error.map_or(Ok(()), Err)
    }

    /// When [`on_timer`](Self::on_timer) wants to be called next. Every call that takes `&mut self`
    /// can change it; calling early is harmless, late only makes deadlines late.
    pub fn next_timer_ns(&self) -> Option<u64> {
        if self.sender.error.is_some() {
            return None;
        }
        let (limits, timers) = (&*self.limits, &self.timers);
        let mut next_ns = timers.deadline_due_ns.min(self.sender.stall_due_ns);
        let mut at_latest = |since_ns: u64, after_ns: u64| {
            next_ns = next_ns.min(since_ns.saturating_add(after_ns));
        };
        if self.handshake != Handshake::Done {
            at_latest(timers.started_ns, limits.handshake_timeout_ns);
        }
        if !self.settings_acked {
            at_latest(timers.started_ns, limits.settings_ack_timeout_ns);
        }
        if let Draining::Announced { since_ns } = self.draining {
            at_latest(since_ns, limits.shutdown_grace_ns);
        }
        match timers.ping_sent_ns {
            Some(sent_ns) => at_latest(sent_ns, limits.keepalive_timeout_ns),
            None => at_latest(timers.last_read_ns, limits.keepalive_interval_ns),
        }
        if self.has_output() {
            let since_ns = match timers.untaken {
                Some((takes, since_ns)) if takes == self.sender.takes => since_ns,
                _ => self.sender.now_ns,
            };
            at_latest(since_ns, limits.stall_timeout_ns);
        }
        (next_ns != u64::MAX).then_some(next_ns)
    }

    fn check_timeouts(&mut self, now_ns: u64) -> Handled {
        let limits = &*self.limits;
        let is_due = |since_ns: u64, after_ns: u64| since_ns.saturating_add(after_ns) <= now_ns;
        let hits = &mut self.sender.stats.limits;
        if self.handshake != Handshake::Done
            && is_due(self.timers.started_ns, limits.handshake_timeout_ns)
        {
            hits.handshake_timeout += 1;
            return Err(ConnectionError::protocol("handshake timed out"));
        }
        if !self.settings_acked && is_due(self.timers.started_ns, limits.settings_ack_timeout_ns) {
            hits.settings_ack_timeout += 1;
            return Err(ConnectionError::new(
                ErrorCode::SettingsTimeout,
                "SETTINGS not acknowledged in time",
            ));
        }
        match self.timers.ping_sent_ns {
            Some(sent_ns) if is_due(sent_ns, limits.keepalive_timeout_ns) => {
                hits.keepalive_timeout += 1;
                return Err(ConnectionError::new(
                    ErrorCode::NoError,
                    "keepalive ping not acknowledged in time",
                ));
            }
            None if is_due(self.timers.last_read_ns, limits.keepalive_interval_ns) => {
                self.timers.ping_sent_ns = Some(now_ns);
                self.sender.control(|out| frame::put_ping(out, 0, &[0; 8]));
            }
            _ => {}
        }
        if let Draining::Announced { since_ns } = self.draining
            && is_due(since_ns, limits.shutdown_grace_ns)
        {
            self.finish_draining();
        }
        self.check_untaken(now_ns)?;
        self.sender.reset_stalled();
        if self.timers.deadline_due_ns <= now_ns {
            self.cancel_expired(now_ns);
        }
        Ok(())
    }

    /// Output that nobody takes means a peer that does not read.
    fn check_untaken(&mut self, now_ns: u64) -> Handled {
        if !self.has_output() {
            self.timers.untaken = None;
            return Ok(());
        }
        let takes = self.sender.takes;
        match self.timers.untaken {
            Some((then, since_ns)) if then == takes => {
                if since_ns.saturating_add(self.limits.stall_timeout_ns) <= now_ns {
                    self.sender.stats.limits.stall_timeout += 1;
                    return Err(ConnectionError::calm("output not taken in time"));
                }
            }
            _ => self.timers.untaken = Some((takes, now_ns)),
        }
        Ok(())
    }

    fn cancel_expired(&mut self, now_ns: u64) {
        let mut next_ns = u64::MAX;
        let mut expired = Vec::new();
        for (slot, _) in self.sender.open_slots() {
            let Some(deadline_ns) = self.incoming.deadline_ns(slot) else {
                continue;
            };
            let due_ns = round_up(deadline_ns);
            if due_ns <= now_ns {
                expired.push(slot);
            } else {
                next_ns = next_ns.min(due_ns);
            }
        }
        self.timers.deadline_due_ns = next_ns;
        for slot in expired {
            self.sender.stats.deadlines_passed += 1;
            let message = "context deadline exceeded";
            self.sender.end(
                slot,
                Code::DeadlineExceeded,
                message,
                CancelReason::Deadline,
            );
        }
    }
}
