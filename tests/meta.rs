//! The coordination tree: what both backends promise, and how the one on ZooKeeper fails.

#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use metaq::meta::{
    Change, MetaError, MetaStore, NodeAccess, Op, SessionState, ZooKeeperOptions, ZooKeeperTls,
    paths,
};
use proxy::Proxy;
use zookeeper::ZooKeeper;

fn data(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn create(path: &str) -> Op {
    Op::create(path, data("x"))
}

fn ephemeral(path: &str) -> Op {
    Op::Create {
        path: path.to_owned(),
        data: data("e"),
        ephemeral: true,
    }
}

fn set(path: &str, text: &str, version: Option<i32>) -> Op {
    Op::Set {
        path: path.to_owned(),
        data: data(text),
        version,
    }
}

fn options(servers: &str, root: &str, timeout: Duration) -> ZooKeeperOptions {
    ZooKeeperOptions {
        servers: servers.to_owned(),
        root: root.to_owned(),
        session_timeout: timeout,
        connection_timeout: Duration::from_secs(20),
        auth: None,
        set_acl: true,
        tls: None,
    }
}

/// `RUST_LOG` shows what the store and its client do.
fn start_logging() {
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let levels = std::env::var("RUST_LOG").unwrap_or_default();
    let levels: tracing_subscriber::filter::Targets = levels.parse().unwrap_or_default();
    let lines = tracing_subscriber::fmt::layer().with_filter(levels);
    let _ = tracing_subscriber::registry().with(lines).try_init();
}

fn fresh_root() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("/root-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A tree of its own that can be closed and opened again.
enum Place {
    Embedded(tempfile::TempDir),
    ZooKeeper(String),
}

impl Place {
    async fn open(&self) -> MetaStore {
        match self {
            Self::Embedded(dir) => MetaStore::open_embedded(&dir.path().join("meta")).unwrap(),
            Self::ZooKeeper(root) => {
                let servers = zookeeper::shared().address();
                let options = options(&servers, root, Duration::from_secs(20));
                MetaStore::connect_zookeeper(options).await.unwrap()
            }
        }
    }
}

/// Runs a test of the contract on both backends.
macro_rules! contract {
    ($($name:ident)*) => {
        mod embedded {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Place::Embedded(tempfile::tempdir().unwrap())).await;
            })*
        }
        mod on_zookeeper {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::Place::ZooKeeper(super::fresh_root())).await;
            })*
        }
    };
}

contract! {
    a_multi_is_applied_whole_or_not_at_all
    versions_count_sets_and_guard_them
    what_was_answered_survives_reopening_and_ephemerals_do_not
    a_put_makes_parents_and_replaces_whatever_is_there
    deleting_a_parent_needs_the_tree_operation
    changes_are_told_to_watchers
    one_of_many_that_set_a_version_wins
    calls_keep_their_order_and_one_refusal_harms_no_other
    a_put_below_a_node_that_must_be_there_does_not_make_it
    a_put_and_a_tree_deletion_go_together
    more_than_one_write_holds_is_cut_into_parts
    what_is_cut_into_parts_is_applied_in_its_order
}

async fn a_multi_is_applied_whole_or_not_at_all(place: &Place) {
    let store = place.open().await;
    store
        .multi(vec![create("/a"), create("/a/b")])
        .await
        .unwrap();
    let bad = Op::Check {
        path: "/a".into(),
        version: Some(9),
    };
    let refused = store.multi(vec![create("/a/c"), bad]).await;
    assert_eq!(refused, Err(MetaError::BadVersion("/a".into())));
    assert_eq!(store.children("/a").await.unwrap(), ["b"]);
    assert_eq!(
        store.multi(vec![create("/x/y")]).await,
        Err(MetaError::NoNode("/x".into()))
    );
    assert_eq!(
        store.multi(vec![create("/a")]).await,
        Err(MetaError::NodeExists("/a".into()))
    );
    assert_eq!(
        store.multi(vec![Op::delete("/x")]).await,
        Err(MetaError::NoNode("/x".into()))
    );
}

async fn versions_count_sets_and_guard_them(place: &Place) {
    let store = place.open().await;
    store.multi(vec![create("/a")]).await.unwrap();
    store.multi(vec![set("/a", "y", Some(0))]).await.unwrap();
    assert_eq!(
        store.multi(vec![set("/a", "z", Some(0))]).await,
        Err(MetaError::BadVersion("/a".into()))
    );
    store.multi(vec![Op::put("/a", data("p"))]).await.unwrap();
    let node = store.get("/a").await.unwrap().unwrap();
    assert_eq!((node.version, &node.data[..]), (2, &b"p"[..]));
}

async fn what_was_answered_survives_reopening_and_ephemerals_do_not(place: &Place) {
    let store = place.open().await;
    let ops = vec![
        create("/a"),
        ephemeral("/a/e"),
        Op::put("/p/q/r", data("z")),
    ];
    store.multi(ops).await.unwrap();
    assert!(store.get("/a/e").await.unwrap().unwrap().ephemeral);
    store.close().await;
    let closed = store.multi(vec![create("/late")]).await;
    assert!(matches!(closed, Err(MetaError::Unavailable(_))));
    drop(store);
    let store = place.open().await;
    let mut found = Vec::new();
    for root in ["/a", "/p"] {
        found.push(root.to_owned());
        let below = store.subtree(root).await.unwrap();
        found.extend(below.into_iter().map(|(path, _)| path));
    }
    assert_eq!(found, ["/a", "/p", "/p/q", "/p/q/r"]);
    assert_eq!(store.get("/p/q/r").await.unwrap().unwrap().data, data("z"));
}

async fn a_put_makes_parents_and_replaces_whatever_is_there(place: &Place) {
    let store = place.open().await;
    let put = |ephemeral| Op::Put {
        path: "/a/b/c".into(),
        data: data("1"),
        ephemeral,
    };
    store.multi(vec![put(true)]).await.unwrap();
    assert!(store.get("/a/b/c").await.unwrap().unwrap().ephemeral);
    assert_eq!(store.get("/a/b").await.unwrap().unwrap().data, Bytes::new());
    store.multi(vec![put(false)]).await.unwrap();
    assert!(!store.get("/a/b/c").await.unwrap().unwrap().ephemeral);
}

async fn deleting_a_parent_needs_the_tree_operation(place: &Place) {
    let store = place.open().await;
    store
        .multi(vec![
            create("/d"),
            create("/d/a"),
            create("/d/a/b"),
            create("/d/ab"),
        ])
        .await
        .unwrap();
    assert_eq!(
        store.multi(vec![Op::delete("/d/a")]).await,
        Err(MetaError::NotEmpty("/d/a".into()))
    );
    store.multi(vec![Op::delete_tree("/d/a")]).await.unwrap();
    store.multi(vec![Op::delete_tree("/d/a")]).await.unwrap();
    assert_eq!(store.children("/d").await.unwrap(), ["ab"]);
}

async fn changes_are_told_to_watchers(place: &Place) {
    let store = place.open().await;
    store
        .multi(vec![create("/brokers"), create("/brokers/topics")])
        .await
        .unwrap();
    let mut changes = store.watch();
    store
        .multi(vec![create("/brokers/topics/t")])
        .await
        .unwrap();
    store
        .multi(vec![set("/brokers/topics/t", "2", None)])
        .await
        .unwrap();
    store
        .multi(vec![Op::delete("/brokers/topics/t")])
        .await
        .unwrap();
    let mut told = 0;
    while told < 3 {
        let wait = tokio::time::timeout(Duration::from_secs(10), changes.recv());
        if let Change::Paths(paths) = wait.await.unwrap().unwrap() {
            told += paths
                .iter()
                .filter(|path| *path == "/brokers/topics/t")
                .count();
        }
    }
}

async fn one_of_many_that_set_a_version_wins(place: &Place) {
    let store = place.open().await;
    store.multi(vec![create("/c")]).await.unwrap();
    for version in 0..5 {
        let tries: Vec<_> = (0..20)
            .map(|n| store.multi(vec![set("/c", &n.to_string(), Some(version))]))
            .collect();
        let mut won = 0;
        for attempt in tries {
            won += usize::from(attempt.await.is_ok());
        }
        assert_eq!(won, 1);
    }
}

async fn calls_keep_their_order_and_one_refusal_harms_no_other(place: &Place) {
    let store = place.open().await;
    store.multi(vec![create("/guard")]).await.unwrap();
    let check = |version| Op::Check {
        path: "/guard".into(),
        version: Some(version),
    };
    let mut calls = Vec::new();
    for n in 0..500 {
        let put = Op::put(format!("/g/{}", n % 7), data(&n.to_string()));
        // Every tenth comes from somebody who was fenced.
        let stale = n % 10 == 9;
        let call = store.multi(vec![put, check(if stale { 5 } else { 0 })]);
        calls.push((stale, call));
    }
    for (stale, call) in calls {
        let expected = match stale {
            true => Err(MetaError::BadVersion("/guard".into())),
            false => Ok(()),
        };
        assert_eq!(call.await, expected);
    }
    for key in 0..7 {
        let last = (0..500)
            .rev()
            .find(|n| n % 7 == key && n % 10 != 9)
            .unwrap();
        let node = store.get(&format!("/g/{key}")).await.unwrap().unwrap();
        assert_eq!(node.data, data(&last.to_string()));
    }
}

async fn a_put_below_a_node_that_must_be_there_does_not_make_it(place: &Place) {
    let store = place.open().await;
    let put = || {
        let path = "/t".to_owned();
        let is_there = Op::Check {
            path,
            version: None,
        };
        store.multi(vec![is_there, Op::put("/t/states/0", data("x"))])
    };
    assert_eq!(put().await, Err(MetaError::NoNode("/t".into())));
    assert_eq!(store.get("/t").await.unwrap(), None);
    for _ in 0..2 {
        store.multi(vec![create("/t")]).await.unwrap();
        store.multi(vec![set("/t", "y", None)]).await.unwrap();
        put().await.unwrap();
        store.multi(vec![Op::delete_tree("/t")]).await.unwrap();
        assert_eq!(put().await, Err(MetaError::NoNode("/t".into())));
        assert_eq!(store.get("/t").await.unwrap(), None);
    }
}

async fn a_put_and_a_tree_deletion_go_together(place: &Place) {
    let store = place.open().await;
    let write = |generation: &str, members: &[&str]| {
        let mut ops = vec![
            Op::put("/consumers/g", data(generation)),
            Op::delete_tree("/consumers/g/ids"),
        ];
        ops.extend(members.iter().map(|member| Op::Put {
            path: format!("/consumers/g/ids/{member}"),
            data: data(generation),
            ephemeral: true,
        }));
        store.multi(ops)
    };
    // One after the other, and queued together.
    write("0", &["a", "b"]).await.unwrap();
    write("1", &["b", "c"]).await.unwrap();
    assert_eq!(
        store.children("/consumers/g/ids").await.unwrap(),
        ["b", "c"]
    );
    let (first, second) = (write("1", &["a", "b"]), write("2", &["b", "c"]));
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(
        store.children("/consumers/g/ids").await.unwrap(),
        ["b", "c"]
    );
    store
        .multi(vec![Op::delete_tree("/consumers/g")])
        .await
        .unwrap();
    assert!(store.get("/consumers/g").await.unwrap().is_none());
    write("3", &["d"]).await.unwrap();
    assert_eq!(store.children("/consumers/g/ids").await.unwrap(), ["d"]);
}

async fn more_than_one_write_holds_is_cut_into_parts(place: &Place) {
    let store = place.open().await;
    let large = Bytes::from(vec![b'x'; 100 << 10]);
    let ops = (0..30).map(|n| Op::put(format!("/large/{n}"), large.clone()));
    store.multi(ops.collect()).await.unwrap();
    assert_eq!(store.children("/large").await.unwrap().len(), 30);
    if matches!(place, Place::ZooKeeper(_)) {
        let too_large = Bytes::from(vec![b'x'; 600 << 10]);
        let refused = store.multi(vec![Op::put("/large/x", too_large)]).await;
        assert!(
            matches!(refused, Err(MetaError::TooLarge(_))),
            "{refused:?}"
        );
    }
}

/// Whoever is cut off in the middle of a large change finds what the earlier steps of it left.
async fn what_is_cut_into_parts_is_applied_in_its_order(place: &Place) {
    let store = place.open().await;
    let pending = (0..3).map(|n| Op::put(format!("/brokers/topics/g/pending/{n}"), "p".into()));
    store.multi(pending.collect()).await.unwrap();
    let mut changes = store.watch();
    let large = Bytes::from(vec![b'x'; 100 << 10]);
    let offsets = (0..12).map(|n| Op::put(format!("/brokers/topics/g/z/{n:02}"), large.clone()));
    let mut ops: Vec<Op> = offsets.collect();
    ops.push(Op::delete_tree("/brokers/topics/g/pending"));
    ops.push(Op::put("/brokers/topics/g/decided", "d".into()));
    store.multi(ops).await.unwrap();
    assert_eq!(
        store.children("/brokers/topics/g/z").await.unwrap().len(),
        12
    );
    assert!(
        store
            .get("/brokers/topics/g/pending")
            .await
            .unwrap()
            .is_none()
    );
    if matches!(place, Place::Embedded(_)) {
        // It is one write.
        return;
    }
    let mut told: Vec<String> = Vec::new();
    while !told.iter().any(|path| path == "/brokers/topics/g/decided") {
        let change = tokio::time::timeout(Duration::from_secs(30), changes.recv()).await;
        if let Change::Paths(paths) = change.unwrap().unwrap() {
            told.extend(paths.iter().cloned());
        }
    }
    let place_of = |path: &str| told.iter().position(|one| one == path);
    let last_put = place_of("/brokers/topics/g/z/05").unwrap();
    let first_gone = place_of("/brokers/topics/g/pending/0").unwrap();
    assert!(last_put < first_gone, "{told:?}");
}

async fn wait_for_session(store: &MetaStore, number: u64, state: SessionState) {
    let mut session = store.session();
    let reached = session.wait_for(|session| session.number == number && session.state == state);
    tokio::time::timeout(Duration::from_secs(30), reached)
        .await
        .unwrap_or_else(|_| panic!("session {number} did not become {}", state.name()))
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_does_not_make_a_change_twice_or_not_at_all() {
    let proxy = Proxy::new(zookeeper::shared().address());
    let timeout = Duration::from_secs(4);
    let store = MetaStore::connect_zookeeper(options(&proxy.address(), &fresh_root(), timeout))
        .await
        .unwrap();
    store.multi(vec![create("/n")]).await.unwrap();
    let mut done = 0;
    for round in 0..12 {
        match round % 3 {
            0 => proxy.lose_next_answer(),
            1 => proxy.cut(),
            _ => {}
        }
        // Only the whole sequence of versions fits; a change made twice, or taken for made when it was not, does not.
        store
            .multi(vec![set("/n", &round.to_string(), Some(done))])
            .await
            .unwrap();
        done += 1;
        if round % 4 == 0 {
            proxy.lose_next_answer();
        }
        store
            .multi(vec![create(&format!("/n/{round}"))])
            .await
            .unwrap();
    }
    assert_eq!(store.get("/n").await.unwrap().unwrap().version, done);
    assert_eq!(store.children("/n").await.unwrap().len(), 12);
    assert_eq!(store.session().borrow().number, 1);
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_ends_before_the_session_and_a_new_session_follows() {
    let server = zookeeper::shared().address();
    let proxy = Proxy::new(server.clone());
    let (root, timeout) = (fresh_root(), Duration::from_secs(2));
    let store = MetaStore::connect_zookeeper(options(&proxy.address(), &root, timeout))
        .await
        .unwrap();
    let witness = MetaStore::connect_zookeeper(options(&server, &root, timeout))
        .await
        .unwrap();
    store
        .multi(vec![create("/brokers"), ephemeral("/brokers/e")])
        .await
        .unwrap();
    assert!(store.lease().is_held());
    let mut changes = store.watch();
    proxy.close();
    wait_for_session(&store, 1, SessionState::Suspended).await;
    // As long as the ephemeral may be held to be there, nobody else may act; so the lease must have ended before.
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut ended_first = false;
    while witness.get("/brokers/e").await.unwrap().is_some() {
        ended_first |= !store.lease().is_held();
        assert!(Instant::now() < deadline, "the ephemeral never went");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(ended_first, "the lease outlived the session");
    let waiting = store.multi(vec![create("/lost")]);
    proxy.open();
    wait_for_session(&store, 2, SessionState::Connected).await;
    assert!(store.lease().is_held());
    // What was asked in the old session is refused in the new one, and not made.
    assert!(matches!(waiting.await, Err(MetaError::Unavailable(_))));
    assert!(store.get("/lost").await.unwrap().is_none());
    store.multi(vec![ephemeral("/brokers/e")]).await.unwrap();
    let told_all = async { while changes.recv().await.unwrap() != Change::Everything {} };
    tokio::time::timeout(Duration::from_secs(10), told_all)
        .await
        .unwrap();
    store.close().await;
    assert!(witness.get("/brokers/e").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_that_comes_back_keeps_the_session_and_what_was_answered() {
    let mut server = ZooKeeper::start(1);
    let timeout = Duration::from_secs(5);
    let store = MetaStore::connect_zookeeper(options(&server.address(), "/meta", timeout))
        .await
        .unwrap();
    store
        .multi(vec![create("/brokers"), ephemeral("/brokers/e")])
        .await
        .unwrap();
    let mut changes = store.watch();
    let writer = store.clone();
    let writing = tokio::spawn(async move {
        let mut answered = Vec::new();
        for n in 0..300 {
            let put = Op::put(format!("/brokers/{n}"), data("x"));
            if writer.multi(vec![put]).await.is_ok() {
                answered.push(n);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        answered
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    server = tokio::task::spawn_blocking(move || {
        server.servers[0].kill();
        server.servers[0].start();
        server
    })
    .await
    .unwrap();
    let answered = writing.await.unwrap();
    assert_eq!(answered.len(), 300, "changes wait for the server");
    assert_eq!(store.children("/brokers").await.unwrap().len(), 301);
    assert!(store.get("/brokers/e").await.unwrap().is_some());
    assert_eq!(store.session().borrow().number, 1);
    // Watches go on behind the reconnect.
    store.multi(vec![create("/brokers/after")]).await.unwrap();
    let told = async {
        loop {
            if let Ok(Change::Paths(paths)) = changes.recv().await
                && paths.iter().any(|path| path == "/brokers/after")
            {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .unwrap();
    store.close().await;
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_pauses_suspends_nothing_for_good() {
    start_logging();
    let server = ZooKeeper::start(1);
    let timeout = Duration::from_secs(3);
    let store = MetaStore::connect_zookeeper(options(&server.address(), "/meta", timeout))
        .await
        .unwrap();
    store.multi(vec![ephemeral("/e")]).await.unwrap();
    server.servers[0].pause();
    let put = store.multi(vec![Op::put("/p", data("x"))]);
    let ended = async {
        while store.lease().is_held() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(timeout, ended).await.unwrap();
    server.servers[0].resume();
    // Whether the session outlived the pause is the server's to say; either way the store serves again.
    let _ = put.await;
    let serves = async {
        while store.multi(vec![Op::put("/q", data("y"))]).await.is_err() || !store.lease().is_held()
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(15), serves)
        .await
        .unwrap();
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ensemble_loses_its_leader_and_then_serves_on() {
    let mut ensemble = ZooKeeper::start(3);
    let timeout = Duration::from_secs(5);
    let store = MetaStore::connect_zookeeper(options(&ensemble.address(), "/meta", timeout))
        .await
        .unwrap();
    store
        .multi(vec![create("/brokers"), ephemeral("/brokers/e")])
        .await
        .unwrap();
    let leader = ensemble.leader();
    ensemble.servers[leader].kill();
    let mut answered = 0;
    for n in 0..20 {
        let put = Op::put(format!("/brokers/{n}"), data("x"));
        answered += usize::from(store.multi(vec![put]).await.is_ok());
    }
    assert_eq!(answered, 20);
    assert_eq!(store.session().borrow().number, 1);
    assert!(store.get("/brokers/e").await.unwrap().is_some());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_creates_is_that_users_alone() {
    let servers = zookeeper::shared().address();
    let (root, timeout) = (fresh_root(), Duration::from_secs(5));
    let mut own = options(&servers, &root, timeout);
    own.auth = Some(("digest".to_owned(), "metaq:secret".to_owned()));
    let store = MetaStore::connect_zookeeper(own.clone()).await.unwrap();
    store.multi(vec![create("/private")]).await.unwrap();
    assert!(store.get("/private").await.unwrap().is_some());
    store.close().await;
    // Nobody else reads it, or makes anything below the root.
    let stranger = MetaStore::connect_zookeeper(options(&servers, &root, timeout)).await;
    let error = match stranger {
        Ok(store) => store.get("/private").await.unwrap_err(),
        Err(error) => error,
    };
    assert!(error.to_string().to_lowercase().contains("auth"), "{error}");
    let again = MetaStore::connect_zookeeper(own).await.unwrap();
    assert!(again.get("/private").await.unwrap().is_some());
    again.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_tree_is_given_to_a_user_and_opened_again() {
    let servers = zookeeper::shared().address();
    let (root, timeout) = (fresh_root(), Duration::from_secs(5));
    let open = options(&servers, &root, timeout);
    let stranger = MetaStore::connect_zookeeper(open.clone()).await.unwrap();
    let made = vec![
        create("/config"),
        create("/config/users"),
        ephemeral("/here"),
    ];
    stranger.multi(made).await.unwrap();
    // What brokers make with a user, as long as others have none.
    let mut meanwhile = open.clone();
    meanwhile.auth = Some(("digest".to_owned(), "metaq:secret".to_owned()));
    meanwhile.set_acl = false;
    let own = MetaStore::connect_zookeeper(meanwhile).await.unwrap();
    own.multi(vec![create("/acl")]).await.unwrap();
    let made = ["/", "/acl", "/config", "/config/users", "/here"];
    let all = own.nodes_unlike(NodeAccess::Owner).await.unwrap();
    let (markers, others): (Vec<_>, Vec<_>) = all
        .iter()
        .partition(|path| path.starts_with(paths::SESSIONS));
    assert_eq!(others, made);
    assert!(!markers.is_empty());
    let asked = ["/", "/config", "/nothing"];
    assert_eq!(own.open_nodes(&asked).await.unwrap(), ["/", "/config"]);
    for path in &all {
        assert!(own.set_access(path, NodeAccess::Owner).await.unwrap());
    }
    assert_eq!(own.nodes_unlike(NodeAccess::Owner).await.unwrap(), [""; 0]);
    let gone = own.set_access("/nothing", NodeAccess::Owner).await;
    assert!(!gone.unwrap());
    let refused = stranger.get("/config/users").await.unwrap_err();
    assert!(
        refused.to_string().to_lowercase().contains("auth"),
        "{refused}"
    );
    let refused = stranger
        .set_access("/acl", NodeAccess::Owner)
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("zk.zkAuth"), "{refused}");
    assert!(
        stranger
            .set_access("/acl", NodeAccess::Everybody)
            .await
            .is_err()
    );
    let closed = own.nodes_unlike(NodeAccess::Everybody).await.unwrap();
    assert_eq!(closed, all);
    for path in &closed {
        assert!(own.set_access(path, NodeAccess::Everybody).await.unwrap());
    }
    assert!(stranger.get("/config/users").await.unwrap().is_some());
    stranger.close().await;
    own.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_connection_asks_for_the_right_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let write = |name: &str, text: &str| std::fs::write(path(name), text).unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let ca = rcgen::Issuer::new(ca, ca_key);
    write("ca.pem", &ca_certificate.pem());
    for name in ["server", "client"] {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let certificate = rcgen::CertificateParams::new(names)
            .unwrap()
            .signed_by(&key, &ca)
            .unwrap();
        write(&format!("{name}.pem"), &certificate.pem());
        write(&format!("{name}.key"), &key.serialize_pem());
        // As ZooKeeper wants it: both in one file.
        write(
            &format!("{name}-both.pem"),
            &format!("{}{}", key.serialize_pem(), certificate.pem()),
        );
    }
    let port = zookeeper::free_ports(1)[0];
    let more = [
        format!("secureClientPort={port}"),
        "secureClientPortAddress=127.0.0.1".to_owned(),
        "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".to_owned(),
        format!(
            "ssl.keyStore.location={}",
            path("server-both.pem").display()
        ),
        format!("ssl.trustStore.location={}", path("ca.pem").display()),
        "ssl.clientAuth=need".to_owned(),
    ];
    let server = ZooKeeper::start_with(1, &more);
    let mut tls = options(
        &format!("127.0.0.1:{port}"),
        "/meta",
        Duration::from_secs(5),
    );
    tls.tls = Some(ZooKeeperTls {
        ca: Some(path("ca.pem")),
        identity: Some((path("client.pem"), path("client.key"))),
        verify_host: true,
    });
    let store = MetaStore::connect_zookeeper(tls.clone()).await.unwrap();
    store.multi(vec![create("/a")]).await.unwrap();
    store.close().await;
    // Without the authority that signed the server's certificate there is no connection.
    tls.connection_timeout = Duration::from_secs(2);
    if let Some(tls) = &mut tls.tls {
        tls.ca = None;
    }
    assert!(MetaStore::connect_zookeeper(tls).await.is_err());
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chroot_stands_above_the_root_and_one_of_several_servers_is_enough() {
    let server = zookeeper::shared().address();
    let nobody = zookeeper::free_ports(1)[0];
    let (root, timeout) = (fresh_root(), Duration::from_secs(20));
    let servers = format!("127.0.0.1:{nobody},{server}/chroot/deep");
    let store = MetaStore::connect_zookeeper(options(&servers, &root, timeout))
        .await
        .unwrap();
    store.multi(vec![create("/a")]).await.unwrap();
    let whole = MetaStore::connect_zookeeper(options(&server, "", timeout))
        .await
        .unwrap();
    let path = format!("/chroot/deep{root}/a");
    assert!(whole.get(&path).await.unwrap().is_some());
    store.close().await;
    whole.close().await;
}

#[tokio::test]
async fn an_unreachable_server_is_named_within_the_connection_timeout() {
    let port = zookeeper::free_ports(1)[0];
    let mut nowhere = options(
        &format!("127.0.0.1:{port}"),
        "/meta",
        Duration::from_secs(5),
    );
    nowhere.connection_timeout = Duration::from_millis(600);
    let started = Instant::now();
    let Err(error) = MetaStore::connect_zookeeper(nowhere).await else {
        panic!("nobody is there");
    };
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(error.to_string().contains(&port.to_string()), "{error}");
}

#[test]
fn watched_paths_are_those_that_brokers_follow() {
    assert!(paths::WATCHED.contains(&"/brokers") && !paths::WATCHED.contains(&paths::GROUPS));
}
