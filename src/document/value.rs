//! Reads a parsed value as a type. Its errors are types too: the reader knows which type a field asked for.

use serde::Deserializer;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{self, DeserializeSeed, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::fault::Fault;
use super::reason::{Reason, Wanted};

/// How numbers and booleans are read where a type wants a text, and texts where it wants one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalars {
    /// As texts: YAML writes both alike.
    AsWritten,
    /// As values of another type.
    Typed,
    /// As values of another type. Leniently the other way: a text of digits is a number, and `1` and `"true"` are
    /// booleans. Blanks around a text do not count.
    Lenient,
}

/// A value to be read as a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'de> {
    pub(super) value: &'de Value,
    pub(super) scalars: Scalars,
}

impl<'de> Parsed<'de> {
    fn mismatch(self, wanted: Wanted) -> Fault {
        let found = self.value.into();
        Reason::Type { wanted, found }.into()
    }

    fn fields(self, fields: &'de serde_json::Map<String, Value>) -> Fields<'de> {
        Fields {
            left: fields.iter(),
            read: None,
            scalars: self.scalars,
        }
    }

    fn number<V: Visitor<'de>>(self, max: u64, visitor: V) -> Result<V::Value, Fault> {
        let number = match self.scalars {
            Scalars::Lenient => whole(self.value),
            Scalars::AsWritten | Scalars::Typed => self.value.as_u64(),
        };
        match number {
            Some(number) if number > max => {
                Err(Reason::Rule(format!("must be 0..{max}, not {number}")).into())
            }
            Some(number) => visitor.visit_u64(number),
            None => self.scalar(Wanted::Whole, visitor),
        }
    }

    /// Reads a scalar, and names the type that the field wants if it has another one.
    fn scalar<V: Visitor<'de>>(self, wanted: Wanted, visitor: V) -> Result<V::Value, Fault> {
        if self.value.is_array() || self.value.is_object() {
            return Err(self.mismatch(wanted));
        }
        self.deserialize_any(visitor)
            .map_err(|fault| match fault.reason {
                Reason::Type { .. } => self.mismatch(wanted),
                _ => fault,
            })
    }
}

/// The fields of a mapping. The fault of a field has its key.
struct Fields<'de> {
    left: serde_json::map::Iter<'de>,
    read: Option<(&'de str, Parsed<'de>)>,
    scalars: Scalars,
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some((key, value)) = self.left.next() else {
            return Ok(None);
        };
        let scalars = self.scalars;
        self.read = Some((key, Parsed { value, scalars }));
        let key_read = seed.deserialize(BorrowedStrDeserializer::new(key));
        key_read.map(Some).map_err(|fault: Fault| fault.at_key(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, value)) = self.read.take() else {
            return Err(de::Error::custom("a value is read before its key"));
        };
        seed.deserialize(value).map_err(|fault| fault.at_key(key))
    }
}

/// The items of a list. The fault of an item has its index.
struct Items<'de> {
    left: std::iter::Enumerate<std::slice::Iter<'de, Value>>,
    scalars: Scalars,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        let Some((index, value)) = self.left.next() else {
            return Ok(None);
        };
        let scalars = self.scalars;
        let read = seed.deserialize(Parsed { value, scalars });
        read.map(Some).map_err(|fault| fault.at_index(index))
    }
}

/// Defines methods that read a scalar of a type.
macro_rules! scalars {
    ($($method:ident: $reader:ident($of:expr),)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.$reader($of, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Parsed<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(number), ..) => visitor.visit_u64(number),
                (_, Some(number), _) => visitor.visit_i64(number),
                (.., Some(number)) => visitor.visit_f64(number),
                (None, None, None) => Err(self.mismatch(Wanted::Number)),
            },
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Array(items) => visitor.visit_seq(Items {
                left: items.iter().enumerate(),
                scalars: self.scalars,
            }),
            Value::Object(fields) => visitor.visit_map(self.fields(fields)),
        }
    }

    scalars! {
        deserialize_i8: scalar(Wanted::Whole),
        deserialize_i16: scalar(Wanted::Whole),
        deserialize_i32: scalar(Wanted::Whole),
        deserialize_i64: scalar(Wanted::Whole),
        deserialize_u8: number(u8::MAX.into()),
        deserialize_u16: number(u16::MAX.into()),
        deserialize_u32: number(u32::MAX.into()),
        deserialize_u64: number(u64::MAX),
        deserialize_f32: scalar(Wanted::Number),
        deserialize_f64: scalar(Wanted::Number),
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let lenient = self.scalars == Scalars::Lenient;
        match lenient.then(|| flag(self.value)).flatten() {
            Some(flag) => visitor.visit_bool(flag),
            None => self.scalar(Wanted::Boolean, visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (self.value, self.scalars) {
            (Value::String(text), Scalars::Lenient) => visitor.visit_borrowed_str(text.trim()),
            (Value::String(text), _) => visitor.visit_borrowed_str(text),
            (Value::Bool(_) | Value::Number(_), Scalars::AsWritten) => {
                visitor.visit_string(self.value.to_string())
            }
            _ => Err(self.mismatch(Wanted::Text)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(Wanted::List)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Object(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(Wanted::Mapping)),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            Value::Object(fields) if self.scalars != Scalars::Lenient => {
                visitor.visit_enum(MapAccessDeserializer::new(self.fields(fields)))
            }
            _ => Err(self.mismatch(Wanted::Word)),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

/// Returns a whole number from any clear form: `7`, `"7"`, `7.0`, `1e3`.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| {
            // Beyond 2^53 a float no longer represents each whole number exactly.
            let float = number
                .as_f64()
                .filter(|f| f.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(f));
            float.map(|f| f as u64)
        }),
        Value::String(text) => {
            let digits = text.trim();
            let only = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
            only.then(|| digits.parse().ok()).flatten()
        }
        _ => None,
    }
}

fn flag(value: &Value) -> Option<bool> {
    match (value, whole(value)) {
        (Value::Bool(flag), _) => Some(*flag),
        (Value::String(text), _) => match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        (_, number) => number
            .filter(|number| *number <= 1)
            .map(|number| number == 1),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_number_is_taken_in_every_clear_form() {
        for value in [
            json!(1420),
            json!("1420"),
            json!(" 1420 "),
            json!(1420.0),
            json!(1.42e3),
        ] {
            assert_eq!(whole(&value), Some(1420), "{value}");
        }
        let unclear = [
            json!(1420.5),
            json!(-1),
            json!(1e30),
            json!("1e3"),
            json!("+5"),
            json!("0x10"),
            json!(""),
            json!(true),
            json!([1]),
            json!("99999999999999999999"),
        ];
        for value in unclear {
            assert_eq!(whole(&value), None, "{value}");
        }
    }
}
