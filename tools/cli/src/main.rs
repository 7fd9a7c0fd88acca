//! The one binary, `tidemark`.

fn main() -> std::process::ExitCode {
    tidemark_cli::main()
}
