//! The log's state machine: takes records, says which blocks to write where, takes the results.
//!
//! What is always true here
//! - `synced <= written <= appended`, all positions; none ever moves backwards.
//! - At most one write is in flight. Its buffer belongs to it until [`Writer::on_written`].
//! - Writes go to strictly rising block positions; a block once given out is never given out again
//!   for the same life of a segment. A group that does not fit the rest of its segment goes to the
//!   next one, whose first group repeats metadata, hard state and snapshot mark.
//! - After the first failed write nothing is accepted and nothing more is written.
//! - A segment is released only when it is older than the segment of the newest durable group and
//!   holds no entry above the durable snapshot mark.
//!
//! Called by [`super::Log`] on the log core. Knows no file, no clock, no thread.

use std::collections::VecDeque;

use bytes::Bytes;

use super::error::AppendError;
use super::format::{GroupKind, RecordType, record_bytes};
use super::group::{Group, Place, State};
use super::types::{
    Entry, HardState, LogIndex, MARK_BYTES_MAX, MarkKind, Options, Position, SegmentSequence,
    SnapshotMark, Term,
};
use crate::device::{AlignedBuffer, BLOCK_BYTES};

/// A write to issue now.
#[derive(Debug)]
pub struct Write {
    /// Which segment.
    pub segment: SegmentSequence,
    /// Where in it, block-aligned.
    pub offset: u64,
    /// How much of the buffer, whole blocks.
    pub bytes: usize,
    /// Number of the group; serves as the operation's token.
    pub number: u64,
    /// Owned by the write until it completes.
    pub buffer: AlignedBuffer,
}

/// Counts for the metrics page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriterStats {
    /// Groups durable.
    pub groups: u64,
    /// Bytes durable, fill included.
    pub bytes: u64,
    /// Records durable.
    pub records: u64,
    /// Times the log had to wait because the next segment was not ready.
    pub segment_waits: u64,
    /// Groups that needed memory beyond the registered buffers.
    pub extra_buffers: u64,
    /// Segments taken into use.
    pub segments_used: u64,
    /// Segments released.
    pub segments_released: u64,
}

/// Where a log goes on, as recovery found it.
#[derive(Clone, Debug)]
pub struct Resume {
    /// As in the segment headers.
    pub log_id: u64,
    /// Repeated at the start of each segment.
    pub metadata: Bytes,
    /// Segments in use, oldest first, with the highest entry index each holds.
    pub retained: Vec<(SegmentSequence, LogIndex)>,
    /// Block position in the last of them where the next group goes.
    pub offset: u64,
    /// Number of the next group.
    pub number: u64,
    /// The chain so far.
    pub chain: u32,
    /// What the log says.
    pub state: State,
    /// Prepared segments that follow, in order.
    pub ready: Vec<SegmentSequence>,
}

/// See the module's text.
#[derive(Debug)]
pub struct Writer {
    options: Options,
    log_id: u64,
    metadata: Bytes,
    /// The last one is the active segment.
    retained: VecDeque<(SegmentSequence, LogIndex)>,
    offset: u64,
    number: u64,
    chain: u32,
    ready: VecDeque<SegmentSequence>,
    is_preparing: bool,
    is_waiting: bool,
    is_stopped: bool,

    appended: State,
    written: State,
    synced: State,
    synced_segment: SegmentSequence,
    filling: Option<Group>,
    queued: VecDeque<(Group, GroupKind)>,
    pending_bytes: usize,
    free: Vec<AlignedBuffer>,
    free_max: usize,
    in_flight: Option<InFlight>,
    stats: WriterStats,
}

#[derive(Debug)]
struct InFlight {
    segment: SegmentSequence,
    number: u64,
    bytes: usize,
    after: State,
    kind: GroupKind,
}

impl Writer {
    /// Goes on where recovery left off, filling groups in `buffers`.
    pub fn new(options: Options, resume: Resume, buffers: Vec<AlignedBuffer>) -> Writer {
        let active = resume.retained.last().expect("a log has a segment").0;
        assert!(
            resume.offset.is_multiple_of(BLOCK_BYTES as u64),
            "the next group starts inside a block, at {}",
            resume.offset
        );
        Writer {
            options,
            log_id: resume.log_id,
            metadata: resume.metadata,
            retained: resume.retained.into(),
            offset: resume.offset,
            number: resume.number,
            chain: resume.chain,
            ready: resume.ready.into(),
            is_preparing: false,
            is_waiting: false,
            is_stopped: false,
            appended: resume.state.clone(),
            written: resume.state.clone(),
            synced: resume.state,
            synced_segment: active,
            filling: None,
            queued: VecDeque::new(),
            pending_bytes: 0,
            free_max: buffers.len().max(2),
            free: buffers,
            in_flight: None,
            stats: WriterStats::default(),
        }
    }

    /// Adds an entry. An index at or below the last one replaces that entry and voids all after it.
    ///
    /// # Panics
    /// If the index leaves a gap or reaches back to what a snapshot mark covers.
    pub fn append_entry(
        &mut self,
        term: Term,
        index: LogIndex,
        kind: u8,
        payload: &[u8],
    ) -> Result<Position, AppendError> {
        let last = self.appended.last_index;
        assert!(
            index <= last.next(),
            "entry {index} leaves a gap after {last}"
        );
        let covered = self
            .appended
            .mark
            .as_ref()
            .map_or(LogIndex(0), |mark| mark.index);
        assert!(
            covered < index,
            "entry {index} is covered by the snapshot mark at {covered}"
        );
        let group = self.room(payload.len(), self.options.entry_bytes_max)?;
        group.push(RecordType::Entry, kind, term.0, index.0, payload);
        group.index_max = group.index_max.max(index);
        self.appended.last_index = index;
        self.appended.last_term = term;
        Ok(self.pushed(payload.len()))
    }

    /// Adds an entry; see [`Writer::append_entry`].
    pub fn append(&mut self, entry: &Entry) -> Result<Position, AppendError> {
        self.append_entry(entry.term, entry.index, entry.kind, &entry.payload)
    }

    /// Adds a hard state. Entries it commits must have been appended before it.
    ///
    /// # Panics
    /// If it commits more than the log holds: recovery takes such a state for proof of lost
    /// entries.
    pub fn append_hard_state(&mut self, hard_state: HardState) -> Result<Position, AppendError> {
        let last = self.appended.last_index;
        let commit = hard_state.commit;
        assert!(
            commit <= last,
            "hard state commits {commit}, the log ends at {last}"
        );
        let payload = hard_state.vote.0.to_le_bytes();
        let group = self.room(payload.len(), payload.len())?;
        group.push(
            RecordType::HardState,
            0,
            hard_state.term.0,
            commit.0,
            &payload,
        );
        self.appended.hard_state = hard_state;
        Ok(self.pushed(payload.len()))
    }

    /// Adds a snapshot mark. With [`MarkKind::Install`] the log restarts right after it.
    ///
    /// # Panics
    /// If a compaction mark lies beyond the log's end, or any mark before an earlier one.
    pub fn append_snapshot_mark(&mut self, mark: SnapshotMark) -> Result<Position, AppendError> {
        let covered = self
            .appended
            .mark
            .as_ref()
            .map_or(LogIndex(0), |mark| mark.index);
        assert!(
            covered <= mark.index,
            "snapshot mark {} is before {covered}",
            mark.index
        );
        let last = self.appended.last_index;
        if mark.kind == MarkKind::Compaction {
            assert!(
                mark.index <= last,
                "snapshot mark {} is beyond {last}",
                mark.index
            );
        }
        let group = self.room(mark.data.len(), MARK_BYTES_MAX)?;
        push_mark(group, &mark);
        if mark.kind == MarkKind::Install {
            self.appended.last_index = mark.index;
            self.appended.last_term = mark.term;
        }
        let bytes = mark.data.len();
        self.appended.mark = Some(mark);
        Ok(self.pushed(bytes))
    }

    /// Adds the group that says the log was closed in good order.
    pub fn seal(&mut self) {
        if self.is_stopped {
            return;
        }
        self.close_filling();
        let mut group = Group::new(self.buffer(BLOCK_BYTES));
        group.after = self.appended.clone();
        group.push(RecordType::Checksum, 0, 0, 0, &[]);
        self.pending_bytes += group.used_bytes();
        self.queued.push_back((group, GroupKind::Seal));
    }

    /// The next write, if one is due: something is pending, nothing is in flight, and the segment
    /// it goes to is ready.
    ///
    /// The answer can change after an append, [`Writer::on_written`] or [`Writer::on_prepared`].
    pub fn next_write(&mut self) -> Option<Write> {
        if self.is_stopped || self.in_flight.is_some() {
            return None;
        }
        let padded = match (self.queued.front(), &self.filling) {
            (Some((group, _)), _) | (None, Some(group)) => group.padded_bytes() as u64,
            (None, None) => return None,
        };
        if self.options.segment_bytes < self.offset + padded {
            let Some(segment) = self.ready.pop_front() else {
                self.stats.segment_waits += u64::from(!self.is_waiting);
                self.is_waiting = true;
                return None;
            };
            self.is_waiting = false;
            self.retained.push_back((segment, LogIndex(0)));
            self.offset = BLOCK_BYTES as u64;
            self.stats.segments_used += 1;
            let first = self.first_group();
            return Some(self.issue(first, GroupKind::First));
        }
        if self.queued.is_empty() {
            self.close_filling();
        }
        let (group, kind) = self.queued.pop_front()?;
        self.pending_bytes -= group.used_bytes();
        Some(self.issue(group, kind))
    }

    /// Takes a write's end. `Ok` only if every byte is durable; then says through which state.
    /// Returns `None` for a write that held no records of the caller's, and after a failure.
    pub fn on_written(&mut self, buffer: AlignedBuffer, is_durable: bool) -> Option<State> {
        let ended = self
            .in_flight
            .take()
            .expect("a write ends that was in flight");
        self.recycle(buffer);
        if !is_durable {
            self.stop();
            return None;
        }
        assert!(
            self.synced.position <= ended.after.position,
            "synced moves back from {:?} to {:?}",
            self.synced.position,
            ended.after.position
        );
        self.stats.groups += 1;
        self.stats.bytes += ended.bytes as u64;
        self.stats.records += ended.after.position.0 - self.synced.position.0;
        self.synced_segment = ended.segment;
        self.synced = ended.after;
        assert_eq!(ended.number + 1, self.number, "groups complete in order");
        (ended.kind == GroupKind::Records).then(|| self.synced.clone())
    }

    /// Latches a failure: nothing is accepted or written any more.
    pub fn stop(&mut self) {
        self.is_stopped = true;
    }

    /// A segment to prepare in the background, named once.
    pub fn wants_segment(&mut self) -> Option<SegmentSequence> {
        if self.is_preparing || self.is_stopped || !self.ready.is_empty() {
            return None;
        }
        self.is_preparing = true;
        Some(self.active().next())
    }

    /// The segment named by [`Writer::wants_segment`] is on disk, durably.
    pub fn on_prepared(&mut self, segment: SegmentSequence) {
        assert!(self.is_preparing, "segment {segment} was not asked for");
        assert_eq!(segment, self.active().next(), "segments come in order");
        self.is_preparing = false;
        self.ready.push_back(segment);
    }

    /// It could not be made. It will be asked for again.
    pub fn on_prepare_failed(&mut self) {
        self.is_preparing = false;
    }

    /// Whether the next segment is still to be prepared.
    pub fn wants_preparation(&self) -> bool {
        self.ready.is_empty() && !self.is_stopped
    }

    /// Whether a write is held up only by the missing segment.
    pub fn is_waiting_for_segment(&self) -> bool {
        self.is_waiting
    }

    /// Entries below `first_kept` are no longer needed. Returns the segments to release, oldest
    /// first; those not covered by a durable snapshot mark stay.
    pub fn trim(&mut self, first_kept: LogIndex) -> Vec<SegmentSequence> {
        let marked = self
            .synced
            .mark
            .as_ref()
            .map_or(LogIndex(0), |mark| mark.index);
        let first_kept = first_kept.min(marked.next());
        let mut released = Vec::new();
        while let Some(&(segment, index_max)) = self.retained.front()
            && segment < self.synced_segment
            && index_max < first_kept
            && !self.is_stopped
        {
            self.retained.pop_front();
            self.stats.segments_released += 1;
            released.push(segment);
        }
        released
    }

    /// Whether a write is in flight.
    pub fn has_write_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Whether anything waits to be written.
    pub fn has_pending(&self) -> bool {
        self.filling.is_some() || !self.queued.is_empty()
    }

    /// Bytes accepted and not yet given to the disk.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Bytes that the segments there are can still take beside what is pending. Groups are padded
    /// and do not cross segments, so somewhat less will fit.
    pub fn room_bytes(&self) -> u64 {
        let active = self.options.segment_bytes.saturating_sub(self.offset);
        let ready = self.ready.len() as u64 * (self.options.segment_bytes - BLOCK_BYTES as u64);
        (active + ready).saturating_sub(self.pending_bytes as u64)
    }

    /// What the log says as of the newest appended record.
    pub fn appended(&self) -> &State {
        &self.appended
    }

    /// What the log says as of the newest durable record.
    pub fn synced(&self) -> &State {
        &self.synced
    }

    /// Segments that hold records, oldest first, with the highest entry index in each.
    pub fn retained(&self) -> impl ExactSizeIterator<Item = (SegmentSequence, LogIndex)> + '_ {
        self.retained.iter().copied()
    }

    /// Where in the newest segment the next group goes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Counts.
    pub fn stats(&self) -> WriterStats {
        self.stats
    }

    fn active(&self) -> SegmentSequence {
        self.retained.back().expect("a log has a segment").0
    }

    /// The group the next record goes to, made if need be.
    fn room(&mut self, payload: usize, payload_max: usize) -> Result<&mut Group, AppendError> {
        if self.is_stopped {
            return Err(AppendError::Stopped);
        }
        if payload_max < payload {
            return Err(AppendError::TooLarge {
                bytes: payload,
                bytes_max: payload_max,
            });
        }
        let pending_bytes = self.pending_bytes;
        if self.options.pending_bytes_max < pending_bytes + Group::bytes_for(payload) {
            return Err(AppendError::Full { pending_bytes });
        }
        if self
            .filling
            .as_ref()
            .is_some_and(|group| !group.fits(payload))
        {
            self.close_filling();
        }
        if self.filling.is_none() {
            let group = Group::new(self.buffer(Group::bytes_for(payload)));
            self.pending_bytes += group.used_bytes();
            self.filling = Some(group);
        }
        Ok(self.filling.as_mut().expect("made above"))
    }

    /// Bookkeeping after a record was put into the filling group.
    fn pushed(&mut self, payload_bytes: usize) -> Position {
        self.appended.position.0 += 1;
        self.pending_bytes += record_bytes(payload_bytes);
        self.appended.position
    }

    fn close_filling(&mut self) {
        if let Some(mut group) = self.filling.take() {
            group.after = self.appended.clone();
            self.queued.push_back((group, GroupKind::Records));
        }
    }

    /// First group of a segment: what must survive when the segments before it are released. It
    /// says what was true before the group that caused the change of segment.
    fn first_group(&mut self) -> Group {
        let mark_bytes = self.written.mark.as_ref().map_or(0, |mark| mark.data.len());
        let bytes = Group::bytes_for(0)
            + record_bytes(self.metadata.len())
            + record_bytes(8)
            + record_bytes(mark_bytes);
        let mut group = Group::new(self.buffer(bytes));
        push_first(
            &mut group,
            self.chain,
            self.number,
            &self.metadata,
            &self.written,
        );
        group.after = self.written.clone();
        group
    }

    fn issue(&mut self, mut group: Group, kind: GroupKind) -> Write {
        let segment = self.active();
        let place = Place {
            log_id: self.log_id,
            segment,
            offset: self.offset,
            number: self.number,
            kind,
        };
        self.chain = group.seal(place, self.chain);
        let bytes = group.padded_bytes();
        let number = self.number;
        let write = Write {
            segment,
            offset: self.offset,
            bytes,
            number,
            buffer: group.buffer,
        };
        self.offset += bytes as u64;
        self.number += 1;
        assert!(
            self.offset <= self.options.segment_bytes,
            "group ends at {} beyond segment {segment}",
            self.offset
        );
        let (_, index_max) = self.retained.back_mut().expect("a log has a segment");
        *index_max = group.index_max.max(*index_max);
        self.written = group.after.clone();
        self.in_flight = Some(InFlight {
            segment,
            number,
            bytes,
            after: group.after,
            kind,
        });
        write
    }

    fn buffer(&mut self, bytes: usize) -> AlignedBuffer {
        if bytes <= self.options.group_bytes
            && let Some(buffer) = self.free.pop()
        {
            return buffer;
        }
        self.stats.extra_buffers += 1;
        AlignedBuffer::new(bytes.max(self.options.group_bytes))
    }

    fn recycle(&mut self, buffer: AlignedBuffer) {
        let is_usual = buffer.len() == self.options.group_bytes;
        if buffer.slot().is_some() || is_usual && self.free.len() < self.free_max {
            self.free.push(buffer);
        }
    }
}

/// The records of a segment's first group.
pub(super) fn push_first(
    group: &mut Group,
    chain: u32,
    number: u64,
    metadata: &[u8],
    state: &State,
) {
    group.push(RecordType::Checksum, 0, u64::from(chain), number, &[]);
    group.push(RecordType::Metadata, 0, 0, 0, metadata);
    let hard_state = state.hard_state;
    let vote = hard_state.vote.0.to_le_bytes();
    group.push(
        RecordType::HardState,
        0,
        hard_state.term.0,
        hard_state.commit.0,
        &vote,
    );
    if let Some(mark) = &state.mark {
        // Whatever it did to the log before it was done when it was first written.
        push_mark(
            group,
            &SnapshotMark {
                kind: MarkKind::Compaction,
                ..mark.clone()
            },
        );
    }
}

fn push_mark(group: &mut Group, mark: &SnapshotMark) {
    let kind = match mark.kind {
        MarkKind::Compaction => 0,
        MarkKind::Install => 1,
    };
    group.push(
        RecordType::Snapshot,
        kind,
        mark.term.0,
        mark.index.0,
        &mark.data,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::types::Vote;

    fn writer() -> Writer {
        let options = Options {
            segment_bytes: 160 << 10,
            group_bytes: 8 << 10,
            entry_bytes_max: 16 << 10,
            pending_bytes_max: 96 << 10,
            ..Options::default()
        };
        options.check().unwrap();
        let resume = Resume {
            log_id: 1,
            metadata: Bytes::from_static(b"m"),
            retained: vec![(SegmentSequence(1), LogIndex(0))],
            offset: BLOCK_BYTES as u64,
            number: 2,
            chain: 0,
            state: State::default(),
            ready: vec![SegmentSequence(2)],
        };
        Writer::new(
            options,
            resume,
            vec![AlignedBuffer::new(8 << 10), AlignedBuffer::new(8 << 10)],
        )
    }

    fn entry(writer: &mut Writer, bytes: usize) -> Result<Position, AppendError> {
        let index = writer.appended().last_index.next();
        writer.append_entry(Term(1), index, 0, &vec![1; bytes])
    }

    fn mark(writer: &mut Writer, index: LogIndex) {
        let kind = MarkKind::Compaction;
        let mark = SnapshotMark {
            index,
            term: Term(1),
            kind,
            data: Bytes::new(),
        };
        writer.append_snapshot_mark(mark).unwrap();
    }

    /// Fills the first segment; the write returned is the first group of the second.
    fn fill(writer: &mut Writer) -> Write {
        loop {
            entry(writer, 8000).unwrap();
            let last = writer.appended().last_index;
            mark(writer, last);
            while let Some(write) = writer.next_write() {
                if write.segment == SegmentSequence(2) {
                    return write;
                }
                writer.on_written(write.buffer, true);
            }
        }
    }

    #[test]
    fn a_segment_is_kept_until_the_next_one_has_a_durable_group() {
        let mut writer = writer();
        let first = fill(&mut writer);
        assert_eq!(writer.trim(LogIndex(u64::MAX)), []);
        assert_eq!(
            writer.on_written(first.buffer, true),
            None,
            "nothing of the caller's in it"
        );
        // Segment 1 holds entries up to the mark that is durable, and no later ones.
        assert_eq!(writer.trim(LogIndex(u64::MAX)), [SegmentSequence(1)]);
        assert_eq!(writer.trim(LogIndex(u64::MAX)), []);
    }

    #[test]
    fn a_mark_releases_nothing_before_it_is_durable() {
        let mut writer = writer();
        while writer.retained().len() < 2 {
            entry(&mut writer, 8000).unwrap();
            while let Some(write) = writer.next_write() {
                writer.on_written(write.buffer, true);
            }
        }
        let last = writer.appended().last_index;
        mark(&mut writer, last);
        assert_eq!(writer.trim(last.next()), []);
        let write = writer.next_write().unwrap();
        assert_eq!(writer.trim(last.next()), []);
        writer.on_written(write.buffer, true).unwrap();
        assert_eq!(
            writer.trim(LogIndex(1)),
            [],
            "the caller still wants the entries"
        );
        assert_eq!(writer.trim(last.next()), [SegmentSequence(1)]);
    }

    #[test]
    fn a_group_waits_for_its_segment_and_the_wait_is_counted_once() {
        let mut writer = writer();
        writer.ready.clear();
        assert_eq!(writer.wants_segment(), Some(SegmentSequence(2)));
        assert_eq!(writer.wants_segment(), None, "named once");
        loop {
            entry(&mut writer, 8000).unwrap();
            let Some(write) = writer.next_write() else {
                break;
            };
            writer.on_written(write.buffer, true);
        }
        assert!(writer.next_write().is_none());
        assert_eq!(writer.stats().segment_waits, 1);
        writer.on_prepared(SegmentSequence(2));
        assert_eq!(writer.next_write().unwrap().segment, SegmentSequence(2));
    }

    #[test]
    fn the_backlog_is_bounded_and_a_refusal_changes_nothing() {
        let mut writer = writer();
        let too_large = entry(&mut writer, (16 << 10) + 1).unwrap_err();
        assert!(matches!(too_large, AppendError::TooLarge { .. }));
        while entry(&mut writer, 5000).is_ok() {}
        let before = (writer.appended().clone(), writer.pending_bytes());
        assert!(matches!(
            entry(&mut writer, 5000),
            Err(AppendError::Full { .. })
        ));
        assert_eq!(before, (writer.appended().clone(), writer.pending_bytes()));
        while let Some(write) = writer.next_write() {
            writer.on_written(write.buffer, true);
        }
        assert_eq!(writer.pending_bytes(), 0);
        assert_eq!(writer.synced(), writer.appended());
        entry(&mut writer, 5000).unwrap();
    }

    #[test]
    fn steady_small_groups_need_no_further_memory() {
        let mut writer = writer();
        for vote in 0..20 {
            let hard_state = HardState {
                term: Term(1),
                vote: Vote(vote),
                commit: LogIndex(0),
            };
            writer.append_hard_state(hard_state).unwrap();
            let write = writer.next_write().unwrap();
            assert!(writer.next_write().is_none(), "one write at a time");
            writer.append_hard_state(hard_state).unwrap();
            writer.on_written(write.buffer, true).unwrap();
        }
        assert_eq!(writer.stats().extra_buffers, 0);
    }

    #[test]
    #[should_panic(expected = "leaves a gap")]
    fn a_gap_is_our_bug() {
        let _panics = writer().append_entry(Term(1), LogIndex(2), 0, b"");
    }
}
