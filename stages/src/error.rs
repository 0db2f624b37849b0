//! What can be wrong with a stage's configuration or data, as facts. Hints and colours are the program's business.

/// Why a stage cannot give its outputs.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    #[error("input `{port}` is not wired")]
    NoInput { port: String },
    #[error("the artifact has no entry `{entry}`, or the stage does not declare that it reads it")]
    NoEntry { entry: String },
    #[error("a {type_name} is a tree of entries, not one blob")]
    NotABlob { type_name: String },
    #[error("`{entry}` cannot be read: {detail}")]
    Unreadable { entry: String, detail: String },
    #[error("the output cannot be encoded: {detail}")]
    Encode { detail: String },
    #[error("{what} cannot be decoded: {detail}")]
    Decode { what: String, detail: String },

    #[error("{place}: there is no column `{column}`; the columns are {}", list(.available))]
    UnknownColumn { place: String, column: String, available: Vec<String> },
    #[error("{place}: column `{column}` is {found}, expected {expected}")]
    ColumnType { place: String, column: String, found: String, expected: String },
    #[error("column {number} has no name; name every column")]
    UnnamedColumn { number: usize },
    #[error("a column may not be named `{name}`: that name is taken by Headwater")]
    ReservedColumn { name: String },
    #[error(
        "column `{column}` has the type {found}, which a frame cannot hold; leave it out or turn it into text or numbers"
    )]
    UnsupportedType { column: String, found: String },
    #[error("{place}: no rows are left")]
    Empty { place: String },

    /// A file's content is not what its format asks for.
    #[error("{file}, row {row}{}: {detail}", column.as_ref().map(|c| format!(", column `{c}`")).unwrap_or_default())]
    Row { file: String, row: u64, column: Option<String>, detail: String },
    #[error("{file}: {detail}")]
    File { file: String, detail: String },

    /// The configuration asks for something that cannot be had; found only when the data are there.
    #[error("{detail}")]
    Config { detail: String },
    /// The data do not allow what was asked.
    #[error("{detail}")]
    Data { detail: String },
    /// A library below failed in a way of its own.
    #[error("{what}: {detail}")]
    Library { what: &'static str, detail: String },
}

/// Names for a message: `a`, `b` and `c`, shortened after a dozen.
pub(crate) fn list(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(12).map(|name| format!("`{name}`")).collect();
    match (shown.len(), names.len()) {
        (0, _) => "none".into(),
        (n, all) if n < all => format!("{} and {} more", shown.join(", "), all - n),
        _ => shown.join(", "),
    }
}
