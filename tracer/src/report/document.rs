//! What a report consists of, whatever it is written as.

use super::plot::Figure;

/// A part of a report.
#[derive(Clone, Debug)]
pub enum Block {
    /// A title of this rank, 1 being that of the whole.
    Title(u8, String),
    /// A sentence or several.
    Text(String),
    /// Names and what they stand for.
    Facts(Vec<(&'static str, String)>),
    /// Lines that belong together.
    List(Vec<String>),
    /// Something to type.
    Code(String),
    /// Columns.
    Table(Table),
    /// A picture, which text goes without.
    Figure(Box<Figure>),
    /// What is told of one incident: its id, its title, and the rest.
    Incident(String, String, Vec<Block>),
}

/// Columns.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// What they are.
    pub head: Vec<&'static str>,
    /// Their rows.
    pub rows: Vec<Vec<String>>,
    /// Of each row, the incident that it is about; empty where it is about none.
    pub incidents: Vec<String>,
}
