//! The messages of OAUTHBEARER (RFC 7628; Kafka's OAuthBearerClientInitialResponse): a client sends its token, and learns in JSON
//! why it was not taken.

/// Separates what a message holds.
const SEPARATOR: char = '\x01';
/// A client has read why it was refused.
pub(super) const ACKNOWLEDGEMENT: &[u8] = b"\x01";

/// What a client says first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InitialResponse<'a> {
    /// Who it wants to be; empty for whom the token is about.
    pub(super) identity: &'a str,
    /// The token, as it is written.
    pub(super) token: &'a str,
}

/// Not what RFC 7628 says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid OAUTHBEARER client first message: {0}")]
pub(super) struct MessageError(&'static str);

/// Whether a client has read why it was refused.
pub(super) fn is_acknowledgement(message: &[u8]) -> bool {
    message == ACKNOWLEDGEMENT
}

fn is_value(letter: char) -> bool {
    matches!(letter, '\x21'..='\x7e' | ' ' | '\t' | '\r' | '\n')
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '~' | '+' | '/' | '.')
}

/// A name in which `=` and `,` are written as `=3D` and `=2C`.
fn is_name(name: &str) -> bool {
    let escaped = name.replace("=2C", "").replace("=3D", "");
    !name.is_empty()
        && escaped
            .chars()
            .all(|letter| matches!(letter, '\x01'..='\x7f') && letter != '=')
}

impl<'a> InitialResponse<'a> {
    /// Reads a message.
    pub(super) fn parse(message: &'a [u8]) -> Result<Self, MessageError> {
        let text = std::str::from_utf8(message).map_err(|_| MessageError("not UTF-8"))?;
        let after_binding = text
            .strip_prefix("n,")
            .ok_or(MessageError("it binds a channel"))?;
        let (identity, pairs) = after_binding
            .split_once(',')
            .ok_or(MessageError("no comma after the identity"))?;
        let identity = match identity.strip_prefix("a=") {
            Some(name) if is_name(name) => name,
            None if identity.is_empty() => "",
            _ => return Err(MessageError("the identity is none")),
        };
        let pairs = pairs
            .strip_prefix(SEPARATOR)
            .and_then(|pairs| pairs.strip_suffix(SEPARATOR));
        let pairs = pairs.filter(|pairs| pairs.is_empty() || pairs.ends_with(SEPARATOR));
        let pairs = pairs.ok_or(MessageError("it has no end"))?;
        let mut auth = None;
        for pair in pairs.split_terminator(SEPARATOR) {
            let (key, value) = pair
                .split_once('=')
                .ok_or(MessageError("a pair has no value"))?;
            let is_key = !key.is_empty() && key.chars().all(|letter| letter.is_ascii_alphabetic());
            if !is_key || value.is_empty() || !value.chars().all(is_value) {
                return Err(MessageError("a pair is none"));
            }
            if key == "auth" {
                auth = Some(value);
            }
        }
        let token = Self::token(auth.ok_or(MessageError("'auth' not specified"))?)?;
        Ok(Self { identity, token })
    }

    fn token(auth: &'a str) -> Result<&'a str, MessageError> {
        let (scheme, token) = auth
            .split_once(' ')
            .ok_or(MessageError("invalid 'auth' format"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(MessageError("the scheme is not Bearer"));
        }
        let token = token.trim_start_matches(' ');
        let written = token.trim_end_matches('=');
        match !written.is_empty() && written.chars().all(is_token) {
            true => Ok(token),
            false => Err(MessageError("invalid 'auth' format")),
        }
    }
}

/// What a client sends first.
pub(super) fn initial_response(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

/// Why a token was not taken, as a client reads it.
pub(super) fn refusal(status: &str, scope: Option<&str>) -> String {
    match scope {
        Some(scope) => format!("{{\"status\":\"{status}\", \"scope\":\"{scope}\"}}"),
        None => format!("{{\"status\":\"{status}\"}}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(message: &str) -> Result<(&str, &str), MessageError> {
        let read = InitialResponse::parse(message.as_bytes())?;
        Ok((read.identity, read.token))
    }

    #[test]
    fn a_token_is_read_with_what_may_stand_beside_it() {
        assert_eq!(
            parse("n,,\x01auth=Bearer a.b-_~+/c==\x01\x01"),
            Ok(("", "a.b-_~+/c=="))
        );
        assert_eq!(
            parse("n,a=me=2Ctoo,\x01auth=bearer   t\x01\x01"),
            Ok(("me=2Ctoo", "t"))
        );
        assert_eq!(
            parse("n,,\x01host=x y\x01auth=BEARER t\x01port=1\x01\x01"),
            Ok(("", "t"))
        );
        let sent = initial_response("t");
        assert_eq!(InitialResponse::parse(&sent).unwrap().token, "t");
        assert!(
            is_acknowledgement(b"\x01") && !is_acknowledgement(b"") && !is_acknowledgement(&sent)
        );
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for message in [
            "",
            "n",
            "n,,",
            "n,,\x01",
            "n,,\x01\x01",
            "y,,\x01auth=Bearer t\x01\x01",
            "p=tls,,\x01auth=Bearer t\x01\x01",
            "n,me,\x01auth=Bearer t\x01\x01",
            "n,a=,\x01auth=Bearer t\x01\x01",
            "n,a=m=e,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,auth=Bearer t\x01\x01",
            "n,,\x01auth=Basic t\x01\x01",
            "n,,\x01auth=Bearer\x01\x01",
            "n,,\x01auth=Bearer =\x01\x01",
            "n,,\x01auth=Bearer t t\x01\x01",
            "n,,\x01auth=Bearer t=t\x01\x01",
            "n,,\x01auth=Bearer t\x01x\x01\x01",
            "n,,\x01auth=Bearer t\x01x1=2\x01\x01",
            "n,,\x01auth=Bearer t\x01x=\u{e9}\x01\x01",
            "n,,\x01host=x\x01\x01",
        ] {
            assert!(parse(message).is_err(), "{message:?}");
        }
        assert!(InitialResponse::parse(b"n,,\x01auth=Bearer \xff\x01\x01").is_err());
    }
}
