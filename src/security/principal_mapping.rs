//! `ssl.principal.mapping.rules` (KIP-371): what a client's certificate calls it, made into a short name. The first rule
//! whose pattern is the whole subject decides; who meets none of the rules has no name, and is refused, as by Kafka's
//! SslPrincipalMapper. Without rules the subject is the name.

use regex::Regex;

/// The longest list of rules, bytes.
pub const RULES_BYTES_MAX: usize = 16 << 10;

/// Rules that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MappingError(String);

#[derive(Debug, Clone)]
enum Rule {
    /// The subject as it is.
    Default,
    Replace {
        pattern: Regex,
        /// As the regex crate has it.
        replacement: String,
        case: Case,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    AsIs,
    Lower,
    Upper,
}

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub struct PrincipalMapping {
    rules: Vec<Rule>,
}

impl PrincipalMapping {
    /// Reads rules such as `RULE:^CN=(.*?),.*$/$1/L, DEFAULT`.
    pub fn parse(rules: &str) -> Result<Self, MappingError> {
        if rules.len() > RULES_BYTES_MAX {
            let why = format!("the rules are longer than {RULES_BYTES_MAX} bytes");
            return Err(MappingError(why));
        }
        let mut rest = rules.trim();
        let mut all = Vec::new();
        while !rest.is_empty() {
            let (rule, after) = parse_rule(rest)?;
            all.push(rule);
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        Ok(Self { rules: all })
    }

    /// The name of a client whose certificate has this subject; `None` where no rule is for it.
    pub fn name_of(&self, subject: &str) -> Option<String> {
        for rule in &self.rules {
            match rule {
                Rule::Default => return Some(subject.to_owned()),
                Rule::Replace {
                    pattern,
                    replacement,
                    case,
                } if pattern.is_match(subject) => {
                    let name = pattern.replace(subject, replacement.as_str());
                    return Some(match case {
                        Case::AsIs => name.into_owned(),
                        Case::Lower => name.to_lowercase(),
                        Case::Upper => name.to_uppercase(),
                    });
                }
                Rule::Replace { .. } => {}
            }
        }
        self.rules.is_empty().then(|| subject.to_owned())
    }
}

/// The first rule of a list, and what follows it.
fn parse_rule(text: &str) -> Result<(Rule, &str), MappingError> {
    if let Some(after) = text.strip_prefix("DEFAULT") {
        return Ok((Rule::Default, after));
    }
    let wrong = || {
        MappingError(format!(
            "{text} is neither DEFAULT nor RULE:pattern/replacement/[LU]"
        ))
    };
    let rule = text.strip_prefix("RULE:").ok_or_else(wrong)?;
    let (pattern, rest) = until_slash(rule).ok_or_else(wrong)?;
    let (replacement, rest) = until_slash(rest).ok_or_else(wrong)?;
    let (case, rest) = match rest.as_bytes().first() {
        Some(b'L') => (Case::Lower, &rest[1..]),
        Some(b'U') => (Case::Upper, &rest[1..]),
        _ => (Case::AsIs, rest),
    };
    // The whole subject has to match, as Java's Matcher.matches asks.
    let whole = format!("^(?:{pattern})$");
    let pattern =
        Regex::new(&whole).map_err(|error| MappingError(format!("{pattern}: {error}")))?;
    let groups = pattern.captures_len() - 1;
    let replacement = braced(&replacement, groups).ok_or_else(|| {
        MappingError(format!(
            "{replacement} refers to a group, and {pattern} has none"
        ))
    })?;
    Ok((
        Rule::Replace {
            pattern,
            replacement,
            case,
        },
        rest,
    ))
}

/// What stands before a slash that is not escaped, without the escapes, and what stands after it.
fn until_slash(text: &str) -> Option<(String, &str)> {
    let mut before = String::new();
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '/' => return Some((before, &text[at + 1..])),
            '\\' if letters.peek().is_some_and(|(_, next)| *next == '/') => {
                letters.next();
                before.push('/');
            }
            letter => before.push(letter),
        }
    }
    None
}

/// Java's `$1` takes digits alone; the regex crate would take letters that follow as part of a name. A number that is larger than there
/// are groups loses digits at its end, and stands for itself where it is too large still (Kafka's escapeLiteralBackReferences).
/// `None` where it refers to groups and there are none, which Java refuses.
fn braced(replacement: &str, groups: usize) -> Option<String> {
    let mut text = String::new();
    let mut letters = replacement.chars().peekable();
    while let Some(letter) = letters.next() {
        text.push(letter);
        if letter != '$' {
            continue;
        }
        let mut digits = String::new();
        while let Some(digit) = letters.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let is_group = |digits: &str| digits.parse::<usize>().is_ok_and(|n| n <= groups);
        let mut lengths = (1..=digits.len()).rev();
        let length = lengths.find(|length| is_group(&digits[..*length]));
        match length {
            Some(length) => {
                text.push_str(&format!("{{{}}}{}", &digits[..length], &digits[length..]));
            }
            None if !digits.is_empty() && groups == 0 => return None,
            None => text.push_str(&format!("${digits}")),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(rules: &str, subject: &str) -> String {
        let named = PrincipalMapping::parse(rules).unwrap().name_of(subject);
        named.unwrap_or_else(|| "nobody".to_owned())
    }

    #[test]
    fn a_reference_to_a_group_that_is_not_there_is_no_empty_name() {
        assert_eq!(name("RULE:^CN=(.*)$/$2/", "CN=a"), "$2");
        assert_eq!(name("RULE:^CN=(.*)$/$10/", "CN=a"), "a0");
        assert_eq!(
            name("RULE:^CN=(.*),O=(.*)$/$3-$2$12/", "CN=a,O=b"),
            "$3-ba2"
        );
        assert_eq!(name("RULE:^CN=(.*)$/$0/", "CN=a"), "CN=a");
        assert!(PrincipalMapping::parse("RULE:^CN=.*$/$1/").is_err());
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        // The examples of KIP-371.
        let rules = "RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/, RULE:^CN=(.*?),OU=(.*?),O=(.*?),L=(.*?),ST=(.*?),C=(.*?)$/$1@$2/L, RULE:^.*[Cc][Nn]=([a-zA-Z0-9.]*).*$/$1/U, DEFAULT";
        assert_eq!(
            name(rules, "CN=serviceuser,OU=ServiceUsers,O=Unknown"),
            "serviceuser"
        );
        assert_eq!(
            name(
                rules,
                "CN=adminUser,OU=Admin,O=Unknown,L=Unknown,ST=Unknown,C=Unknown"
            ),
            "adminuser@admin"
        );
        assert_eq!(name(rules, "OU=x,cn=user1,O=y"), "USER1");
        assert_eq!(name(rules, "O=nobody"), "O=nobody");
    }

    #[test]
    fn without_rules_the_subject_is_the_name() {
        assert_eq!(name("", "CN=a,O=b"), "CN=a,O=b");
        assert_eq!(name("DEFAULT", "CN=a,O=b"), "CN=a,O=b");
        assert_eq!(name("RULE:^CN=x$/y/", "CN=a"), "nobody");
    }

    #[test]
    fn letters_after_a_group_and_slashes_stay() {
        assert_eq!(name("RULE:^CN=(.*)$/$1abc/", "CN=a"), "aabc");
        assert_eq!(name(r"RULE:^CN=(.*)$/x\/$1/", "CN=a"), "x/a");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for wrong in ["RULE:", "RULE:^a$", "RULE:^a$/b", "RULE:(/x/", "else"] {
            assert!(PrincipalMapping::parse(wrong).is_err(), "{wrong}");
        }
        let long = "x".repeat(RULES_BYTES_MAX + 1);
        assert!(PrincipalMapping::parse(&long).is_err());
    }
}
