//! What the one who looks has chosen, and what actions make of it (pure).

use super::{
    input::Action,
    model::{Model, Row, Sort},
    sample::RowId,
};

/// Longest filter, characters.
const MAX_FILTER: usize = 100;

/// What is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Listeners and their owners.
    #[default]
    Listeners,
    /// Failures by reason.
    Reasons,
    /// Incidents that fire.
    Incidents,
}

impl View {
    /// All.
    pub const ALL: [Self; 3] = [Self::Listeners, Self::Reasons, Self::Incidents];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Listeners => "listeners",
            Self::Reasons => "reasons",
            Self::Incidents => "incidents",
        }
    }
}

/// What has been chosen.
#[derive(Debug, Default)]
pub struct Ui {
    /// What is shown.
    pub view: View,
    /// How listeners are sorted.
    pub sort: Sort,
    /// The other way around.
    pub reverse: bool,
    /// Only rows with this text.
    pub filter: String,
    /// The filter is being typed.
    pub typing: bool,
    /// Only what fails or stalls.
    pub only_failing: bool,
    /// What is new is not shown.
    pub paused: bool,
    /// All keys are shown.
    pub help: bool,
    /// More of this row is shown.
    pub detail: Option<RowId>,
    /// First line of a detail, or an incident, that is shown.
    pub scroll: usize,
    /// The row that is selected; `None` is whichever is first.
    pub selected: Option<RowId>,
    /// The same in the other views.
    pub at: usize,
    /// The rows, sorted and filtered.
    pub order: Vec<RowId>,
    /// First row on the screen.
    pub first: usize,
    /// Rows that the screen has room for, as it was drawn last.
    pub room: usize,
    /// Line of the terminal at which they begin.
    pub begin: u16,
}

/// What is left to do outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// Draw.
    Draw,
    /// End.
    Quit,
    /// Suspend.
    Suspend,
    /// Draw all anew.
    Redraw,
}

impl Ui {
    /// One that sorts so.
    #[must_use]
    pub fn new(sort: Sort, reverse: bool) -> Self {
        Self {
            sort,
            reverse,
            ..Self::default()
        }
    }

    /// Sorts and filters anew: after a sample, or another choice.
    pub fn arrange(&mut self, model: &Model) {
        self.order = model.order(self.sort, self.reverse, &self.filter);
        if self.only_failing {
            self.order.retain(|id| model.row(id).is_some_and(fails));
        }
    }

    /// Where the selected row is.
    #[must_use]
    pub fn position(&self) -> usize {
        let found = self
            .selected
            .as_ref()
            .and_then(|id| self.order.iter().position(|other| other == id));
        found.unwrap_or(0)
    }

    /// Brings the selected row on the screen, which has so many lines from `begin` on.
    pub fn fit(&mut self, begin: u16, room: usize) {
        (self.begin, self.room) = (begin, room);
        let at = self.position();
        let most = self.order.len().saturating_sub(room);
        self.first = self.first.min(most).min(at);
        if at >= self.first + room {
            self.first = at + 1 - room;
        }
    }

    /// Does what an action says.
    pub fn act(&mut self, action: Action, model: &Model) -> Do {
        match action {
            Action::Quit => return Do::Quit,
            Action::Suspend => return Do::Suspend,
            Action::Redraw => return Do::Redraw,
            Action::Help => {
                self.help = !self.help;
                self.scroll = 0;
            }
            Action::Back => self.back(model),
            Action::Move(by) | Action::Page(by) if self.help => {
                self.scroll = self.scroll.saturating_add_signed(by);
            }
            _ if self.help => self.help = false,
            Action::Show(view) => self.show(view),
            Action::NextView => {
                let at = View::ALL.iter().position(|view| *view == self.view);
                self.show(View::ALL[(at.unwrap_or(0) + 1) % View::ALL.len()]);
            }
            Action::Move(by) => self.go(by, model),
            Action::Page(by) => self.go(by * isize::try_from(self.room.max(1)).unwrap_or(1), model),
            Action::First => self.go(isize::MIN, model),
            Action::Last => self.go(isize::MAX, model),
            Action::Click(line) => self.click(line, model),
            Action::Enter => self.enter(model),
            Action::Sort { back } => {
                self.sort = self.sort.next(back);
                self.reverse = false;
                self.rearrange(model);
            }
            Action::Reverse => {
                self.reverse = !self.reverse;
                self.rearrange(model);
            }
            Action::Pause => self.paused = !self.paused,
            Action::OnlyFailing => {
                self.only_failing = !self.only_failing;
                self.rearrange(model);
            }
            Action::Filter => {
                self.show(View::Listeners);
                self.typing = true;
            }
            Action::Type(char) => {
                if self.filter.chars().count() < MAX_FILTER && !char.is_control() {
                    self.filter.push(char);
                }
                self.rearrange(model);
            }
            Action::Erase => {
                self.filter.pop();
                self.rearrange(model);
            }
            Action::Clear => {
                self.typing = false;
                self.filter.clear();
                self.rearrange(model);
            }
            Action::Done => self.typing = false,
        }
        Do::Draw
    }

    fn rearrange(&mut self, model: &Model) {
        self.selected = None;
        self.first = 0;
        self.arrange(model);
    }

    fn show(&mut self, view: View) {
        self.view = view;
        self.detail = None;
        self.at = 0;
        self.scroll = 0;
    }

    fn back(&mut self, model: &Model) {
        if self.help {
            self.help = false;
        } else if self.detail.is_some() {
            self.detail = None;
        } else if self.view != View::Listeners {
            self.show(View::Listeners);
        } else if !self.filter.is_empty() || self.only_failing {
            self.filter.clear();
            self.only_failing = false;
            self.rearrange(model);
        }
        self.scroll = 0;
    }

    fn go(&mut self, by: isize, model: &Model) {
        let moved =
            |from: usize, count: usize| from.saturating_add_signed(by).min(count.saturating_sub(1));
        if self.detail.is_some() {
            self.scroll = self.scroll.saturating_add_signed(by);
        } else {
            match self.view {
                View::Listeners => {
                    let at = moved(self.position(), self.order.len());
                    // At the top one stays there, whichever row that is.
                    self.selected = self.order.get(at).filter(|_| at > 0).cloned();
                }
                View::Reasons => self.at = moved(self.at, model.reasons.len()),
                View::Incidents => self.at = moved(self.at, model.incidents.len()),
            }
        }
    }

    fn click(&mut self, line: u16, model: &Model) {
        let Some(line) = line.checked_sub(self.begin).map(usize::from) else {
            return;
        };
        if self.detail.is_none() && self.view == View::Listeners && line < self.room {
            let at = self.first + line;
            if at < self.order.len() && at == self.position() {
                self.enter(model);
            } else {
                self.selected = self.order.get(at).cloned();
            }
        }
    }

    fn enter(&mut self, model: &Model) {
        match self.view {
            View::Listeners if self.detail.is_none() => {
                self.detail = self.order.get(self.position()).cloned();
                // What one looks at is what one comes back to.
                self.selected.clone_from(&self.detail);
                self.scroll = 0;
            }
            View::Reasons => {
                if let Some(one) = model.reasons.get(self.at) {
                    let filter = one.reason.as_str().to_owned();
                    self.show(View::Listeners);
                    self.filter = filter;
                    self.rearrange(model);
                }
            }
            _ => {}
        }
    }
}

/// Whether something is wrong with a row.
#[must_use]
pub fn fails(row: &Row) -> bool {
    row.failures_60s > 0 || row.stalled_ns.is_some()
}
