//! An answer that comes line by line, for as long as it lasts: a log that is followed.

use std::time::Duration;

use reqwest::Response;

use super::{Call, Client, Fault, broken};

/// So long one is read; then it is asked for anew.
const LASTS: Duration = Duration::from_secs(3600);
/// The longest line that is given in one piece.
const MOST: usize = 1 << 20;

/// Lines as they come.
pub struct Lines {
    call: Call,
    answer: Response,
    rest: Vec<u8>,
    is_over: bool,
}

impl Client {
    /// What the answer to this call has, line by line.
    pub async fn lines(&self, mut call: Call) -> Result<Lines, Fault> {
        call.within = LASTS;
        let mut answer = self.send(&call).await?;
        let code = answer.status().as_u16();
        if (200..300).contains(&code) {
            return Ok(Lines { call, answer, rest: Vec::new(), is_over: false });
        }
        let said = answer.chunk().await.ok().flatten().unwrap_or_default();
        Err(Fault::of(code, &said, call.right))
    }
}

impl Lines {
    /// All lines that are there, without their ends, as soon as there is one; empty: that was all. A last line without an end counts
    /// too. May be dropped and asked again without losing any.
    pub async fn next(&mut self) -> Result<Vec<Vec<u8>>, Fault> {
        loop {
            let lines = self.whole();
            if !lines.is_empty() || self.is_over {
                return Ok(lines);
            }
            match self.answer.chunk().await {
                Ok(Some(chunk)) => self.rest.extend_from_slice(&chunk),
                Ok(None) => self.is_over = true,
                Err(error) => return Err(broken(&self.call, &error)),
            }
        }
    }

    fn whole(&mut self) -> Vec<Vec<u8>> {
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if self.is_over || self.rest.len() > MOST => self.rest.len(),
            None => 0,
        };
        let mut text: Vec<u8> = self.rest.drain(..end).collect();
        if self.is_over {
            text.append(&mut self.rest);
        }
        if text.is_empty() {
            return Vec::new();
        }
        if text.last() == Some(&b'\n') {
            text.pop();
        }
        text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
    }
}
