//! Writes an adapter in the form that every vLLM reads: one rank, scaling folded into B, both expert tensors.
//!
//! ```sh
//! cargo run -p descant-export --example fold_adapter
//! cargo run --release -p descant-export --example fold_adapter -- MODEL_DIR ADAPTER_DIR OUT_DIR
//! ```

use std::ops::ControlFlow;
use std::path::Path;

use descant_export::{Form, Job, Report, Result, export};

fn main() -> Result<()> {
    let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/export"));
    let mut given = std::env::args_os().skip(1).map(std::path::PathBuf::from);
    let model = given.next().unwrap_or_else(|| golden.join("base"));
    let adapter = given.next().unwrap_or_else(|| golden.join("adapter-mixed"));
    let out = given.next().unwrap_or_else(|| std::env::temp_dir().join("folded-adapter"));
    let report = fold(&model, &adapter, &out)?;
    print(&report);
    Ok(())
}

fn fold(model: &Path, adapter: &Path, out: &Path) -> Result<Report> {
    let job = Job { force: true, ..Job::new(adapter, model, Form::PeftFolded, out) };
    export(&job, &mut |_| ControlFlow::Continue(()))
}

#[expect(clippy::print_stdout, reason = "an example shows what it did")]
fn print(report: &Report) {
    println!("{}", report.to_json());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_folds() -> Result<()> {
        let golden = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/golden/export"));
        let out = std::env::temp_dir().join(format!("folded-adapter-{}", std::process::id()));
        let report = fold(&golden.join("base"), &golden.join("adapter-mixed"), &out)?;
        assert_eq!(report.rank, Some(8));
        Ok(descant_files::remove(&out)?)
    }
}
