//! `metaq user add|passwd|list|delete`: the users that authenticate with SASL, by the API that kafka-configs uses (KIP-554).
//!
//! Tests: tests/advice.rs, tests/token_endpoint.rs.

use std::io::{self, BufRead};

use clap::{Args, Subcommand};
use metaq_protocol::messages::alter_user_scram_credentials_request::{
    ScramCredentialDeletion, ScramCredentialUpsertion,
};
use metaq_protocol::messages::{
    AlterUserScramCredentialsRequest, DescribeUserScramCredentialsRequest,
};
use metaq_protocol::protocol::StrBytes;
use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::client::{Address, Client};
use super::output::{print, say};
use super::refused::check_right;
use crate::security::{
    ITERATIONS_DEFAULT, ITERATIONS_MAX, ITERATIONS_MIN, Operation, ScramMechanism, salted_password,
};

/// Holds a password that is not to stand on the command line.
const PASSWORD_VARIABLE: &str = "METAQ_PASSWORD";
/// A shorter password is refused, letters.
const PASSWORD_LETTERS_MIN: usize = 8;

/// See the module's documentation.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  METAQ_PASSWORD=… metaq user add alice
  metaq user passwd alice < password.txt
  metaq user list
  metaq user delete alice")]
pub(super) struct UserCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Add a user, for all mechanisms; the password is the first line of standard input, or METAQ_PASSWORD.
    #[command(after_help = "Example: METAQ_PASSWORD=… metaq user add alice")]
    Add(One),
    /// Set another password; connections that are there stay.
    #[command(after_help = "Example: metaq user passwd alice < password.txt")]
    Passwd(One),
    /// List the users of the coordination tree with their mechanisms.
    #[command(
        after_help = "Users that the configuration names (admin.user, inter.broker.user) are not among them: Kafka's API does not tell them. metaq config show does, on the broker's machine.\n\nExample: metaq user list --json"
    )]
    List {
        #[command(flatten)]
        address: Address,
    },
    /// Remove a user; its connections end with their next request.
    #[command(after_help = "Example: metaq user delete alice")]
    Delete {
        /// The user.
        user: String,
        #[command(flatten)]
        address: Address,
    },
}

#[derive(Debug, Args)]
struct One {
    /// The user.
    user: String,
    /// How often the password is hashed.
    #[arg(long, default_value_t = ITERATIONS_DEFAULT)]
    iterations: u32,
    #[command(flatten)]
    address: Address,
}

#[derive(Serialize)]
struct Row {
    user: String,
    mechanisms: Vec<String>,
}

impl UserCommand {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.action {
            Action::Add(one) => one.set(false),
            Action::Passwd(one) => one.set(true),
            Action::List { address } => {
                let rows = users(&mut Client::connect(&address)?)?;
                print(address.json, &["USER", "MECHANISMS"], &rows, |row| {
                    vec![row.user.clone(), row.mechanisms.join(", ")]
                })
            }
            Action::Delete { user, address } => delete(&user, &address),
        }
    }
}

impl One {
    fn set(self, is_known: bool) -> Result<(), Failure> {
        let Self {
            user,
            iterations,
            address,
        } = self;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(
                format!("--iterations must be within {ITERATIONS_MIN}..={ITERATIONS_MAX}").into(),
            );
        }
        let mut client = Client::connect(&address)?;
        let is_there = users(&mut client)?.iter().any(|row| row.user == user);
        match (is_known, is_there) {
            (false, true) => {
                return Err(format!(
                    "there is a user {user}; metaq user passwd sets another password"
                )
                .into());
            }
            (true, false) => return Err(no_user(&user)),
            _ => {}
        }
        let password = password()?;
        // A request names a user once.
        for mechanism in ScramMechanism::ALL {
            let (salt, salted) = salted_password(mechanism, &password, iterations);
            let upsertion = ScramCredentialUpsertion::default()
                .with_name(name(&user))
                .with_mechanism(mechanism.code())
                .with_iterations(iterations as i32)
                .with_salt(salt.into())
                .with_salted_password(salted.into());
            let request = AlterUserScramCredentialsRequest::default();
            alter(&mut client, &request.with_upsertions(vec![upsertion]))?;
        }
        let done = match is_known {
            true => format!("{user} has another password"),
            false => format!("{user} is added"),
        };
        say(address.json, &json!({ "user": user }), &done);
        Ok(())
    }
}

fn delete(user: &str, address: &Address) -> Result<(), Failure> {
    let mut client = Client::connect(address)?;
    let rows = users(&mut client)?;
    let Some(row) = rows.iter().find(|row| row.user == user) else {
        return Err(no_user(user));
    };
    for mechanism in row
        .mechanisms
        .iter()
        .filter_map(|name| ScramMechanism::by_name(name))
    {
        let deletion = ScramCredentialDeletion::default()
            .with_name(name(user))
            .with_mechanism(mechanism.code());
        let request = AlterUserScramCredentialsRequest::default();
        alter(&mut client, &request.with_deletions(vec![deletion]))?;
    }
    say(
        address.json,
        &json!({ "user": user }),
        &format!("{user} is deleted"),
    );
    Ok(())
}

fn no_user(user: &str) -> Failure {
    format!(
        "there is no user {user}; of one that the configuration names (admin.user, inter.broker.user) admin.password and inter.broker.password are set there"
    )
    .into()
}

fn name(user: &str) -> StrBytes {
    StrBytes::from_string(user.to_owned())
}

fn alter(client: &mut Client, request: &AlterUserScramCredentialsRequest) -> Result<(), Failure> {
    for result in client.ask(0, request)?.results {
        let refused = (result.error_code, result.error_message.as_deref());
        check_right(&result.user, refused, (Operation::Alter, "the cluster"))?;
    }
    Ok(())
}

fn users(client: &mut Client) -> Result<Vec<Row>, Failure> {
    let answer = client.ask(
        0,
        &DescribeUserScramCredentialsRequest::default().with_users(None),
    )?;
    let refused = (answer.error_code, answer.error_message.as_deref());
    check_right("users", refused, (Operation::Describe, "the cluster"))?;
    let rows = answer.results.into_iter().map(|result| {
        let codes = result.credential_infos.iter().map(|info| info.mechanism);
        let mechanisms = codes.filter_map(ScramMechanism::by_code);
        Row {
            user: result.user.to_string(),
            mechanisms: mechanisms
                .map(|mechanism| mechanism.name().to_owned())
                .collect(),
        }
    });
    Ok(rows.collect())
}

/// From the environment, or the first line of standard input.
fn password() -> Result<String, Failure> {
    let password = match std::env::var(PASSWORD_VARIABLE) {
        Ok(password) => password,
        Err(_) => {
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            line.trim_end_matches(['\r', '\n']).to_owned()
        }
    };
    match password.chars().count() >= PASSWORD_LETTERS_MIN {
        true => Ok(password),
        false => Err(format!("a password has at least {PASSWORD_LETTERS_MIN} letters").into()),
    }
}
