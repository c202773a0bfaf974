//! What a template asks for, found without rendering it: its references with their places, and what cannot work.
//!
//! The parser's tree is minijinja's unstable interface; all use of it is in this folder.

use std::collections::HashMap;
use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Stmt};
use minijinja::machinery::{Token, parse, tokenize};

use super::environment::{range, syntax};
use super::filters::{FILTERS, FUNCTIONS, TESTS};
use super::names::{self, Rewritten};
use crate::diagnostic::did_you_mean;

/// A template that can be compiled.
#[derive(Debug, Clone)]
pub struct Analysis {
    /// The source to compile.
    pub text: String,
    /// The expression, if the text is nothing else.
    pub whole: Option<String>,
    pub references: Vec<Reference>,
    pub complaints: Vec<Complaint>,
}

/// A name from outside the template, as far as its path can be read: `tasks.a.outputs.x`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub path: Vec<String>,
    /// Goes on with a subscript that is only known at run time.
    pub open: bool,
    /// In the text as it was written, in bytes.
    pub range: Range<usize>,
}

/// Something in a template that cannot work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    pub range: Range<usize>,
    pub message: String,
    pub hint: Option<String>,
}

/// Operators, dots and brackets of one expression, and `elif`s of one template.
const MAX_STEPS: usize = 250;
/// Copies of its input that a template may hold at once, as far as that can be estimated.
const MAX_GROWTH: f64 = 4_096.0;
/// What a loop is taken to multiply by.
const LOOP_GROWTH: f64 = 100.0;

/// Reads a template. The error is one complaint: it is no template at all.
pub fn analyse(source: &str) -> Result<Analysis, Complaint> {
    if let Some(complaint) = too_deep(source) {
        return Err(complaint);
    }
    let rewritten = names::rewrite(source);
    let tree = match parse(&rewritten.text, "template", syntax()) {
        Ok(tree) => tree,
        Err(error) => return Err(not_a_template(&error, &rewritten, source)),
    };
    let whole = whole(&tree, &rewritten.text);
    let mut walk = Walk { scopes: vec![HashMap::new()], references: Vec::new(), complaints: Vec::new() };
    walk.statement(&tree);
    let Walk { mut references, mut complaints, .. } = walk;
    drop(tree);
    for reference in &mut references {
        reference.range = rewritten.original(reference.range.clone());
    }
    for complaint in &mut complaints {
        complaint.range = rewritten.original(complaint.range.clone());
    }
    Ok(Analysis { text: rewritten.text, whole, references, complaints })
}

/// Refuses what would become a tree so deep that walking it could overflow the stack: chains of operators, paths and
/// alternatives. (Nested brackets and blocks are bounded by the parser itself.)
fn too_deep(source: &str) -> Option<Complaint> {
    let (mut steps, mut alternatives) = (0, 0);
    for (token, span) in tokenize(source, false, syntax()).map_while(Result::ok) {
        match token {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => steps = 0,
            Token::Comma | Token::Colon | Token::Str(_) | Token::String(_) | Token::Int(_) | Token::Float(_) => {}
            Token::Ident("elif") => alternatives += 1,
            Token::Ident(word) if !matches!(word, "not" | "and" | "or" | "if" | "else" | "is" | "in") => {}
            _ => steps += 1,
        }
        if steps > MAX_STEPS || alternatives > MAX_STEPS {
            let hint = "work the value out in a script, and hand it on as an output";
            let message = "this template is too long".to_owned();
            return Some(Complaint { range: range(span), message, hint: Some(hint.into()) });
        }
    }
    None
}

fn not_a_template(error: &minijinja::Error, rewritten: &Rewritten, source: &str) -> Complaint {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let range = error.range().map_or(0..source.len().min(2), |range| rewritten.original(range));
    let around = source.get(range.start.saturating_sub(3)..).unwrap_or(source);
    let hint = if around.starts_with("{{.")
        || source.contains("{{.")
        || source.contains("{{ .")
        || source.contains("{%s")
    {
        "to keep braces as they are, write `{% raw %}{{ … }}{% endraw %}`"
    } else {
        "templates are Jinja: `{{ expression }}`, `{% if … %}…{% endif %}`; keep braces as they are with `{% raw %}…{% endraw %}`"
    };
    Complaint { range, message: format!("this template cannot be read: {detail}"), hint: Some(hint.into()) }
}

/// The expression of a template that is one expression and nothing else.
fn whole(tree: &Stmt<'_>, text: &str) -> Option<String> {
    let Stmt::Template(template) = tree else { return None };
    let mut expressions = 0;
    for child in &template.children {
        match child {
            Stmt::EmitExpr(_) => expressions += 1,
            Stmt::EmitRaw(raw) if raw.raw.trim().is_empty() => {}
            _ => return None,
        }
    }
    let inner = text.trim().strip_prefix("{{")?.strip_suffix("}}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    (expressions == 1).then(|| inner.trim().to_owned())
}

struct Walk<'a> {
    /// Names that the template itself gives, with an estimate of their size.
    scopes: Vec<HashMap<&'a str, f64>>,
    references: Vec<Reference>,
    complaints: Vec<Complaint>,
}

impl<'a> Walk<'a> {
    fn complain(&mut self, range: Range<usize>, message: String, hint: Option<String>) {
        self.complaints.push(Complaint { range, message, hint });
    }

    fn grown(&mut self, size: f64, at: Range<usize>) -> f64 {
        if size > MAX_GROWTH {
            let hint = "a template fills in values; to make long texts use a script";
            self.complain(at, "this template makes its text grow too much".into(), Some(hint.into()));
            return 1.0;
        }
        size
    }

    fn block(&mut self, body: &'a [Stmt<'a>]) -> f64 {
        self.scopes.push(HashMap::new());
        let size = body.iter().map(|stmt| self.statement(stmt)).sum();
        self.scopes.pop();
        size
    }

    fn assign(&mut self, target: &'a Expr<'a>, size: f64) {
        match target {
            Expr::Var(var) => {
                self.scopes.last_mut().expect("a scope is open").insert(var.id, size);
            }
            Expr::List(list) => list.items.iter().for_each(|item| self.assign(item, size)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.assign(item, size)),
            other => {
                self.expression(other);
            }
        }
    }

    /// Walks a statement; gives an estimate of what it prints.
    fn statement(&mut self, stmt: &'a Stmt<'a>) -> f64 {
        match stmt {
            Stmt::Template(t) => t.children.iter().map(|child| self.statement(child)).sum(),
            Stmt::EmitExpr(e) => self.expression(&e.expr),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => 0.0,
            Stmt::ForLoop(l) => {
                let items = self.expression(&l.iter);
                if l.recursive {
                    self.complain(range(l.span()), "a recursive loop is not supported here".into(), None);
                }
                self.scopes.push(HashMap::from([("loop", 1.0)]));
                self.assign(&l.target, items);
                if let Some(filter) = &l.filter_expr {
                    self.expression(filter);
                }
                let body = self.block(&l.body);
                self.scopes.pop();
                let other = self.block(&l.else_body);
                self.grown(body * LOOP_GROWTH, range(l.span())).max(other)
            }
            Stmt::IfCond(c) => {
                self.expression(&c.expr);
                let yes = self.block(&c.true_body);
                yes.max(self.block(&c.false_body))
            }
            Stmt::WithBlock(w) => {
                self.scopes.push(HashMap::new());
                for (target, expr) in &w.assignments {
                    let size = self.expression(expr);
                    self.assign(target, size);
                }
                let size = self.block(&w.body);
                self.scopes.pop();
                size
            }
            Stmt::Set(s) => {
                let size = self.expression(&s.expr);
                self.assign(&s.target, size);
                0.0
            }
            Stmt::SetBlock(s) => {
                let size = self.block(&s.body);
                if let Some(filter) = &s.filter {
                    self.expression(filter);
                }
                self.assign(&s.target, size);
                0.0
            }
            Stmt::FilterBlock(f) => {
                self.expression(&f.filter);
                self.block(&f.body)
            }
            Stmt::AutoEscape(s) => self.unsupported("autoescape", range(s.span())),
            Stmt::Block(s) => self.unsupported("block", range(s.span())),
            Stmt::Import(s) => self.unsupported("import", range(s.span())),
            Stmt::FromImport(s) => self.unsupported("from", range(s.span())),
            Stmt::Extends(s) => self.unsupported("extends", range(s.span())),
            Stmt::Include(s) => self.unsupported("include", range(s.span())),
            Stmt::Macro(s) => self.unsupported("macro", range(s.span())),
            Stmt::CallBlock(s) => self.unsupported("call", range(s.span())),
            Stmt::Do(s) => self.unsupported("do", range(s.span())),
        }
    }

    fn unsupported(&mut self, word: &str, at: Range<usize>) -> f64 {
        let hint = "use `if`, `for`, `set`, `with`, `filter` and `raw`";
        self.complain(at, format!("`{{% {word} %}}` is not supported here"), Some(hint.into()));
        0.0
    }

    /// Walks an expression; gives an estimate of its size.
    fn expression(&mut self, expr: &'a Expr<'a>) -> f64 {
        let at = range(expr.span());
        match expr {
            Expr::Const(_) => 0.1,
            Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => self.path(expr),
            Expr::UnaryOp(u) => self.expression(&u.expr),
            Expr::BinOp(b) => {
                let (left, right) = (self.expression(&b.left), self.expression(&b.right));
                match b.op {
                    BinOpKind::Add | BinOpKind::Concat => self.grown(left + right, at),
                    BinOpKind::Mul => {
                        let factor = |side: &Expr<'_>| match side {
                            Expr::Const(c) if c.value.is_number() => {
                                f64::try_from(c.value.clone()).unwrap_or(1.0).abs()
                            }
                            _ => 30.0,
                        };
                        let texts = is_text(&b.left) || is_text(&b.right);
                        let by = if texts { factor(&b.left).max(factor(&b.right)) } else { 1.0 };
                        self.grown(left.max(right) * by, at)
                    }
                    _ => left.max(right),
                }
            }
            Expr::Compare(c) => {
                self.expression(&c.expr);
                for op in &c.ops {
                    self.expression(&op.expr);
                }
                0.1
            }
            Expr::IfExpr(i) => {
                self.expression(&i.test_expr);
                let other = i.false_expr.as_ref().map_or(0.0, |e| self.expression(e));
                self.expression(&i.true_expr).max(other)
            }
            Expr::Slice(s) => {
                for part in [&s.start, &s.stop, &s.step].into_iter().flatten() {
                    self.expression(part);
                }
                self.expression(&s.expr)
            }
            Expr::Filter(f) => {
                let base = f.expr.as_ref().map_or(1.0, |e| self.expression(e));
                let arguments = self.arguments(&f.args);
                self.known(f.name, FILTERS, "filter", at.clone());
                match f.name {
                    "replace" | "join" | "format" => self.grown(base * (1.0 + arguments), at),
                    "indent" | "batch" | "slice" => self.grown(base * 4.0, at),
                    _ => base + arguments,
                }
            }
            Expr::Test(t) => {
                self.expression(&t.expr);
                self.arguments(&t.args);
                self.known(t.name, TESTS, "test", at);
                0.1
            }
            Expr::Call(c) => self.call(c, at),
            Expr::List(l) => l.items.iter().map(|item| self.expression(item)).sum(),
            Expr::Tuple(t) => t.items.iter().map(|item| self.expression(item)).sum(),
            Expr::Map(m) => m.keys.iter().chain(&m.values).map(|item| self.expression(item)).sum(),
        }
    }

    fn call(&mut self, call: &'a Call<'a>, at: Range<usize>) -> f64 {
        let arguments = self.arguments(&call.args);
        match &call.expr {
            Expr::Var(var) if !self.is_own(var.id) => {
                if FUNCTIONS.contains(&var.id) {
                    return 1.0;
                }
                let hint = did_you_mean(var.id, FUNCTIONS.iter().copied());
                self.complain(at, format!("unknown function `{}`", var.id), hint);
                1.0
            }
            // A method: what it is called on is what is asked for.
            Expr::GetAttr(method) => self.expression(&method.expr) * (1.0 + arguments),
            other => self.expression(other),
        }
    }

    fn arguments(&mut self, arguments: &'a [CallArg<'a>]) -> f64 {
        arguments
            .iter()
            .map(|argument| match argument {
                CallArg::Pos(e) | CallArg::Kwarg(_, e) | CallArg::PosSplat(e) | CallArg::KwargSplat(e) => {
                    self.expression(e)
                }
            })
            .sum()
    }

    fn known(&mut self, name: &str, names: &[&str], what: &str, at: Range<usize>) {
        if !names.contains(&name) {
            let hint = did_you_mean(name, names.iter().copied());
            self.complain(at, format!("unknown {what} `{name}`"), hint);
        }
    }

    fn is_own(&self, name: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains_key(name))
    }

    /// A chain of `.name` and `['name']`, down to the variable it begins with.
    fn path(&mut self, expr: &'a Expr<'a>) -> f64 {
        let mut path = Vec::new();
        let mut open = false;
        let mut at = expr;
        let root = loop {
            match at {
                Expr::Var(var) => break var,
                Expr::GetAttr(get) => {
                    path.push(get.name.to_owned());
                    at = &get.expr;
                }
                Expr::GetItem(get) => {
                    match &get.subscript_expr {
                        Expr::Const(c) => path.push(c.value.to_string()),
                        dynamic => {
                            self.expression(dynamic);
                            // What follows an unknown part is unknown too.
                            path.clear();
                            open = true;
                        }
                    }
                    at = &get.expr;
                }
                other => return self.expression(other),
            }
        };
        if let Some(size) = self.scopes.iter().rev().find_map(|scope| scope.get(root.id)) {
            return *size;
        }
        path.push(root.id.to_owned());
        path.reverse();
        let start = root.span().start_offset as usize;
        let end = expr.span().end_offset as usize;
        self.references.push(Reference { path, open, range: start..end.max(start) });
        1.0
    }
}

fn is_text(expr: &Expr<'_>) -> bool {
    match expr {
        Expr::Const(c) => !c.value.is_number(),
        Expr::List(_) | Expr::Tuple(_) | Expr::Filter(_) => true,
        Expr::BinOp(b) => matches!(b.op, BinOpKind::Concat) || is_text(&b.left) || is_text(&b.right),
        Expr::Var(_) | Expr::GetAttr(_) | Expr::GetItem(_) => true,
        _ => false,
    }
}
