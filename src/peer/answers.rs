//! Cuts what a peer sends into answers. They lie in one buffer that is used again once nobody holds what was cut from it: a
//! follower is sent megabytes many times a second, and fresh memory for each of them costs more than to receive them.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::correlation::correlation_id;
use super::{ANSWER_BYTES_MAX, LENGTH_BYTES};

/// A read has at least this much room.
const ROOM_MIN: usize = 16 << 10;
/// A buffer up to this size is kept for ever.
const KEPT_BYTES: usize = 64 << 10;
/// A larger one is given back after so many answers in a row that fill no eighth of it.
const SMALL_ANSWERS_MAX: usize = 64;

/// See the module's documentation.
pub(super) struct AnswerReader<R> {
    reader: R,
    input: BytesMut,
    /// What the buffer was made for, bytes.
    room: usize,
    small_answers: usize,
}

/// An answer, length and all, that can still be written to.
pub(super) struct RawAnswer<'a> {
    input: &'a mut BytesMut,
    bytes: usize,
    /// The correlation id that it has.
    pub(super) id: i32,
}

impl RawAnswer<'_> {
    /// The answer, with the correlation id of who asked.
    pub(super) fn with_id(self, id: i32) -> Bytes {
        let mut answer = self.input.split_to(self.bytes);
        answer[LENGTH_BYTES..LENGTH_BYTES + 4].copy_from_slice(&id.to_be_bytes());
        answer.freeze()
    }

    /// Nobody waits for it any more.
    pub(super) fn skip(self) {
        drop(self.input.split_to(self.bytes));
    }
}

impl<R: AsyncRead + Unpin> AnswerReader<R> {
    pub(super) fn new(reader: R) -> Self {
        Self {
            reader,
            input: BytesMut::new(),
            room: 0,
            small_answers: 0,
        }
    }

    /// The next answer; `heard` is called whenever bytes came.
    pub(super) async fn next(&mut self, heard: impl Fn()) -> io::Result<RawAnswer<'_>> {
        self.fill(LENGTH_BYTES, &heard).await?;
        let mut length = [0; LENGTH_BYTES];
        length.copy_from_slice(&self.input[..LENGTH_BYTES]);
        let length = u32::from_be_bytes(length) as usize;
        if length > ANSWER_BYTES_MAX {
            let what = format!("an answer of {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let bytes = LENGTH_BYTES + length;
        self.fill(bytes, &heard).await?;
        self.forget_large(bytes);
        let id = correlation_id(&self.input[..bytes], LENGTH_BYTES)?;
        Ok(RawAnswer {
            input: &mut self.input,
            bytes,
            id,
        })
    }

    /// Receives until there are so many bytes.
    async fn fill(&mut self, bytes: usize, heard: &impl Fn()) -> io::Result<()> {
        while self.input.len() < bytes {
            let missing = (bytes - self.input.len()).max(ROOM_MIN);
            self.input.reserve(missing);
            self.room = self.room.max(self.input.capacity());
            if self.reader.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            heard();
        }
        Ok(())
    }

    /// Gives a large buffer back that is not needed of late.
    fn forget_large(&mut self, bytes: usize) {
        let is_small = self.room > KEPT_BYTES && bytes < self.room / 8;
        self.small_answers = if is_small { self.small_answers + 1 } else { 0 };
        if self.small_answers > SMALL_ANSWERS_MAX {
            self.input = BytesMut::from(&self.input[..]);
            (self.room, self.small_answers) = (self.input.capacity(), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(id: i32, bytes: usize) -> Vec<u8> {
        let mut frame = (4 + bytes as u32).to_be_bytes().to_vec();
        frame.extend(id.to_be_bytes());
        frame.resize(8 + bytes, id as u8);
        frame
    }

    async fn next(answers: &mut AnswerReader<&[u8]>) -> io::Result<(i32, Bytes)> {
        let raw = answers.next(|| {}).await?;
        Ok((raw.id, raw.with_id(77)))
    }

    #[tokio::test]
    async fn answers_are_cut_where_they_end_and_have_the_id_of_who_asked() {
        let sent = [frame(1, 3), frame(2, 0), frame(3, 200_000), frame(4, 5)].concat();
        let mut answers = AnswerReader::new(&sent[..]);
        for (id, bytes) in [(1, 3), (2, 0), (3, 200_000), (4, 5)] {
            let (got, answer) = next(&mut answers).await.unwrap();
            let mut expected = frame(id, bytes);
            expected[4..8].copy_from_slice(&77i32.to_be_bytes());
            assert!(got == id && answer == expected);
        }
        let ended = next(&mut answers).await.unwrap_err();
        assert_eq!(ended.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_buffer_is_used_again_once_nobody_holds_its_answers_and_given_back_when_they_are_small()
     {
        let large = frame(1, 1 << 20);
        let mut sent = large.repeat(8);
        (0..=SMALL_ANSWERS_MAX).for_each(|_| sent.extend(frame(2, 10)));
        let mut answers = AnswerReader::new(&sent[..]);
        next(&mut answers).await.unwrap();
        let room = answers.room;
        let (_, held) = next(&mut answers).await.unwrap();
        for _ in 0..6 {
            next(&mut answers).await.unwrap();
        }
        assert!(answers.room <= 2 * room && held.len() == large.len());
        assert!(held[8..].iter().all(|byte| *byte == 1));
        for _ in 0..=SMALL_ANSWERS_MAX {
            next(&mut answers).await.unwrap();
        }
        assert!(answers.room <= KEPT_BYTES);
    }

    #[tokio::test]
    async fn what_is_too_short_or_too_long_for_an_answer_is_refused() {
        for sent in [vec![0, 0, 0, 2, 1, 1], u32::MAX.to_be_bytes().to_vec()] {
            let mut answers = AnswerReader::new(&sent[..]);
            let refused = next(&mut answers).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        }
    }
}
