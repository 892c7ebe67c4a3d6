//! YAML and JSON as `kubectl` reads them, with the line of every value: what is wrong in a manifest can be pointed at.
//!
//! Plain scalars mean what they mean to the API server's clients (YAML 1.1 as in go-yaml 2): `yes` is true, and `+31201234567`
//! without quotes is an integer. A document that can't be read doesn't hide those after it. What aliases expand to is bounded.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Map, Number, Value};

/// Values that one document may have once its aliases are expanded.
const MOST_VALUES: usize = 1_000_000;
/// How deep a document may go.
const DEEPEST: usize = 100;

/// A value and the line it begins on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Counted from 1.
    pub line: usize,
    /// What it is.
    pub content: Content,
}

/// What stands in a manifest.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text, a number, true, false or nothing.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// Fields in the order in which they stand, each with the line of its name.
    Map(Vec<(Field, Node)>),
}

/// The name of a field.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Counted from 1.
    pub line: usize,
    /// The name.
    pub name: String,
}

/// What keeps a document from being read.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and where in the line if that is known.
    pub message: String,
}

impl Node {
    /// The value without its lines.
    pub fn value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => items.iter().map(Self::value).collect(),
            Content::Map(fields) => {
                let fields = fields.iter().map(|(field, node)| (field.name.clone(), node.value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// The field of that name, if this is a map that has it.
    pub fn field(&self, name: &str) -> Option<(&Field, &Self)> {
        let Content::Map(fields) = &self.content else { return None };
        fields.iter().find(|(field, _)| field.name == name).map(|(field, node)| (field, node))
    }

    /// The text of a field.
    pub fn text(&self, name: &str) -> Option<&str> {
        match &self.field(name)?.1.content {
            Content::Scalar(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// The line of what the steps (names of fields, positions in lists) lead to, or of the last of them that is there.
    pub fn line_of<'a>(&self, steps: impl IntoIterator<Item = &'a str>) -> usize {
        let (mut node, mut line) = (self, self.line);
        for step in steps {
            let next = match &node.content {
                Content::Map(_) => node.field(step).map(|(field, node)| (field.line, node)),
                Content::List(items) => {
                    step.parse::<usize>().ok().and_then(|at| items.get(at)).map(|item| (item.line, item))
                }
                Content::Scalar(_) => None,
            };
            let Some(next) = next else { break };
            (line, node) = next;
        }
        line
    }
}

/// The documents of a stream in their order; those without content are left out.
pub fn documents(text: &str) -> Vec<Result<Node, YamlError>> {
    let mut parser = Parser::new_from_str(text);
    let mut documents = Vec::new();
    loop {
        match document(&mut parser) {
            Ok(None) => return documents,
            Ok(Some(Node { content: Content::Scalar(Value::Null), .. })) => {}
            Ok(Some(node)) => documents.push(Ok(node)),
            Err(error) => {
                documents.push(Err(error));
                if !matches!(parser.proceed_next_document(), Ok(true)) {
                    return documents;
                }
            }
        }
    }
}

/// The next document; `None` at the end of the stream.
fn document<'text>(
    parser: &mut Parser<'text, granit_parser::StrInput<'text>>,
) -> Result<Option<Node>, YamlError> {
    let mut builder = Builder::default();
    for next in parser.by_ref() {
        let (event, span) = next.map_err(|error| YamlError {
            line: error.marker().line(),
            message: format!("this is not YAML: {error}"),
        })?;
        let line = span.start.line();
        match event {
            Event::DocumentStart(..) => builder = Builder::default(),
            Event::DocumentEnd => return Ok(Some(builder.finished(line))),
            Event::StreamEnd => return Ok(None),
            Event::Alias(anchor) => builder.alias(anchor, line)?,
            Event::Scalar(text, style, anchor, tag) => {
                builder.scalar(Scalar { text: &text, style, tag: tag.as_deref() }, anchor, line)?;
            }
            Event::SequenceStart(_, anchor, _) => builder.open(Content::List(Vec::new()), anchor, line)?,
            Event::MappingStart(_, anchor, _) => builder.open(Content::Map(Vec::new()), anchor, line)?,
            Event::SequenceEnd | Event::MappingEnd => builder.close()?,
            _ => {}
        }
    }
    Ok(None)
}

/// Puts a document together.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    whole: Option<Node>,
    values: usize,
}

/// A list or a map that isn't closed yet.
struct Open {
    node: Node,
    anchor: usize,
    /// The name of the field whose value comes next.
    field: Option<Field>,
    /// Names of fields that were merged into it: they give way to what is written.
    merged: BTreeSet<String>,
}

/// A scalar as it is written.
struct Scalar<'a> {
    text: &'a str,
    style: ScalarStyle,
    tag: Option<&'a Tag>,
}

impl Builder {
    fn finished(self, line: usize) -> Node {
        self.whole.unwrap_or(Node { line, content: Content::Scalar(Value::Null) })
    }

    fn scalar(&mut self, scalar: Scalar<'_>, anchor: usize, line: usize) -> Result<(), YamlError> {
        if self.names_a_field() {
            return self.name(scalar.text.to_owned(), line);
        }
        self.put(Node { line, content: Content::Scalar(scalar.meaning()) }, anchor)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<(), YamlError> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let message = "an alias stands inside of what it names; write the value out".to_owned();
            return Err(YamlError { line, message });
        };
        match (self.names_a_field(), &node.content) {
            (true, Content::Scalar(Value::String(name))) => self.name(name.clone(), line),
            _ => {
                self.values += node.values();
                self.put(node, 0)
            }
        }
    }

    fn open(&mut self, content: Content, anchor: usize, line: usize) -> Result<(), YamlError> {
        if self.open.len() == DEEPEST {
            return Err(YamlError { line, message: format!("this is more than {DEEPEST} levels deep") });
        }
        if self.names_a_field() {
            return Err(YamlError { line, message: "the name of a field is text".to_owned() });
        }
        self.open.push(Open { node: Node { line, content }, anchor, field: None, merged: BTreeSet::new() });
        Ok(())
    }

    fn close(&mut self) -> Result<(), YamlError> {
        match self.open.pop() {
            Some(Open { node, anchor, .. }) => self.put(node, anchor),
            None => Ok(()),
        }
    }

    fn names_a_field(&self) -> bool {
        let innermost = self.open.last();
        innermost.is_some_and(|open| matches!(open.node.content, Content::Map(_)) && open.field.is_none())
    }

    fn name(&mut self, name: String, line: usize) -> Result<(), YamlError> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        let written = open.node.field(&name).filter(|_| !open.merged.contains(&name));
        if let Some((first, _)) = written {
            let message =
                format!("field {name} is already set on line {}; remove one of the two", first.line);
            return Err(YamlError { line, message });
        }
        open.field = Some(Field { line, name });
        Ok(())
    }

    fn put(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.values += 1;
        if self.values > MOST_VALUES {
            let message = format!("this has more than {MOST_VALUES} values once its aliases are expanded");
            return Err(YamlError { line: node.line, message });
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.whole = Some(node),
            Some(Open { node: Node { content: Content::List(items), .. }, .. }) => items.push(node),
            Some(Open { node: Node { content: Content::Map(fields), .. }, field, merged, .. }) => {
                match field.take() {
                    Some(Field { name, .. }) if name == "<<" => merge(fields, merged, node),
                    Some(field) => {
                        if merged.remove(&field.name) {
                            fields.retain(|(merged, _)| merged.name != field.name);
                        }
                        fields.push((field, node));
                    }
                    None => {}
                }
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// `<<`: the fields of another map, or of several, that this one doesn't have.
fn merge(fields: &mut Vec<(Field, Node)>, merged: &mut BTreeSet<String>, node: Node) {
    match node.content {
        Content::Map(others) => {
            for (field, node) in others {
                if !fields.iter().any(|(own, _)| own.name == field.name) {
                    merged.insert(field.name.clone());
                    fields.push((field, node));
                }
            }
        }
        Content::List(maps) => maps.into_iter().for_each(|map| merge(fields, merged, map)),
        Content::Scalar(_) => {}
    }
}

impl Node {
    fn values(&self) -> usize {
        1 + match &self.content {
            Content::Scalar(_) => 0,
            Content::List(items) => items.iter().map(Self::values).sum(),
            Content::Map(fields) => fields.iter().map(|(_, node)| node.values()).sum(),
        }
    }
}

impl Scalar<'_> {
    fn meaning(&self) -> Value {
        let text = || Value::String(self.text.to_owned());
        let is_text = self.style != ScalarStyle::Plain || self.tag.is_some_and(|tag| tag.suffix() == "str");
        if is_text {
            return text();
        }
        match self.text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => true.into(),
            "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
                false.into()
            }
            plain => number(plain).map_or_else(text, Value::Number),
        }
    }
}

/// A number as go-yaml 2 reads it: with underscores, and with a base.
fn number(text: &str) -> Option<Number> {
    let begins = text.trim_start_matches(['+', '-']).chars().next()?;
    if !(begins.is_ascii_digit() || begins == '.') {
        return None;
    }
    let plain: Cow<'_, str> =
        if text.contains('_') { text.replace('_', "").into() } else { Cow::Borrowed(text) };
    let (negative, digits) = match plain.as_bytes().first()? {
        b'-' => (true, &plain[1..]),
        b'+' => (false, &plain[1..]),
        _ => (false, plain.as_ref()),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    if let Some(whole) = whole(digits) {
        return match (negative, i64::try_from(whole)) {
            (false, _) => Some(whole.into()),
            (true, Ok(whole)) => Some((-whole).into()),
            (true, Err(_)) => Number::from_f64(-(whole as f64)),
        };
    }
    let is_float = digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-'));
    let float = is_float.then(|| plain.trim_start_matches('+').parse().ok())?;
    float.and_then(Number::from_f64)
}

fn whole(digits: &str) -> Option<u64> {
    let (base, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    let only_digits = digits.chars().all(|c| c.is_digit(base));
    (only_digits && !digits.is_empty()).then(|| u64::from_str_radix(digits, base).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Content, documents};

    fn only(text: &str) -> serde_json::Value {
        let mut read = documents(text);
        assert_eq!(read.len(), 1, "{read:?}");
        read.remove(0).unwrap().value()
    }

    #[test]
    fn plain_scalars_mean_what_they_mean_to_kubectl() {
        for (text, meaning) in [
            ("+31201234567", json!(31_201_234_567_u64)),
            ("0201234567", json!(0o201_234_567)),
            ("\"+31201234567\"", json!("+31201234567")),
            ("'yes'", json!("yes")),
            ("yes", json!(true)),
            ("off", json!(false)),
            ("~", json!(null)),
            ("-0x1f", json!(-31)),
            ("1_000", json!(1000)),
            ("1.5e3", json!(1500.0)),
            ("08", json!(8.0)),
            ("10.0.0.1", json!("10.0.0.1")),
            ("10.0.0.0/8", json!("10.0.0.0/8")),
            ("09:00", json!("09:00")),
            ("+", json!("+")),
            ("--1", json!("--1")),
            ("e1", json!("e1")),
            ("!!str 5060", json!("5060")),
            ("sip:a@b", json!("sip:a@b")),
        ] {
            assert_eq!(only(&format!("v: {text}\n"))["v"], meaning, "{text}");
        }
    }

    #[test]
    fn every_value_has_the_line_that_it_stands_on() {
        let text = "# a comment\nkind: A\nspec:\n  list:\n  - one\n  - name: two\n---\nkind: B\n";
        let read: Vec<_> = documents(text).into_iter().map(Result::unwrap).collect();
        assert_eq!(read[0].line_of(["spec", "list", "1", "name"]), 6);
        assert_eq!(read[0].line_of(["spec", "list", "0"]), 5);
        assert_eq!(read[0].line_of(["spec", "missing", "below"]), 3, "as far as it is there");
        assert_eq!(read[1].line_of(["kind"]), 8);
    }

    #[test]
    fn a_document_that_can_not_be_read_does_not_hide_those_after_it() {
        let read = documents("a: [1\n---\nb: 2\n---\nc: 3\nc: 4\n---\nd: 5\n");
        assert!(read[0].is_err(), "{read:?}");
        assert_eq!(read[1].as_ref().unwrap().value(), json!({"b": 2}));
        let error = read[2].as_ref().unwrap_err();
        assert_eq!(
            (error.line, error.message.as_str()),
            (6, "field c is already set on line 5; remove one of the two")
        );
        assert_eq!(read[3].as_ref().unwrap().value(), json!({"d": 5}));
    }

    #[test]
    fn aliases_and_merges_are_expanded_within_bounds() {
        let text = "base: &base {a: 1, b: 2}\nother:\n  <<: *base\n  b: 3\nagain: *base\n";
        let expected =
            json!({"base": {"a": 1, "b": 2}, "other": {"a": 1, "b": 3}, "again": {"a": 1, "b": 2}});
        assert_eq!(only(text), expected);
        let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (name, before) in ('b'..='i').zip('a'..) {
            laughs += &format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", "));
        }
        let error = documents(&laughs).remove(0).unwrap_err();
        assert!(error.message.contains("once its aliases are expanded"), "{error}");
        let deep = documents(&format!("{}{}", "[".repeat(5000), "]".repeat(5000))).remove(0).unwrap_err();
        assert!(deep.message.contains("levels deep") || deep.message.contains("not YAML"), "{deep}");
    }

    #[test]
    fn json_is_read_as_well_and_empty_documents_are_left_out() {
        assert_eq!(
            only("---\n---\n{\"a\": [1, true, null, \"x\"]}\n---\n# nothing\n"),
            json!({"a": [1, true, null, "x"]})
        );
        assert!(matches!(documents("just text").remove(0).unwrap().content, Content::Scalar(_)));
    }
}
