//! What a container writes, as it comes over one connection: frames of eight bytes of head and then bytes of one stream.
//!
//! A connection cuts where it likes, also inside of a head; and nothing is kept here but a head that is not whole.

/// Where a container wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Takes frames apart.
#[derive(Debug, Default)]
pub struct Frames {
    head: [u8; 8],
    /// Bytes of the head that are there.
    filled: usize,
    /// Bytes of the frame that are still to come.
    left: u64,
}

impl Frames {
    /// Calls `take` with each piece of a stream, in their order.
    ///
    /// # Errors
    /// A sentence, if these are no frames: then nothing that follows can be read.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Stream, &[u8])) -> Result<(), String> {
        while !bytes.is_empty() {
            if self.filled < self.head.len() {
                let count = bytes.len().min(self.head.len() - self.filled);
                let (head, rest) = bytes.split_at(count);
                self.head[self.filled..self.filled + count].copy_from_slice(head);
                self.filled += count;
                bytes = rest;
                if self.filled < self.head.len() {
                    break;
                }
                let [kind, 0, 0, 0, length @ ..] = self.head else {
                    return Err("what came is no output of a container".to_owned());
                };
                if kind > 2 {
                    return Err(format!("what came is no output of a container: it has no stream {kind}"));
                }
                self.left = u64::from(u32::from_be_bytes(length));
            }
            let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (piece, rest) = bytes.split_at(count);
            if !piece.is_empty() {
                take(if self.head[0] == 2 { Stream::Stderr } else { Stream::Stdout }, piece);
            }
            self.left -= count as u64;
            bytes = rest;
            if self.left == 0 {
                self.filled = 0;
            }
        }
        Ok(())
    }

    /// Whether it stopped between two frames.
    pub fn is_whole(&self) -> bool {
        self.filled == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, text: &str) -> Vec<u8> {
        let mut bytes = vec![kind, 0, 0, 0];
        bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn it_does_not_matter_where_the_connection_cuts() {
        let all = [frame(1, "out"), frame(2, ""), frame(2, "errors"), frame(1, "!")].concat();
        for size in 1..=all.len() {
            let (mut frames, mut out, mut errors) = (Frames::default(), Vec::new(), Vec::new());
            for piece in all.chunks(size) {
                frames
                    .push(piece, |stream, bytes| match stream {
                        Stream::Stdout => out.extend_from_slice(bytes),
                        Stream::Stderr => errors.extend_from_slice(bytes),
                    })
                    .unwrap();
            }
            assert_eq!(
                (out.as_slice(), errors.as_slice()),
                (b"out!".as_slice(), b"errors".as_slice()),
                "cut at {size}"
            );
            assert!(frames.is_whole());
        }
    }

    #[test]
    fn half_a_frame_is_not_whole_and_other_bytes_are_no_frame() {
        let mut frames = Frames::default();
        frames.push(&frame(1, "abc")[..9], |_, _| ()).unwrap();
        assert!(!frames.is_whole());
        assert!(Frames::default().push(b"HTTP/1.1 400", |_, _| ()).is_err());
        assert!(Frames::default().push(&frame(7, "abc"), |_, _| ()).is_err());
    }
}
