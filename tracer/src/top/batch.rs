//! Tables for scripts.

use std::fmt::Write as _;

use super::{
    Options,
    model::Model,
    sample::Sample,
    ui::Ui,
    view::{self, Look, Scene, cell},
};

/// Columns of a table where nobody says how wide it may be: all have room.
const WIDE: usize = 200;

/// Prints tables.
pub(super) struct Batch {
    model: Model,
    ui: Ui,
    look: Look,
    width: usize,
    every_ns: u64,
    /// When the last table was.
    printed_ns: Option<u64>,
    /// Tables that are left; `None` is no end.
    left: Option<u64>,
}

impl Batch {
    pub(super) fn new(options: &Options, tables: Option<u64>) -> Self {
        let mut ui = Ui::new(options.sort, options.reverse);
        ui.only_failing = options.only_failing;
        let columns = std::env::var("COLUMNS").ok().and_then(|it| it.parse().ok());
        let terminal = rustix::termios::tcgetwinsize(std::io::stdout())
            .ok()
            .map(|size| usize::from(size.ws_col));
        Self {
            model: Model::new(options.filter.clone()),
            ui,
            look: Look {
                color: false,
                ..Look::of_environment()
            },
            width: columns.or(terminal).filter(|it| *it > 0).unwrap_or(WIDE),
            every_ns: u64::try_from(options.delay.as_nanos()).unwrap_or(u64::MAX),
            printed_ns: None,
            left: tables,
        }
    }

    /// Whether all tables are printed.
    pub(super) fn is_over(&self) -> bool {
        self.left == Some(0)
    }

    /// A table, if it is time for one.
    pub(super) fn take(&mut self, sample: Sample) -> Option<String> {
        /// A reading may be a little early.
        const SLACK_NS: u64 = 100_000_000;
        self.model.take(sample);
        let at_ns = self.model.at_ns;
        let from = self.printed_ns.unwrap_or(self.model.since_ns);
        if self.is_over() || at_ns.saturating_sub(from) + SLACK_NS < self.every_ns {
            return None;
        }
        self.printed_ns = Some(at_ns);
        self.left = self.left.map(|left| left - 1);
        self.ui.arrange(&self.model);
        Some(self.text())
    }

    fn text(&self) -> String {
        let model = &self.model;
        let sums = model.sums();
        let accepts = sums
            .accepts
            .map_or_else(|| cell::UNKNOWN.to_owned(), cell::rate);
        let mut text = format!(
            "turnaway top {} {:.0}\n{} listeners, {} other, accepts {accepts}/s, failures {}/s, {} in 60 s, {} in all, {} stalled, {} incidents\n",
            model.host,
            model.time,
            sums.listeners,
            model.more,
            cell::rate(sums.failures),
            sums.failures_60s,
            sums.all_failures,
            sums.stalled,
            model.incidents.len(),
        );
        let lost = view::lost(&model.lost).unwrap_or_else(|| "nothing lost".to_owned());
        // Writing to a string cannot fail.
        let _ = write!(text, "{lost}");
        for (what, all) in [
            ("not seen", &model.unseen),
            ("not looked at", &model.problems),
        ] {
            if !all.is_empty() {
                let _ = write!(text, "; {what}: {}", all.join(", "));
            }
        }
        text.push_str("\n\n");
        let rows = self.ui.order.iter().filter_map(|id| model.row(id));
        let scene = Scene {
            model,
            now_ns: model.at_ns,
            look: self.look,
        };
        text.push_str(&view::table(rows, self.width, scene));
        text
    }
}
