//! A radix trie over bytes: which of many strings does a value begin with?

/// Strings, each with a number.
#[derive(Debug, Default)]
pub(super) struct Trie {
    /// The first is the root, if there is any.
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    /// What stands on the way from the parent.
    label: Box<[u8]>,
    /// Sorted by first byte.
    children: Vec<(u8, u32)>,
    /// The number of the string that ends here; [`NONE`] if none does.
    number: u32,
}

const NONE: u32 = u32::MAX;

impl Trie {
    /// The number of a string; `next` if it is new.
    pub(super) fn entry(&mut self, text: impl Iterator<Item = u8>, next: u32) -> u32 {
        let text: Vec<u8> = text.collect();
        if self.nodes.is_empty() {
            self.nodes.push(Node::new(b""));
        }
        let at = self.node(&text) as usize;
        if self.nodes[at].number == NONE {
            self.nodes[at].number = next;
        }
        self.nodes[at].number
    }

    /// Calls `found` with the number and the length of every string that the value begins with.
    pub(super) fn each(&self, value: impl Iterator<Item = u8>, found: &mut dyn FnMut(u32, usize)) {
        let Some(mut node) = self.nodes.first() else { return };
        let mut value = value;
        let mut taken = 0;
        loop {
            if node.number != NONE {
                found(node.number, taken);
            }
            if node.children.is_empty() {
                return;
            }
            let Some(next) = value.next().and_then(|byte| node.child(byte)) else { return };
            node = &self.nodes[next as usize];
            // The first byte of the label chose the child.
            for byte in &node.label[1..] {
                if value.next() != Some(*byte) {
                    return;
                }
            }
            taken += node.label.len();
        }
    }

    /// The most that the strings of one value can weigh together.
    pub(super) fn heaviest(&self, weight: &dyn Fn(u32) -> usize) -> usize {
        let mut way = vec![(0_usize, 0_usize)];
        let mut heaviest = 0;
        while let Some((index, before)) = way.pop() {
            let Some(node) = self.nodes.get(index) else { continue };
            let here = before + if node.number == NONE { 0 } else { weight(node.number) };
            heaviest = heaviest.max(here);
            way.extend(node.children.iter().map(|(_, child)| (*child as usize, here)));
        }
        heaviest
    }

    /// The node of a string, made if it isn't there.
    fn node(&mut self, text: &[u8]) -> u32 {
        let (mut at, mut rest) = (0_u32, text);
        while let Some(first) = rest.first() {
            let Some(next) = self.nodes[at as usize].child(*first) else {
                return self.add_child(at, rest);
            };
            let label = &self.nodes[next as usize].label;
            let shared = label.iter().zip(rest).take_while(|(a, b)| a == b).count();
            at = if shared < label.len() { self.split(at, next, shared) } else { next };
            rest = &rest[shared..];
        }
        at
    }

    fn add_child(&mut self, parent: u32, label: &[u8]) -> u32 {
        let index = number(self.nodes.len());
        self.nodes.push(Node::new(label));
        self.nodes[parent as usize].link(label[0], index);
        index
    }

    /// Puts a node between `parent` and `child` after `shared` bytes of the child's label.
    fn split(&mut self, parent: u32, child: u32, shared: usize) -> u32 {
        let index = number(self.nodes.len());
        let label = std::mem::take(&mut self.nodes[child as usize].label);
        let mut middle = Node::new(&label[..shared]);
        middle.link(label[shared], child);
        self.nodes[child as usize].label = label[shared..].into();
        self.nodes.push(middle);
        self.nodes[parent as usize].link(label[0], index);
        index
    }
}

impl Node {
    fn new(label: &[u8]) -> Self {
        Self { label: label.into(), children: Vec::new(), number: NONE }
    }

    fn child(&self, byte: u8) -> Option<u32> {
        let place = self.children.binary_search_by_key(&byte, |(first, _)| *first).ok()?;
        Some(self.children[place].1)
    }

    /// Sets the child for this first byte.
    fn link(&mut self, byte: u8, child: u32) {
        match self.children.binary_search_by_key(&byte, |(first, _)| *first) {
            Ok(place) => self.children[place].1 = child,
            Err(place) => self.children.insert(place, (byte, child)),
        }
    }
}

/// An index; memory ends long before these numbers do.
pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_that_a_value_begins_with_is_found() {
        let mut trie = Trie::default();
        for (number, text) in (0..).zip(["", "/a", "/ab", "/abc/d", "/b"]) {
            assert_eq!(trie.entry(text.bytes(), number), number);
        }
        assert_eq!(trie.entry("/ab".bytes(), 9), 2);
        let find = |value: &str| {
            let mut found = Vec::new();
            trie.each(value.bytes(), &mut |number, taken| found.push((number, taken)));
            found
        };
        assert_eq!(find("/abc/de"), [(0, 0), (1, 2), (2, 3), (3, 6)]);
        assert_eq!(find("/abc/"), [(0, 0), (1, 2), (2, 3)]);
        assert_eq!(find("x"), [(0, 0)]);
        assert_eq!(trie.heaviest(&|_| 1), 4);
    }
}
