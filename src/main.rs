//! The `alertrace` program: parses its arguments, calls one function, returns an exit code.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    alertrace::cli::run()
}
