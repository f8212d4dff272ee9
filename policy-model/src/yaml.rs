//! Reading other objects as policies are read: a tree in which every value knows its place, and a
//! reader that reports everything that is wrong at once, with line, column and path.

pub use crate::diagnostic::{Position, nearest};
pub use crate::document::node::{Key, Node, Value, parse};
pub use crate::document::reader::{Fields, Reader};
