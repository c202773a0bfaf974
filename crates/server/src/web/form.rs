//! Forms: fields with what was typed in them and what is wrong with it.
//!
//! A form is built, filled and checked by the server, and shown again with everything that was typed when something is
//! wrong; only what was typed into a secret field is not sent back. A name that is no field of the form is refused.

use askama::Template;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::fmt;
use super::page::{PageError, Shell, html};

/// How a field is shown.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text,
    /// A whole number from 0.
    Number,
    /// A date with a time, to the minute.
    Moment,
    /// What is typed is not shown, nor sent back.
    Secret,
    Lines(usize),
    /// Many lines that are not sent back.
    SecretLines(usize),
    Check,
    /// Values, each with its words.
    Choice(Vec<(String, String)>),
}

/// A field with what is in it.
#[derive(Debug, Clone)]
pub struct Field {
    pub name: &'static str,
    pub label: &'static str,
    pub hint: String,
    pub kind: Kind,
    pub text: String,
    pub required: bool,
    /// Shown, and not to be changed.
    pub fixed: bool,
    pub placeholder: &'static str,
    /// What may be typed, as suggestions.
    pub suggestions: Vec<String>,
    /// Holds a JSON object, which the browser checks before it sends it.
    pub json: bool,
    pub error: Option<String>,
}

impl Field {
    pub fn new(name: &'static str, label: &'static str, kind: Kind) -> Field {
        Field {
            name,
            label,
            hint: String::new(),
            kind,
            text: String::new(),
            required: false,
            fixed: false,
            placeholder: "",
            suggestions: Vec::new(),
            json: false,
            error: None,
        }
    }

    pub fn text(name: &'static str, label: &'static str) -> Field {
        Field::new(name, label, Kind::Text)
    }

    pub fn required(mut self) -> Field {
        self.required = true;
        self
    }

    pub fn fixed(mut self) -> Field {
        self.fixed = true;
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Field {
        self.hint = hint.into();
        self
    }

    pub fn with(mut self, text: impl Into<String>) -> Field {
        self.text = text.into();
        self
    }

    pub fn example(mut self, text: &'static str) -> Field {
        self.placeholder = text;
        self
    }

    pub fn suggest(mut self, texts: Vec<String>) -> Field {
        self.suggestions = texts;
        self
    }

    pub fn json(mut self) -> Field {
        self.json = true;
        self
    }

    pub fn is_checked(&self) -> bool {
        !self.text.is_empty()
    }

    /// What the browser is given to show.
    pub fn shown(&self) -> &str {
        if matches!(self.kind, Kind::Secret | Kind::SecretLines(_)) { "" } else { &self.text }
    }

    fn take(&mut self, typed: &Typed) {
        let text = typed.text(self.name).replace("\r\n", "\n");
        self.text = match self.kind {
            Kind::Secret | Kind::Lines(_) | Kind::SecretLines(_) => text,
            _ => text.trim().to_owned(),
        };
        if self.required && self.text.trim().is_empty() {
            self.error = Some("this is needed".to_owned());
        }
        match &self.kind {
            Kind::Choice(options) if !options.iter().any(|(value, _)| *value == self.text) => {
                self.error = Some("choose one of these".to_owned());
            }
            Kind::Number if !self.text.is_empty() && self.text.parse::<u32>().is_err() => {
                self.error = Some(format!("must be a whole number from 0, found `{}`", self.text));
            }
            _ => {}
        }
    }
}

/// What a browser sent: names and texts, in order.
#[derive(Debug, Default)]
pub struct Typed(Vec<(String, String)>);

impl Typed {
    /// The text of a name; empty if it was not sent.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, text)| text)
    }

    /// Every text of a name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(key, _)| key == name).map(|(_, text)| text.as_str()).collect()
    }

    /// What texts were sent for, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// The text of a name that is no field, such as a button's; it is not seen again.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(at).1)
    }

    /// Refuses names besides these.
    pub fn only(&self, names: &[&str]) -> Result<(), PageError> {
        match self.0.iter().find(|(key, _)| !names.contains(&key.as_str())) {
            Some((key, _)) => Err(unknown(key)),
            None => Ok(()),
        }
    }
}

fn unknown(name: &str) -> PageError {
    let name: String = name.chars().take(100).collect();
    PageError::new(StatusCode::UNPROCESSABLE_ENTITY, format!("`{name}` is not a field of this form"))
}

impl<S: Send + Sync> FromRequest<S> for Typed {
    type Rejection = PageError;

    async fn from_request(request: Request, state: &S) -> Result<Self, PageError> {
        match axum::Form::<Vec<(String, String)>>::from_request(request, state).await {
            Ok(axum::Form(pairs)) => Ok(Typed(pairs)),
            Err(rejection) => Err(PageError::new(rejection.status(), rejection.body_text())),
        }
    }
}

/// The fields of a form, and what is wrong with none of them in particular.
#[derive(Debug, Default)]
pub struct Form {
    pub fields: Vec<Field>,
    pub error: Option<String>,
    /// A second button: the name that it sends, and its words.
    pub also: Option<(&'static str, &'static str)>,
}

impl Form {
    pub fn new(fields: Vec<Field>) -> Form {
        Form { fields, error: None, also: None }
    }

    /// The form of something that is there: its texts in the order of the fields, and its name, which is first, fixed.
    pub fn filled<const N: usize>(mut fields: Vec<Field>, texts: [String; N]) -> Form {
        for (field, text) in fields.iter_mut().zip(texts) {
            field.text = text;
        }
        if let Some(name) = fields.first_mut() {
            name.fixed = true;
        }
        Form::new(fields)
    }

    /// Takes what was typed; what is missing or no number is noted at its field.
    pub fn fill(&mut self, typed: &Typed) -> Result<(), PageError> {
        if let Some((key, _)) = typed.0.iter().find(|(key, _)| !self.fields.iter().any(|field| field.name == key)) {
            return Err(unknown(key));
        }
        self.fields.iter_mut().filter(|field| !field.fixed).for_each(|field| field.take(typed));
        Ok(())
    }

    /// What a field holds.
    pub fn text(&self, name: &str) -> &str {
        self.fields.iter().find(|field| field.name == name).map_or("", |field| &field.text)
    }

    pub fn is_checked(&self, name: &str) -> bool {
        !self.text(name).is_empty()
    }

    /// Notes what is wrong with a field, or with the whole if it has no such field.
    pub fn wrong(&mut self, name: &str, error: impl Into<String>) {
        match self.fields.iter_mut().find(|field| field.name == name) {
            Some(field) => field.error = Some(error.into()),
            None => self.error = Some(error.into()),
        }
    }

    /// The value of a field that is neither empty nor wrong already; what is wrong is noted at it.
    pub fn parse<T, E: std::fmt::Display>(&mut self, name: &str, read: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let field = self.fields.iter().find(|field| field.name == name && field.error.is_none())?;
        if field.text.is_empty() {
            return None;
        }
        match read(&field.text) {
            Ok(value) => Some(value),
            Err(error) => {
                let error = error.to_string();
                self.wrong(name, error);
                None
            }
        }
    }

    pub fn is_wrong(&self) -> bool {
        self.error.is_some() || self.fields.iter().any(|field| field.error.is_some())
    }
}

/// What to do with what is there when something of the same name is imported.
pub fn existing(what: &str) -> Field {
    let words = [("overwrite", "overwrite it"), ("skip", "keep it as it is"), ("fail", "import nothing")];
    let words = words.map(|(value, word)| (value.to_owned(), word.to_owned()));
    let hint = format!("when there is a {what} of the same name");
    Field::new("existing", "What is there already", Kind::Choice(words.into())).hint(hint).with("overwrite")
}

/// The entries of a document that is imported.
pub fn imported_json(text: &str) -> Result<Map<String, Value>, String> {
    // The parser's own message could hold a part of a secret.
    let place = |error: serde_json::Error| format!("is not JSON (line {}, column {})", error.line(), error.column());
    match serde_json::from_str(text).map_err(place)? {
        Value::Object(entries) if entries.keys().any(|key| key.trim().is_empty()) => Err("a name is empty".to_owned()),
        Value::Object(entries) => Ok(entries),
        _ => Err("must be a JSON object of names with what they stand for".to_owned()),
    }
}

/// A page with one form on it.
#[derive(Template)]
#[template(path = "form.html")]
pub struct FormPage {
    pub shell: Shell,
    /// The page above this one: its address and its name.
    pub above: (&'static str, &'static str),
    pub lead: &'static str,
    /// Where the form goes.
    pub action: String,
    pub form: Form,
    /// The word on the button.
    pub submit: &'static str,
    /// What is shown under the form, as HTML.
    pub below: String,
}

impl FormPage {
    pub fn response(self) -> Response {
        html(self)
    }

    /// The form once more, with what is wrong.
    pub fn refused(self) -> Response {
        let mut response = html(self);
        *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
        response
    }
}
