//! A cluster whose tree in ZooKeeper was open to everybody gets a user for it, while it goes on.

#[path = "common/cluster.rs"]
mod cluster;
mod common;
#[path = "common/zookeeper.rs"]
mod zookeeper;

use cluster::{Cluster, LONG, produce, within};
use metaq::meta::{MetaStore, ZooKeeperOptions};

const AUTHORIZER: &str =
    "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer";
const ALL_ARE_SUPER: &str = "super.users=User:ANONYMOUS";
const WARNING: &str = "whoever reaches ZooKeeper";

/// Whether somebody without a name may read a node.
fn is_open(cluster: &Cluster) -> bool {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = ZooKeeperOptions {
        servers: cluster.servers.clone(),
        root: cluster.root.clone(),
        session_timeout: LONG,
        connection_timeout: LONG,
        auth: None,
        set_acl: true,
        tls: None,
    };
    runtime.block_on(async {
        let store = MetaStore::connect_zookeeper(options).await;
        match store {
            Ok(store) => store.get("/brokers/topics/t").await.is_ok(),
            Err(_) => false,
        }
    })
}

/// Restarts brokers one after the other with other settings; they go on serving.
fn roll(cluster: &mut Cluster, settings: &[&str]) {
    for at in 0..cluster.nodes.len() {
        assert!(cluster.nodes[at].stop().success());
        for setting in settings {
            cluster.nodes[at].set(setting);
        }
        cluster.nodes[at].launch();
        for node in &cluster.nodes {
            within(LONG, "both brokers", || node.brokers() == [0, 1]);
        }
        for (partition, node) in (0..).zip(&cluster.nodes) {
            within(LONG, "its partition", || {
                produce(&mut node.client(), "t", partition).0 == 0
            });
        }
    }
}

#[test]
fn brokers_get_a_user_one_after_the_other_and_the_tree_is_theirs_then() {
    let mut cluster = Cluster::start(2, &[AUTHORIZER, ALL_ARE_SUPER]);
    cluster.create(0, "t", 2);
    assert!(cluster.nodes[0].log().contains(WARNING));
    let refused = cluster.nodes[0].command(&["meta", "protect"]).unwrap_err();
    assert!(refused.contains("zk.zkAuth"), "{refused}");
    roll(
        &mut cluster,
        &["zk.zkAuth=digest:metaq:secret", "zk.zkSetAcl=false"],
    );
    assert!(is_open(&cluster));
    let refused = cluster.nodes[0].command(&["meta", "protect", "--execute"]);
    assert!(refused.unwrap_err().contains("brokers 0, 1 run without"));
    roll(&mut cluster, &["zk.zkSetAcl=true"]);
    let protect = |cluster: &Cluster, more: &[&str]| {
        let words = [&["meta", "protect"], more].concat();
        cluster.nodes[0].command(&words).unwrap()
    };
    let listed = protect(&cluster, &[]);
    assert!(
        listed.contains("/brokers/topics/t\n") && listed.contains("--execute"),
        "{listed}"
    );
    assert!(is_open(&cluster), "nothing was done yet");
    protect(&cluster, &["--execute"]);
    assert!(!is_open(&cluster));
    let again = protect(&cluster, &["--json"]);
    let again: serde_json::Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["nodes"], serde_json::json!([]));
    // The brokers go on, and start without a warning.
    cluster.create(1, "u", 2);
    let warnings = |cluster: &Cluster| cluster.nodes[0].log().matches(WARNING).count();
    let before = warnings(&cluster);
    roll(&mut cluster, &[]);
    assert_eq!(warnings(&cluster), before);
    protect(&cluster, &["--open", "--execute"]);
    assert!(is_open(&cluster));
}
