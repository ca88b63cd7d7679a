//! What a net core asks the apply core about defragmentation: that it be done.

use crate::watch::StreamKey;

/// One call; carried back with the answer, so the apply core keeps no table of calls.
#[derive(Clone, Copy, Debug)]
pub struct DefragAsk {
    pub caller: StreamKey,
    pub started_ns: u64,
}

/// Room of the ring that carries them, for each net core.
pub const DEFRAG_ASKS: usize = 64;
