//! What members of a share group have at this moment, as an operator sees it.

mod common;
#[path = "common/share_members.rs"]
mod share_members;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output};

use common::{Running, batch};
use serde_json::Value;
use share_members::{GROUP, Member, beat, broker, offset};

fn get(broker: &Running, path: &str) -> String {
    let address = broker.broker().dashboard_address().unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\r\n\r\n").unwrap().1.to_owned()
}

fn group(broker: &Running, verb: &str, options: &[&str]) -> Output {
    let address = broker.address().to_string();
    Command::new(env!("CARGO_BIN_EXE_metaq"))
        .args(["group", verb, GROUP, "-b", &address])
        .args(options)
        .output()
        .unwrap()
}

fn describe(broker: &Running, options: &[&str]) -> String {
    let output = group(broker, "describe", options);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_in_flight_is_shown_with_its_member_its_lock_and_its_deliveries() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    broker.client().produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    let mut b = Member::join(&broker, "b", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 3, &[2]), (4, 4, &[1])]), (0, 0));
    assert_eq!(b.take(1000, &[]), [(0, 3, 2)]);
    let seen: Value = serde_json::from_str(&get(&broker, "/api/groups/g")).unwrap();
    let part = &seen["in_flight"][0];
    assert_eq!((&part["topic"], &part["records"]), (&"t".into(), &9.into()));
    assert_eq!(part["left_out"], 0);
    let of = |range: &Value| {
        let number = |name: &str| range[name].as_i64().unwrap();
        assert!((0..20_000).contains(&number("held_ms")), "{range}");
        assert!((10_000..=30_000).contains(&number("lock_ms")), "{range}");
        let numbers = (number("first"), number("last"), number("delivery_count"));
        (numbers, range["client"].as_str().unwrap().to_owned())
    };
    let ranges: Vec<_> = part["ranges"].as_array().unwrap().iter().collect();
    assert_eq!(ranges[0]["member_id"], "b");
    assert_eq!(of(ranges[0]).0, (0, 3, 2));
    assert_eq!(of(ranges[1]).0, (5, 9, 1));
    assert!(of(ranges[1]).1.starts_with("test ("));
    let page = get(&broker, "/groups/g");
    assert!(page.contains("<td>5 to 9</td>"), "{page}");
    let told: Value = serde_json::from_str(&describe(&broker, &["--json"])).unwrap();
    assert_eq!(told["in_flight"][0]["member"], "b");
    assert_eq!(told["in_flight"][1]["last"], 9);
    assert_eq!(told["in_flight_left_out"], 0);
    assert!(describe(&broker, &[]).contains("DELIVERIES"));
    assert_eq!(a.acknowledge(2, &[(5, 9, &[1])]), (0, 0));
    assert_eq!(b.acknowledge(1, &[(0, 3, &[1])]), (0, 0));
    assert!(describe(&broker, &[]).contains("no member has records"));
    assert!(get(&broker, "/groups/g").contains("No member has records"));
    broker.stop();
}

#[test]
fn what_lies_ahead_of_a_share_group_is_counted_without_what_is_done_beyond_its_start() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    broker.client().produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    let b = Member::join(&broker, "b", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 1, &[1]), (4, 6, &[1])]), (0, 0));
    let listed: Value = serde_json::from_str(&get(&broker, "/api/groups")).unwrap();
    let of = |group: &Value| (group["lag"].as_i64(), group["partitions"].as_i64());
    assert_eq!(of(&listed["items"][0]), (Some(5), Some(1)), "{listed}");
    let seen: Value = serde_json::from_str(&get(&broker, "/api/groups/g")).unwrap();
    assert_eq!(of(&seen["group"]), (Some(5), Some(1)), "{seen}");
    let row = &seen["partitions"][0];
    assert_eq!(
        (row["committed"].as_i64(), row["lag"].as_i64()),
        (Some(2), Some(5)),
        "{row}"
    );
    // Both members read the partition.
    for member in seen["members"].as_array().unwrap() {
        assert_eq!(member["partitions"][0], "t 0-0", "{member}");
    }
    let owner = row["owner_client"].as_str().unwrap();
    assert!(owner.ends_with(") and 1 more"), "{owner}");
    drop(b);
    broker.stop();
}

#[test]
fn ranges_beyond_the_first_hundred_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    for _ in 0..25 {
        client.produce("t", batch(10));
    }
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 249, 1)]);
    // Every second one.
    let every: Vec<(i64, i64, &[i8])> = (0..125).map(|n| (2 * n, 2 * n, &[1][..])).collect();
    assert_eq!(a.acknowledge(1, &every), (0, 0));
    let seen: Value = serde_json::from_str(&get(&broker, "/api/groups/g")).unwrap();
    let part = &seen["in_flight"][0];
    assert_eq!(
        (&part["records"], &part["left_out"]),
        (&125.into(), &25.into())
    );
    assert_eq!(part["ranges"].as_array().unwrap().len(), 100);
    assert!(get(&broker, "/groups/g").contains("25 more ranges of 125 records in all"));
    assert!(describe(&broker, &[]).contains("and 25 more ranges"));
    broker.stop();
}

#[test]
fn an_operator_sets_where_a_share_group_without_members_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let broker = broker(&dir);
    let mut client = broker.client();
    client.produce("t", batch(10));
    let mut a = Member::join(&broker, "a", "t");
    assert_eq!(a.take(1000, &[]), [(0, 9, 1)]);
    assert_eq!(a.acknowledge(1, &[(0, 3, &[1]), (6, 6, &[1])]), (0, 0));
    let reset = |to: &[&str]| {
        let options = [&["-t", "t", "--json"], to].concat();
        let output = group(&broker, "reset-offsets", &options);
        let plan = serde_json::from_slice::<Value>(&output.stdout).unwrap();
        let planned = (plan[0]["from"].as_i64(), plan[0]["to"].as_i64().unwrap());
        (planned, String::from_utf8(output.stderr).unwrap())
    };
    let too_early = ["-t", "t", "--json", "--to-earliest", "--execute"];
    let refused = group(&broker, "reset-offsets", &too_early);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert!(
        refused.stdout.is_empty() && told.contains("has 1 member;"),
        "{told}"
    );
    let (planned, _) = reset(&["--to-earliest"]);
    assert_eq!(planned, (Some(4), 0));
    assert_eq!(client.ask(1, &beat("a", -1, None)).error_code, 0);
    let (planned, told) = reset(&["--shift-by", "-2"]);
    assert_eq!(planned, (Some(4), 2));
    assert!(told.contains("Nothing was changed"), "{told}");
    assert_eq!(offset(&mut client), (4, 5));
    assert_eq!(reset(&["--shift-by", "-2", "--execute"]).0, (Some(4), 2));
    // What was done behind that is forgotten.
    assert_eq!(offset(&mut client), (2, 8));
    let mut b = Member::join(&broker, "b", "t");
    assert_eq!(b.take(1000, &[]), [(2, 9, 1)]);
    assert_eq!(b.acknowledge(1, &[(2, 9, &[1])]), (0, 0));
    assert_eq!(client.ask(1, &beat("b", -1, None)).error_code, 0);
    assert_eq!(reset(&["--to-offset", "99", "--execute"]).0, (Some(10), 10));
    assert_eq!(reset(&["--to-offset", "7", "--execute"]).0, (Some(10), 7));
    let mut c = Member::join(&broker, "c", "t");
    assert_eq!(c.take(1000, &[]), [(7, 9, 1)]);
    broker.stop();
}
