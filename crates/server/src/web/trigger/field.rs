//! One param as a field of the trigger form: filled with a value, read back from what was typed, and told what is wrong
//! with it. A list is a field of many items; an object is a group of fields, one for each property that it declares.
//!
//! The name of a field is `param.` and the way to its value as a JSON pointer. Filling and reading agree: a field that
//! nobody touches gives back the value that it was filled with.

use askama::Template;
use pitcrew_core::ir::Param;
use pitcrew_lang::{ParamError, from_text};
use serde_json::{Map, Value, json};

use super::input::{self, Choice, Control};
use crate::web::fmt;
use crate::web::form::Typed;

/// The names of the fields begin so, to keep params apart from the form's own fields.
const PREFIX: &str = "param.";
/// Objects inside objects as groups of fields; deeper ones are typed as JSON.
const MAX_DEPTH: usize = 3;
/// Items that are shown as a row each; longer lists are typed as lines.
const MAX_ROWS: usize = 200;

/// How a field is shown.
pub enum Input {
    One(Control),
    /// Some of these, each once.
    Some(Vec<Choice>),
    /// One item per line, or a JSON list. `rows` holds the items as the control of `item` shows them, if it can.
    List {
        item: Box<Field>,
        rows: Option<Vec<String>>,
    },
    /// `rest` takes the entries that the schema does not name, as a JSON object.
    Group {
        fields: Vec<Field>,
        rest: Box<Field>,
        is_open: bool,
    },
}

/// What is wrong, and with which item of a list.
#[derive(PartialEq)]
pub struct Wrong {
    pub item: Option<usize>,
    pub text: String,
}

/// A field with what is in it.
#[derive(Template)]
#[template(path = "trigger_field.html")]
pub struct Field {
    name: String,
    /// What messages call the value: `options.depth`.
    path: String,
    /// The last part of the path.
    key: String,
    label: String,
    help: String,
    /// A few words on what is expected.
    about: String,
    required: bool,
    input: Input,
    attributes: Vec<(&'static str, String)>,
    /// As the browser shows it; the texts of a choice and of a group are in their parts.
    text: String,
    wrong: Vec<Wrong>,
    schema: Value,
    depth: usize,
}

impl Field {
    /// The field of a param, filled with a value.
    pub fn new(param: &Param, value: Option<&Value>) -> Field {
        let name = format!("{PREFIX}{}", param.name);
        let mut schema = param.schema.clone();
        if let (Some(items), Value::Object(schema)) = (input::items_of(param.default.as_ref()), &mut schema) {
            schema.entry("items").or_insert(items);
        }
        let default = param.default.as_ref();
        let mut field = Field::part(name, param.name.clone(), &param.name, &schema, value, default.is_none(), 0);
        if let (Some(default), false) = (default, input::accepts_text(&schema)) {
            field.attributes.push(("placeholder", input::text_of(&schema, default)));
        }
        field
    }

    fn part(
        name: String,
        path: String,
        key: &str,
        schema: &Value,
        value: Option<&Value>,
        required: bool,
        depth: usize,
    ) -> Field {
        let word = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let label = Some(word("title")).filter(|title| !title.is_empty()).unwrap_or_else(|| key.to_owned());
        let mut field = Field {
            name,
            path,
            key: key.to_owned(),
            label,
            help: word("description"),
            about: input::about(schema),
            required,
            input: Input::One(Control::Checkbox),
            attributes: input::attributes(schema),
            text: String::new(),
            wrong: Vec::new(),
            schema: schema.clone(),
            depth,
        };
        field.input = field.shape(value);
        field.text = match (&field.input, value) {
            (Input::List { .. }, Some(value)) => field.lines(value),
            (_, Some(value)) => input::text_of(schema, value),
            (_, None) => String::new(),
        };
        field
    }

    /// How the field is shown, filled with a value.
    fn shape(&self, value: Option<&Value>) -> Input {
        let schema = &self.schema;
        match (input::types(schema).as_slice(), value) {
            (["array"], None | Some(Value::Array(_))) if !input::is_nullable(schema) => {
                if let Some(list) = self.list(value) {
                    return list;
                }
            }
            (["object"], None | Some(Value::Object(_))) if !input::is_nullable(schema) => {
                if let Some(group) = self.group(value) {
                    return group;
                }
            }
            _ => {}
        }
        let in_group = self.depth > 0;
        let blank = match (self.required, in_group) {
            (true, _) => Some("choose…"),
            (false, true) => Some("not given"),
            (false, false) => None,
        };
        Input::One(input::control(schema, value, self.required || !in_group, blank))
    }

    fn list(&self, value: Option<&Value>) -> Option<Input> {
        let items = self.schema.get("items")?;
        if let (Some(options), Some(Value::Bool(true))) = (items.get("enum"), self.schema.get("uniqueItems")) {
            let is_chosen = |one: &Value| value.and_then(Value::as_array).is_some_and(|values| values.contains(one));
            return Some(Input::Some(input::choices(options.as_array()?, is_chosen)));
        }
        let item = Field::part(String::new(), String::new(), &self.label, items, None, true, MAX_DEPTH);
        let fits = matches!(item.input, Input::One(Control::Line { .. } | Control::Select { .. }));
        if !fits || input::is_nullable(items) {
            return None;
        }
        let rows = value.map_or_else(|| Some(Vec::new()), |value| item.rows(value));
        Some(Input::List { item: Box::new(item), rows })
    }

    /// How the control of an item shows each of a list; none if it cannot.
    fn rows(&self, values: &Value) -> Option<Vec<String>> {
        let values = values.as_array().filter(|values| values.len() <= MAX_ROWS)?;
        values.iter().map(|value| self.row(value)).collect()
    }

    fn row(&self, value: &Value) -> Option<String> {
        if let Input::One(Control::Select { choices, .. }) = &self.input {
            let value = value.to_string();
            return choices.iter().any(|choice| choice.value == value).then_some(value);
        }
        let text = input::text_of(&self.schema, value);
        let is_same = from_text("", &self.schema, &text).as_ref() == Ok(value);
        (is_same && !text.trim().is_empty() && !text.contains('\n')).then_some(text)
    }

    /// A list as a text: a line for each item, where they are the same list.
    fn lines(&self, value: &Value) -> String {
        let Some(values) = value.as_array() else { return input::json_text(value) };
        let lines: Vec<String> = values.iter().map(input::word).collect();
        let lines = lines.join("\n");
        let is_left_out = lines.is_empty() && self.is_left_out_when_empty();
        if !is_left_out && self.items(&lines).as_ref().ok() == Some(value) { lines } else { input::json_text(value) }
    }

    /// A typed list as a value, or what is wrong with it.
    fn items(&self, text: &str) -> Result<Value, Vec<Wrong>> {
        if text.trim_start().starts_with('[') {
            return serde_json::from_str(text).map_err(|error| {
                let place = format!("line {}, column {}", error.line(), error.column());
                let text = format!(
                    "the param `{}` must be one item per line or a JSON list; it is no JSON ({place})",
                    self.path
                );
                vec![Wrong { item: None, text }]
            });
        }
        let schema = self.schema.get("items").unwrap_or(&Value::Null);
        let (mut items, mut wrong) = (Vec::new(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let at = items.len() + wrong.len();
            match from_text(&format!("{}[{at}]", self.path), schema, line) {
                Ok(item) => items.push(item),
                Err(text) => wrong.push(Wrong { item: Some(at), text }),
            }
        }
        if wrong.is_empty() { Ok(Value::Array(items)) } else { Err(wrong) }
    }

    fn group(&self, value: Option<&Value>) -> Option<Input> {
        let properties = self.schema.get("properties")?.as_object()?;
        if properties.is_empty() || self.depth >= MAX_DEPTH {
            return None;
        }
        let needed = self.schema.get("required").and_then(Value::as_array);
        let fields = properties.iter().map(|(key, schema)| {
            let name = format!("{}/{}", self.name, key.replace('~', "~0").replace('/', "~1"));
            // What may be left out as a whole cannot insist on its parts.
            let is_there = self.depth == 0 || self.required;
            let required = is_there && needed.is_some_and(|needed| needed.iter().any(|one| one == key));
            // The defaults of properties are suggestions for an object that nothing is known of.
            let value = value.map_or_else(|| schema.get("default"), |value| value.get(key));
            Field::part(name, format!("{}.{key}", self.path), key, schema, value, required, self.depth + 1)
        });
        let other: Map<String, Value> = value.and_then(Value::as_object).map_or_else(Map::new, |value| {
            value
                .iter()
                .filter(|(key, _)| !properties.contains_key(*key))
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect()
        });
        let other = (!other.is_empty()).then_some(Value::Object(other));
        let schema = json!({"type": "object", "title": "Other entries"});
        let rest = Field::part(self.name.clone(), self.path.clone(), "", &schema, other.as_ref(), false, MAX_DEPTH);
        let is_open = ["additionalProperties", "patternProperties"]
            .iter()
            .any(|key| self.schema.get(*key).is_some_and(|allowed| *allowed != false));
        Some(Input::Group { fields: fields.collect(), rest: Box::new(rest), is_open })
    }

    /// What was typed, as a value; `None` leaves the param to its default, and a property out.
    pub fn read(&mut self, typed: &Typed) -> Option<Value> {
        let texts = typed.all(&self.name);
        match &mut self.input {
            Input::Group { fields, rest, .. } => {
                let mut entries = match rest.read(typed) {
                    Some(Value::Object(entries)) => entries,
                    _ => Map::new(),
                };
                for field in fields {
                    entries.extend(field.read(typed).map(|value| (field.key.clone(), value)));
                }
                let is_left_out = entries.is_empty() && self.depth > 0 && !self.required;
                return (!is_left_out).then_some(Value::Object(entries));
            }
            Input::Some(choices) => {
                choices.iter_mut().for_each(|choice| choice.chosen = texts.contains(&choice.value.as_str()));
                let values = texts.iter().map(|text| serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
                let is_left_out = texts.is_empty() && self.depth > 0 && !self.required;
                return (!is_left_out).then(|| Value::Array(values.collect()));
            }
            Input::One(Control::Select { choices, .. }) => {
                let text = texts.first().copied().unwrap_or_default();
                choices.iter_mut().for_each(|choice| choice.chosen = choice.value == text);
                // What is no choice is refused with the schema's words.
                let value = || serde_json::from_str(text).unwrap_or_else(|_| json!(text));
                return (!text.is_empty()).then(value).or_else(|| self.nothing(!texts.is_empty()));
            }
            Input::One(Control::Checkbox) => {
                self.text = (!texts.is_empty()).to_string();
                return Some(Value::Bool(!texts.is_empty()));
            }
            Input::One(_) | Input::List { .. } => {}
        }
        // Browsers send line breaks of their own kind.
        let is_sent = !texts.is_empty();
        self.text = texts.first().copied().unwrap_or_default().replace("\r\n", "\n");
        if let Input::List { item, .. } = &self.input {
            if !is_sent || (self.is_left_out_when_empty() && self.text.trim().is_empty()) {
                return None;
            }
            let read = self.items(&self.text);
            let shown = read.as_ref().ok().and_then(|value| item.rows(value));
            if let Input::List { rows, .. } = &mut self.input {
                *rows = shown;
            }
            return read.map_err(|wrong| self.wrong.extend(wrong)).ok();
        }
        if self.text.is_empty() {
            let is_text = is_sent && !self.required && self.depth == 0 && input::accepts_text(&self.schema);
            return self.nothing(is_sent).or(is_text.then(|| Value::String(String::new())));
        }
        match from_text(&self.path, &self.schema, &self.text) {
            Ok(value) => Some(value),
            Err(text) => {
                self.add(Wrong { item: None, text });
                None
            }
        }
    }

    /// What an empty control of a value that may be null stands for.
    fn nothing(&self, is_sent: bool) -> Option<Value> {
        let is_null = is_sent && input::is_nullable(&self.schema) && (self.required || self.depth == 0);
        is_null.then_some(Value::Null)
    }

    /// An empty list is told from none where both may be.
    fn is_left_out_when_empty(&self) -> bool {
        self.required || self.depth > 0
    }

    /// Notes what is wrong at the part that it is wrong with.
    pub fn refuse(&mut self, error: &ParamError) {
        self.refuse_at(&error.path, &error.to_string());
    }

    fn refuse_at(&mut self, path: &[String], text: &str) {
        if let (Input::Group { fields, rest, .. }, Some((key, path))) = (&mut self.input, path.split_first()) {
            return match fields.iter_mut().find(|field| field.key == *key) {
                Some(field) => field.refuse_at(path, text),
                None => rest.refuse_at(&[], text),
            };
        }
        let item = path.first().filter(|_| matches!(self.input, Input::List { .. })).and_then(|part| part.parse().ok());
        self.add(Wrong { item, text: text.to_owned() });
    }

    fn add(&mut self, wrong: Wrong) {
        if !self.wrong.contains(&wrong) {
            self.wrong.push(wrong);
        }
    }

    pub fn is_wrong(&self) -> bool {
        let inner = match &self.input {
            Input::Group { fields, rest, .. } => rest.is_wrong() || fields.iter().any(Field::is_wrong),
            _ => false,
        };
        inner || !self.wrong.is_empty()
    }

    /// Whether this is the field of that param.
    pub fn is_of(&self, param: &str) -> bool {
        self.depth == 0 && self.key == param
    }

    /// Whether a control has this name.
    pub fn has(&self, name: &str) -> bool {
        self.name == name || matches!(&self.input, Input::Group { fields, .. } if fields.iter().any(|f| f.has(name)))
    }

    /// Whether a browser may insist on a text: null is typed as none, and what is not ticked is given too.
    fn must(&self) -> bool {
        let is_ticked = matches!(self.input, Input::Some(_) | Input::One(Control::Checkbox));
        self.required && !is_ticked && !input::is_nullable(&self.schema)
    }

    /// The id of the control; ids hold no spaces.
    fn id(&self) -> String {
        self.name.replace('%', "%25").replace(char::is_whitespace, "%20")
    }

    fn json(&self, rows: &[String]) -> String {
        json!(rows).to_string()
    }

    fn is_select(&self) -> bool {
        matches!(self.input, Input::One(Control::Select { .. }))
    }

    fn is_number(&self) -> bool {
        matches!(self.input, Input::One(Control::Line { kind: "number", .. }))
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.schema.get(key).and_then(Value::as_u64)
    }

    fn is_unique(&self) -> bool {
        self.schema.get("uniqueItems") == Some(&Value::Bool(true))
    }
}
