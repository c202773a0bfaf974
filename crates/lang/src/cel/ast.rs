//! An expression as it was written.

use super::fault::At;
use super::value::Value;

#[derive(Debug, Clone)]
pub(crate) struct Expr {
    pub at: At,
    pub kind: Kind,
    /// How many levels of expressions are in it; evaluating takes as much of the stack.
    pub height: usize,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Constant(Value),
    /// `name`, or `.name`, which no variable of a macro hides.
    Name {
        name: String,
        rooted: bool,
    },
    Select {
        of: Box<Expr>,
        field: String,
    },
    /// `name(…)` or `of.name(…)`; operators are calls of `_+_` and so on.
    Call {
        of: Option<Box<Expr>>,
        name: String,
        args: Vec<Expr>,
    },
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    /// Flat, so that a long row of them is not deep.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    If(Box<[Expr; 3]>),
}

impl Expr {
    pub fn new(at: At, kind: Kind) -> Expr {
        let highest = |of: &[Expr]| of.iter().map(|e| e.height).max().unwrap_or(0);
        let height = 1 + match &kind {
            Kind::Constant(_) | Kind::Name { .. } => 0,
            Kind::Select { of, .. } => of.height,
            Kind::Call { of, args, .. } => of.as_ref().map_or(0, |of| of.height).max(highest(args)),
            Kind::List(items) | Kind::And(items) | Kind::Or(items) => highest(items),
            Kind::Map(entries) => entries.iter().map(|(k, v)| k.height.max(v.height)).max().unwrap_or(0),
            Kind::If(parts) => highest(&parts[..]),
        };
        Expr { at, kind, height }
    }
}
