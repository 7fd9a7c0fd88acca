//! Texts with units: `"64MiB"`, `"5s"`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use tidemark_api::Limit;
use tidemark_api::units::{NotAUnit, parse_rate, parse_size, parse_size_limit, parse_span};

/// A text with a unit.
#[derive(Debug)]
pub struct Text<U: Unit> {
    /// What it stands for.
    pub value: U::Value,
}

/// What a text with a unit stands for.
pub trait Unit {
    /// Its values.
    type Value;
    /// What was expected, for who wrote something else.
    const WANTED: &'static str;
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with the text.
    fn parse(text: &str) -> Result<Self::Value, NotAUnit>;
}

macro_rules! unit {
    ($alias:ident, $unit:ident, $value:ty, $parse:path, $wanted:literal) => {
        #[doc = $wanted]
        pub type $alias = Text<$unit>;

        #[doc = $wanted]
        #[derive(Debug)]
        pub struct $unit;

        impl Unit for $unit {
            type Value = $value;
            const WANTED: &'static str = $wanted;
            fn parse(text: &str) -> Result<$value, NotAUnit> {
                $parse(text)
            }
        }
    };
}

unit!(Size, SizeUnit, u64, parse_size, "a size such as \"64MiB\"");
unit!(SizeLimit, SizeLimitUnit, Limit, parse_size_limit, "a size such as \"64MiB\", or \"unlimited\"");
unit!(Rate, RateUnit, Limit, parse_rate, "a rate such as \"50MiB/s\", or \"unlimited\"");
unit!(Span, SpanUnit, Duration, parse_span, "a span of time such as \"5s\"");

impl<U: Unit> JsonSchema for Text<U> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        U::WANTED.into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": U::WANTED })
    }
}

impl<'de, U: Unit> Deserialize<'de> for Text<U> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parser<U>(PhantomData<U>);
        impl<U: Unit> Visitor<'_> for Parser<U> {
            type Value = Text<U>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(U::WANTED)
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Text<U>, E> {
                U::parse(text).map(|value| Text { value }).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Parser(PhantomData))
    }
}
