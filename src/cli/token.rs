//! `metaq token create|renew|expire|list`: delegation tokens (KIP-48), by the APIs that kafka-delegation-tokens uses. A token is named by
//! its id; what logs in with it is shown once, where it is made.
//!
//! Tests: tests/delegation_tokens.rs.

use clap::{Args, Subcommand};
use data_encoding::BASE64;
use metaq_protocol::messages::create_delegation_token_request::CreatableRenewers;
use metaq_protocol::messages::describe_delegation_token_request::DescribeDelegationTokenOwner;
use metaq_protocol::messages::describe_delegation_token_response::DescribedDelegationToken;
use metaq_protocol::messages::{
    CreateDelegationTokenRequest, DescribeDelegationTokenRequest, ExpireDelegationTokenRequest,
    RenewDelegationTokenRequest,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;
use serde_json::{Value, json};

use super::Failure;
use super::client::{Address, Client};
use super::output::{print, say};
use super::refused::check;

/// Of CreateDelegationToken and DescribeDelegationToken.
const VERSION: i16 = 3;
/// Of RenewDelegationToken and ExpireDelegationToken.
const CHANGE_VERSION: i16 = 2;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  metaq token create --renewer User:scheduler
  metaq token list
  metaq token renew TOKEN
  metaq token expire TOKEN
  metaq token expire --owner User:billing")]
pub(super) struct TokenCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a token, and show what logs in with it.
    #[command(
        after_help = "Examples:\n  metaq token create\n  metaq token create --owner User:billing --renewer User:scheduler --max-lifetime-ms 3600000 --json"
    )]
    Create {
        /// Who logs in with it: oneself, or whoever one may create tokens for.
        #[arg(long, value_name = "PRINCIPAL")]
        owner: Option<String>,
        /// Who may renew it beside the owner; may be given several times.
        #[arg(long, value_name = "PRINCIPAL")]
        renewer: Vec<String>,
        /// How long it can be renewed at most, ms; -1 for as long as the brokers let it.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        max_lifetime_ms: i64,
        #[command(flatten)]
        address: Address,
    },
    /// List the tokens that one may see, without what logs in with them.
    #[command(
        after_help = "Examples:\n  metaq token list\n  metaq token list --owner User:billing --json"
    )]
    List {
        /// Only those that these principals own, may renew or asked for; may be given several times.
        #[arg(long, value_name = "PRINCIPAL")]
        owner: Vec<String>,
        #[command(flatten)]
        address: Address,
    },
    /// Let a token be good for longer.
    #[command(after_help = "Example: metaq token renew TOKEN --period-ms 3600000")]
    Renew {
        /// Its id.
        token: String,
        /// For how long from now on, ms; -1 for as long as the brokers let it.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        period_ms: i64,
        #[command(flatten)]
        address: Address,
    },
    /// Remove a token, or all of an owner, or let them be good for a shorter time; connections that came in with them end.
    #[command(
        after_help = "Who may: a token's owner, and who may renew it.\n\nExamples:\n  metaq token expire TOKEN\n  metaq token expire --owner User:billing"
    )]
    Expire {
        /// Its id.
        #[arg(required_unless_present = "owner")]
        token: Option<String>,
        /// All tokens that this principal owns, as far as one may see them.
        #[arg(long, value_name = "PRINCIPAL", conflicts_with = "token")]
        owner: Option<String>,
        /// For how long it is good yet, ms; -1 removes it now.
        #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
        period_ms: i64,
        #[command(flatten)]
        address: Address,
    },
}

/// A token, as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    token: String,
    owner: String,
    requester: String,
    renewers: Vec<String>,
    issued_ms: i64,
    expires_ms: i64,
    max_ms: i64,
}

impl Row {
    fn of(token: &DescribedDelegationToken) -> Self {
        let renewers = token.renewers.iter();
        let renewers = renewers.map(|one| shown(&one.principal_type, &one.principal_name));
        Self {
            token: token.token_id.to_string(),
            owner: shown(&token.principal_type, &token.principal_name),
            requester: shown(
                &token.token_requester_principal_type,
                &token.token_requester_principal_name,
            ),
            renewers: renewers.collect(),
            issued_ms: token.issue_timestamp,
            expires_ms: token.expiry_timestamp,
            max_ms: token.max_timestamp,
        }
    }

    fn cells(&self) -> Vec<String> {
        vec![
            self.token.clone(),
            self.owner.clone(),
            self.requester.clone(),
            self.renewers.join(", "),
            when(self.issued_ms),
            when(self.expires_ms),
            when(self.max_ms),
        ]
    }
}

const HEADINGS: &[&str] = &[
    "TOKEN",
    "OWNER",
    "REQUESTER",
    "RENEWERS",
    "MADE",
    "GOOD UNTIL",
    "RENEWED UNTIL AT MOST",
];

impl TokenCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Create {
                owner,
                renewer,
                max_lifetime_ms,
                address,
            } => create(owner.as_deref(), &renewer, max_lifetime_ms, &address),
            Action::List { owner, address } => {
                let tokens = tokens(&mut Client::connect(&address)?, &owner)?;
                let rows: Vec<Row> = tokens.iter().map(Row::of).collect();
                print(address.json, HEADINGS, &rows, Row::cells)
            }
            Action::Renew {
                token,
                period_ms,
                address,
            } => renew(&token, period_ms, &address),
            Action::Expire {
                token,
                owner,
                period_ms,
                address,
            } => match (token, owner) {
                (Some(token), _) => expire(&token, period_ms, &address),
                (None, owner) => expire_all(&owner.unwrap_or_default(), period_ms, &address),
            },
        }
    }
}

fn create(
    owner: Option<&str>,
    renewers: &[String],
    max_lifetime_ms: i64,
    address: &Address,
) -> Result<(), Failure> {
    let owner = owner.map(principal).transpose()?;
    let renewer = |text: &String| {
        let (kind, name) = principal(text)?;
        let renewer = CreatableRenewers::default();
        Ok::<_, Failure>(renewer.with_principal_type(kind).with_principal_name(name))
    };
    let renewers: Result<Vec<_>, _> = renewers.iter().map(renewer).collect();
    let (kind, name) = owner.unzip();
    let request = CreateDelegationTokenRequest::default()
        .with_owner_principal_type(kind)
        .with_owner_principal_name(name)
        .with_renewers(renewers?)
        .with_max_lifetime_ms(max_lifetime_ms);
    let made = Client::connect(address)?.ask(VERSION, &request)?;
    check("token", made.error_code, None)?;
    let (id, hmac) = (&*made.token_id, BASE64.encode(&made.hmac));
    let owner = shown(&made.principal_type, &made.principal_name);
    let said = json!({
        "token": id,
        "hmac": hmac,
        "owner": owner,
        "expires_ms": made.expiry_timestamp_ms,
        "max_ms": made.max_timestamp_ms,
    });
    let until = when(made.expiry_timestamp_ms);
    let text = format!(
        "token {id} of {owner} is good until {until}; what logs in with it is shown this once:\nsasl.mechanism=SCRAM-SHA-512\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"{id}\" password=\"{hmac}\" tokenauth=\"true\";"
    );
    say(address.json, &said, &text);
    Ok(())
}

fn renew(id: &str, period_ms: i64, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let request = RenewDelegationTokenRequest::default()
        .with_hmac(hmac(&mut client, id)?)
        .with_renew_period_ms(period_ms);
    let answer = client.ask(CHANGE_VERSION, &request)?;
    check(id, answer.error_code, None)?;
    let expires_ms = answer.expiry_timestamp_ms;
    let text = format!("{id} is good until {}", when(expires_ms));
    let said = json!({ "token": id, "expires_ms": expires_ms });
    say(address.json, &said, &text);
    Ok(())
}

fn expire(id: &str, period_ms: i64, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let hmac = hmac(&mut client, id)?;
    let (said, text) = expire_one(&mut client, (id, hmac), period_ms)?;
    say(address.json, &said, &text);
    Ok(())
}

/// What became of a token, for programs and for people.
fn expire_one(
    client: &mut Client,
    (id, hmac): (&str, bytes::Bytes),
    period_ms: i64,
) -> Result<(Value, String), Failure> {
    let request = ExpireDelegationTokenRequest::default()
        .with_hmac(hmac)
        .with_expiry_time_period_ms(period_ms);
    let answer = client.ask(CHANGE_VERSION, &request)?;
    check(id, answer.error_code, None)?;
    let expires_ms = answer.expiry_timestamp_ms;
    let text = match period_ms {
        ..0 => format!("{id} is removed"),
        _ => format!("{id} is good until {}", when(expires_ms)),
    };
    Ok((json!({ "token": id, "expires_ms": expires_ms }), text))
}

/// One that cannot be ended does not keep the others.
fn expire_all(owner: &str, period_ms: i64, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let mut found = tokens(&mut client, &[owner.to_owned()])?;
    // Those that it may renew or asked for are listed too.
    found.retain(|token| shown(&token.principal_type, &token.principal_name) == owner);
    if found.is_empty() {
        return Err(format!("there is no token of {owner} that you may see").into());
    }
    let (mut all, mut lines, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for token in found {
        match expire_one(&mut client, (&token.token_id, token.hmac), period_ms) {
            Ok((said, text)) => {
                all.push(said);
                lines.push(text);
            }
            Err(error) => failed.push(error.to_string()),
        }
    }
    if address.json || !lines.is_empty() {
        say(address.json, &Value::Array(all), &lines.join("\n"));
    }
    match failed.is_empty() {
        true => Ok(()),
        false => Err(failed.join("\n").into()),
    }
}

/// The tokens that one may see: all, or those of some principals.
fn tokens(
    client: &mut Client,
    owners: &[String],
) -> Result<Vec<DescribedDelegationToken>, Failure> {
    let owner = |text: &String| {
        let (kind, name) = principal(text)?;
        let owner = DescribeDelegationTokenOwner::default();
        Ok::<_, Failure>(owner.with_principal_type(kind).with_principal_name(name))
    };
    let owners: Result<Vec<_>, _> = owners.iter().map(owner).collect();
    // No owners at all would mean no tokens.
    let owners = Some(owners?).filter(|owners| !owners.is_empty());
    let request = DescribeDelegationTokenRequest::default().with_owners(owners);
    let answer = client.ask(VERSION, &request)?;
    check("tokens", answer.error_code, None)?;
    Ok(answer.tokens)
}

/// By what the APIs name a token.
fn hmac(client: &mut Client, id: &str) -> Result<bytes::Bytes, Failure> {
    let mut tokens = tokens(client, &[])?.into_iter();
    let found = tokens.find(|token| &*token.token_id == id);
    let token = found.ok_or_else(|| format!("there is no token {id} that you may see"))?;
    Ok(token.hmac)
}

/// Kind and name.
fn principal(text: &str) -> Result<(StrBytes, StrBytes), Failure> {
    let (kind, name) = text
        .split_once(':')
        .ok_or_else(|| format!("{text} is no principal, such as User:alice"))?;
    let owned = |part: &str| StrBytes::from_string(part.to_owned());
    Ok((owned(kind), owned(name)))
}

fn shown(kind: &str, name: &str) -> String {
    format!("{kind}:{name}")
}

fn when(ms: i64) -> String {
    let time = jiff::Timestamp::from_millisecond(ms);
    time.map_or_else(|_| "the end of time".to_owned(), |time| time.to_string())
}
