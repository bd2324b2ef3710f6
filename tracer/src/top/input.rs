//! Keys, and what they do (pure).

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use super::ui::View;

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Give the terminal to the shell for a while.
    Suspend,
    /// Draw all anew.
    Redraw,
    /// Show this view.
    Show(View),
    /// Show the next view.
    NextView,
    /// Move the selection by so many rows.
    Move(isize),
    /// Move it by so many screens.
    Page(isize),
    /// Select the first row.
    First,
    /// Select the last row.
    Last,
    /// Select the row at this line of the terminal.
    Click(u16),
    /// Show more of the selected row.
    Enter,
    /// Back to where one came from.
    Back,
    /// Sort by the next column, or the one before.
    Sort {
        /// The one before.
        back: bool,
    },
    /// Turn the order around.
    Reverse,
    /// Stop taking in what is new, or go on.
    Pause,
    /// Show only what fails, or all.
    OnlyFailing,
    /// Begin to type a filter.
    Filter,
    /// One more character of it.
    Type(char),
    /// One less.
    Erase,
    /// No filter any more.
    Clear,
    /// It is typed.
    Done,
    /// Show all keys, or no more.
    Help,
}

/// Keys as the help shows them, and what they do.
pub const KEYS: &[(&str, &str)] = &[
    (
        "up down j k",
        "select a row; PgUp PgDn Home End (g G) go far",
    ),
    (
        "Enter",
        "more of a row: clients, descriptors, the last minute, advice",
    ),
    ("Esc", "back; in the list: no filter any more"),
    ("1 2 3, Tab", "listeners, reasons, incidents"),
    ("s S, > <", "sort by the next column, or the one before"),
    ("r", "turn the order around"),
    (
        "/",
        "filter: name, owner, unit, container, reason or pid; Enter keeps it",
    ),
    ("f", "only what fails or stalls, or all"),
    (
        "space, p",
        "pause: what is on screen stays; counting goes on",
    ),
    ("Ctrl-L", "draw the screen anew"),
    ("Ctrl-Z", "suspend; fg comes back"),
    ("?, h", "this help"),
    ("q, Ctrl-C", "quit"),
];

/// What a key does, while a filter is typed or not; `None` if nothing.
#[must_use]
pub fn key(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Some(Action::Quit),
            KeyCode::Char('z') => Some(Action::Suspend),
            KeyCode::Char('l') => Some(Action::Redraw),
            KeyCode::Char('u') if typing => Some(Action::Clear),
            KeyCode::Char('h') if typing => Some(Action::Erase),
            KeyCode::Char('f') => Some(Action::Page(1)),
            KeyCode::Char('b') => Some(Action::Page(-1)),
            _ => None,
        };
    }
    if typing {
        return match key.code {
            KeyCode::Char(char) => Some(Action::Type(char)),
            KeyCode::Backspace => Some(Action::Erase),
            KeyCode::Enter => Some(Action::Done),
            KeyCode::Esc => Some(Action::Clear),
            KeyCode::Up => Some(Action::Move(-1)),
            KeyCode::Down => Some(Action::Move(1)),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('1') => Action::Show(View::Listeners),
        KeyCode::Char('2') => Action::Show(View::Reasons),
        KeyCode::Char('3') => Action::Show(View::Incidents),
        KeyCode::Tab => Action::NextView,
        KeyCode::Up | KeyCode::Char('k') => Action::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Action::Move(1),
        KeyCode::PageUp => Action::Page(-1),
        KeyCode::PageDown => Action::Page(1),
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Enter => Action::Enter,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Char('s' | '>') => Action::Sort { back: false },
        KeyCode::Char('S' | '<') => Action::Sort { back: true },
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char(' ' | 'p') => Action::Pause,
        KeyCode::Char('f') => Action::OnlyFailing,
        KeyCode::Char('/') => Action::Filter,
        _ => return None,
    })
}

/// What the mouse does; `None` if nothing.
#[must_use]
pub fn mouse(event: MouseEvent) -> Option<Action> {
    match event.kind {
        MouseEventKind::ScrollUp => Some(Action::Move(-3)),
        MouseEventKind::ScrollDown => Some(Action::Move(3)),
        MouseEventKind::Down(MouseButton::Left) => Some(Action::Click(event.row)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn while_a_filter_is_typed_letters_are_letters() {
        let q = press(KeyCode::Char('q'));
        assert_eq!(key(q, false), Some(Action::Quit));
        assert_eq!(key(q, true), Some(Action::Type('q')));
        let ctrl_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(key(ctrl_c, true), Some(Action::Quit), "there is a way out");
        assert_eq!(key(press(KeyCode::Esc), true), Some(Action::Clear));
        assert_eq!(key(press(KeyCode::Char('x')), false), None);
    }
}
