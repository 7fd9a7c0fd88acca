//! A C program that embeds the library, as it is installed: linked both ways, looked at by valgrind, its bucket verified.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use tidemark as _;
use tidemark_e2e::Tidemark;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a command that must succeed; what it printed.
fn run(command: &mut Command) -> String {
    let ran = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}\nhint: run scripts/install test"));
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{command:?}\n{out}\n{err}");
    out.into_owned()
}

/// `make` with what cargo has built for the tests.
fn make(target: &str, variables: &[String]) {
    // Cargo leaves the libraries beside this test.
    let built = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let mut make = Command::new("make");
    make.args(["--no-print-directory", target]).current_dir(repository());
    make.arg(format!("BUILT={}", built.display())).args(variables);
    run(make.env_remove("DESTDIR").env_remove("PREFIX").env_remove("MAKEFLAGS").env_remove("MAKELEVEL"));
}

/// The library as `make install` leaves it, below a directory.
struct Installed {
    dir: tempfile::TempDir,
}

impl Installed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make("install-c", &[format!("PREFIX={}", dir.path().display())]);
        Self { dir }
    }

    /// What pkg-config says to the compiler.
    fn flags(&self, ask: &[&str]) -> Vec<String> {
        let mut command = Command::new("pkg-config");
        command.args(ask).arg("tidemark").env("PKG_CONFIG_PATH", self.dir.path().join("lib/pkgconfig"));
        run(&mut command).split_whitespace().map(str::to_owned).collect()
    }

    /// Compiles the example; the program.
    fn compile(&self, name: &str, link: &[&str]) -> PathBuf {
        let program = self.dir.path().join(name);
        let mut cc = Command::new("cc");
        cc.args(["-std=c11", "-g", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-o"]).arg(&program);
        cc.arg(repository().join("tools/c-abi/examples/protect.c"));
        run(cc.args(self.flags(&["--cflags"])).args(self.flags(link)).arg("-lpthread"));
        program
    }

    /// Runs a program on a new directory, perhaps below another; then verifies what it left there.
    fn protect(&self, name: &str, command: &[&OsStr]) {
        let domain = self.dir.path().join(name);
        std::fs::create_dir(&domain).unwrap();
        let mut program = Command::new(command[0]);
        program.args(&command[1..]).arg(&domain).env("LD_LIBRARY_PATH", self.dir.path().join("lib"));
        let said = run(&mut program);
        assert!(said.contains("130 requests durable, 0 failed"), "{said}");
        assert!(said.contains("disk db/vda, 655360 bytes") && said.contains("read back as written"), "{said}");

        let tidemark = Tidemark::new(env!("CARGO_BIN_EXE_tidemark-under-test"));
        let url = domain.display().to_string();
        let report = tidemark.json(["verify", &url]);
        assert_eq!(report["intact"], true, "{report}");
        let points = tidemark.json(["points", &url]);
        assert_eq!(points["bookmarks"][0]["name"], "done");
        // The last request was submitted and never waited for: closing made it durable.
        assert_eq!(points["latest"]["lsn"], 3 + 130 + 1 + 1 + 1, "{points}");
    }
}

#[test]
fn a_c_program_with_the_shared_library_protects_a_disk_and_reads_it_back() {
    let installed = Installed::new();
    let program = installed.compile("shared", &["--libs"]);
    let needed = run(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(needed.contains("[libtidemark.so.0]"), "{needed}");
    installed.protect("plain", &[program.as_ref()]);
}

#[test]
fn a_c_program_with_the_static_library_leaks_nothing_and_touches_nothing_of_others() {
    let installed = Installed::new();
    let program = installed.compile("static", &["--variable=static"]);
    let needed = run(Command::new("readelf").arg("--dynamic").arg(&program));
    assert!(!needed.contains("libtidemark"), "{needed}");
    // Memory that only an inner pointer leads to is no error: Rust's std keeps the main thread's handle so.
    let valgrind = ["valgrind", "--quiet", "--leak-check=full", "--errors-for-leak-kinds=definite,indirect"];
    let valgrind = valgrind.into_iter().chain(["--error-exitcode=99"]).map(OsStr::new);
    installed.protect("checked", &valgrind.chain([program.as_ref()]).collect::<Vec<_>>());
}

#[test]
fn the_header_is_c_plus_plus_as_well() {
    let installed = Installed::new();
    let dir = installed.dir.path();
    let source = "#include <tidemark.h>\nint main() { return tidemark_error_code(nullptr); }\n";
    std::fs::write(dir.join("x.cc"), source).unwrap();
    let mut compiler = Command::new("c++");
    compiler.args(["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "x.cc", "-o", "x"]).current_dir(dir);
    run(compiler.args(installed.flags(&["--cflags", "--libs"])));
    run(Command::new(dir.join("x")).env("LD_LIBRARY_PATH", dir.join("lib")));
}

/// As a packager does it: below a DESTDIR that the installed files know nothing of.
#[test]
fn an_installation_into_a_destdir_is_complete_and_found_by_pkg_config() {
    let dir = tempfile::tempdir().unwrap();
    let (root, prefix) = (dir.path().display().to_string(), dir.path().join("usr/local"));
    let program = env!("CARGO_BIN_EXE_tidemark-under-test");
    make("install-built", &[format!("DESTDIR={root}"), format!("PROGRAM={program}")]);
    let version = run(Command::new(prefix.join("bin/tidemark")).arg("--version"));
    let version = version.trim().strip_prefix("tidemark ").unwrap();
    let installed = ["include/tidemark.h", "lib/libtidemark.a", "lib/libtidemark.so", "lib/libtidemark.so.0"];
    let installed = installed.into_iter().chain(["share/man/man3/tidemark.3", "share/man/man1/tidemark-verify.1"]);
    for file in installed.chain(["share/bash-completion/completions/tidemark"]) {
        assert!(std::fs::metadata(prefix.join(file)).unwrap().len() > 0, "{file}");
    }

    let pkg_config = |ask: &[&str]| {
        let mut command = Command::new("pkg-config");
        command.args(ask).arg("tidemark").env("PKG_CONFIG_SYSROOT_DIR", &root);
        run(command.env("PKG_CONFIG_LIBDIR", prefix.join("lib/pkgconfig"))).trim().to_owned()
    };
    assert_eq!(pkg_config(&["--modversion"]), version);
    let named = std::fs::read_to_string(prefix.join("lib/pkgconfig/tidemark.pc")).unwrap();
    assert!(named.contains("prefix=/usr/local\n") && !named.contains(&root), "{named}");
    let (example, program) = (repository().join("tools/c-abi/examples/protect.c"), dir.path().join("protect"));
    let mut cc = Command::new("cc");
    cc.args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&program).arg(example);
    run(cc.args(pkg_config(&["--cflags", "--libs"]).split_whitespace()).arg("-lpthread"));
    let domain = dir.path().join("domain");
    std::fs::create_dir(&domain).unwrap();
    let said = run(Command::new(&program).arg(&domain).env("LD_LIBRARY_PATH", prefix.join("lib")));
    assert!(said.contains("read back as written"), "{said}");
    let mut verify = Command::new(prefix.join("bin/tidemark"));
    run(verify.arg("verify").arg(&domain));
}
