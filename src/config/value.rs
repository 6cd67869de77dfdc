//! Types of configuration values: parsing, ranges, and how they are described to clients.

/// Type and range of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A 32-bit integer in a range.
    Int(i64, i64),
    /// A 64-bit integer in a range.
    Long(i64, i64),
    /// A number in a range.
    Double(f64, f64),
    /// true or false.
    Bool,
    /// One of several words.
    Choice(&'static [&'static str]),
    /// A comma-separated list of some of several words.
    List(&'static [&'static str]),
    /// Any text.
    Text,
}

/// Why a value does not fit.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum ValueError {
    /// Not a number.
    #[error("not an integer")]
    NotAnInteger,
    /// Not a number.
    #[error("not a number")]
    NotANumber,
    /// Outside the range.
    #[error("must be between {0} and {1}")]
    Range(String, String),
    /// Not true or false.
    #[error("must be true or false")]
    NotABool,
    /// Not one of the words.
    #[error("must be one of {0}")]
    NotAChoice(String),
}

/// Parsing of values.
pub struct Value;

impl Value {
    /// An integer, or an expression such as `1024*1024`.
    pub fn integer(text: &str) -> Result<i64, ValueError> {
        let mut product = 1i64;
        for factor in text.split('*') {
            let factor: i64 = factor
                .trim()
                .parse()
                .map_err(|_| ValueError::NotAnInteger)?;
            product = product
                .checked_mul(factor)
                .ok_or(ValueError::NotAnInteger)?;
        }
        Ok(product)
    }

    /// true or false.
    pub fn boolean(text: &str) -> Result<bool, ValueError> {
        match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(ValueError::NotABool),
        }
    }
}

impl Kind {
    /// Whether a text is a valid value.
    pub fn check(&self, text: &str) -> Result<(), ValueError> {
        match *self {
            Kind::Int(low, high) | Kind::Long(low, high) => {
                let value = Value::integer(text)?;
                match (low..=high).contains(&value) {
                    true => Ok(()),
                    false => Err(ValueError::Range(low.to_string(), high.to_string())),
                }
            }
            Kind::Double(low, high) => {
                let value: f64 = text.trim().parse().map_err(|_| ValueError::NotANumber)?;
                match (low..=high).contains(&value) {
                    true => Ok(()),
                    false => Err(ValueError::Range(low.to_string(), high.to_string())),
                }
            }
            Kind::Bool => Value::boolean(text).map(drop),
            Kind::Choice(words) => match words.contains(&text) {
                true => Ok(()),
                false => Err(ValueError::NotAChoice(words.join(", "))),
            },
            Kind::List(words) => match text.split(',').all(|word| words.contains(&word.trim())) {
                true => Ok(()),
                false => Err(ValueError::NotAChoice(words.join(", "))),
            },
            Kind::Text => Ok(()),
        }
    }

    /// Kafka's number of the type in DescribeConfigs (ConfigDef.Type).
    pub fn wire_type(&self) -> i8 {
        match self {
            Kind::Bool => 1,
            Kind::Text | Kind::Choice(_) => 2,
            Kind::Int(..) => 3,
            Kind::Long(..) => 5,
            Kind::Double(..) => 6,
            Kind::List(_) => 7,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_be_products() {
        assert_eq!(Value::integer("1024 * 1024*2"), Ok(2 << 20));
        assert_eq!(Value::integer("-1"), Ok(-1));
        assert!(Value::integer("9223372036854775807*2").is_err());
        assert!(Value::integer("1k").is_err());
    }
}
