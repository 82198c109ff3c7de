//! Reads a parsed value as a type. Its errors are types too: the reader knows which type a field asked for.

use serde::Deserializer;
use serde::de::value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer};
use serde::de::{IntoDeserializer, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::Value;

use super::reason::{Reason, Wanted};

/// How numbers and booleans are read where a type wants a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scalars {
    /// As texts: YAML writes both alike.
    AsWritten,
    /// As values of another type.
    Typed,
}

/// A value to be read as a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'de> {
    pub(super) value: &'de Value,
    pub(super) scalars: Scalars,
}

impl<'de> Parsed<'de> {
    fn mismatch(self, wanted: Wanted) -> Reason {
        let found = self.value.into();
        Reason::Type { wanted, found }
    }

    fn fields(
        self,
        fields: &'de serde_json::Map<String, Value>,
    ) -> MapDeserializer<'de, impl Iterator<Item = (&'de str, Self)>, Reason> {
        let field = move |(key, value): (&'de String, &'de Value)| {
            let scalars = self.scalars;
            (key.as_str(), Self { value, scalars })
        };
        MapDeserializer::new(fields.iter().map(field))
    }

    /// Reads a scalar, and names the type that the field wants if it has another one.
    fn scalar<V: Visitor<'de>>(self, wanted: Wanted, visitor: V) -> Result<V::Value, Reason> {
        if self.value.is_array() || self.value.is_object() {
            return Err(self.mismatch(wanted));
        }
        self.deserialize_any(visitor)
            .map_err(|reason| match reason {
                Reason::Type { .. } => self.mismatch(wanted),
                other => other,
            })
    }
}

impl<'de> IntoDeserializer<'de, Reason> for Parsed<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Defines methods that read a scalar of a type.
macro_rules! scalars {
    ($($method:ident: $wanted:expr,)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
            self.scalar($wanted, visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Parsed<'de> {
    type Error = Reason;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
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
            Value::Array(items) => {
                let scalars = self.scalars;
                let items = items.iter().map(|value| Self { value, scalars });
                visitor.visit_seq(SeqDeserializer::new(items))
            }
            Value::Object(fields) => visitor.visit_map(self.fields(fields)),
        }
    }

    scalars! {
        deserialize_bool: Wanted::Boolean,
        deserialize_i8: Wanted::Whole,
        deserialize_i16: Wanted::Whole,
        deserialize_i32: Wanted::Whole,
        deserialize_i64: Wanted::Whole,
        deserialize_u8: Wanted::Whole,
        deserialize_u16: Wanted::Whole,
        deserialize_u32: Wanted::Whole,
        deserialize_u64: Wanted::Whole,
        deserialize_f32: Wanted::Number,
        deserialize_f64: Wanted::Number,
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match (self.value, self.scalars) {
            (Value::String(text), _) => visitor.visit_borrowed_str(text),
            (Value::Bool(_) | Value::Number(_), Scalars::AsWritten) => {
                visitor.visit_string(self.value.to_string())
            }
            _ => Err(self.mismatch(Wanted::Text)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Reason> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
        match self.value {
            Value::Array(_) => self.deserialize_any(visitor),
            _ => Err(self.mismatch(Wanted::List)),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Reason> {
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
    ) -> Result<V::Value, Reason> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Reason> {
        match self.value {
            Value::String(word) => visitor.visit_enum(word.as_str().into_deserializer()),
            Value::Object(fields) => {
                visitor.visit_enum(MapAccessDeserializer::new(self.fields(fields)))
            }
            _ => Err(self.mismatch(Wanted::Word)),
        }
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}
