//! Objects of JSON, from which fields are moved to others: what is not moved stays, so nothing is lost.

use std::net::IpAddr;

pub(super) use super::json::{Object, Text, Value};

/// Adds a field, unless nothing is known of it.
pub(super) fn put(object: &mut Object, name: impl Into<Text>, value: impl Into<Maybe>) {
    if let Maybe(Some(value)) = value.into() {
        object.insert(name, value);
    }
}

/// A value, or none: an object without fields is none.
pub(super) struct Maybe(Option<Value>);

impl From<Value> for Maybe {
    fn from(value: Value) -> Self {
        Self(Some(value))
    }
}

impl From<Option<Value>> for Maybe {
    fn from(value: Option<Value>) -> Self {
        Self(value)
    }
}

impl From<Object> for Maybe {
    fn from(object: Object) -> Self {
        Self((!object.is_empty()).then_some(Value::Object(object)))
    }
}

impl From<&'static str> for Maybe {
    fn from(text: &'static str) -> Self {
        Self(Some(text.into()))
    }
}

impl From<String> for Maybe {
    fn from(text: String) -> Self {
        Self(Some(text.into()))
    }
}

impl From<Option<String>> for Maybe {
    fn from(text: Option<String>) -> Self {
        Self(text.map(Value::from))
    }
}

impl From<Option<&'static str>> for Maybe {
    fn from(text: Option<&'static str>) -> Self {
        Self(text.map(Value::from))
    }
}

impl From<Text> for Maybe {
    fn from(text: Text) -> Self {
        Self(Some(text.into()))
    }
}

impl From<Option<Text>> for Maybe {
    fn from(text: Option<Text>) -> Self {
        Self(text.map(Value::from))
    }
}

impl From<i32> for Maybe {
    fn from(number: i32) -> Self {
        Self(Some(Value::Number(number.into())))
    }
}

impl From<u64> for Maybe {
    fn from(number: u64) -> Self {
        Self(Some(Value::Number(number.into())))
    }
}

impl From<Option<u64>> for Maybe {
    fn from(number: Option<u64>) -> Self {
        Self(number.map(|number| Value::Number(number.into())))
    }
}

impl From<i64> for Maybe {
    fn from(number: i64) -> Self {
        Self(Some(Value::Number(number.into())))
    }
}

impl From<Option<i64>> for Maybe {
    fn from(number: Option<i64>) -> Self {
        Self(number.map(|number| Value::Number(number.into())))
    }
}

impl From<Vec<Value>> for Maybe {
    fn from(list: Vec<Value>) -> Self {
        Self((!list.is_empty()).then_some(Value::Array(list)))
    }
}

/// Takes an object out; what is no object stays.
pub(super) fn take_object(object: &mut Object, name: &str) -> Object {
    match object.remove(name) {
        Some(Value::Object(inner)) => inner,
        Some(other) => {
            object.insert(name.to_owned(), other);
            Object::new()
        }
        None => Object::new(),
    }
}

/// Takes a text out; what is none stays.
pub(super) fn take_text(object: &mut Object, name: &str) -> Option<Text> {
    match object.remove(name)? {
        Value::String(text) => Some(text),
        other => {
            object.insert(name.to_owned(), other);
            None
        }
    }
}

/// Takes a number of at most `most` out; what is none stays.
pub(super) fn take_number(object: &mut Object, name: &str, most: u64) -> Option<u64> {
    let number = object.get(name)?.as_u64()?;
    (number <= most).then(|| {
        object.remove(name);
        number
    })
}

/// Puts back what is left of an object.
pub(super) fn put_back(object: &mut Object, name: &str, left: Object) {
    // What is there already was no object, and has stayed.
    if !left.is_empty() && !object.contains_key(name) {
        object.insert(name.to_owned(), Value::Object(left));
    }
}

/// An object in an object.
pub(super) fn object<'a>(object: &'a Object, name: &str) -> Option<&'a Object> {
    object.get(name)?.as_object()
}

/// A text in an object.
pub(super) fn text<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.get(name)?.as_str()
}

/// The same, for another object to keep.
pub(super) fn copy(object: &Object, name: &str) -> Option<Text> {
    text(object, name).map(|text| text.to_owned().into())
}

/// A number in an object.
pub(super) fn number(object: &Object, name: &str) -> Option<u64> {
    object.get(name)?.as_u64()
}

/// Whether it is what a listener is bound to that listens on all addresses: no host has it.
pub(super) fn is_of_all(address: &str) -> bool {
    let address: Option<IpAddr> = address.parse().ok();
    address.is_some_and(|address| address.is_unspecified())
}
