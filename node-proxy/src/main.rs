//! `portreeve-node`: the daemon of a node, and the commands that ask it.

fn main() -> std::process::ExitCode {
    portreeve_node::main()
}
