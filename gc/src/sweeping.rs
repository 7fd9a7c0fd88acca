//! A sweep over the rows of several sources.

use crate::core::liveness::{Needed, Standing, Sweep};
use crate::error::Result;
use tidemark_format::Retained;
use tidemark_history::{Merged, Rows};

/// Rows of several sources, and what of them some points need.
pub(crate) struct Sweeping<'a> {
    rows: Merged<'a>,
    sweep: Sweep,
    ended: bool,
}

impl<'a> Sweeping<'a> {
    pub(crate) async fn begin(sources: Vec<Rows<'a>>, retained: &Retained, standing: &[Standing]) -> Result<Self> {
        Ok(Self { rows: Merged::begin(sources).await?, sweep: Sweep::new(retained, standing), ended: false })
    }

    /// The next part of a row that some offered point needs.
    pub(crate) async fn next(&mut self) -> Result<Option<Needed>> {
        loop {
            if let Some(needed) = self.sweep.poll() {
                return Ok(Some(needed));
            }
            if self.ended {
                return Ok(None);
            }
            match self.rows.next().await? {
                Some(row) => self.sweep.push(row),
                None => {
                    self.sweep.finish();
                    self.ended = true;
                }
            }
        }
    }
}
