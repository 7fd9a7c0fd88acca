//! Where named values go: into pages of their domain's extent that no value has.
//!
//! A new value never touches pages of the old one, so whichever the table names is whole.

use tidemark_format::logstore::{MetaEntry, Run};

/// Pages for a new value of `pages` pages, beside all `values`: the lowest ones that are free.
pub(crate) fn place(values: &[MetaEntry], extent_pages: u32, pages: u32) -> Option<Vec<Run>> {
    let mut taken: Vec<Run> = values.iter().flat_map(|value| &value.runs).copied().collect();
    taken.sort_unstable_by_key(|run| run.page);
    let mut runs = Vec::new();
    let (mut at, mut missing) = (0, pages);
    for next in taken.into_iter().chain([Run { page: extent_pages, pages: 0 }]) {
        let free = next.page.saturating_sub(at).min(missing);
        if free > 0 {
            runs.push(Run { page: at, pages: free });
            missing -= free;
        }
        at = next.page + next.pages;
    }
    (missing == 0).then_some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(runs: &[(u32, u32)]) -> MetaEntry {
        let runs = runs.iter().map(|&(page, pages)| Run { page, pages }).collect();
        MetaEntry { name: "a".to_owned(), len: 0, hash: [0; 32], runs }
    }

    #[test]
    fn a_value_goes_into_the_lowest_free_pages() {
        let run = |page, pages| Run { page, pages };
        assert_eq!(place(&[], 16, 3), Some(vec![run(0, 3)]));
        let values = [value(&[(2, 2), (8, 1)]), value(&[(0, 1)])];
        assert_eq!(place(&values, 16, 2), Some(vec![run(1, 1), run(4, 1)]));
        assert_eq!(place(&values, 16, 12), Some(vec![run(1, 1), run(4, 4), run(9, 7)]));
        assert_eq!(place(&values, 16, 13), None);
        assert_eq!(place(&values, 16, 0), Some(vec![]));
    }
}
