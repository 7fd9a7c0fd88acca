//! What a store charges: price sheets that people edit, and exact sums of money.
//!
//! A [`Sheet`] is a TOML file (docs/ops/prices has those that are part of the program, each with its source and its day); it turns
//! [`Requests`], bytes read and bytes kept into [`Money`]. Money is whole billionths of a currency's unit, and what is left over
//! counts as a whole one: a sum is never below what it stands for, and never more than a billionth above for each kind of thing.
//! Pure, but for [`Sheet::load`].
//! Not here: what is charged for. Counting requests is the bucket's meter, predicting them the planner's and each command's.

mod money;
mod sheet;

pub use money::{MONTH, Money};
pub use sheet::{Requests, Sheet, Usage};
pub use tidemark_config::ConfigError;
