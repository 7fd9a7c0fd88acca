//! An order in which things can be done that wait for each other.

/// Why there is none: each waits for the next, and the last for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cycle(pub(crate) Vec<usize>);

/// The order, where thing `i` waits for those in `after[i]`; of those that could go, the first goes first.
///
/// # Errors
/// A cycle, if there is one.
pub(crate) fn order(after: &[Vec<usize>]) -> Result<Vec<usize>, Cycle> {
    let mut done = vec![false; after.len()];
    let mut order = Vec::with_capacity(after.len());
    while order.len() < after.len() {
        let ready = (0..after.len()).find(|at| !done[*at] && after[*at].iter().all(|before| done[*before]));
        let Some(at) = ready else { return Err(cycle(after, &done)) };
        done[at] = true;
        order.push(at);
    }
    Ok(order)
}

/// Everything that is not done waits for something that is not done: walking along there ends in a circle.
fn cycle(after: &[Vec<usize>], done: &[bool]) -> Cycle {
    let mut path: Vec<usize> = done.iter().position(|done| !done).into_iter().collect();
    loop {
        let last = path[path.len() - 1];
        let next = after[last].iter().copied().find(|before| !done[*before]).expect("it would have been ready");
        if let Some(start) = path.iter().position(|at| *at == next) {
            return Cycle(path.split_off(start));
        }
        path.push(next);
    }
}
