//! Kernel programs that feed the proxy, and their loader. The programs are in `programs/`, what they
//! share with the loader in `common/`.
