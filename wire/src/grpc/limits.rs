//! Every bound of a connection: its name, its default, and what happens when it is reached.
//!
//! A limit that ends the connection answers GOAWAY with ENHANCE_YOUR_CALM unless its doc names
//! another code; the reason text names the limit. Each has a counter of the same name in
//! [`LimitHits`](super::stats::LimitHits). Defaults are etcd's where etcd has one, else chosen so
//! that no client seen in the wild comes near them.
//!
//! Rates are budgets (see [`Rate`]): a burst, refilled over time, so that they need no timer.

pub use crate::h2::budget::Rate;

const SECOND: u64 = 1_000_000_000;

/// The bounds of one connection. Shared by all connections of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Calls open at once; advertised as SETTINGS_MAX_CONCURRENT_STREAMS. One more is answered
    /// RST_STREAM(REFUSED_STREAM), which clients may retry. etcd's own default is no bound; clients
    /// queue above an advertised one by themselves.
    pub concurrent_streams_max: u32,
    /// Size of a decoded header list as RFC 9113 6.5.2 counts it (names + values + 32 each);
    /// advertised. A larger list is answered RST_STREAM(FRAME_SIZE_ERROR), as grpc-go does; the
    /// connection goes on.
    pub header_list_bytes_max: u32,
    /// Encoded size of one header block with its continuations. Beyond it the connection ends: the
    /// block can not be skipped without losing the compression state.
    pub header_block_bytes_max: u32,
    /// CONTINUATION frames of one header block. Beyond it the connection ends.
    pub continuation_frames_max: u32,
    /// Bytes of decoded metadata that open calls may hold together. A call beyond it is answered
    /// RESOURCE_EXHAUSTED.
    pub metadata_bytes_max: usize,
    /// Size of our table for decoding headers; advertised as SETTINGS_HEADER_TABLE_SIZE.
    pub header_table_bytes_max: u32,
    /// Largest frame payload we take; advertised as SETTINGS_MAX_FRAME_SIZE (16,384 to 16,777,215).
    /// Larger: FRAME_SIZE_ERROR.
    pub frame_bytes_max: u32,
    /// Largest gRPC message we take: etcd's max-request-bytes + 512 KiB. Larger: the call ends with
    /// RESOURCE_EXHAUSTED `grpc: received message larger than max (<n> vs. <max>)`.
    pub message_bytes_max: u32,
    /// Bytes of incomplete messages that open calls may hold together. The call that would pass it
    /// ends with RESOURCE_EXHAUSTED.
    pub assembly_bytes_max: usize,
    /// Receive window of a stream, at most 2^31-1; advertised as SETTINGS_INITIAL_WINDOW_SIZE.
    /// Passing it: RST_STREAM(FLOW_CONTROL_ERROR).
    pub stream_window_bytes: u32,
    /// Receive window of the connection, 65,535 to 2^31-1. Passing it ends the connection with
    /// FLOW_CONTROL_ERROR.
    pub connection_window_bytes: u32,
    /// Bytes in the output above which messages wait in their streams and
    /// [`wants_input`](super::Connection::wants_input) is false, so that a peer that does not take
    /// its answers is not read from either. Requests above it that would only be told what is wrong
    /// with them are answered RST_STREAM(ENHANCE_YOUR_CALM).
    pub output_bytes_max: usize,
    /// Bytes of answers waiting for flow control, all calls together. Checked before an answer is
    /// added, so one answer of any size always fits an otherwise idle connection. A call whose
    /// answer finds it full ends: RESOURCE_EXHAUSTED if nothing of its answer has left yet, else
    /// RST_STREAM(ENHANCE_YOUR_CALM).
    pub parked_bytes_max: usize,
    /// How long answers of a call may wait without one byte of them leaving before the call is
    /// reset with RST_STREAM(ENHANCE_YOUR_CALM), unless its service lets it wait
    /// ([`Responder::be_patient`](super::Responder::be_patient)); also how long output may lie untaken before the
    /// connection ends.
    pub stall_timeout_ns: u64,
    /// Bytes of control frames (acknowledgements, resets, window updates) queued since the output
    /// was last taken. Beyond it the connection ends.
    pub control_bytes_max: usize,
    /// Longest text of `grpc-message` in bytes, before percent-encoding; longer ones are cut at a
    /// character.
    pub status_message_bytes_max: usize,

    /// Streams reset by the client, or by us because of the client's errors ("rapid reset"). Beyond
    /// it the connection ends.
    pub resets: Rate,
    /// SETTINGS frames. Beyond it the connection ends.
    pub settings: Rate,
    /// PING frames and PING acknowledgements, whatever keepalive enforcement says; the first PING after something was
    /// sent is free. Beyond it the connection ends.
    pub pings: Rate,
    /// DATA, HEADERS and CONTINUATION frames that carry nothing and end nothing. Beyond it the
    /// connection ends.
    pub empty_frames: Rate,
    /// WINDOW_UPDATE frames beyond what our answers explain (each answered call and each DATA frame
    /// we send earns some). Beyond it the connection ends.
    pub window_updates: Rate,
    /// Frames without effect: PRIORITY, unknown types, frames on closed streams. Beyond it the
    /// connection ends.
    pub ignored_frames: Rate,

    /// Client preface and first SETTINGS must arrive within this time, else PROTOCOL_ERROR.
    pub handshake_timeout_ns: u64,
    /// Our SETTINGS must be acknowledged within this time, else SETTINGS_TIMEOUT.
    pub settings_ack_timeout_ns: u64,
    /// Shortest interval between a client's pings (etcd: grpc-keepalive-min-time). A third ping
    /// that comes too early, with nothing sent by us in between, ends the connection with
    /// `too_many_pings`.
    pub keepalive_min_time_ns: u64,
    /// Whether clients may ping at that interval without an open call; if not, one ping in two
    /// hours is allowed.
    pub keepalive_permit_without_stream: bool,
    /// Silence after which we ping the client (etcd: grpc-keepalive-interval). `u64::MAX`: never.
    pub keepalive_interval_ns: u64,
    /// Wait for any sign of life after our ping (etcd: grpc-keepalive-timeout); then the connection
    /// ends.
    pub keepalive_timeout_ns: u64,
    /// How long a graceful shutdown waits for the client to confirm the first GOAWAY before the
    /// final one goes out.
    pub shutdown_grace_ns: u64,
}

impl Limits {
    /// The largest body of a request that is not gRPC: a message of `message_bytes_max` as JSON, where bytes are base64.
    pub fn plain_bytes_max(&self) -> usize {
        2 * self.message_bytes_max as usize
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            concurrent_streams_max: 16_384,
            header_list_bytes_max: 2 << 20,
            header_block_bytes_max: 2 << 20,
            continuation_frames_max: 512,
            metadata_bytes_max: 16 << 20,
            header_table_bytes_max: 4096,
            frame_bytes_max: 16_384,
            message_bytes_max: 2 << 20,
            assembly_bytes_max: 64 << 20,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 16 << 20,
            output_bytes_max: 1 << 20,
            parked_bytes_max: 64 << 20,
            stall_timeout_ns: 120 * SECOND,
            control_bytes_max: 256 << 10,
            status_message_bytes_max: 4096,
            resets: Rate {
                burst: 5_000,
                per_second: 2_000,
            },
            settings: Rate {
                burst: 100,
                per_second: 10,
            },
            pings: Rate {
                burst: 1_000,
                per_second: 200,
            },
            empty_frames: Rate {
                burst: 1_000,
                per_second: 100,
            },
            window_updates: Rate {
                burst: 10_000,
                per_second: 10_000,
            },
            ignored_frames: Rate {
                burst: 10_000,
                per_second: 2_000,
            },
            handshake_timeout_ns: 30 * SECOND,
            settings_ack_timeout_ns: 60 * SECOND,
            keepalive_min_time_ns: 5 * SECOND,
            keepalive_permit_without_stream: false,
            keepalive_interval_ns: 7200 * SECOND,
            keepalive_timeout_ns: 20 * SECOND,
            shutdown_grace_ns: 5 * SECOND,
        }
    }
}
