//! How many files a process may have open.

/// Raises the limit of open files to the highest that the system allows: every connection needs two
/// descriptors, and more while it splices. To be called once, at the start.
pub fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!("can't raise the limit of open files: {error}");
        }
    }
}
