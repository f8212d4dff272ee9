//! The fuzz targets on stable Rust: every input of `fuzz/corpus` and every crash that was ever found
//! (`fuzz/regressions`) runs through the function that its target runs.

use std::fs;
use std::path::Path;

use portreeve_core::fuzz::http2_pairing;
use portreeve_policy::fuzz::{policy_documents, policy_http_rules};
use portreeve_protocols::http1::fuzz::{http1_gate, http1_path};
use portreeve_protocols::kafka::fuzz::{kafka_gate, kafka_messages};
use portreeve_tests::hyper_oracle::http1_hyper;
use portreeve_tests::kafka_oracle::kafka_oracle;

fn replay(target: &str, run: fn(&[u8])) {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let mut inputs = 0;
    for folder in ["corpus", "regressions"] {
        let Ok(entries) = fs::read_dir(fuzz.join(folder).join(target)) else { continue };
        for entry in entries {
            let path = entry.expect("an entry").path();
            let data = fs::read(&path).expect("an input");
            println!("{}", path.display());
            run(&data);
            // Cut anywhere it must hold, too; every byte of a long input would take too long.
            for end in (0..data.len()).step_by(1 + data.len() / 16) {
                run(&data[..end]);
            }
            inputs += 1;
        }
    }
    assert!(inputs >= 5, "only {inputs} inputs for {target}");
}

#[test]
fn corpus_of_http1_gate() {
    replay("http1_gate", http1_gate);
}

#[test]
fn corpus_of_http1_path() {
    replay("http1_path", http1_path);
}

#[test]
fn corpus_of_http1_hyper() {
    replay("http1_hyper", http1_hyper);
}

#[test]
fn corpus_of_http2_pairing() {
    replay("http2_pairing", http2_pairing);
}

#[test]
fn corpus_of_policy_documents() {
    replay("policy_documents", policy_documents);
}

#[test]
fn corpus_of_policy_http_rules() {
    replay("policy_http_rules", policy_http_rules);
}

#[test]
fn corpus_of_kafka_gate() {
    replay("kafka_gate", kafka_gate);
}

#[test]
fn corpus_of_kafka_messages() {
    replay("kafka_messages", kafka_messages);
}

#[test]
fn corpus_of_kafka_oracle() {
    replay("kafka_oracle", kafka_oracle);
}
