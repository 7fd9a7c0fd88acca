//! Draws the figures of docs/backpressure.md: `cargo run -p tidemark-rates --example plot`.

#[path = "../tests/plots/mod.rs"]
mod plots;
#[path = "../tests/sim/mod.rs"]
mod sim;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures");
    std::fs::create_dir_all(&folder)?;
    plots::all().into_iter().try_for_each(|(name, svg)| std::fs::write(folder.join(name), svg))
}
