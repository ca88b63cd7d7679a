//! Why a request to the core was refused; one enum an operation. None of these changes any state.

use thiserror::Error;

use crate::types::MemberId;

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ProposeError {
    /// Propose at `leader`, or [`crate::Raft::forward`] it there.
    #[error("this member does not lead")]
    NotLeader { leader: Option<MemberId> },
    #[error("no leader is known")]
    NoLeader,
    #[error("leadership is being handed over")]
    Transferring,
    #[error("too many proposals wait to be committed")]
    Full,
    /// The previous change is not applied yet, or this term has committed nothing yet.
    #[error("a membership change is already under way")]
    ConfChangePending,
    #[error("membership change refused: {0}")]
    ConfChange(#[from] ConfChangeError),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ReadError {
    #[error("no leader is known")]
    NoLeader,
    #[error("too many reads wait for confirmation")]
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TransferError {
    #[error("this member does not lead")]
    NotLeader { leader: Option<MemberId> },
    #[error("the target does not vote in this cluster")]
    NotVoter,
    #[error("the target already leads")]
    AlreadyLeader,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ConfChangeError {
    #[error("member id 0 means no member")]
    NoMember,
    #[error("a single-step change may move one voter at most")]
    TooManySteps,
    #[error("the membership is in a joint state")]
    Joint,
    #[error("the membership is not in a joint state")]
    NotJoint,
    #[error("no voter would remain")]
    NoVoters,
    #[error("the change names one member twice")]
    Repeated,
    #[error("can only promote a learner that is in sync with the leader")]
    LearnerBehind,
}

/// The bytes of an encoded membership change make no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("membership change: {0}")]
pub struct DecodeError(pub &'static str);
