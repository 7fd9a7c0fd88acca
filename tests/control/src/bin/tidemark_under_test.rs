//! The command line of this very tree, for tests of whole processes.

fn main() -> std::process::ExitCode {
    tidemark_cli::main()
}
