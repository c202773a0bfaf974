//! Tokens to an expression.

use super::ast::{Expr, Kind};
use super::fault::{At, Fault, FaultKind};
use super::lex::{Token, tokens};
use super::value::Value;

/// Brackets, ternaries and signs in one another: what the parser's own stack holds.
const DEEPEST: usize = 80;
/// Levels of a whole expression: what the evaluator's stack holds.
const HIGHEST: usize = 160;
/// No expression is longer, in bytes.
pub(crate) const LONGEST: usize = 64 * 1024;

/// Words that name nothing, though they may follow a dot.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

pub(crate) fn parse(text: &str) -> Result<Expr, Fault> {
    let start = At { line: 1, column: 1 };
    if text.len() > LONGEST {
        return Err(Fault::new(FaultKind::Syntax, start, format!("the expression is longer than {LONGEST} bytes")));
    }
    let mut parser = Parser { tokens: tokens(text)?, next: 0, depth: 0 };
    let expr = parser.expression()?;
    match parser.peek() {
        Token::End => Ok(expr),
        other => Err(parser.fault(format!("expected an operator or the end, found {}", other.describe()))),
    }
}

struct Parser {
    tokens: Vec<(At, Token)>,
    next: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> &Token {
        &self.tokens[self.next].1
    }

    fn at(&self) -> At {
        self.tokens[self.next].0
    }

    fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(FaultKind::Syntax, self.at(), message)
    }

    fn take(&mut self) -> Token {
        let token = self.peek().clone();
        if token != Token::End {
            self.next += 1;
        }
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) if *found == sign)
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = self.is(sign);
        self.next += usize::from(there);
        there
    }

    fn expect(&mut self, sign: &str) -> Result<(), Fault> {
        if self.eat(sign) {
            return Ok(());
        }
        Err(self.fault(format!("expected `{sign}`, found {}", self.peek().describe())))
    }

    /// One more level of the parser's stack.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Parser) -> Result<T, Fault>) -> Result<T, Fault> {
        if self.depth >= DEEPEST {
            return Err(self.fault(format!("the expression is nested more than {DEEPEST} deep")));
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn built(&self, at: At, kind: Kind) -> Result<Expr, Fault> {
        let expr = Expr::new(at, kind);
        if expr.height > HIGHEST {
            return Err(self.too_high(at));
        }
        Ok(expr)
    }

    fn too_high(&self, at: At) -> Fault {
        Fault::new(FaultKind::Syntax, at, format!("more than {HIGHEST} operations are in one another"))
    }

    fn expression(&mut self) -> Result<Expr, Fault> {
        self.nested(|parser| {
            let condition = parser.binary(0)?;
            let at = parser.at();
            if !parser.eat("?") {
                return Ok(condition);
            }
            let yes = parser.nested(|parser| parser.binary(0))?;
            parser.expect(":")?;
            let no = parser.expression()?;
            parser.built(at, Kind::If(Box::new([condition, yes, no])))
        })
    }

    /// The operator that is next, with how tightly it binds.
    fn operator(&self) -> Option<(&'static str, u8)> {
        match self.peek() {
            Token::Name(name) if name == "in" => Some(("@in", 3)),
            Token::Sign(sign) => Some(match *sign {
                "||" => ("||", 1),
                "&&" => ("&&", 2),
                "==" => ("_==_", 3),
                "!=" => ("_!=_", 3),
                "<" => ("_<_", 3),
                "<=" => ("_<=_", 3),
                ">" => ("_>_", 3),
                ">=" => ("_>=_", 3),
                "+" => ("_+_", 4),
                "-" => ("_-_", 4),
                "*" => ("_*_", 5),
                "/" => ("_/_", 5),
                "%" => ("_%_", 5),
                _ => return None,
            }),
            _ => None,
        }
    }

    /// All operators that bind more tightly than `least`, from left to right.
    fn binary(&mut self, least: u8) -> Result<Expr, Fault> {
        let mut left = self.unary()?;
        while let Some((name, tightness)) = self.operator().filter(|(_, tightness)| *tightness > least) {
            let at = self.at();
            self.next += 1;
            let right = self.binary(tightness)?;
            // A row of the same is kept flat, and measured only where it grows.
            let height = left.height.max(right.height + 1);
            left = match (name, left.kind) {
                ("||", Kind::Or(mut parts)) => {
                    parts.push(right);
                    Expr { at, kind: Kind::Or(parts), height }
                }
                ("&&", Kind::And(mut parts)) => {
                    parts.push(right);
                    Expr { at, kind: Kind::And(parts), height }
                }
                (name, kind) => {
                    let parts = vec![Expr { kind, ..left }, right];
                    let kind = match name {
                        "||" => Kind::Or(parts),
                        "&&" => Kind::And(parts),
                        _ => Kind::Call { of: None, name: name.into(), args: parts },
                    };
                    self.built(at, kind)?
                }
            };
            if left.height > HIGHEST {
                return Err(self.too_high(at));
            }
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        if self.eat("!") {
            let of = self.nested(Parser::unary)?;
            return self.built(at, Kind::Call { of: None, name: "!_".into(), args: vec![of] });
        }
        if self.is("-") {
            // The smallest number has no positive counterpart, so the sign is read with the digits.
            let constant = match &self.tokens.get(self.next + 1).map(|(_, token)| token) {
                Some(Token::Int(size)) => Some(
                    i64::try_from(-i128::from(*size))
                        .map(Value::Int)
                        .map_err(|_| self.fault(format!("`-{size}` is too small for a whole number")))?,
                ),
                Some(Token::Double(number)) => Some(Value::Double(-number)),
                _ => None,
            };
            self.next += 1;
            if let Some(value) = constant {
                self.next += 1;
                let number = self.built(at, Kind::Constant(value))?;
                return self.members(number);
            }
            let of = self.nested(Parser::unary)?;
            return self.built(at, Kind::Call { of: None, name: "-_".into(), args: vec![of] });
        }
        let primary = self.primary()?;
        self.members(primary)
    }

    /// What follows a value: `.field`, `.call(…)`, `[index]`.
    fn members(&mut self, mut of: Expr) -> Result<Expr, Fault> {
        loop {
            let at = self.at();
            if self.eat(".") {
                let at = self.at();
                let field = match self.take() {
                    Token::Name(name) if !matches!(name.as_str(), "in" | "true" | "false" | "null") => name,
                    other => {
                        let message = format!("expected the name of a field, found {}", other.describe());
                        return Err(Fault::new(FaultKind::Syntax, at, message));
                    }
                };
                let kind = if self.eat("(") {
                    let args = self.list(")")?;
                    Kind::Call { of: Some(Box::new(of)), name: field, args }
                } else {
                    Kind::Select { of: Box::new(of), field }
                };
                of = self.built(at, kind)?;
            } else if self.eat("[") {
                let index = self.expression()?;
                self.expect("]")?;
                of = self.built(at, Kind::Call { of: None, name: "_[_]".into(), args: vec![of, index] })?;
            } else if self.is("{") && matches!(of.kind, Kind::Name { .. } | Kind::Select { .. }) {
                return Err(self.fault("messages cannot be made here; a map is written `{'key': value}`"));
            } else {
                return Ok(of);
            }
        }
    }

    /// Expressions up to the bracket that closes them. Only lists may end in a comma.
    fn list(&mut self, close: &str) -> Result<Vec<Expr>, Fault> {
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() {
                if !self.eat(",") {
                    return Err(self.fault(format!("expected `,` or `{close}`, found {}", self.peek().describe())));
                }
                if close == "]" && self.eat(close) {
                    break;
                }
            }
            items.push(self.expression()?);
        }
        Ok(items)
    }

    fn primary(&mut self) -> Result<Expr, Fault> {
        let at = self.at();
        let kind = match self.take() {
            Token::Int(size) => Kind::Constant(Value::Int(i64::try_from(size).map_err(|_| {
                let message = format!("`{size}` is too large for a whole number; unsigned ones are written `{size}u`");
                Fault::new(FaultKind::Syntax, at, message)
            })?)),
            Token::Uint(number) => Kind::Constant(Value::Uint(number)),
            Token::Double(number) => Kind::Constant(Value::Double(number)),
            Token::Text(text) => Kind::Constant(Value::text(text)),
            Token::Bytes(bytes) => Kind::Constant(Value::Bytes(bytes.into())),
            Token::Sign("(") => {
                let inner = self.expression()?;
                self.expect(")")?;
                return Ok(inner);
            }
            Token::Sign("[") => Kind::List(self.list("]")?),
            Token::Sign("{") => Kind::Map(self.entries()?),
            Token::Sign(".") => return self.name(at, true),
            Token::Name(_) => {
                self.next -= 1;
                return self.name(at, false);
            }
            other => {
                let message = format!("expected a value, found {}", other.describe());
                return Err(Fault::new(FaultKind::Syntax, at, message));
            }
        };
        self.built(at, kind)
    }

    fn entries(&mut self) -> Result<Vec<(Expr, Expr)>, Fault> {
        let mut entries = Vec::new();
        while !self.eat("}") {
            if !entries.is_empty() {
                if !self.eat(",") {
                    return Err(self.fault(format!("expected `,` or `}}`, found {}", self.peek().describe())));
                }
                if self.eat("}") {
                    break;
                }
            }
            let key = self.expression()?;
            self.expect(":")?;
            entries.push((key, self.expression()?));
        }
        Ok(entries)
    }

    fn name(&mut self, at: At, rooted: bool) -> Result<Expr, Fault> {
        let wrong = |message: String| Fault::new(FaultKind::Syntax, at, message);
        let name = match self.take() {
            Token::Name(name) => name,
            other => return Err(wrong(format!("expected a name, found {}", other.describe()))),
        };
        let constant = match name.as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            "null" => Some(Value::Null),
            "in" => return Err(wrong("expected a value, found `in`".into())),
            word if RESERVED.contains(&word) => return Err(wrong(format!("`{word}` is a reserved word"))),
            _ => None,
        };
        if let Some(value) = constant.filter(|_| !rooted) {
            return self.built(at, Kind::Constant(value));
        }
        if self.eat("(") {
            let args = self.list(")")?;
            return self.built(at, Kind::Call { of: None, name, args });
        }
        self.built(at, Kind::Name { name, rooted })
    }
}
