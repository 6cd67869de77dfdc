//! What metaq's brokers say to each other about states of share partitions beyond Kafka's requests: numbers in a tagged field
//! (KIP-482) of the partition, which brokers of earlier versions pass over.
//!
//! | request                 | numbers                                                                                 |
//! |-------------------------|-----------------------------------------------------------------------------------------|
//! | ReadShareGroupState     | where the leader's log ends; in the answer the number of the read                       |
//! | WriteShareGroupState    | the number of the read that the leader goes on from, and which write since then it is   |
//! | DeleteShareGroupState   | the latest state epoch that is deleted                                                  |

use std::collections::BTreeMap;

use bytes::Bytes;

/// The field. Each number is 8 bytes, big-endian.
const NUMBERS_TAG: i32 = 10_002;
const NUMBER_BYTES: usize = 8;

/// Adds numbers to a message's tagged fields.
pub(super) fn set_numbers(fields: &mut BTreeMap<i32, Bytes>, numbers: &[u64]) {
    let bytes = numbers.iter().flat_map(|number| number.to_be_bytes());
    fields.insert(NUMBERS_TAG, bytes.collect());
}

/// The numbers of a message, where it has so many.
pub(super) fn numbers<const N: usize>(fields: &BTreeMap<i32, Bytes>) -> Option<[u64; N]> {
    let field = fields.get(&NUMBERS_TAG)?;
    if field.len() != N * NUMBER_BYTES {
        return None;
    }
    let mut numbers = [0; N];
    for (number, bytes) in numbers.iter_mut().zip(field.chunks_exact(NUMBER_BYTES)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_they_are_written_and_no_others() {
        let mut fields = BTreeMap::new();
        assert_eq!(numbers::<1>(&fields), None);
        set_numbers(&mut fields, &[7, u64::MAX]);
        assert_eq!(numbers(&fields), Some([7, u64::MAX]));
        assert_eq!(numbers::<1>(&fields), None);
    }
}
