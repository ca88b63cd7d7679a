//! Defragment on a net core: the apply core is asked, and answers when the file is as short as it becomes.
//!
//! Always true here: the work does not depend on who asked; a client that goes leaves it running, as in etcd.

use prost::Message;
use wire::error::EtcdError;
use wire::grpc::Call;
use wire::messages::etcdserverpb::DefragmentRequest;

use crate::pipeline::DefragAsk;
use crate::services::methods::id;
use crate::watch::StreamKey;

use super::books::{Ended, Work};
use super::calls::{Calls, Handled};
use super::core::{NetCore, fail};

impl Calls<'_> {
    pub(super) fn defragment(&mut self, call: &Call<'_>, message: &[u8]) -> Handled {
        DefragmentRequest::decode(message)?;
        self.require_root(call)?;
        let ask = DefragAsk {
            caller: StreamKey {
                connection: self.connection,
                stream: call.stream,
            },
            started_ns: self.state.now_ns,
        };
        let to_defrag = &mut self.state.to_defrag;
        to_defrag
            .push(ask)
            .map_err(|_| EtcdError::TooManyRequests)?;
        to_defrag.flush();
        Ok(())
    }
}

impl NetCore {
    pub(super) fn on_defragmented(&self, ask: DefragAsk, result: Result<(), EtcdError>) {
        let StreamKey { connection, stream } = ask.caller;
        self.state.borrow_mut().books.ended(Ended {
            connection,
            method: id::MAINTENANCE_DEFRAGMENT,
            work: Work::Other,
            started_ns: ask.started_ns,
        });
        self.respond(connection, |out| match result {
            // As in etcd an empty message, without a header.
            Ok(()) => out.unary(stream, |_| {}),
            Err(error) => fail(out, stream, error),
        });
    }
}
