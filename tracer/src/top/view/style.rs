//! Looks: sixteen colours, or none, or characters that every terminal has.

use ratatui::style::{Color, Modifier, Style};

/// How the screen may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Colours may be used.
    pub color: bool,
    /// Characters beyond ASCII may be used.
    pub unicode: bool,
}

impl Look {
    /// What the environment says: `NO_COLOR`, `TERM` and the locale.
    #[must_use]
    pub fn of_environment() -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let unicode = locale.is_some_and(|locale| {
            let locale = locale.to_string_lossy().to_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            color: set("NO_COLOR").is_none(),
            unicode,
        }
    }

    fn fg(self, color: Color) -> Style {
        if self.color {
            Style::new().fg(color)
        } else {
            Style::new()
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn bad(self) -> Style {
        self.fg(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// What may go wrong.
    #[must_use]
    pub fn odd(self) -> Style {
        self.fg(Color::Yellow)
    }

    /// What is well.
    #[must_use]
    pub fn good(self) -> Style {
        self.fg(Color::Green)
    }

    /// What is of less interest.
    #[must_use]
    pub fn dim(self) -> Style {
        // Bright black is not to be seen in some palettes; faint is left out by some terminals.
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Names of columns and parts.
    #[must_use]
    pub fn heading(self) -> Style {
        self.fg(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// The title, and what is chosen.
    #[must_use]
    pub fn bold(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The selected row.
    #[must_use]
    pub fn selected(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// By how full something is, in thousandths.
    #[must_use]
    pub fn fullness(self, full: u64) -> Style {
        match full {
            950.. => self.bad(),
            800.. => self.odd(),
            _ => Style::new(),
        }
    }
}
