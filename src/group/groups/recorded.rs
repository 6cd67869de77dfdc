//! How changes of groups that are stored in one record get to the tree. A group has one write under way; what changes meanwhile
//! goes with the next one.

use super::{Groups, Then};
use crate::coordinator::Write;
use crate::group::group::{Group, Members};
use crate::group::hosted_record::{Hosted, RecordInFlight, RecordedGroup};
use crate::group::limits::STORE_AGAIN_MS;
use crate::group::messages::GroupError;
use crate::group::offsets::WriteNumber;
use crate::group::share::ShareGroup;
use crate::group::streams::StreamsGroup;
use crate::observe::{EventKind, Happened};

/// One of the kinds of groups that are stored so.
pub(super) trait Kind: RecordedGroup {
    /// It, where the group is of this kind.
    fn hosted(group: &mut Group) -> Option<&mut Hosted<Self>>;
}

impl Kind for ShareGroup {
    fn hosted(group: &mut Group) -> Option<&mut Hosted<Self>> {
        group.share_mut()
    }
}

impl Kind for StreamsGroup {
    fn hosted(group: &mut Group) -> Option<&mut Hosted<Self>> {
        group.streams_mut()
    }
}

impl Groups {
    /// Reports what happened, stores what changed, and updates the group's timer.
    pub(super) fn settle_recorded<G: Kind>(&mut self, group_id: &str) {
        let Some(hosted) = self.groups.get_mut(group_id).and_then(G::hosted) else {
            return;
        };
        for (who, why) in hosted.group.take_told() {
            let (epoch, members) = hosted.group.size();
            let rebalance = Happened::new(EventKind::Rebalance, group_id)
                .who(&who)
                .why(&why)
                .detail(format!("group epoch {epoch}, {members} members"));
            self.context.events.tell(rebalance);
        }
        self.flush_recorded::<G>(group_id);
        self.reschedule(group_id);
        self.drop_if_nothing(group_id);
    }

    /// Stores what changed, where no write is under way.
    fn flush_recorded<G: Kind>(&mut self, group_id: &str) {
        let number = self.number();
        let group = self.groups.get_mut(group_id);
        // What is on its way to be removed is not written any more; if it stays, this comes again.
        let group = group.filter(|group| group.removal.is_none());
        let Some(hosted) = group.and_then(G::hosted) else {
            return;
        };
        let waits = hosted.in_flight.is_some() || hosted.store_again_ms.is_some();
        if waits || !hosted.group.is_unstored() {
            return;
        }
        hosted.group.set_unstored(false);
        let (ops, parts_number) = hosted.group.ops(group_id, &mut hosted.parts);
        hosted.in_flight = Some(RecordInFlight {
            number,
            parts_number,
            change: hosted.group.change(),
        });
        let group_id = group_id.to_owned();
        self.writes.push(Write {
            id: group_id.clone(),
            ops,
            then: Then::RecordedGroup { group_id, number },
        });
    }

    /// A write is stored, or refused.
    pub(super) fn recorded_stored(
        &mut self,
        now_ms: i64,
        group_id: &str,
        number: WriteNumber,
        stored: Result<(), GroupError>,
    ) {
        match self.groups.get(group_id).map(|group| &group.members) {
            Some(Members::Share(_)) => {
                self.stored_of::<ShareGroup>(now_ms, group_id, number, stored);
            }
            Some(Members::Streams(_)) => {
                self.stored_of::<StreamsGroup>(now_ms, group_id, number, stored);
            }
            Some(Members::Classic(_) | Members::Consumer(_)) | None => {}
        }
    }

    fn stored_of<G: Kind>(
        &mut self,
        now_ms: i64,
        group_id: &str,
        number: WriteNumber,
        stored: Result<(), GroupError>,
    ) {
        let Some(hosted) = self.groups.get_mut(group_id).and_then(G::hosted) else {
            return;
        };
        let over = hosted.in_flight.take_if(|own| own.number == number);
        let Some(over) = over else { return };
        match stored {
            Ok(()) => hosted.parts.stored(over.parts_number),
            Err(_) => {
                hosted.group.set_unstored(true);
                hosted.store_again_ms = Some(now_ms + STORE_AGAIN_MS);
            }
        }
        hosted.held.settle(over.change, stored);
        self.settle_recorded::<G>(group_id);
    }
}
