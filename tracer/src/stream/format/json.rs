//! Objects of JSON as a list of fields: a record has few, and most that are added have names and texts that are
//! in the program already. A map would have each of them on the heap, which was most of what a format cost.

use std::{borrow::Cow, collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::Number;

/// From so many fields on, those of one name are not looked for one by one.
const MANY: usize = 64;

/// Most objects of a record have no more fields.
const FEW: usize = 8;

/// A text, in the program or of a record.
pub(super) type Text = Cow<'static, str>;

/// A value of JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number.
    Number(Number),
    /// A text.
    String(Cow<'static, str>),
    /// A list.
    Array(Vec<Value>),
    /// An object.
    Object(Object),
}

/// An object of JSON, its fields in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object(Vec<(Text, Value)>);

impl Value {
    /// The text that it is.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The whole number that it is, not below zero.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Number(number) => number.as_u64(),
            _ => None,
        }
    }

    /// The number that it is.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64(),
            _ => None,
        }
    }

    /// The object that it is.
    #[must_use]
    pub fn as_object(&self) -> Option<&Object> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The list that it is.
    #[must_use]
    pub fn as_array(&self) -> Option<&Vec<Self>> {
        match self {
            Self::Array(list) => Some(list),
            _ => None,
        }
    }

    /// A field of the object that it is.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }
}

impl Object {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An object of one field.
    pub(super) fn of(name: &'static str, value: impl Into<Value>) -> Self {
        Self(vec![(name.into(), value.into())])
    }

    /// A field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value)
    }

    /// Whether it has a field.
    #[must_use]
    pub fn contains_key(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether it has no fields.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().map(|(_, value)| value)
    }

    pub(super) fn insert(&mut self, name: impl Into<Text>, value: Value) {
        let name = name.into();
        if let Some((_, before)) = self.0.iter_mut().find(|(one, _)| *one == name) {
            *before = value;
            return;
        }
        if self.0.capacity() == 0 {
            self.0.reserve(FEW);
        }
        self.0.push((name, value));
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<Value> {
        let at = self.0.iter().position(|(one, _)| one == name)?;
        Some(self.0.swap_remove(at).1)
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self::Object(object)
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::String(text.into())
    }
}

impl From<Text> for Value {
    fn from(text: Text) -> Self {
        Self::String(text)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text.into())
    }
}

impl From<Vec<Value>> for Value {
    fn from(list: Vec<Value>) -> Self {
        Self::Array(list)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => to.serialize_unit(),
            Self::Bool(is) => to.serialize_bool(*is),
            Self::Number(number) => number.serialize(to),
            Self::String(text) => to.serialize_str(text),
            Self::Array(list) => list.serialize(to),
            Self::Object(object) => object.serialize(to),
        }
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AnyValue)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(AnyObject)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(Value::Bool(is))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.to_owned().into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(one) = from.next_element()? {
            list.push(one);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, from: A) -> Result<Value, A::Error> {
        AnyObject.visit_map(from).map(Value::Object)
    }
}

struct AnyObject;

impl<'de> Visitor<'de> for AnyObject {
    type Value = Object;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("an object of JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Object, A::Error> {
        let mut object = Object::new();
        // Of several fields of one name the last one is it.
        while object.0.len() < MANY {
            let Some((name, value)) = from.next_entry::<String, Value>()? else {
                return Ok(object);
            };
            object.insert(name, value);
        }
        let mut many: BTreeMap<Text, Value> = object.0.into_iter().collect();
        while let Some((name, value)) = from.next_entry::<String, Value>()? {
            many.insert(name.into(), value);
        }
        Ok(Object(many.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_as_serde_json_has_it() {
        let many: Vec<String> = (0..2 * MANY)
            .map(|n| format!("\"f{}\":{n}", n % 100))
            .collect();
        for text in [
            "{}".to_owned(),
            r#"{"a":1,"b":[null,true,-2,1.5,18446744073709551615,"x\n\u0007"],"c":{"d":{}},"a":2}"#
                .to_owned(),
            format!("{{{}}}", many.join(",")),
        ] {
            let object: Object = serde_json::from_str(&text).unwrap();
            let wanted: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(serde_json::to_value(&object).unwrap(), wanted);
        }
        for wrong in ["[]", "1", "{\"a\":}", "{\"a\":1"] {
            assert!(serde_json::from_str::<Object>(wrong).is_err(), "{wrong}");
        }
    }
}
