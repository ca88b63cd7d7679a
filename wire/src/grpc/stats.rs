//! Counters of one connection: plain integers that only grow until they are taken.
//!
//! The driver takes them now and then ([`Connection::take_stats`](super::Connection::take_stats))
//! and adds them to its core's totals. Not timers: when something happened is the driver's
//! business.

use super::{Code, MethodId};

/// What a connection did since the counters were last taken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    pub bytes_received: u64,
    /// Bytes put into the output.
    pub bytes_sent: u64,
    pub frames_received: u64,
    /// Calls that reached the service or were answered for it, by the engine or the service; `Code
    /// as usize` is the position.
    pub calls_finished: [u64; 17],
    /// Calls whose headers were accepted.
    pub calls_started: u64,
    pub messages_received: u64,
    pub messages_sent: u64,
    /// Bytes of those messages, without their prefixes.
    pub message_bytes_sent: u64,
    /// RST_STREAM frames the client sent for open calls.
    pub resets_received: u64,
    /// RST_STREAM frames we sent because of an error or refusal (not those that only say "stop
    /// sending").
    pub resets_sent: u64,
    pub pings_received: u64,
    pub deadlines_passed: u64,
    /// Answers to calls that were over.
    pub late_answers: u64,
    /// Header blocks recognised by their bytes.
    pub header_cache_hits: u64,
    pub header_cache_misses: u64,
    /// Answers that had to wait for flow control or for the output to be taken.
    pub answers_parked: u64,
    pub limits: LimitHits,
    /// Why the connection ended, if it did with an error: the text of the GOAWAY.
    pub error_reason: Option<&'static str>,
}

impl Stats {
    pub(crate) fn count_finished(&mut self, code: Code) {
        self.calls_finished[code as usize] += 1;
    }
}

/// A call that is over, for counters by method and code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedCall {
    pub method: MethodId,
    /// What the service answered; if it did not, what the engine did, CANCELED for a call that the
    /// client or the connection's end took away.
    pub code: Code,
    /// When its headers were accepted, on the clock of `now_ns`.
    pub started_ns: u64,
}

/// Ended calls a connection remembers for its driver; those beyond are not listed.
pub(crate) const ENDED_CALLS_MAX: usize = 64 << 10;
/// A list with room for more than this is given back to the allocator once it was taken.
pub(crate) const ENDED_CALLS_KEPT: usize = 512;

macro_rules! limit_hits {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// How often each of [`Limits`](super::Limits) was reached; same names.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct LimitHits {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl LimitHits {
            /// Adds another connection's.
            pub fn add(&mut self, other: &LimitHits) {
                $(self.$name += other.$name;)*
            }

            /// Each by its name.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

limit_hits! {
    concurrent_streams,
    header_list_bytes,
    header_block_bytes,
    continuation_frames,
    metadata_bytes,
    frame_bytes,
    message_bytes,
    assembly_bytes,
    stream_window,
    connection_window,
    /// Requests that needed no service, refused because the output was full.
    output_bytes,
    parked_bytes,
    stall_timeout,
    control_bytes,
    resets,
    settings,
    pings,
    empty_frames,
    window_updates,
    ignored_frames,
    handshake_timeout,
    settings_ack_timeout,
    /// Keepalive enforcement: `too_many_pings`.
    keepalive_min_time,
    keepalive_timeout,
}
