//! How much each client may do (KIP-13, 124, 219, 599, 612): the rules that are in force, what each client did in the last
//! seconds, and how long it is to wait. Nothing here waits, and the time is given.

mod bucket;
mod follow;
mod limits;
mod quotas;
mod rules;
mod window;

pub use follow::follow;
pub use limits::{check_limit, is_limit, limits_of};
pub use quotas::{Counts, Given, Options, Quotas, Throttling, Who};
pub use rules::{CONNECTION_RATE, CountedBy, QuotaKind, Rule, Rules};
pub use window::Samples;
