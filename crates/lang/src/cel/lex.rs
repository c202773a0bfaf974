//! Text to tokens. Strings come out with their escapes resolved.

use super::fault::{At, Fault, FaultKind};

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A name; also the words that only a parser can tell apart (`in`, reserved ones).
    Name(String),
    /// Without its sign.
    Int(u64),
    Uint(u64),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
    /// An operator or a bracket.
    Sign(&'static str),
    End,
}

impl Token {
    /// For "expected …, found …".
    pub fn describe(&self) -> String {
        match self {
            Token::Name(name) => format!("`{name}`"),
            Token::Int(_) | Token::Uint(_) | Token::Double(_) => "a number".into(),
            Token::Text(_) => "a string".into(),
            Token::Bytes(_) => "bytes".into(),
            Token::Sign(sign) => format!("`{sign}`"),
            Token::End => "the end".into(),
        }
    }
}

/// The longer ones first.
const SIGNS: [&str; 25] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "!", "+", "-", "*", "/", "%", "?", ":", ".", ",", "(", ")", "[", "]",
    "{", "}", "=",
];

/// All tokens with their places; the last is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(At, Token)>, Fault> {
    let mut lexer = Lexer { rest: text.chars().collect(), next: 0, at: At { line: 1, column: 1 } };
    let mut found = Vec::new();
    loop {
        lexer.skip_blanks();
        let at = lexer.at;
        let token = lexer.token()?;
        let done = token == Token::End;
        found.push((at, token));
        if done {
            return Ok(found);
        }
    }
}

struct Lexer {
    rest: Vec<char>,
    next: usize,
    at: At,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.next + ahead).copied()
    }

    fn take(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.next += 1;
        if c == '\n' {
            self.at = At { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Syntax, self.at, message)
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek(0) {
            if matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}') {
                self.take();
            } else if c == '/' && self.peek(1) == Some('/') {
                while self.peek(0).is_some_and(|c| c != '\n') {
                    self.take();
                }
            } else {
                return;
            }
        }
    }

    fn token(&mut self) -> Result<Token, Fault> {
        let Some(c) = self.peek(0) else { return Ok(Token::End) };
        if c == '"' || c == '\'' {
            return Ok(Token::Text(self.text(false)?));
        }
        if c.is_ascii_digit() || (c == '.' && self.peek(1).is_some_and(|c| c.is_ascii_digit())) {
            return self.number();
        }
        if c == '_' || c.is_ascii_alphabetic() {
            return self.word();
        }
        for sign in SIGNS {
            if sign.chars().enumerate().all(|(n, s)| self.peek(n) == Some(s)) {
                if sign == "=" {
                    return Err(self.fault("`=` is no operator; equality is written `==`"));
                }
                for _ in sign.chars() {
                    self.take();
                }
                return Ok(Token::Sign(sign));
            }
        }
        let hint = match c {
            '&' => "; and is written `&&`",
            '|' => "; or is written `||`",
            '$' => "; a variable of Tekton is replaced before, and stands in quotes: `'$(params.x)'`",
            _ => "",
        };
        Err(self.fault(format!("`{}` has no meaning here{hint}", c.escape_default())))
    }

    /// A name, or a string with its prefix.
    fn word(&mut self) -> Result<Token, Fault> {
        let prefix: String = (0..3).map_while(|n| self.peek(n)).take_while(char::is_ascii_alphabetic).collect();
        if matches!(self.peek(prefix.len()), Some('"' | '\'')) {
            match prefix.to_ascii_lowercase().as_str() {
                "r" => {
                    self.take();
                    return Ok(Token::Text(self.text(true)?));
                }
                "b" => {
                    self.take();
                    return Ok(Token::Bytes(self.bytes(false)?));
                }
                "br" => {
                    self.take();
                    self.take();
                    return Ok(Token::Bytes(self.bytes(true)?));
                }
                _ => {}
            }
        }
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| *c == '_' || c.is_ascii_alphanumeric()) {
            name.push(c);
            self.take();
        }
        Ok(Token::Name(name))
    }

    fn digits(&mut self, into: &mut String) {
        while let Some(c) = self.peek(0).filter(char::is_ascii_digit) {
            into.push(c);
            self.take();
        }
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let start = self.at;
        let wrong = |message: String| Fault::new(FaultKind::Syntax, start, message);
        let mut text = String::new();
        let whole = if self.peek(0) == Some('0') && matches!(self.peek(1), Some('x' | 'X')) {
            self.take();
            self.take();
            while let Some(c) = self.peek(0).filter(char::is_ascii_hexdigit) {
                text.push(c);
                self.take();
            }
            u64::from_str_radix(&text, 16).map_err(|_| wrong(format!("`0x{text}` is no whole number of 64 bits")))?
        } else {
            self.digits(&mut text);
            let mut fraction = false;
            if self.peek(0) == Some('.') && self.peek(1).is_some_and(|c| c.is_ascii_digit()) {
                fraction = true;
                text.push('.');
                self.take();
                self.digits(&mut text);
            }
            let sign = usize::from(matches!(self.peek(1), Some('+' | '-')));
            if matches!(self.peek(0), Some('e' | 'E')) && self.peek(1 + sign).is_some_and(|c| c.is_ascii_digit()) {
                fraction = true;
                text.push('e');
                self.take();
                if sign == 1 {
                    text.extend(self.take());
                }
                self.digits(&mut text);
            }
            if fraction {
                let number: f64 = text.parse().map_err(|_| wrong(format!("`{text}` is no number")))?;
                return Ok(Token::Double(number));
            }
            text.parse().map_err(|_| wrong(format!("`{text}` is too large for a whole number")))?
        };
        if matches!(self.peek(0), Some('u' | 'U')) {
            self.take();
            return Ok(Token::Uint(whole));
        }
        Ok(Token::Int(whole))
    }

    fn text(&mut self, raw: bool) -> Result<String, Fault> {
        let mut text = String::new();
        self.quoted(raw, &mut |lexer, part| match part {
            Part::Char(c) => {
                text.push(c);
                Ok(())
            }
            Part::Octet(octet) => {
                text.push(char::from(octet));
                Ok(())
            }
            Part::Point(point) => {
                text.push(char::from_u32(point).ok_or_else(|| lexer.fault("the escape is no character of Unicode"))?);
                Ok(())
            }
        })?;
        Ok(text)
    }

    fn bytes(&mut self, raw: bool) -> Result<Vec<u8>, Fault> {
        let mut bytes = Vec::new();
        self.quoted(raw, &mut |lexer, part| match part {
            Part::Char(c) => {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                Ok(())
            }
            Part::Octet(octet) => {
                bytes.push(octet);
                Ok(())
            }
            Part::Point(_) => Err(lexer.fault("`\\u` and `\\U` are for strings; in bytes write `\\x`")),
        })?;
        Ok(bytes)
    }

    /// What stands in quotes, of one line or of several.
    fn quoted(&mut self, raw: bool, push: &mut dyn FnMut(&Lexer, Part) -> Result<(), Fault>) -> Result<(), Fault> {
        let start = self.at;
        let open = |message: &str| Fault::new(FaultKind::Syntax, start, message);
        let quote = self.take().unwrap_or('"');
        let long = self.peek(0) == Some(quote) && self.peek(1) == Some(quote);
        if long {
            self.take();
            self.take();
        }
        loop {
            let c = self.peek(0).ok_or_else(|| open("the string is not closed"))?;
            if c == quote && !long {
                self.take();
                return Ok(());
            }
            if c == quote && self.peek(1) == Some(quote) && self.peek(2) == Some(quote) {
                for _ in 0..3 {
                    self.take();
                }
                return Ok(());
            }
            if !long && matches!(c, '\n' | '\r') {
                return Err(open("the string is not closed on its line; longer ones are written in three quotes"));
            }
            if c == '\\' && !raw {
                let part = self.escape()?;
                push(self, part)?;
            } else {
                self.take();
                // A quote after a backslash ends no raw string of three quotes early: it only ever ends at its quotes.
                push(self, Part::Char(c))?;
            }
        }
    }

    fn escape(&mut self) -> Result<Part, Fault> {
        let unknown =
            self.fault("no such escape; a backslash itself is written `\\\\`, or the string with `r` in front");
        self.take();
        let c = self.take().ok_or_else(|| unknown.clone())?;
        let hex = |lexer: &mut Lexer, digits: usize| -> Result<u32, Fault> {
            let mut number = 0;
            for _ in 0..digits {
                let digit = lexer.take().and_then(|c| c.to_digit(16)).ok_or_else(|| unknown.clone())?;
                number = number * 16 + digit;
            }
            Ok(number)
        };
        Ok(match c {
            '\\' | '?' | '"' | '\'' | '`' => Part::Char(c),
            'a' => Part::Char('\u{7}'),
            'b' => Part::Char('\u{8}'),
            'f' => Part::Char('\u{c}'),
            'n' => Part::Char('\n'),
            'r' => Part::Char('\r'),
            't' => Part::Char('\t'),
            'v' => Part::Char('\u{b}'),
            'x' | 'X' => Part::Octet(hex(self, 2)? as u8),
            'u' => Part::Point(hex(self, 4)?),
            'U' => Part::Point(hex(self, 8)?),
            '0'..='3' => {
                let mut number = c.to_digit(8).unwrap_or(0);
                for _ in 0..2 {
                    number = number * 8 + self.take().and_then(|c| c.to_digit(8)).ok_or_else(|| unknown.clone())?;
                }
                Part::Octet(number as u8)
            }
            _ => return Err(unknown),
        })
    }
}

/// A piece of a string.
enum Part {
    Char(char),
    /// A character below 256 in a string, a byte in bytes.
    Octet(u8),
    Point(u32),
}
