//! From where something is done: any host, one address, or a range of addresses in CIDR notation (Kafka's CidrUtils,
//! KIP-1276).

use std::net::IpAddr;

use super::binding::WILDCARD;

/// The hosts that an entry is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPattern {
    /// Every one.
    Any,
    /// One address.
    Address(IpAddr),
    /// Those whose first bits are the same.
    Range(IpAddr, u32),
    /// None: what is no address is no host that a client comes from.
    None,
}

/// Why a range of addresses cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has more bits than addresses of its kind.
    #[error("Value [{0}] not in range [0,{1}]")]
    Bits(u32, u32),
    /// It is none.
    #[error("Could not parse [{0}]")]
    Malformed(String),
}

impl HostPattern {
    /// Reads a pattern; a range must be one, and other texts may be anything.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text == WILDCARD {
            return Ok(Self::Any);
        }
        let Some((address, bits)) = text.split_once('/') else {
            return Ok(text.parse().map_or(Self::None, Self::Address));
        };
        let malformed = || HostError::Malformed(text.to_owned());
        let address: IpAddr = address.parse().map_err(|_| malformed())?;
        let is_number = !bits.is_empty() && bits.len() <= 3;
        let is_number = is_number && bits.bytes().all(|byte| byte.is_ascii_digit());
        let bits: u32 = bits
            .parse()
            .ok()
            .filter(|_| is_number)
            .ok_or_else(malformed)?;
        match bits_of(address) {
            bits_max if bits > bits_max => Err(HostError::Bits(bits, bits_max)),
            _ => Ok(Self::Range(address, bits)),
        }
    }

    /// Whether a client at an address is meant.
    pub fn contains(self, host: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Address(address) => address == host,
            Self::Range(address, bits) => match (address, host) {
                (IpAddr::V4(range), IpAddr::V4(host)) => {
                    let differing = range.to_bits() ^ host.to_bits();
                    differing.leading_zeros() >= bits
                }
                (IpAddr::V6(range), IpAddr::V6(host)) => {
                    let differing = range.to_bits() ^ host.to_bits();
                    differing.leading_zeros() >= bits
                }
                _ => false,
            },
            Self::None => false,
        }
    }
}

fn bits_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => u32::BITS,
        IpAddr::V6(_) => u128::BITS,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(pattern: &str, host: &str) -> bool {
        let pattern = HostPattern::parse(pattern).unwrap();
        pattern.contains(host.parse().unwrap())
    }

    #[test]
    fn a_host_is_any_an_address_or_in_a_range() {
        assert!(contains("*", "10.1.2.3") && contains("*", "::1"));
        assert!(contains("10.1.2.3", "10.1.2.3") && !contains("10.1.2.3", "10.1.2.4"));
        assert!(contains("0:0:0:0:0:0:0:1", "::1"));
        assert!(contains("10.1.2.77/24", "10.1.2.255") && !contains("10.1.2.0/24", "10.1.3.0"));
        assert!(contains("0.0.0.0/0", "9.9.9.9") && contains("1.2.3.4/32", "1.2.3.4"));
        assert!(contains("2001:db8::/32", "2001:db8:1::1"));
        assert!(!contains("::/0", "10.0.0.1") && !contains("0.0.0.0/0", "::1"));
        assert!(!contains("broker.example", "10.0.0.1"));
    }

    #[test]
    fn what_is_no_range_is_refused_in_kafkas_words() {
        let refused = |text| HostPattern::parse(text).unwrap_err().to_string();
        assert_eq!(refused("10.0.0.0/33"), "Value [33] not in range [0,32]");
        assert_eq!(refused("10.0.0/24"), "Could not parse [10.0.0/24]");
        assert_eq!(refused("10.0.0.0/"), "Could not parse [10.0.0.0/]");
        assert_eq!(refused("10.0.0.0/+4"), "Could not parse [10.0.0.0/+4]");
    }
}
