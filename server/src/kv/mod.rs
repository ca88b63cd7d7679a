//! What key-value requests mean: checks, ranges, transactions and the replies they get.
//!
//! Always true: everything here is pure logic over the traits of [`store`]: no clock, no randomness, no I/O, no order of
//! a hash map, so every member comes to the same result. A write either passes all its checks or changes nothing.
//! `validate`, `quota`, `command`, `range`, `range_stream` and `read_txn` run on the net cores, `apply` on the apply core.
//! Does not wait for consensus, and does not know how the store keeps its data.

pub mod apply;
pub mod command;
pub mod compare;
pub mod intervals;
pub mod quota;
pub mod range;
pub mod range_stream;
pub mod read_txn;
pub mod store;
pub mod validate;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
