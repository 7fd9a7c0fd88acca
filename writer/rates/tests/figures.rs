//! The figures in docs/figures are what the code of today draws.

mod plots;
mod sim;

use std::path::Path;

#[test]
fn figures_are_in_step_with_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/figures");
    for (name, svg) in plots::all() {
        let kept = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            kept == svg,
            "docs/figures/{name} is old: run `cargo run -p tidemark-rates --example plot`, look, commit"
        );
    }
}
