//! Delegation tokens: read from the tree, and changed as the controller (Kafka's DelegationTokenControlManager). One node a
//! token. Who may change which is of the API.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::changes::ClusterError;
use super::controller::Controller;
use super::tokens::{Token, Tokens};
use super::view::View;
use crate::meta::records::{PrincipalRecord, RECORD_VERSION, TokenRecord, decode, encode};
use crate::meta::{MetaError, Node, Op, gather, paths};
use crate::principal::Principal;

/// Tokens of a cluster at most: every broker keeps all of them.
pub const TOKENS_MAX: usize = 20_000;
/// Bytes of a token in the tree at most; its renewers are most of it.
pub const TOKEN_BYTES_MAX: usize = 256 << 10;
/// Principals of all tokens at most that are renewers.
pub const TOKEN_RENEWERS_MAX: usize = 500_000;
/// Bytes of all names in all tokens at most.
pub const TOKEN_NAMES_BYTES_MAX: usize = 32 << 20;
/// Tokens at most that one principal has asked for: it leaves the rest to others.
pub const TOKENS_OF_ONE_MAX: usize = 5_000;
/// Nodes that are read at the same time.
const READS_AT_ONCE: usize = 64;

/// Why a token is not made or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There are as many as there may be.
    #[error("there are {TOKENS_MAX} delegation tokens, which is the most")]
    Tokens,
    /// It has more or longer renewers than it may.
    #[error("a delegation token has {TOKEN_BYTES_MAX} bytes at most")]
    Bytes,
    /// Who asks for it has as many as one may have.
    #[error("there are {TOKENS_OF_ONE_MAX} delegation tokens of this user, which is the most")]
    OfOne,
    /// The names in all of them are as long as they may be.
    #[error("the names in delegation tokens have {TOKEN_NAMES_BYTES_MAX} bytes at most")]
    Names,
    /// All of them have as many renewers as they may.
    #[error("delegation tokens have {TOKEN_RENEWERS_MAX} renewers at most")]
    Renewers,
    /// It is good for nothing any more.
    #[error("the delegation token has expired")]
    Expired,
    /// There is no such token.
    #[error("there is no such delegation token")]
    Gone,
}

impl View {
    /// Reads tokens by their ids, or all.
    pub(super) async fn reload_tokens(
        &self,
        named: Option<&BTreeSet<String>>,
    ) -> Result<(), ClusterError> {
        let _change = self.lock_changes().await;
        let (nodes, before): (Vec<(String, Option<Node>)>, Tokens) = match named {
            None => {
                let nodes = self.meta.subtree(paths::TOKENS).await?.into_iter();
                let nodes =
                    nodes.filter_map(|(path, node)| Some((paths::token_of(&path)?, Some(node))));
                (nodes.collect(), Tokens::default())
            }
            Some(named) => {
                let read = |id: &String| {
                    let id = id.clone();
                    async move {
                        let node = self.meta.get(&paths::token(&id)).await?;
                        Ok::<_, ClusterError>((id, node))
                    }
                };
                let reads: Vec<_> = named.iter().map(read).collect();
                let reads = stream::iter(reads).buffered(READS_AT_ONCE);
                let nodes = reads.try_collect().await?;
                (nodes, Tokens::clone(&self.image().tokens))
            }
        };
        let read = nodes.into_iter().map(|(id, node)| {
            let token = node.and_then(|node| token_of(&id, &node.data));
            (id, token)
        });
        self.put_tokens(before.with(read));
        Ok(())
    }

    fn put_tokens(&self, tokens: Tokens) {
        let tokens = Arc::new(tokens);
        self.change_image(|image| image.tokens = tokens);
    }
}

impl Controller {
    /// Makes a token, whose id nobody has had.
    pub async fn create_token(
        &self,
        token: Token,
    ) -> Result<Result<(), TokenRefusal>, ClusterError> {
        let _change = self.view.lock_changes().await;
        if !self.is_controller() {
            return Err(ClusterError::NotController);
        }
        let known = self.view.image().tokens.clone();
        let data = encode(&record_of(&token));
        let renewers = known.all().map(|token| token.renewers.len()).sum::<usize>();
        let names = known.all().map(|token| token.names_bytes()).sum::<usize>();
        let of_one = known
            .all()
            .filter(|other| other.requester == token.requester);
        let refusal = match () {
            () if known.count() >= TOKENS_MAX => Some(TokenRefusal::Tokens),
            () if of_one.count() >= TOKENS_OF_ONE_MAX => Some(TokenRefusal::OfOne),
            () if data.len() > TOKEN_BYTES_MAX => Some(TokenRefusal::Bytes),
            () if names + token.names_bytes() > TOKEN_NAMES_BYTES_MAX => Some(TokenRefusal::Names),
            () if renewers + token.renewers.len() > TOKEN_RENEWERS_MAX => {
                Some(TokenRefusal::Renewers)
            }
            () => None,
        };
        if let Some(refusal) = refusal {
            return Ok(Err(refusal));
        }
        let op = Op::create(paths::token(&token.id), data);
        self.change_as_controller(vec![op]).await?;
        tracing::info!(id = token.id, owner = %token.owner, "delegation token made");
        let id = token.id.clone();
        self.view.put_tokens(known.with([(id, Some(token))]));
        Ok(Ok(()))
    }

    /// Lets a token that is good at this time be good until another one, ms since 1970.
    pub async fn set_token_expiry(
        &self,
        id: &str,
        now_ms: i64,
        expires_ms: i64,
    ) -> Result<Result<(), TokenRefusal>, ClusterError> {
        let _change = self.view.lock_changes().await;
        let known = self.view.image().tokens.clone();
        let Some(token) = known.get(id) else {
            return Ok(Err(TokenRefusal::Gone));
        };
        // It may have been ended since it was looked at.
        if token.is_expired(now_ms) {
            return Ok(Err(TokenRefusal::Expired));
        }
        let mut token = Token::clone(token);
        token.expires_ms = expires_ms;
        let op = Op::Set {
            path: paths::token(id),
            data: encode(&record_of(&token)),
            version: None,
        };
        match self.change_as_controller(vec![op]).await {
            Err(ClusterError::Meta(MetaError::NoNode(_))) => return Ok(Err(TokenRefusal::Gone)),
            changed => changed?,
        }
        tracing::info!(id, expires_ms, "delegation token changed");
        self.view
            .put_tokens(known.with([(id.to_owned(), Some(token))]));
        Ok(Ok(()))
    }

    /// Removes a token, where it is there.
    pub async fn remove_token(&self, id: &str) -> Result<(), ClusterError> {
        self.remove_tokens(|token| token.id == id).await.map(drop)
    }

    /// Removes the tokens that have expired; how many.
    pub async fn remove_expired_tokens(&self, now_ms: i64) -> Result<usize, ClusterError> {
        self.remove_tokens(|token| token.is_expired(now_ms)).await
    }

    async fn remove_tokens(&self, is_over: impl Fn(&Token) -> bool) -> Result<usize, ClusterError> {
        let _change = self.view.lock_changes().await;
        let known = self.view.image().tokens.clone();
        let over: Vec<&Arc<Token>> = known.all().filter(|token| is_over(token)).collect();
        let mut left = over.iter();
        let ops = over
            .iter()
            .map(|token| vec![Op::delete_tree(paths::token(&token.id))]);
        for (count, ops) in gather(ops) {
            self.change_as_controller(ops).await?;
            let gone: Vec<_> = left.by_ref().take(count).collect();
            for token in &gone {
                tracing::info!(id = token.id, "delegation token removed");
            }
            let tokens = self.view.image().tokens.clone();
            let gone = gone.into_iter().map(|token| (token.id.clone(), None));
            self.view.put_tokens(tokens.with(gone));
        }
        Ok(over.len())
    }
}

fn principal_record(principal: &Principal) -> PrincipalRecord {
    PrincipalRecord {
        kind: principal.kind().to_owned(),
        name: principal.name().to_owned(),
    }
}

fn principal_of(record: &PrincipalRecord) -> Principal {
    Principal::new(&record.kind, &record.name)
}

fn record_of(token: &Token) -> TokenRecord {
    TokenRecord {
        version: RECORD_VERSION,
        owner: principal_record(&token.owner),
        requester: principal_record(&token.requester),
        renewers: token.renewers.iter().map(principal_record).collect(),
        issued_ms: token.issued_ms,
        expires_ms: token.expires_ms,
        max_ms: token.max_ms,
    }
}

/// The token of a node. One that cannot be read, a later version wrote: nobody logs in with it here.
fn token_of(id: &str, data: &[u8]) -> Option<Token> {
    match decode::<TokenRecord>(&paths::token(id), data) {
        Ok(record) => Some(Token {
            id: id.to_owned(),
            owner: principal_of(&record.owner),
            requester: principal_of(&record.requester),
            renewers: record.renewers.iter().map(principal_of).collect(),
            issued_ms: record.issued_ms,
            expires_ms: record.expires_ms,
            max_ms: record.max_ms,
        }),
        Err(error) => {
            tracing::error!(id, %error, "a delegation token cannot be read, and is none");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::alone;
    use super::*;

    fn token(id: &str, renewers: usize) -> Token {
        let renewer = |n: usize| Principal::user(&format!("r{n}"));
        Token {
            id: id.to_owned(),
            owner: Principal::user("o"),
            requester: Principal::user("q"),
            renewers: (0..renewers).map(renewer).collect(),
            issued_ms: 1,
            expires_ms: 2,
            max_ms: 30,
        }
    }

    #[tokio::test]
    async fn a_token_is_in_the_tree_in_words_without_what_logs_in_and_read_again_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let controller = cluster.controller();
        let made = controller.create_token(token("a-b", 1)).await;
        assert_eq!(made.unwrap(), Ok(()));
        let node = cluster.meta().get("/tokens/a-b").await.unwrap().unwrap();
        assert_eq!(
            std::str::from_utf8(&node.data).unwrap(),
            r#"{"version":1,"owner":{"kind":"User","name":"o"},"requester":{"kind":"User","name":"q"},"renewers":[{"kind":"User","name":"r0"}],"issued_ms":1,"expires_ms":2,"max_ms":30}"#
        );
        let changed = controller.set_token_expiry("a-b", 1, 7).await.unwrap();
        assert_eq!(changed, Ok(()));
        let before = cluster.image().tokens.clone();
        cluster.view.reload_tokens(None).await.unwrap();
        let after = cluster.image().tokens.clone();
        assert_ne!(before.version(), after.version());
        let read = after.get("a-b").unwrap();
        assert_eq!(Some(read), before.get("a-b"));
        assert_eq!(read.expires_ms, 7);
        let late = controller.set_token_expiry("a-b", 8, 9).await.unwrap();
        assert_eq!(late, Err(TokenRefusal::Expired));
        controller.remove_token("a-b").await.unwrap();
        assert!(cluster.meta().get("/tokens/a-b").await.unwrap().is_none());
        let gone = controller.set_token_expiry("a-b", 1, 9).await.unwrap();
        assert_eq!(gone, Err(TokenRefusal::Gone));
    }

    #[tokio::test]
    async fn what_has_expired_is_removed_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let controller = cluster.controller();
        for n in 0..300 {
            let made = token(&format!("t{n}"), 0);
            let made = Token {
                expires_ms: n,
                max_ms: 1000,
                ..made
            };
            assert_eq!(controller.create_token(made).await.unwrap(), Ok(()));
        }
        assert_eq!(controller.remove_expired_tokens(250).await.unwrap(), 250);
        assert_eq!(cluster.image().tokens.count(), 50);
        cluster.view.reload_tokens(None).await.unwrap();
        assert_eq!(cluster.image().tokens.count(), 50);
        assert_eq!(controller.remove_expired_tokens(1001).await.unwrap(), 50);
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_read_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let op = Op::put("/tokens/x", r#"{"version":2}"#.into());
        cluster.meta().multi(vec![op]).await.unwrap();
        cluster.view.reload_tokens(None).await.unwrap();
        assert_eq!(cluster.image().tokens.count(), 0);
    }

    #[tokio::test]
    async fn tokens_are_so_many_and_so_large_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = alone(dir.path()).await;
        let controller = cluster.controller();
        let create = |token| async { controller.create_token(token).await.unwrap() };
        assert_eq!(create(token("large", 3000)).await, Ok(()));
        assert_eq!(create(token("x", 9000)).await, Err(TokenRefusal::Bytes));
        let with = |count: usize, renewers: usize| {
            let all = (0..count).map(|n| (n.to_string(), Some(token(&n.to_string(), renewers))));
            cluster.view.put_tokens(Tokens::default().with(all));
        };
        with(1, TOKEN_RENEWERS_MAX);
        assert_eq!(create(token("x", 1)).await, Err(TokenRefusal::Renewers));
        assert_eq!(create(token("x", 0)).await, Ok(()));
        with(TOKENS_MAX, 0);
        assert_eq!(create(token("y", 0)).await, Err(TokenRefusal::Tokens));
        with(TOKENS_OF_ONE_MAX, 0);
        assert_eq!(create(token("y", 0)).await, Err(TokenRefusal::OfOne));
        let other = Token {
            requester: Principal::user("r"),
            ..token("y", 0)
        };
        assert_eq!(create(other).await, Ok(()));
        let long = Token {
            renewers: vec![Principal::user(&"x".repeat(TOKEN_NAMES_BYTES_MAX))],
            ..token("long", 0)
        };
        let long = [("long".to_owned(), Some(long))];
        cluster.view.put_tokens(Tokens::default().with(long));
        assert_eq!(create(token("z", 0)).await, Err(TokenRefusal::Names));
    }
}
