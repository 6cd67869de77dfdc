use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::group::testing::{OneTopic, fixed_settings};
use crate::meta::{Op, paths};

const MEMBERS_BYTES_MAX: usize = 64 << 10;

async fn groups(dir: &tempfile::TempDir) -> GroupCoordinator {
    let meta = MetaStore::open_embedded(&dir.path().join("meta")).unwrap();
    meta.lease().claim(meta.lease().session());
    let slots = Slot::all().map(|slot| paths::coordinator_slot(slot.number()));
    let slots = slots.map(|path| Op::put(path, Bytes::new()));
    meta.multi(slots.collect()).await.unwrap();
    let limits = GroupLimits {
        initial_rebalance_delay_ms: 0,
        session_timeout_min_ms: 6_000,
        session_timeout_max_ms: 60_000,
        members_max: 10,
        members_bytes_max: MEMBERS_BYTES_MAX,
        offsets_bytes_max: 1 << 20,
        share_groups_max: 10,
        metadata_bytes_max: 100,
        offsets_retention_ms: 60_000,
        producer_expiration_ms: 60_000,
        offsets_check_interval: Duration::from_secs(60),
    };
    let wall = WallClock::default();
    let with = (
        Events::new(wall.clone()),
        Memory::new(Arc::default(), 1 << 20),
    );
    let limits = (limits, fixed_settings());
    let groups = GroupCoordinator::new(meta, Arc::new(OneTopic), limits, &wall, with, None);
    let ownership = Ownership {
        epoch: 1,
        version: 0,
    };
    let owned = Slot::all().map(|slot| (slot, ownership)).collect();
    groups.assign(&owned).await.unwrap();
    groups
}

fn join(metadata_bytes: usize) -> JoinRequest {
    JoinRequest {
        member_id: String::new(),
        instance_id: None,
        client_id: "c".to_owned(),
        client_host: "h".to_owned(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), Bytes::from(vec![0; metadata_bytes]))],
        member_id_required: true,
        can_skip_assignment: true,
        reason: String::new(),
        connection: None,
        reserved: None,
    }
}

#[tokio::test]
async fn what_a_group_cannot_serve_does_not_get_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(&dir).await;
    let long = "g".repeat(GROUP_ID_BYTES_MAX + 1);
    for id in ["", &long, "a\0members\0m"] {
        let refused = groups.join(id, join(0)).await;
        assert_eq!(refused, Err(GroupError::InvalidGroupId));
    }
    assert!(groups.describe(&long).await.is_err());
    for session_timeout_ms in [5_999, 60_001, i32::MIN] {
        let mut join = join(0);
        join.session_timeout_ms = session_timeout_ms;
        let refused = groups.join("g", join).await;
        assert_eq!(refused, Err(GroupError::InvalidSessionTimeout));
    }
    let refused = groups.join("g", join(MEMBER_BYTES_MAX)).await;
    assert_eq!(refused, Err(GroupError::InvalidRequest));
    let sync = SyncRequest {
        member_id: "m".to_owned(),
        instance_id: None,
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: BTreeMap::from([("m".to_owned(), Bytes::from(vec![0; MEMBER_BYTES_MAX + 1]))]),
        reserved: None,
    };
    let refused = groups.sync("g", sync).await;
    assert_eq!(refused, Err(GroupError::InvalidRequest));
    assert_eq!(groups.list().await, Ok(Vec::new()));
}

#[tokio::test]
async fn members_of_all_groups_share_one_memory() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(&dir).await;
    let half = MEMBERS_BYTES_MAX / 6;
    assert!(groups.join("a", join(half)).await.is_ok());
    let refused = groups.join("b", join(half)).await;
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached));
    assert!(groups.join("b", join(1000)).await.is_ok());
    let ids: Vec<String> = groups
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|group| group.group_id)
        .collect();
    assert_eq!(ids, ["a", "b"]);
    groups.stop();
    let refused = groups.describe("a").await;
    assert_eq!(refused, Err(GroupError::NotCoordinator));
}

#[tokio::test]
async fn assignments_take_of_the_members_memory_until_others_replace_them() {
    let dir = tempfile::tempdir().unwrap();
    let groups = groups(&dir).await;
    let mut request = join(10);
    request.member_id_required = false;
    let joined = groups.join("g", request).await.unwrap();
    let of_bytes = |bytes: usize| SyncRequest {
        member_id: joined.member_id.clone(),
        instance_id: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: BTreeMap::from([(joined.member_id.clone(), Bytes::from(vec![0; bytes]))]),
        reserved: None,
    };
    let refused = groups.sync("g", of_bytes(MEMBERS_BYTES_MAX / 3)).await;
    assert_eq!(refused, Err(GroupError::CoordinatorNotAvailable));
    let synced = groups.sync("g", of_bytes(MEMBERS_BYTES_MAX / 6)).await;
    assert_eq!(synced.unwrap().assignment.len(), MEMBERS_BYTES_MAX / 6);
    let refused = groups.join("h", join(MEMBERS_BYTES_MAX / 6)).await;
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached));
    let leaving = LeaveMember {
        member_id: joined.member_id.clone(),
        instance_id: None,
        reason: String::new(),
    };
    assert_eq!(groups.leave("g", vec![leaving]).await, Ok(vec![Ok(())]));
    assert!(groups.join("h", join(MEMBERS_BYTES_MAX / 6)).await.is_ok());
}
