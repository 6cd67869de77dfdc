//! Keeps the rules in step with the cluster's configurations.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::quotas::{Options, Quotas};
use super::rules::{CONNECTION_RATE, Rules};
use super::window::Samples;
use crate::cluster::{Cluster, Configs, Entity, EntityName};
use crate::config::Config;

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
    loop {
        let configs = cluster.image().configs.clone();
        if known
            .as_ref()
            .is_none_or(|known| !Arc::ptr_eq(known, &configs))
        {
            apply(&quotas, &configs).await;
            known = Some(configs);
        }
        if images.changed().await.is_err() {
            return;
        }
    }
}

async fn apply(quotas: &Quotas, configs: &Configs) {
    let mut resolved: HashMap<String, Vec<IpAddr>> = HashMap::new();
    for (entity, set) in configs.entities() {
        if let Entity::Ip(EntityName::Named(name)) = entity
            && set.contains_key(CONNECTION_RATE)
        {
            let found = resolve(&name).await;
            resolved.insert(name, found);
        }
    }
    let rules = Rules::of(configs, |name| {
        resolved.get(name).cloned().unwrap_or_default()
    });
    quotas.set_rules(rules);
}

async fn resolve(name: &str) -> Vec<IpAddr> {
    if let Ok(ip) = name.parse() {
        return vec![ip];
    }
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
