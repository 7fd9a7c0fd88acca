//! What a recovery wants of its VMs' disks.

use crate::error::Result;
use crate::hypervisor::Image;
use crate::job::VmSpec;
use async_trait::async_trait;
use std::path::Path;

/// A VM whose disks are wanted.
#[derive(Clone, Copy, Debug)]
pub struct DisksOf<'a> {
    /// The VM.
    pub vm: &'a VmSpec,
    /// Its directory, of no other VM.
    pub dir: &'a Path,
    /// Where the domain is.
    pub url: &'a str,
    /// The point.
    pub lsn: u64,
    /// Whether they become local.
    pub hydrate: bool,
}

/// How far a VM's disks are on their way to become local.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hydration {
    /// Bytes that are local.
    pub local_bytes: u64,
    /// Bytes of all disks.
    pub total_bytes: u64,
    /// The disks as local files, in order, once all of them are.
    pub images: Option<Vec<Image>>,
}

/// Makes a VM's disks. Every call may be repeated.
#[async_trait]
pub trait Disks: Send + Sync + 'static {
    /// Makes the disks and serves them, unless they are; their images, in order.
    async fn serve(&self, of: DisksOf<'_>) -> Result<Vec<Image>>;
    /// Whether somebody serves them.
    async fn is_served(&self, of: DisksOf<'_>) -> bool;
    /// How far they are.
    async fn hydration(&self, of: DisksOf<'_>) -> Result<Hydration>;
    /// Serves them no more; what is local stays.
    async fn release(&self, of: DisksOf<'_>) -> Result<()>;
}
