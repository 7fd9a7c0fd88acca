//! End to end tests over real mounts, real servers and a real VM's recorded writes.
