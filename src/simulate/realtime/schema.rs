//! What a JSON value must look like: small schemas, and what the real API says of a value that doesn't fit.

use serde_json::{Map, Value};

/// What a value must be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A text of at most so many bytes.
    Text(usize),
    /// `true` or `false`.
    Bool,
    /// A number in a range, ends included.
    Number(f64, f64),
    /// One of these texts.
    Word(&'static [&'static str]),
    /// An object that has at least the fields marked as needed, and no others than these.
    Object(&'static [Field]),
    /// An object with any fields.
    Map,
    /// A list.
    List(&'static Kind),
    /// One of these.
    Either(&'static [Kind]),
    /// `null`, or this.
    OrNull(&'static Kind),
    /// The one that a field with a text names: an object whose `type` is this has these fields beside it.
    Typed(&'static [(&'static str, &'static [Field])]),
}

/// A field of an object.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// Whether it must be there.
    pub needed: bool,
}

/// A field that may be left out.
pub const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, needed: false }
}

/// A field that must be there.
pub const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, needed: true }
}

/// Why a value doesn't fit, in the words of the API.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Misfit {
    /// `unknown_parameter`, `missing_required_parameter`, `invalid_type`, `invalid_value`.
    pub code: &'static str,
    /// Path of the field.
    pub param: String,
    /// A sentence.
    pub message: String,
}

impl Misfit {
    /// A value that isn't allowed there.
    pub fn invalid(param: &str, why: &str) -> Self {
        Self {
            code: "invalid_value",
            param: param.to_owned(),
            message: format!("Invalid value for '{param}': {why}."),
        }
    }

    fn kind(param: &str, wanted: &str) -> Self {
        Self {
            code: "invalid_type",
            param: param.to_owned(),
            message: format!("Invalid type for '{param}': expected {wanted}."),
        }
    }
}

impl Kind {
    /// Whether a value at `path` fits.
    pub fn check(&self, value: &Value, path: &str) -> Result<(), Misfit> {
        match self {
            Self::OrNull(_) if value.is_null() => Ok(()),
            Self::OrNull(kind) => kind.check(value, path),
            Self::Text(most) => match value.as_str() {
                Some(text) if text.len() <= *most => Ok(()),
                Some(_) => Err(Misfit::invalid(path, &format!("it is longer than {most} bytes"))),
                None => Err(Misfit::kind(path, "a string")),
            },
            Self::Bool => value.is_boolean().then_some(()).ok_or_else(|| Misfit::kind(path, "a boolean")),
            Self::Number(least, most) => match value.as_f64() {
                Some(number) if (*least..=*most).contains(&number) => Ok(()),
                Some(_) => Err(Misfit::invalid(path, &format!("it is not from {least} to {most}"))),
                None => Err(Misfit::kind(path, "a number")),
            },
            Self::Word(words) => match value.as_str() {
                Some(word) if words.contains(&word) => Ok(()),
                Some(_) => Err(Misfit::invalid(path, &format!("supported values are {}", words.join(", ")))),
                None => Err(Misfit::kind(path, "a string")),
            },
            Self::Map => value.is_object().then_some(()).ok_or_else(|| Misfit::kind(path, "an object")),
            Self::List(kind) => {
                let list = value.as_array().ok_or_else(|| Misfit::kind(path, "an array"))?;
                list.iter()
                    .enumerate()
                    .try_for_each(|(index, item)| kind.check(item, &format!("{path}[{index}]")))
            }
            Self::Either(kinds) => {
                let mut last = Ok(());
                for kind in *kinds {
                    last = kind.check(value, path);
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
            Self::Object(fields) => {
                let object = value.as_object().ok_or_else(|| Misfit::kind(path, "an object"))?;
                check_fields(object, fields, path)
            }
            Self::Typed(kinds) => {
                let object = value.as_object().ok_or_else(|| Misfit::kind(path, "an object"))?;
                let at = below(path, "type");
                let word = object.get("type").ok_or_else(|| missing(&at))?;
                let word = word.as_str().ok_or_else(|| Misfit::kind(&at, "a string"))?;
                let found = kinds.iter().find(|(name, _)| *name == word);
                let (_, fields) = found.ok_or_else(|| {
                    let known: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
                    Misfit::invalid(&at, &format!("supported values are {}", known.join(", ")))
                })?;
                let mut rest = object.clone();
                rest.remove("type");
                check_fields(&rest, fields, path)
            }
        }
    }
}

fn check_fields(object: &Map<String, Value>, fields: &[Field], path: &str) -> Result<(), Misfit> {
    for (name, value) in object {
        let at = below(path, name);
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let message = format!("Unknown parameter: '{at}'.");
            return Err(Misfit { code: "unknown_parameter", param: at, message });
        };
        field.kind.check(value, &at)?;
    }
    match fields.iter().find(|field| field.needed && !object.contains_key(field.name)) {
        Some(field) => Err(missing(&below(path, field.name))),
        None => Ok(()),
    }
}

fn missing(param: &str) -> Misfit {
    Misfit {
        code: "missing_required_parameter",
        param: param.to_owned(),
        message: format!("Missing required parameter: '{param}'."),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PERSON: Kind = Kind::Object(&[
        must("name", Kind::Text(5)),
        may("age", Kind::OrNull(&Kind::Number(0.0, 150.0))),
        may("pets", Kind::List(&Kind::Typed(&[("cat", &[may("lives", Kind::Number(0.0, 9.0))])]))),
    ]);

    #[test]
    fn a_value_that_fits_is_taken() {
        for value in [json!({"name": "a"}), json!({"name": "a", "age": null, "pets": [{"type": "cat"}]})] {
            assert_eq!(PERSON.check(&value, "person"), Ok(()), "{value}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_refused_with_its_path() {
        for (value, code, param) in [
            (json!({}), "missing_required_parameter", "person.name"),
            (json!({"name": "abcdef"}), "invalid_value", "person.name"),
            (json!({"name": 1}), "invalid_type", "person.name"),
            (json!({"name": "a", "age": 151}), "invalid_value", "person.age"),
            (json!({"name": "a", "size": 1}), "unknown_parameter", "person.size"),
            (json!({"name": "a", "pets": [{"type": "dog"}]}), "invalid_value", "person.pets[0].type"),
            (json!({"name": "a", "pets": [{}]}), "missing_required_parameter", "person.pets[0].type"),
            (
                json!({"name": "a", "pets": [{"type": "cat", "x": 1}]}),
                "unknown_parameter",
                "person.pets[0].x",
            ),
        ] {
            let misfit = PERSON.check(&value, "person").unwrap_err();
            assert_eq!((misfit.code, &*misfit.param), (code, param), "{value}");
        }
    }
}
