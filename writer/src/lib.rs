//! Guest writes in, committed segments in a bucket out.
