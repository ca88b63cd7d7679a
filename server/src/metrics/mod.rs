//! Counters, gauges and histograms under etcd's names, for Prometheus to scrape.
//!
//! In reading order: `cells` are the atomics with one writer each; `catalog` names every label-less family;
//! `core` is what one core writes to; `grpc` and `labels` are the labelled families; `stages` keeps latency
//! per stage; `process` reads what the kernel knows; `registry` gathers it all; `text` writes it down.
//!
//! Always true here: counting on the request path is a load and a store on memory no other core writes;
//! no lock, no read-modify-write, no allocation. The scraper only reads, and sums over cores, so it may see
//! a count one event old, never a torn one.
//!
//! The Prometheus client library was tried and left: its encoder speaks OpenMetrics only (appends `_total`
//! to counters, writes `counter` names without it, `# EOF`), and etcd's names do not survive that.

mod catalog;
mod cells;
mod core;
mod grpc;
mod labels;
mod process;
mod registry;
mod stages;
mod text;

pub use core::{CoreMetrics, Published};
pub use labels::{ApplyOp, HealthCheck, RequestType, StreamApi, StreamDirection};
pub use process::thread_major_faults;
pub use registry::{MemberInfo, Metrics};
pub use stages::Stage;
