//! What the member offers to clients: the table of methods, and the services that are not KV.

pub mod methods;
pub mod status;
