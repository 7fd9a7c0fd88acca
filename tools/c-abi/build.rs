//! Gives the shared library its name, which programs ask for by the version of the interface and not of the release, and keeps
//! what other crates would export out of it.

#![allow(clippy::disallowed_macros, reason = "printing is how a build script talks to cargo")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    for argument in ["-Wl,-soname,libtidemark.so.0", "-Wl,--exclude-libs,ALL"] {
        println!("cargo:rustc-cdylib-link-arg={argument}");
    }
}
