//! The text of a policy file, with the name that errors call it by.

/// One file's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What errors call it: a path, usually.
    pub name: String,
    /// The whole text: one or many YAML documents, or JSON.
    pub text: String,
}

impl Source {
    /// A source of this name and text.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        Self { name: name.into(), text: text.into() }
    }
}
