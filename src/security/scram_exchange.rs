//! Both sides of an exchange of SCRAM, as Kafka's ScramSaslServer and ScramSaslClient speak it: without channel binding, names escaped
//! and not normalised.
//!
//! A user who is not known gets a salt that stays the same and fails at the end as a wrong password does, so that neither answers
//! nor times tell who is known.

use data_encoding::BASE64;
use subtle::ConstantTimeEq;

use super::scram::{Credential, ITERATIONS_MAX, ITERATIONS_MIN, ScramMechanism, random_bytes};

/// Longer messages are refused, bytes.
const MESSAGE_BYTES_MAX: usize = 4096;
const NONCE_BYTES: usize = 24;

/// Why an exchange failed. A client is never told which.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// Not what RFC 5802 says.
    #[error("a message of SCRAM is malformed")]
    Malformed,
    /// Channel binding is asked for.
    #[error("channel binding is not offered")]
    ChannelBinding,
    /// It wants to be somebody else.
    #[error("the authorization id is not the user")]
    AnotherIdentity,
    /// The nonce of another exchange.
    #[error("the nonce is not the one that was given")]
    Nonce,
    /// Not the password, or nobody's name.
    #[error("wrong user or password")]
    WrongPassword,
    /// So few iterations that the password could be guessed, or so many that they take too long.
    #[error("{0} iterations, which must be within {ITERATIONS_MIN}..={ITERATIONS_MAX}")]
    Iterations(u32),
    /// The server does not know the password.
    #[error("the server did not prove who it is")]
    Server,
    /// The server refused.
    #[error("the server refused: {0}")]
    Refused(String),
}

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    /// The user, or the id of a delegation token.
    pub user: String,
    /// The name belongs to a delegation token (KIP-48).
    pub is_token: bool,
    gs2_header: String,
    bare: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads the message.
    pub fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let text = text_of(message)?;
        let rest = match text.split_once(',') {
            Some(("n" | "y", rest)) => rest,
            Some((flag, _)) if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        };
        let (authorization_id, bare) = rest.split_once(',').ok_or(ScramError::Malformed)?;
        let mut parts = bare.split(',');
        let mut part = |name| {
            let value = parts.next().and_then(|part| attribute(part, name));
            value
                .filter(|value| !value.is_empty())
                .ok_or(ScramError::Malformed)
        };
        let user = unescape(part('n')?)?;
        let nonce = part('r')?;
        if !nonce.bytes().all(is_of_nonce) {
            return Err(ScramError::Malformed);
        }
        let is_other = |id: &str| unescape(id).is_ok_and(|id| id != user);
        match authorization_id {
            "" => {}
            id if id.strip_prefix("a=").is_none_or(is_other) => {
                return Err(ScramError::AnotherIdentity);
            }
            _ => {}
        }
        Ok(Self {
            is_token: parts.any(is_token_extension),
            gs2_header: text[..text.len() - bare.len()].to_owned(),
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
            user,
        })
    }
}

/// The server's side of an exchange, after the client's first message.
#[derive(Debug)]
pub struct ScramServer {
    mechanism: ScramMechanism,
    credential: Credential,
    gs2_header: String,
    nonce: String,
    /// What both sides sign, so far.
    signed: String,
}

impl ScramServer {
    /// Answers the first message: with the user's credential, or with one of nobody, made from a secret of this process.
    pub fn begin(
        mechanism: ScramMechanism,
        first: &ClientFirst,
        credential: Option<Credential>,
        secret: &[u8],
    ) -> (Self, String) {
        let nobody = || Credential::of_nobody(mechanism, secret, &first.user);
        let credential = credential.unwrap_or_else(nobody);
        let nonce = format!("{}{}", first.nonce, new_nonce());
        let answer = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&credential.salt),
            credential.iterations
        );
        let server = Self {
            mechanism,
            credential,
            gs2_header: first.gs2_header.clone(),
            nonce,
            signed: format!("{},{answer}", first.bare),
        };
        (server, answer)
    }

    /// Answers the last message where the client has proved that it knows the password.
    pub fn finish(self, message: &[u8]) -> Result<String, ScramError> {
        let text = text_of(message)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let proof = BASE64
            .decode(proof.as_bytes())
            .map_err(|_| ScramError::Malformed)?;
        let mut parts = without_proof.split(',');
        let mut part = |name| {
            let value = parts.next().and_then(|part| attribute(part, name));
            value.ok_or(ScramError::Malformed)
        };
        let (binding, nonce) = (part('c')?, part('r')?);
        if BASE64.encode(self.gs2_header.as_bytes()) != binding {
            return Err(ScramError::ChannelBinding);
        }
        // librdkafka before 2.6 puts its own before it once more, as Kafka let it before 3.7.2. What is random of ours ends it.
        if !nonce.ends_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let signed = format!("{},{without_proof}", self.signed);
        let signature = self
            .mechanism
            .sign(&self.credential.stored_key, signed.as_bytes());
        if proof.len() != signature.len() {
            return Err(ScramError::WrongPassword);
        }
        let client_key = self.mechanism.hash(&xor(&proof, &signature));
        match bool::from(client_key.ct_eq(&self.credential.stored_key)) {
            true => {
                let proof = self
                    .mechanism
                    .sign(&self.credential.server_key, signed.as_bytes());
                Ok(format!("v={}", BASE64.encode(&proof)))
            }
            false => Err(ScramError::WrongPassword),
        }
    }
}

/// The client's side of an exchange.
pub struct ScramClient {
    mechanism: ScramMechanism,
    password: String,
    nonce: String,
    bare: String,
    server_proof: Vec<u8>,
}

/// Without the password.
impl std::fmt::Debug for ScramClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramClient({})", self.mechanism.name())
    }
}

impl ScramClient {
    /// Begins an exchange: its first message beside it.
    pub fn begin(mechanism: ScramMechanism, user: &str, password: &str) -> (Self, String) {
        Self::begin_with(mechanism, user, password, "")
    }

    /// The same with a delegation token: its id, and its HMAC in base64.
    pub fn begin_with_token(mechanism: ScramMechanism, id: &str, hmac: &str) -> (Self, String) {
        Self::begin_with(mechanism, id, hmac, ",tokenauth=true")
    }

    fn begin_with(
        mechanism: ScramMechanism,
        user: &str,
        password: &str,
        extensions: &str,
    ) -> (Self, String) {
        let nonce = new_nonce();
        let bare = format!("n={},r={nonce}{extensions}", escape(user));
        let first = format!("n,,{bare}");
        let client = Self {
            mechanism,
            password: password.to_owned(),
            nonce,
            bare,
            server_proof: Vec::new(),
        };
        (client, first)
    }

    /// The last message, after the server's first.
    pub fn prove(&mut self, message: &[u8]) -> Result<String, ScramError> {
        let text = text_of(message)?;
        let mut parts = text.split(',');
        let mut part = |name| {
            let value = parts.next().and_then(|part| attribute(part, name));
            value.ok_or(ScramError::Malformed)
        };
        let (nonce, salt, iterations) = (part('r')?, part('s')?, part('i')?);
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError::Nonce);
        }
        let salt = BASE64.decode(salt.as_bytes());
        let salt = salt.map_err(|_| ScramError::Malformed)?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramError::Malformed)?;
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{text},{without_proof}", self.bare);
        let mechanism = self.mechanism;
        let salted = mechanism.salted(self.password.as_bytes(), &salt, iterations);
        let client_key = mechanism.sign(&salted, b"Client Key");
        let stored_key = mechanism.hash(&client_key);
        let signature = mechanism.sign(&stored_key, signed.as_bytes());
        let server_key = mechanism.sign(&salted, b"Server Key");
        self.server_proof = mechanism.sign(&server_key, signed.as_bytes());
        let proof = BASE64.encode(&xor(&client_key, &signature));
        Ok(format!("{without_proof},p={proof}"))
    }

    /// Whether the server knows the password too.
    pub fn verify(&self, message: &[u8]) -> Result<(), ScramError> {
        let text = text_of(message)?;
        if let Some(why) = attribute(text, 'e') {
            return Err(ScramError::Refused(why.to_owned()));
        }
        let proof = attribute(text, 'v').ok_or(ScramError::Malformed)?;
        let proof = BASE64.decode(proof.as_bytes());
        let proof = proof.map_err(|_| ScramError::Malformed)?;
        match !proof.is_empty() && bool::from(proof.ct_eq(&self.server_proof)) {
            true => Ok(()),
            false => Err(ScramError::Server),
        }
    }
}

/// What says that the user is a delegation token's id (Kafka's ScramExtensions); Java takes the word in any case.
fn is_token_extension(extension: &str) -> bool {
    let value = extension.strip_prefix("tokenauth=");
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

fn new_nonce() -> String {
    BASE64.encode(&random_bytes(NONCE_BYTES))
}

/// Printable and no comma.
fn is_of_nonce(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b','
}

fn text_of(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > MESSAGE_BYTES_MAX {
        return Err(ScramError::Malformed);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed)
}

fn attribute(part: &str, name: char) -> Option<&str> {
    part.strip_prefix(name)?.strip_prefix('=')
}

fn escape(name: &str) -> String {
    name.replace('=', "=3D").replace(',', "=2C")
}

fn unescape(name: &str) -> Result<String, ScramError> {
    let mut plain = String::new();
    let mut parts = name.split('=');
    plain.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (escaped, rest) = match (part.strip_prefix("2C"), part.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(ScramError::Malformed),
        };
        plain.push(escaped);
        plain.push_str(rest);
    }
    Ok(plain)
}

fn xor(a: &[u8], b: &[u8]) -> Vec<u8> {
    a.iter().zip(b).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"of this process";

    fn exchange(
        mechanism: ScramMechanism,
        credential: Option<Credential>,
        (user, password): (&str, &str),
    ) -> Result<(), ScramError> {
        let (mut client, first) = ScramClient::begin(mechanism, user, password);
        let first = ClientFirst::parse(first.as_bytes())?;
        assert_eq!(first.user, user);
        let (server, answer) = ScramServer::begin(mechanism, &first, credential, SECRET);
        let last = client.prove(answer.as_bytes())?;
        client.verify(server.finish(last.as_bytes())?.as_bytes())
    }

    #[test]
    fn who_knows_the_password_gets_in_and_nobody_else() {
        for mechanism in ScramMechanism::ALL {
            let credential = Credential::of_password(mechanism, "pass, word=", ITERATIONS_MIN);
            let ask =
                |user, password| exchange(mechanism, Some(credential.clone()), (user, password));
            assert_eq!(ask("a,=ü", "pass, word="), Ok(()));
            assert_eq!(ask("a", "pass"), Err(ScramError::WrongPassword));
            let nobody = exchange(mechanism, None, ("a", "pass"));
            assert_eq!(nobody, Err(ScramError::WrongPassword));
            assert!(credential.is_of_password(mechanism, "pass, word="));
            assert!(!credential.is_of_password(mechanism, "pass"));
        }
    }

    #[test]
    fn the_exchange_of_rfc_7677_is_understood() {
        let mechanism = ScramMechanism::Sha256;
        let salt = BASE64.decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = mechanism.salted(b"pencil", &salt, 4096);
        let credential = Credential::of_salted(mechanism, salt, &salted, 4096);
        let first = ClientFirst::parse(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO").unwrap();
        let (mut server, _) = ScramServer::begin(mechanism, &first, Some(credential), SECRET);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        server.nonce = nonce.to_owned();
        server.signed =
            format!("n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(
            server.finish(last.as_bytes()).unwrap(),
            "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
    }

    #[test]
    fn somebody_who_is_not_known_gets_the_same_salt_each_time() {
        let mechanism = ScramMechanism::Sha512;
        let salt = |user: &str| {
            let first = format!("n,,n={user},r=abc");
            let first = ClientFirst::parse(first.as_bytes()).unwrap();
            let (_, answer) = ScramServer::begin(mechanism, &first, None, SECRET);
            answer.split(',').nth(1).unwrap().to_owned()
        };
        assert_eq!(salt("nobody"), salt("nobody"));
        assert_ne!(salt("nobody"), salt("nobody else"));
    }

    #[test]
    fn a_first_message_that_is_something_else_is_refused() {
        let parse = |text: &str| ClientFirst::parse(text.as_bytes()).map(|first| first.user);
        assert_eq!(parse("n,a=u,n=u,r=x"), Ok("u".to_owned()));
        assert_eq!(parse("y,,n=u,r=x"), Ok("u".to_owned()));
        assert_eq!(parse("n,a=v,n=u,r=x"), Err(ScramError::AnotherIdentity));
        assert_eq!(
            parse("p=tls-unique,,n=u,r=x"),
            Err(ScramError::ChannelBinding)
        );
        for wrong in [
            "",
            "n",
            "n,,",
            "n,,n=,r=x",
            "n,,n=u",
            "n,,n=u,r=",
            "n,,r=x,n=u",
            "n,,n=a=b,r=x",
            "n,,m=x,n=u,r=x",
            "n,,n=u,r=ü",
        ] {
            assert_eq!(parse(wrong), Err(ScramError::Malformed), "{wrong}");
        }
        let long = format!("n,,n={},r=x", "u".repeat(MESSAGE_BYTES_MAX));
        assert_eq!(parse(&long), Err(ScramError::Malformed));
        let token = ClientFirst::parse(b"n,,n=u,r=x,tokenauth=true").unwrap();
        assert!(token.is_token);
        let of_java = ClientFirst::parse(b"n,,n=u,r=x,a=b,tokenauth=TRUE").unwrap();
        assert!(of_java.is_token);
        for other in [
            "tokenauth=false",
            "tokenauth=",
            "tokenauth",
            "xtokenauth=true",
        ] {
            let first = format!("n,,n=u,r=x,{other}");
            let first = ClientFirst::parse(first.as_bytes()).unwrap();
            assert!(!first.is_token, "{other}");
        }
    }

    /// A server that has answered a client's first message, and the client's last.
    fn halfway(user: &str, password: &str) -> (ScramServer, String) {
        let mechanism = ScramMechanism::Sha256;
        let credential = Credential::of_password(mechanism, "right", ITERATIONS_MIN);
        let (mut client, first) = ScramClient::begin(mechanism, user, password);
        let first = ClientFirst::parse(first.as_bytes()).unwrap();
        let (server, answer) = ScramServer::begin(mechanism, &first, Some(credential), SECRET);
        let last = client.prove(answer.as_bytes()).unwrap();
        (server, last)
    }

    #[test]
    fn a_proof_of_another_exchange_or_of_nothing_is_refused() {
        let (server, last) = halfway("u", "right");
        assert!(server.finish(last.as_bytes()).is_ok());
        // Said again to another exchange.
        let (server, _) = halfway("u", "right");
        assert_eq!(server.finish(last.as_bytes()), Err(ScramError::Nonce));
        let changed = |change: &dyn Fn(&str) -> String| {
            let (server, last) = halfway("u", "right");
            server.finish(change(&last).as_bytes())
        };
        let without_server_nonce = |last: &str| {
            let (before, proof) = last.rsplit_once(",p=").unwrap();
            format!("{},p={proof}", &before[..before.len() - 5])
        };
        assert_eq!(changed(&without_server_nonce), Err(ScramError::Nonce));
        let binding = |last: &str| last.replace("c=biws", "c=eSws");
        assert_eq!(changed(&binding), Err(ScramError::ChannelBinding));
        let doubled = |last: &str| last.replace("r=", "r=mine");
        assert_eq!(changed(&doubled), Err(ScramError::WrongPassword));
        let no_proof = |last: &str| last.split(",p=").next().unwrap().to_owned();
        assert_eq!(changed(&no_proof), Err(ScramError::Malformed));
        let empty = |last: &str| format!("{},p=", no_proof(last));
        assert_eq!(changed(&empty), Err(ScramError::WrongPassword));
        let extended = |last: &str| last.replace(",p=", ",x=y,p=");
        assert_eq!(changed(&extended), Err(ScramError::WrongPassword));
    }

    #[test]
    fn a_client_refuses_a_server_that_cheats() {
        let begin = || ScramClient::begin(ScramMechanism::Sha256, "u", "right").0;
        let mut client = begin();
        let nonce = client.nonce.clone();
        let few = format!("r={nonce}x,s=c2FsdA==,i=4095");
        assert_eq!(
            client.prove(few.as_bytes()),
            Err(ScramError::Iterations(4095))
        );
        let reflected = format!("r={nonce},s=c2FsdA==,i=4096");
        assert_eq!(client.prove(reflected.as_bytes()), Err(ScramError::Nonce));
        let of_another = "r=other,s=c2FsdA==,i=4096";
        assert_eq!(client.prove(of_another.as_bytes()), Err(ScramError::Nonce));
        // Before it proved anything.
        assert_eq!(begin().verify(b"v="), Err(ScramError::Server));
        let right = format!("r={nonce}x,s=c2FsdA==,i=4096");
        client.prove(right.as_bytes()).unwrap();
        assert_eq!(client.verify(b"v=AAAA"), Err(ScramError::Server));
        let refused = ScramError::Refused("no".to_owned());
        assert_eq!(client.verify(b"e=no"), Err(refused));
    }
}
