//! The decision (Kafka's StandardAuthorizer): what the access control lists say, who stands above them, and what is so where
//! they say nothing.

use std::net::IpAddr;

use super::acls::{Acls, Finding};
use super::binding::{Operation, ResourceKind};
use crate::principal::Principal;

/// The kind of principals that are parts of the broker itself, such as its dashboard, which asks for its own permission. No
/// client is of it.
pub const SUPER_KIND: &str = "MetaQ";

/// A resource of this name stands for any one that no list names (Kafka's Authorizer.authorizeByResourceType).
const ANY_NAME: &str = "hardcode";

/// A name that is no principal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a string in format principalType:principalName but got {0}")]
pub struct SuperUserError(String);

/// See the module's documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorizer {
    /// Few: looked through.
    super_users: Vec<Principal>,
    allow_without_acls: bool,
}

impl Authorizer {
    /// From `super.users`, which are principals parted by semicolons, and `allow.everyone.if.no.acl.found`.
    pub fn new(super_users: &str, allow_without_acls: bool) -> Result<Self, SuperUserError> {
        let names = super_users.split(';').map(str::trim);
        let names = names.filter(|name| !name.is_empty());
        let principal = |text: &str| {
            let (kind, name) = text
                .split_once(':')
                .ok_or_else(|| SuperUserError(text.to_owned()))?;
            Ok(Principal::new(kind, name))
        };
        Ok(Self {
            super_users: names.map(principal).collect::<Result<_, _>>()?,
            allow_without_acls,
        })
    }

    /// With one more super user.
    pub fn with_super_user(mut self, user: &str) -> Self {
        self.super_users.push(Principal::user(user));
        self
    }

    /// Whether a principal may do everything.
    pub fn is_super(&self, principal: &Principal) -> bool {
        principal.kind() == SUPER_KIND || self.super_users.contains(principal)
    }

    /// Whether a principal at a host may do something to a resource.
    pub fn allows(
        &self,
        acls: &Acls,
        who: (&Principal, IpAddr),
        operation: Operation,
        resource: (ResourceKind, &str),
    ) -> bool {
        if self.is_super(who.0) {
            return true;
        }
        match acls.say(who, operation, resource) {
            Finding::Allowed => true,
            Finding::Denied | Finding::NotNamed => false,
            Finding::NoAcls => self.allow_without_acls,
        }
    }

    /// Whether it may do something to any resource of a kind.
    pub fn allows_some(
        &self,
        acls: &Acls,
        who: (&Principal, IpAddr),
        operation: Operation,
        resource: ResourceKind,
    ) -> bool {
        self.allows(acls, who, operation, (resource, ANY_NAME))
            || acls.allow_some(who, operation, resource)
    }
}

#[cfg(test)]
mod tests {
    use super::super::binding::{Entry, Pattern, PatternKind, Permission};
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn denied_to_all() -> Acls {
        let pattern = Pattern {
            resource: ResourceKind::Topic,
            kind: PatternKind::Literal,
            name: "t".to_owned(),
        };
        let entry = Entry {
            principal: "User:*".to_owned(),
            host: "*".to_owned(),
            operation: Operation::All,
            permission: Permission::Deny,
        };
        Acls::new([(pattern, vec![entry])])
    }

    #[test]
    fn super_users_stand_above_what_is_denied() {
        let authorizer = Authorizer::new(" User:a;User:CN=b,O=c ; ", false).unwrap();
        let acls = denied_to_all();
        let may = |who: &Principal| {
            let topic = (ResourceKind::Topic, "t");
            authorizer.allows(&acls, (who, HOST), Operation::Read, topic)
        };
        assert!(may(&Principal::user("a")) && may(&Principal::user("CN=b,O=c")));
        assert!(!may(&Principal::user("b")) && !may(&Principal::new("Group", "a")));
        assert!(may(&Principal::new(SUPER_KIND, "dashboard")));
        let error = Authorizer::new("a", false).unwrap_err().to_string();
        assert_eq!(
            error,
            "expected a string in format principalType:principalName but got a"
        );
    }

    #[test]
    fn what_has_no_lists_is_allowed_where_it_is_said_so() {
        let user = Principal::user("a");
        for allow in [true, false] {
            let authorizer = Authorizer::new("", allow).unwrap();
            let may = |name| {
                let topic = (ResourceKind::Topic, name);
                authorizer.allows(&denied_to_all(), (&user, HOST), Operation::Read, topic)
            };
            assert_eq!((may("u"), may("t")), (allow, false));
            let who = (&user, HOST);
            let some = authorizer.allows_some(
                &denied_to_all(),
                who,
                Operation::Write,
                ResourceKind::Topic,
            );
            assert_eq!(some, allow);
        }
    }
}
