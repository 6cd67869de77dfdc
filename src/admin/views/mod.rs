//! What the dashboard shows, as data: the pages and the API are made of the same.

pub(super) mod broker;
pub(super) mod clients;
pub(super) mod configuration;
pub(super) mod data_dirs;
pub(super) mod events;
pub(super) mod group;
mod group_members;
mod group_rows;
pub(super) mod history;
mod in_flight;
pub(super) mod log_lines;
mod member_views;
pub(super) mod messages;
pub(super) mod partition;
mod payload;
pub(super) mod problems;
pub(super) mod quotas;
pub(super) mod replicas;
pub(super) mod topics;
pub(super) mod transactions;

use serde::{Deserialize, Serialize};

/// A part of a list.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub(super) struct Page<T> {
    /// How many there are in all.
    pub(super) total: usize,
    /// The position of the first that is here, from 0.
    pub(super) offset: usize,
    /// Those that are here.
    pub(super) items: Vec<T>,
}

/// Items of a list at most, where nothing is asked for.
pub(super) const PAGE_ITEMS_DEFAULT: usize = 100;
/// Items of a list at most, whatever is asked for.
pub(super) const PAGE_ITEMS_MAX: usize = 1000;

/// Which part of a list.
#[derive(Debug, Clone, Default, Deserialize, schemars::JsonSchema)]
#[serde(default)]
pub(super) struct Part {
    /// Only those whose name contains this.
    pub(super) filter: Option<String>,
    /// The place of the first, from 0.
    #[schemars(range(min = 0))]
    pub(super) offset: Option<u32>,
    /// How many; at most 1000, 100 without.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) limit: Option<u16>,
}

impl Part {
    pub(super) fn offset(&self) -> usize {
        self.offset.unwrap_or(0) as usize
    }

    pub(super) fn limit(&self) -> usize {
        let asked = self.limit.map_or(PAGE_ITEMS_DEFAULT, usize::from);
        asked.clamp(1, PAGE_ITEMS_MAX)
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        let filter = self.filter.as_deref().map(str::trim);
        filter.is_none_or(|filter| name.contains(filter))
    }

    /// Cuts a list.
    pub(super) fn of<T>(&self, all: Vec<T>) -> Page<T> {
        let total = all.len();
        let offset = self.offset();
        let items = all.into_iter().skip(offset).take(self.limit()).collect();
        Page {
            total,
            offset,
            items,
        }
    }
}
