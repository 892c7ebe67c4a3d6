//! Columns for people: each as wide as its widest cell, as `kubectl` writes them.

use std::fmt;

/// Between two columns.
const GAP: usize = 3;

/// Rows below a head.
#[derive(Clone, Debug)]
pub struct Table<const COLUMNS: usize> {
    widths: [usize; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

impl<const COLUMNS: usize> Table<COLUMNS> {
    /// Only the head so far.
    pub fn new(head: [&str; COLUMNS]) -> Self {
        let mut table = Self { widths: [0; COLUMNS], rows: Vec::new() };
        table.push(head.map(str::to_owned));
        table
    }

    /// Adds a row; an empty cell becomes a `-`, so that columns can be told apart by programs too.
    pub fn push(&mut self, row: [String; COLUMNS]) {
        let row = row.map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = cell.chars().count().max(*width);
        }
        self.rows.push(row);
    }

    /// Takes out what was added, keeping the widths: what follows stands below it as in one table.
    pub fn taken(&mut self) -> String {
        let text = self.to_string();
        self.rows.clear();
        text
    }
}

impl<const COLUMNS: usize> fmt::Display for Table<COLUMNS> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(self.widths) {
                line.push_str(&format!("{cell:<0$}", width + GAP));
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_also_later() {
        let mut table = Table::new(["NAME", "CALLS", "STATE"]);
        table.push(["acme/desk".into(), "3".into(), String::new()]);
        assert_eq!(table.taken(), "NAME        CALLS   STATE\nacme/desk   3       -\n");
        table.push(["é".into(), "12".into(), "drains".into()]);
        assert_eq!(table.taken(), "é           12      drains\n");
    }
}
