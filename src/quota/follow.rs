//! Keeps the rules in step with the cluster's configurations.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::quotas::{Options, Quotas};
use super::rules::{CONNECTION_RATE, Rules};
use super::window::Samples;
use crate::cluster::{Cluster, Configs, Entity, EntityName};
use crate::config::Config;

/// Hosts may get other addresses, or addresses at last.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
/// How long a host's name may take to be resolved.
const RESOLVE_MAX: Duration = Duration::from_secs(5);

impl Options {
    /// What the configuration says.
    pub fn of(config: &Config) -> Self {
        let samples = |count: &str, seconds: &str| Samples {
            count: config.number(count).unsigned_abs(),
            ms: config.number(seconds).unsigned_abs() * 1000,
        };
        Self {
            samples: samples("quota.window.num", "quota.window.size.seconds"),
            controller_samples: samples(
                "controller.quota.window.num",
                "controller.quota.window.size.seconds",
            ),
        }
    }
}

/// Puts in force what the cluster's configurations say now, and whenever they say something else, until the broker stops.
pub async fn follow(cluster: Arc<Cluster>, quotas: Arc<Quotas>) {
    let mut images = cluster.image_changes();
    let mut known: Option<Arc<Configs>> = None;
    let mut hosts = Hosts::default();
    loop {
        let configs = cluster.image().configs.clone();
        let is_known = |known: &Arc<Configs>| Arc::ptr_eq(known, &configs);
        if !known.as_ref().is_some_and(is_known) {
            hosts.are(hosts_in(&configs));
            quotas.set_rules(hosts.rules(&configs));
            known = Some(configs.clone());
        }
        tokio::select! {
            changed = images.changed() => if changed.is_err() {
                return;
            },
            // A limit that is set meanwhile does not wait for a name.
            () = hosts.resolve() => quotas.set_rules(hosts.rules(&configs)),
        }
    }
}

/// Hosts that have a limit by their name.
fn hosts_in(configs: &Configs) -> BTreeSet<String> {
    let named = configs.entities().filter_map(|(entity, set)| match entity {
        Entity::Ip(EntityName::Named(name)) => set.contains_key(CONNECTION_RATE).then_some(name),
        _ => None,
    });
    named
        .filter(|name| name.parse::<IpAddr>().is_err())
        .collect()
}

/// The addresses of hosts, as they were when they were looked for last.
#[derive(Default)]
struct Hosts {
    known: HashMap<String, Vec<IpAddr>>,
    /// When they are looked for next.
    due: Option<Instant>,
}

impl Hosts {
    fn are(&mut self, names: BTreeSet<String>) {
        self.known.retain(|name, _| names.contains(name));
        for name in names {
            if let Entry::Vacant(new) = self.known.entry(name) {
                new.insert(Vec::new());
                self.due = Some(Instant::now());
            }
        }
    }

    fn rules(&self, configs: &Configs) -> Rules {
        Rules::of(configs, |name| match name.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.known.get(name).cloned().unwrap_or_default(),
        })
    }

    /// Looks for all of them when it is time, and says so when that is done. Dropping the future changes nothing.
    async fn resolve(&mut self) {
        match self.due.filter(|_| !self.known.is_empty()) {
            None => std::future::pending().await,
            Some(due) => tokio::time::sleep_until(due).await,
        }
        let names: Vec<String> = self.known.keys().cloned().collect();
        let found = join_all(names.iter().map(|name| resolve(name))).await;
        self.known = names.into_iter().zip(found).collect();
        self.due = Some(Instant::now() + RESOLVE_INTERVAL);
    }
}

async fn resolve(name: &str) -> Vec<IpAddr> {
    let found = tokio::time::timeout(RESOLVE_MAX, tokio::net::lookup_host((name, 0))).await;
    match found {
        Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
        _ => {
            tracing::warn!(
                name,
                "the quota of a host has no effect: its name is not resolved"
            );
            Vec::new()
        }
    }
}
