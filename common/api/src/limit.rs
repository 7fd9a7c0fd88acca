//! A bound that may be absent, said in words: a missing number and a zero mean too many things.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, SchemaType, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

/// At most so much, or `"unlimited"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// At most so much.
    AtMost(NonZeroU64),
    /// As much as can be had.
    Unlimited,
}

/// A bound of nothing. Nothing at all is what pausing is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("0 is not a limit: say \"unlimited\", or at least 1")]
pub struct NotALimit;

impl Limit {
    /// At most `bound`.
    pub fn at_most(bound: u64) -> Result<Self, NotALimit> {
        NonZeroU64::new(bound).map(Self::AtMost).ok_or(NotALimit)
    }

    /// The bound, if there is one.
    pub const fn get(self) -> Option<u64> {
        match self {
            Self::AtMost(bound) => Some(bound.get()),
            Self::Unlimited => None,
        }
    }

    /// The tighter of two.
    pub fn min(self, other: Self) -> Self {
        match (self, other) {
            (Self::AtMost(a), Self::AtMost(b)) => Self::AtMost(a.min(b)),
            (bound, Self::Unlimited) | (Self::Unlimited, bound) => bound,
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AtMost(bound) => serializer.serialize_u64(bound.get()),
            Self::Unlimited => serializer.serialize_str("unlimited"),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Limit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number above 0 or \"unlimited\"")
            }
            fn visit_u64<E: de::Error>(self, bound: u64) -> Result<Limit, E> {
                Limit::at_most(bound).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Limit, E> {
                match text {
                    "unlimited" => Ok(Limit::Unlimited),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl PartialSchema for Limit {
    fn schema() -> RefOr<Schema> {
        let bound = ObjectBuilder::new().schema_type(SchemaType::Type(Type::Integer)).minimum(Some(1));
        let word = ObjectBuilder::new().schema_type(SchemaType::Type(Type::String)).enum_values(Some(["unlimited"]));
        let description = Some("At most so much, or \"unlimited\".");
        OneOfBuilder::new().item(bound).item(word).description(description).into()
    }
}

impl ToSchema for Limit {
    fn name() -> Cow<'static, str> {
        "Limit".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_the_word() {
        let bound = Limit::at_most(7).unwrap();
        for (limit, text) in [(bound, "7"), (Limit::Unlimited, "\"unlimited\"")] {
            assert_eq!(serde_json::to_string(&limit).unwrap(), text);
            assert_eq!(serde_json::from_str::<Limit>(text).unwrap(), limit);
        }
        for text in ["0", "-1", "1.5", "\"7\"", "null", "\"\""] {
            assert!(serde_json::from_str::<Limit>(text).is_err(), "{text}");
        }
        assert_eq!((bound.min(Limit::Unlimited), Limit::Unlimited.min(bound)), (bound, bound));
    }
}
