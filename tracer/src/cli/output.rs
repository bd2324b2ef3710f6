//! How results are printed: the same options for every command.

use clap::ValueEnum;

#[derive(Debug, clap::Args)]
pub(super) struct OutputArgs {
    /// How to print it: text, or one JSON object a line (docs/records.md)
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// The same as --output json
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

impl OutputArgs {
    /// Whether JSON is asked for.
    pub(super) fn is_json(&self) -> bool {
        self.json || self.output == Output::Json
    }
}
