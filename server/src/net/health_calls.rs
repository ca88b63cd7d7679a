//! gRPC health checking: whether the member serves.
//!
//! Always true here: the answer is the same for the whole life of a listener, because nobody is let in
//! before the member serves. The plain HTTP checks are in [`super::health`].

use prost::Message;
use wire::error::EtcdError;
use wire::grpc::{Call, Responder};
use wire::messages::grpc::health::v1 as health;

use super::calls::Handled;

pub(super) fn health_check(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    let request = health::HealthCheckRequest::decode(message)?;
    if !request.service.is_empty() {
        return Err(EtcdError::HealthUnknownService.into());
    }
    let reply = serving(health::health_check_response::ServingStatus::Serving);
    out.unary(call.stream, |buffer| encode(&reply, buffer));
    Ok(())
}

pub(super) fn health_list(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    health::HealthListRequest::decode(message)?;
    let status = serving(health::health_check_response::ServingStatus::Serving);
    let reply = health::HealthListResponse {
        statuses: [(String::new(), status)].into_iter().collect(),
    };
    out.unary(call.stream, |buffer| encode(&reply, buffer));
    Ok(())
}

/// Sends the status once; it does not change while the member serves, and the stream stays open.
pub(super) fn health_watch(call: &Call<'_>, message: &[u8], out: &mut Responder<'_>) -> Handled {
    use health::health_check_response::ServingStatus;
    let request = health::HealthCheckRequest::decode(message)?;
    let status = if request.service.is_empty() {
        ServingStatus::Serving
    } else {
        ServingStatus::ServiceUnknown
    };
    out.message(call.stream, |buffer| encode(&serving(status), buffer));
    Ok(())
}

fn serving(status: health::health_check_response::ServingStatus) -> health::HealthCheckResponse {
    health::HealthCheckResponse {
        status: status as i32,
    }
}

fn encode(message: &impl Message, buffer: &mut Vec<u8>) {
    message.encode(buffer).expect("a Vec has room");
}
