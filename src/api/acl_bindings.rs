//! Bindings and filters of access control lists, as requests and answers have them (Kafka's AclApis, AclControlManager and
//! the requests' own checks).

use metaq_protocol::protocol::StrBytes;

use super::shared::optional;
use crate::cluster::ACL_CHANGES_A_REQUEST_MAX;
use crate::security::{
    Binding, CLUSTER_NAME, Entry, Filter, HostPattern, Operation, Pattern, PatternKind, Permission,
    ResourceKind, Wanted, WantedKind,
};

/// Bytes of a pattern's name at most: no name of a group or a transactional id is longer.
pub(super) const ACL_NAME_BYTES_MAX: usize = i16::MAX as usize;
/// Bytes of a principal, and of a host, at most.
pub(super) const ACL_TEXT_BYTES_MAX: usize = 4096;
/// Filters of one request at most; each is compared with every pattern.
pub(super) const ACL_FILTERS_MAX: usize = 1000;

/// What Kafka takes for unknown in every enumeration of a request: such a request it does not read.
const UNKNOWN: i8 = 0;

/// Whether one of these codes is that of nothing.
pub(super) fn is_any_unknown(codes: [i8; 4]) -> bool {
    codes.contains(&UNKNOWN)
}

/// What a connection ends with whose request has such a code.
pub(super) const UNKNOWN_ELEMENT: &str = "the request has an element of an unknown kind";

/// A binding as a request has it.
pub(super) struct Asked<'a> {
    pub(super) resource: i8,
    pub(super) name: &'a str,
    pub(super) kind: i8,
    pub(super) principal: &'a str,
    pub(super) host: &'a str,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

/// Kafka's names of what is no binding's.
fn of_filters(code: i8, matches: bool) -> &'static str {
    match code {
        1 => "ANY",
        2 if matches => "MATCH",
        _ => "UNKNOWN",
    }
}

impl Asked<'_> {
    /// The binding, or in Kafka's words and order what is wrong with it; only how long texts may be is ours.
    pub(super) fn binding(&self) -> Result<Binding, String> {
        let resource = ResourceKind::from_code(self.resource);
        if resource == Some(ResourceKind::Cluster) && self.name != CLUSTER_NAME {
            return Err(format!(
                "The only valid name for the CLUSTER resource is {CLUSTER_NAME}"
            ));
        }
        if self.name.is_empty() {
            return Err("Invalid empty resource name".to_owned());
        }
        let invalid = |what: &str, code, matches| {
            let name = of_filters(code, matches);
            format!("Invalid {what} {name}")
        };
        let pattern = Pattern {
            resource: resource.ok_or_else(|| invalid("resourceType", self.resource, false))?,
            kind: PatternKind::from_code(self.kind)
                .ok_or_else(|| invalid("patternType", self.kind, true))?,
            name: self.name.to_owned(),
        };
        let entry = Entry {
            operation: Operation::from_code(self.operation)
                .ok_or_else(|| invalid("operation", self.operation, false))?,
            permission: Permission::from_code(self.permission)
                .ok_or_else(|| invalid("permissionType", self.permission, false))?,
            principal: self.principal.to_owned(),
            host: self.host.to_owned(),
        };
        if !entry.principal.contains(':') {
            return Err(format!(
                "Could not parse principal from `{}` (no colon is present separating the principal type from the principal name)",
                entry.principal
            ));
        }
        if entry.host.is_empty() {
            return Err("Host pattern cannot be null or empty".to_owned());
        }
        HostPattern::parse(&entry.host)
            .map_err(|error| format!("Invalid CIDR notation '{}': {error}", entry.host))?;
        self.check_lengths()?;
        Ok(Binding { pattern, entry })
    }

    fn check_lengths(&self) -> Result<(), String> {
        for (what, text, bytes_max) in [
            ("resource name", self.name, ACL_NAME_BYTES_MAX),
            ("principal", self.principal, ACL_TEXT_BYTES_MAX),
            ("host", self.host, ACL_TEXT_BYTES_MAX),
        ] {
            if text.len() > bytes_max {
                return Err(format!("The {what} is longer than {bytes_max} bytes."));
            }
        }
        Ok(())
    }
}

/// A filter as requests have it, by codes and texts.
pub(super) fn filter(
    (resource, name, kind): (i8, &Option<StrBytes>, i8),
    (principal, host): (&Option<StrBytes>, &Option<StrBytes>),
    (operation, permission): (i8, i8),
) -> Filter {
    Filter {
        resource: Wanted::from_code(resource, ResourceKind::from_code),
        name: optional(name),
        kind: WantedKind::from_code(kind),
        principal: optional(principal),
        host: optional(host),
        operation: Wanted::from_code(operation, Operation::from_code),
        permission: Wanted::from_code(permission, Permission::from_code),
    }
}

/// What is wrong with a filter by which bindings are to be deleted.
pub(super) fn check_filter(filter: &Filter) -> Result<(), &'static str> {
    if filter.is_pattern_unknown() {
        return Err("Unknown patternFilter.");
    }
    if filter.is_entry_unknown() {
        return Err("Unknown entryFilter.");
    }
    Ok(())
}

const _: () = assert!(ACL_FILTERS_MAX <= ACL_CHANGES_A_REQUEST_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: Asked<'static> = Asked {
        resource: 2,
        name: "t",
        kind: 3,
        principal: "User:a",
        host: "*",
        operation: 3,
        permission: 3,
    };

    fn refused(asked: Asked<'_>) -> String {
        asked.binding().unwrap_err()
    }

    #[test]
    fn what_is_no_binding_is_refused_in_kafkas_words() {
        let binding = ASKED.binding().unwrap();
        assert_eq!(binding.pattern.resource, ResourceKind::Topic);
        let cluster = Asked {
            resource: 4,
            ..ASKED
        };
        assert_eq!(
            refused(cluster),
            "The only valid name for the CLUSTER resource is kafka-cluster"
        );
        let cases = [
            (Asked { name: "", ..ASKED }, "Invalid empty resource name"),
            (
                Asked {
                    resource: 1,
                    ..ASKED
                },
                "Invalid resourceType ANY",
            ),
            (
                Asked {
                    resource: 99,
                    ..ASKED
                },
                "Invalid resourceType UNKNOWN",
            ),
            (Asked { kind: 2, ..ASKED }, "Invalid patternType MATCH"),
            (
                Asked {
                    operation: 1,
                    ..ASKED
                },
                "Invalid operation ANY",
            ),
            (
                Asked {
                    permission: 1,
                    ..ASKED
                },
                "Invalid permissionType ANY",
            ),
            (
                Asked { host: "", ..ASKED },
                "Host pattern cannot be null or empty",
            ),
            (
                Asked {
                    host: "10.0.0.0/99",
                    ..ASKED
                },
                "Invalid CIDR notation '10.0.0.0/99': Value [99] not in range [0,32]",
            ),
        ];
        for (asked, why) in cases {
            assert_eq!(refused(asked), why);
        }
        let nobody = Asked {
            principal: "a",
            ..ASKED
        };
        assert!(refused(nobody).starts_with("Could not parse principal from `a`"));
    }

    #[test]
    fn texts_end_somewhere() {
        let name = "x".repeat(ACL_NAME_BYTES_MAX + 1);
        let who = format!("User:{}", "x".repeat(ACL_TEXT_BYTES_MAX));
        let named = |name| Asked { name, ..ASKED };
        assert!(named(&name[1..]).binding().is_ok());
        assert!(refused(named(&name)).contains("32767"));
        let of = Asked {
            principal: &who,
            ..ASKED
        };
        assert!(refused(of).contains("4096"));
    }
}
