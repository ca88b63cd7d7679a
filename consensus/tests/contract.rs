//! What the core promises beyond the papers: its bounds at the exact value, what is forwarded, refused, counted, kept in
//! memory and trimmed, and when something is sent again. One test a promise; the module says of which part.

#[path = "contract/forwarding.rs"]
mod forwarding;
#[path = "contract/leading.rs"]
mod leading;
// Shared with the tests of the papers, which need more of it.
#[allow(dead_code)]
#[path = "paper/node.rs"]
mod node;
#[path = "contract/reading.rs"]
mod reading;
#[path = "contract/sending.rs"]
mod sending;
#[path = "contract/telling.rs"]
mod telling;
#[path = "contract/trimming.rs"]
mod trimming;
#[path = "contract/voting.rs"]
mod voting;
