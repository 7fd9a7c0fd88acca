//! TOML files that people write: texts with units, and errors that say where and what to do.
//!
//! A [`Source`] is a file's text; [`Source::read`] turns it into keys, and [`Source::complain`] finds the place of what is wrong with them.
//! [`Size`], [`Span`], ... are the texts with units. Whatever is wrong is said with its line and column.
//! Not here: what the keys of a file mean.

mod error;
mod explain;
mod place;
mod unit;

pub use error::ConfigError;
pub use unit::{Rate, Size, SizeLimit, Span, Text, Unit};

use serde::de::DeserializeOwned;
use std::path::Path;
use tidemark_api::Complaint;

/// A file as it was written.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    text: String,
    /// A file that explains every key, for whoever has to be told more.
    example: &'static str,
}

impl Source {
    /// The text of the file `name`.
    pub fn new(name: &str, text: &str, example: &'static str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned(), example }
    }

    /// The file at `path`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn load(path: &Path, example: &'static str) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Self { name, text, example }),
            Err(e) => {
                let hint = format!("{example} is an example to start from");
                Err(ConfigError::Unreadable { file: name, why: e.to_string(), hint })
            }
        }
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its keys.
    ///
    /// # Errors
    /// The first thing that is no TOML, no key, or not of the kind that a key takes.
    pub fn read<F: DeserializeOwned>(&self) -> Result<F, ConfigError> {
        toml::from_str(&self.text).map_err(|e| {
            let (what, hint) = explain::explain(e.message());
            self.wrong(e.span().map_or(0, |span| span.start), what, hint)
        })
    }

    /// The error for what is wrong with a key.
    pub fn complain(&self, complaint: &Complaint) -> ConfigError {
        let key = complaint.member().rsplit('.').next().unwrap_or_default();
        let hint = complaint.hint_text().map(str::to_owned);
        self.wrong(place::of_value(&self.text, complaint.member()), format!("{key}: {complaint}"), hint)
    }

    fn wrong(&self, at: usize, what: String, hint: Option<String>) -> ConfigError {
        let (line, column) = place::line_and_column(&self.text, at);
        let hint = hint.unwrap_or_else(|| format!("{} explains every key", self.example));
        ConfigError::Wrong { file: self.name.clone(), line, column, what, hint }
    }
}
