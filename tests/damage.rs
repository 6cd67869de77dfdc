//! Whatever an accident did to a data directory: the broker starts, says what is wrong where an operator looks, serves all
//! the rest, and serves what was wrong too once it is put right.

mod common;

use std::fs::File;
use std::path::Path;

use common::{Client, Running, batch, now_ms};
use metaq_protocol::ResponseError;
use metaq_protocol::batch::BatchBuilder;
use metaq_protocol::messages::OffsetForLeaderEpochRequest;
use metaq_protocol::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};

/// Bytes of each record here; three fit into a segment.
const RECORD_BYTES: usize = 300_000;
const SETTINGS: &[&str] = &["log.segment.bytes=1048576"];
/// The second segment of the damaged partition.
const SEALED: &str = "t-0/00000000000000000003";
/// The last one, with one record.
const ACTIVE: &str = "t-0/00000000000000000009";

/// Ten records in a partition of `t`, cleanly closed, and one in `u`.
fn prepared() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    client.create("t");
    client.create("u");
    for n in 0..10 {
        assert_eq!(client.produce("t", large()), (0, n));
    }
    assert_eq!(client.produce("u", batch(1)), (0, 0));
    broker.stop();
    assert!(dir.path().join(format!("{SEALED}.log")).exists());
    assert!(dir.path().join(format!("{ACTIVE}.log")).exists());
    dir
}

fn large() -> bytes::Bytes {
    let builder = BatchBuilder::new().push(None, Some(&[7; RECORD_BYTES]), &[], now_ms());
    builder.finish().unwrap()
}

/// How many records are served from an offset on.
fn count(client: &mut Client, topic: &str, mut from: i64) -> i64 {
    let first = from;
    while let Some((base, records)) = client.fetch(topic, from).last() {
        from = base + i64::from(*records);
    }
    from - first
}

fn is_damaged(client: &mut Client, offset: i64) {
    let response = client.ask(11, &common::fetch_request("t", offset, 0));
    assert_eq!(
        response.responses[0].partitions[0].error_code,
        ResponseError::CorruptMessage.code()
    );
}

fn serves(client: &mut Client, topic: &str) {
    let (code, offset) = client.produce(topic, batch(1));
    assert_eq!(code, 0);
    assert_eq!(client.fetch(topic, offset), [(offset, 1)]);
}

/// The partition is offline for this reason, and the other one is not.
fn is_offline(dir: &Path, why: &str) {
    let broker = Running::start(dir, SETTINGS);
    let mut client = broker.client();
    assert_eq!(
        client.produce("t", batch(1)).0,
        ResponseError::KafkaStorageError.code()
    );
    let page = broker.page("/readyz");
    assert!(page.contains("503"), "{page}");
    assert!(page.contains("t-0") && page.contains(why), "{page}");
    serves(&mut client, "u");
    broker.stop();
}

/// All ten records are there, and nothing is wrong.
fn is_whole(dir: &Path) {
    let broker = Running::start(dir, SETTINGS);
    let mut client = broker.client();
    assert_eq!(count(&mut client, "t", 0), 10);
    serves(&mut client, "t");
    serves(&mut client, "u");
    assert!(broker.page("/readyz").contains("200"));
    broker.stop();
    let seen = metaq::log::verify_dir(dir).unwrap();
    assert_eq!(seen.findings, []);
}

fn cut(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).unwrap();
    file.set_len(bytes).unwrap();
}

#[test]
fn a_sealed_segment_that_lost_its_end_takes_its_partition_offline_until_it_is_put_back() {
    let dir = prepared();
    let path = dir.path().join(format!("{SEALED}.log"));
    let kept = std::fs::read(&path).unwrap();
    let left = kept.len() as u64 / 3 * 2;
    cut(&path, left);
    is_offline(dir.path(), "records 5..6 are missing");
    // What is left is not made worse.
    assert_eq!(std::fs::metadata(&path).unwrap().len(), left);
    std::fs::write(&path, kept).unwrap();
    is_whole(dir.path());
}

#[test]
fn a_batch_that_was_cut_in_a_sealed_segment_is_told_to_who_reads_it_and_the_rest_is_served() {
    let dir = prepared();
    let path = dir.path().join(format!("{SEALED}.log"));
    let kept = std::fs::read(&path).unwrap();
    cut(&path, kept.len() as u64 - 1000);
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    is_damaged(&mut client, 5);
    assert_eq!(count(&mut client, "t", 6), 4);
    serves(&mut client, "u");
    broker.stop();
    std::fs::write(&path, kept).unwrap();
    is_whole(dir.path());
}

#[test]
fn a_truncated_last_segment_ends_the_log_where_it_is_whole() {
    let dir = prepared();
    let path = dir.path().join(format!("{ACTIVE}.log"));
    cut(&path, std::fs::metadata(&path).unwrap().len() - 1000);
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    assert_eq!(count(&mut client, "t", 0), 9);
    serves(&mut client, "t");
    serves(&mut client, "u");
    broker.stop();
    let seen = metaq::log::verify_dir(dir.path()).unwrap();
    assert_eq!(seen.findings, []);
}

#[test]
fn a_corrupted_batch_is_found_by_verify_and_by_who_reads_it_and_nobody_else() {
    let dir = prepared();
    let path = dir.path().join(format!("{SEALED}.log"));
    let kept = std::fs::read(&path).unwrap();
    let mut bytes = kept.clone();
    // In the record's value: its consumer finds that the checksum is wrong.
    bytes[1000] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let seen = metaq::log::verify_dir(dir.path()).unwrap();
    assert_eq!(seen.findings.len(), 1, "{:?}", seen.findings);
    assert!(seen.findings[0].file.ends_with(format!("{SEALED}.log")));
    // In the header: nobody can be given that.
    bytes[16] = 7;
    std::fs::write(&path, &bytes).unwrap();
    let broker = Running::start(dir.path(), SETTINGS);
    let mut client = broker.client();
    is_damaged(&mut client, 3);
    assert_eq!(client.fetch("t", 0)[0], (0, 1));
    assert_eq!(count(&mut client, "t", 6), 4);
    serves(&mut client, "u");
    broker.stop();
    std::fs::write(&path, kept).unwrap();
    is_whole(dir.path());
}

#[test]
fn missing_indexes_and_snapshots_are_made_anew() {
    let dir = prepared();
    for entry in std::fs::read_dir(dir.path().join("t-0")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension != "log" && extension != "metadata")
        {
            std::fs::remove_file(path).unwrap();
        }
    }
    is_whole(dir.path());
}

#[test]
fn damaged_checkpoints_are_as_good_as_none() {
    for content in [
        "",
        "garbage",
        "0\n1\nt 0 99999999999999999999\n",
        "0\n5\nt 0 3\n",
    ] {
        let dir = prepared();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().ends_with("-checkpoint") {
                std::fs::write(path, content).unwrap();
            }
        }
        is_whole(dir.path());
    }
}

#[test]
fn what_is_not_a_partition_is_left_alone() {
    let dir = prepared();
    let foreign = ["lost+found", "notes", "t", "t-", "t-x", "-0", ".hidden-0"];
    for name in foreign {
        std::fs::create_dir(dir.path().join(name)).unwrap();
        std::fs::write(dir.path().join(name).join("kept"), name).unwrap();
    }
    // A file where a partition's directory could be.
    std::fs::write(dir.path().join("v-0"), "kept").unwrap();
    is_whole(dir.path());
    for name in foreign {
        let kept = std::fs::read_to_string(dir.path().join(name).join("kept"));
        assert_eq!(kept.unwrap(), name);
    }
    assert_eq!(
        std::fs::read_to_string(dir.path().join("v-0")).unwrap(),
        "kept"
    );
}

#[test]
fn a_partition_whose_files_may_not_be_read_is_offline_until_they_may() {
    let dir = prepared();
    // Where the file was there is a directory: that stops also those who may read everything.
    let path = dir.path().join(format!("{ACTIVE}.log"));
    let kept = dir.path().join("kept");
    std::fs::rename(&path, &kept).unwrap();
    std::fs::create_dir(&path).unwrap();
    is_offline(dir.path(), "t-0");
    std::fs::remove_dir(&path).unwrap();
    std::fs::rename(&kept, &path).unwrap();
    is_whole(dir.path());
}

/// KIP-320: what a consumer read and the power took is not passed over.
#[test]
fn a_consumer_finds_out_that_what_it_read_went_with_the_power() {
    let dir = prepared();
    found_out(&dir, true);
    // Where the system ran on too: what was synced is not there.
    let dir = prepared();
    found_out(&dir, false);
}

/// Offset 9 is gone, which was synced; perhaps the system ended meanwhile.
fn found_out(dir: &tempfile::TempDir, crashed: bool) {
    if crashed {
        for marker in [".kafka_cleanshutdown", "metaq-running"] {
            let _ = std::fs::remove_file(dir.path().join(marker));
        }
    }
    cut(&dir.path().join(format!("{ACTIVE}.log")), 0);
    let fetch_in_epoch = |client: &mut Client, epoch: i32| {
        let mut request = common::fetch_request("t", 9, 0);
        request.topics[0].partitions[0].current_leader_epoch = epoch;
        let response = client.ask(11, &request);
        response.responses[0].partitions[0].error_code
    };
    let end_of_epoch = |client: &mut Client, epoch: i32| {
        let partition = OffsetForLeaderPartition::default()
            .with_partition(0)
            .with_current_leader_epoch(-1)
            .with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default()
            .with_topic(common::name("t"))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        let response = client.ask(4, &request);
        let end = &response.topics[0].partitions[0];
        assert_eq!(end.error_code, 0);
        (end.leader_epoch, end.end_offset)
    };
    for produced in [1, 2] {
        let broker = Running::start(dir.path(), SETTINGS);
        let mut client = broker.client();
        assert_eq!(client.produce("t", batch(1)), (0, 8 + produced));
        // Once, not at every start.
        let fenced = ResponseError::FencedLeaderEpoch.code();
        assert_eq!(fetch_in_epoch(&mut client, 0), fenced);
        assert_eq!(fetch_in_epoch(&mut client, 1), 0);
        assert_eq!(end_of_epoch(&mut client, 0), (0, 9));
        assert_eq!(end_of_epoch(&mut client, 1), (1, 9 + produced));
        broker.stop();
    }
}
