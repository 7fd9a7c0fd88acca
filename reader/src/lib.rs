//! (disk, range, point in time) in, verified bytes out.
