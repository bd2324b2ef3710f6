//! The `turnaway` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    turnaway::cli::main()
}
