//! What the end to end tests share: the command line as a process, mounts, the recorded VM, and a guest whose writes
//! anybody can work out again.
//!
//! Everything that a test sets up on the machine (processes, mounts, loop devices) is taken down when its guard drops.
//! Not here: the tests (`tests/`), each file of which shows one of the promises of the whole.

pub mod drva;
pub mod folder;
pub mod guest;
pub mod index;
pub mod life;
pub mod link;
pub mod process;
pub mod promises;
pub mod sample;
pub mod second_reader;
pub mod system;
pub mod tables;

pub use process::{Mounted, Ran, Tidemark};
