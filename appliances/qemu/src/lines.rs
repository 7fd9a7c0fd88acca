//! Bytes in, lines out, none longer than a bound.
//!
//! Invariant: memory held never exceeds the bound and one read. Cancel-safe: what was read stays for the next call.

use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes asked for at once.
const READ_BYTES: usize = 16 << 10;

/// Why there is no next line.
#[derive(Debug)]
pub(crate) enum NoLine {
    /// The other side is done. True if it left in the middle of a line.
    Ended {
        cut: bool,
    },
    TooLong,
    Io(io::Error),
}

/// Splits what it reads at newlines.
pub(crate) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
    /// Bytes of the buffer that are known to hold no newline.
    searched: usize,
    line_bytes_max: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R, line_bytes_max: usize) -> Self {
        Self { from, buffer: Vec::new(), searched: 0, line_bytes_max }
    }

    /// The next line, without its end.
    pub(crate) async fn next(&mut self) -> Result<Vec<u8>, NoLine> {
        loop {
            if let Some(end) = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(self.searched + end + 1);
                let mut line = std::mem::replace(&mut self.buffer, rest);
                self.searched = 0;
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            self.searched = self.buffer.len();
            if self.searched > self.line_bytes_max {
                return Err(NoLine::TooLong);
            }
            self.buffer.reserve(READ_BYTES);
            match self.from.read_buf(&mut self.buffer).await {
                Ok(0) => return Err(NoLine::Ended { cut: !self.buffer.is_empty() }),
                Ok(_) => {}
                Err(error) => return Err(NoLine::Io(error)),
            }
        }
    }
}

impl NoLine {
    /// For people.
    pub(crate) fn says(&self, line_bytes_max: usize) -> String {
        match self {
            Self::Ended { cut: false } => "the other side left".to_owned(),
            Self::Ended { cut: true } => "the other side left in the middle of a line".to_owned(),
            Self::TooLong => format!("a line of more than {line_bytes_max} bytes"),
            Self::Io(error) => error.to_string(),
        }
    }
}

/// The beginning of a line, for people.
pub(crate) fn excerpt(line: &[u8]) -> String {
    const SHOWN_BYTES: usize = 80;
    let dots = if line.len() > SHOWN_BYTES { "..." } else { "" };
    format!("{:?}{dots}", String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES)]))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn a_line_without_end_is_given_up_at_its_bound() {
        run(async {
            let mut lines = Lines::new(tokio::io::repeat(b'x'), 1 << 20);
            assert!(matches!(lines.next().await, Err(NoLine::TooLong)));
            assert!(lines.buffer.capacity() <= (4 << 20), "{} bytes held", lines.buffer.capacity());
        });
    }

    #[test]
    fn leaving_in_the_middle_of_a_line_is_told_apart() {
        run(async {
            let mut lines = Lines::new(&b"one\r\ntwo"[..], 100);
            assert_eq!(lines.next().await.unwrap(), b"one");
            assert!(matches!(lines.next().await, Err(NoLine::Ended { cut: true })));
            let mut lines = Lines::new(&b"one\n"[..], 100);
            lines.next().await.unwrap();
            assert!(matches!(lines.next().await, Err(NoLine::Ended { cut: false })));
        });
    }

    proptest! {
        #[test]
        fn prop_lines_come_out_as_they_went_in(lines in prop::collection::vec("[a-z]{0,40}", 0..20), step in 1_usize..50) {
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let pieces: Vec<_> = text.as_bytes().chunks(step).map(|piece| piece.to_vec()).collect();
            let got = run(async move {
                let (mut to, from) = tokio::io::duplex(64);
                let sending = tokio::spawn(async move {
                    for piece in pieces {
                        tokio::io::AsyncWriteExt::write_all(&mut to, &piece).await.unwrap();
                    }
                });
                let mut reader = Lines::new(from, 64);
                let mut got = Vec::new();
                while let Ok(line) = reader.next().await {
                    got.push(String::from_utf8(line).unwrap());
                }
                sending.await.unwrap();
                got
            });
            prop_assert_eq!(got, lines);
        }
    }
}
