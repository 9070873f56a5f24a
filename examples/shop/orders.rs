//! The book of orders: one file, whose first line is its schema. A newer release writes it anew in its own form; an older
//! one cannot read that, and says so. This is what makes going back hard for real applications.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The orders so far.
pub struct Orders {
    file: File,
    schema: u32,
    count: usize,
}

impl Orders {
    /// Opens the book in `data`, makes it when there is none, and migrates it to `schema` when it is older.
    pub fn open(data: &Path, schema: u32) -> io::Result<Self> {
        fs::create_dir_all(data)?;
        let path = data.join("orders");
        let found = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => format!("schema {schema}\n"),
            read => read?,
        };
        let mut lines = found.lines();
        let first = lines.next().unwrap_or("").strip_prefix("schema ").and_then(|number| number.parse().ok());
        let lines: Vec<&str> = lines.collect();
        let has = first.unwrap_or(1);
        if has > schema {
            return Err(io::Error::other(format!("the orders have schema {has}, and I know only {schema}")));
        }
        let mut book = format!("schema {schema}\n");
        for (number, line) in lines.iter().enumerate() {
            let item = line.rsplit('\t').next().unwrap_or(line);
            book.push_str(&order_line(schema, number + 1, item));
        }
        replace(&path, book.as_bytes())?;
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, schema, count: lines.len() })
    }

    /// Writes an order down; returns its number.
    pub fn add(&mut self, item: &str) -> io::Result<usize> {
        let item: String = item.chars().filter(|c| c.is_alphanumeric() || *c == '-').take(40).collect();
        self.file.write_all(order_line(self.schema, self.count + 1, &item).as_bytes())?;
        self.count += 1;
        Ok(self.count)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// Schema 1: the item. Schema 2: number, tab, item.
fn order_line(schema: u32, number: usize, item: &str) -> String {
    if schema >= 2 { format!("{number}\t{item}\n") } else { format!("{item}\n") }
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let private: PathBuf = path.with_extension("new");
    fs::write(&private, bytes)?;
    fs::rename(private, path)
}
