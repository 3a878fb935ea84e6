//! Compiles every kernel for every architecture it is meant for, and compares registers, shared memory and spills
//! with the record. No card is needed.
//!
//! `kernels RECORD` compares, `kernels RECORD --update` writes the record again. `cargo xtask kernels` calls it.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a check talks")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use descant_kernels::cuda::architecture::{ARCHITECTURES, Architecture};
use descant_kernels::cuda::resources::{Resources, parse};
use descant_kernels::cuda::table::{Define, UNITS, Unit};
use descant_kernels::cuda::{CudaError, nvrtc};
use rayon::prelude::*;

/// File, constants and name of a kernel.
type Kernel = (String, String, String);
/// What it uses on each architecture; nothing where it is not meant for it.
type Record = BTreeMap<Kernel, [Option<Resources>; ARCHITECTURES.len()]>;

const HEAD: &str = "\
# Kernels

What every kernel uses on every architecture, as the assembler says: registers a thread / static shared memory of a block in bytes / bytes a thread spills, both ways.
`-` where a kernel is not meant for an architecture.
Threads, dynamic shared memory and tiles of the kernels with tiles are in `cuda/geometry.rs`; a file that needs others does not compile.
CUDA C++ is formatted by `clang-format` with the `.clang-format` of this repository, lines of at most 120 columns.
Written by `cargo xtask kernels --update`; the check fails where a kernel spills more than here.

";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, update) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [path] => (path.to_owned(), false),
        [path, "--update"] => (path.to_owned(), true),
        _ => {
            eprintln!("usage: kernels RECORD [--update]");
            return ExitCode::from(2);
        }
    };
    match run(Path::new(&path), update) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failures) => {
            eprintln!("{failures}");
            ExitCode::FAILURE
        }
    }
}

fn run(path: &Path, update: bool) -> Result<(), String> {
    let start = Instant::now();
    let version = nvrtc::version().map_err(|e| told(&e))?;
    let record = compile_all()?;
    println!(
        "{} kernels for {} architectures by NVRTC {}.{} in {:.0} s",
        record.len(),
        ARCHITECTURES.len(),
        version.0,
        version.1,
        start.elapsed().as_secs_f64()
    );
    if update {
        #[expect(clippy::disallowed_methods, reason = "a generated document, under version control")]
        return std::fs::write(path, render(&record)).map_err(|e| format!("{}: {e}", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let failures = compare(&record, &read(&text));
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// One text to compile.
type Job = (&'static Unit, &'static [Define], usize, Architecture);

fn compile_all() -> Result<Record, String> {
    let jobs: Vec<Job> = UNITS
        .iter()
        .flat_map(|unit| unit.variants.iter().map(move |defines| (unit, *defines)))
        .flat_map(|(unit, defines)| {
            let all = ARCHITECTURES.into_iter().enumerate();
            let meant = all.filter(|(_, a)| unit.only.is_none_or(|number| number == a.number));
            meant.map(move |(at, architecture)| (unit, defines, at, architecture)).collect::<Vec<_>>()
        })
        .collect();
    let compiled: Vec<Result<_, CudaError>> = jobs
        .par_iter()
        .map(|(unit, defines, at, architecture)| {
            let options = nvrtc::options(*architecture, defines, true);
            let log = nvrtc::compile(unit, *architecture, &options)?.log;
            Ok((*unit, *defines, *at, parse(&log)))
        })
        .collect();
    let mut record = Record::new();
    let mut failures = String::new();
    for result in compiled {
        match result {
            Ok((unit, defines, at, kernels)) => {
                for (name, resources) in kernels {
                    let kernel = (unit.id.to_owned(), constants(defines), name);
                    record.entry(kernel).or_default()[at] = Some(resources);
                }
            }
            Err(error) => writeln!(failures, "{}", told(&error)).expect("a string takes what is written"),
        }
    }
    if failures.is_empty() { Ok(record) } else { Err(failures) }
}

fn told(error: &CudaError) -> String {
    error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}\nhint: {hint}"))
}

fn constants(defines: &[Define]) -> String {
    defines.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn render(record: &Record) -> String {
    let mut text = HEAD.to_owned();
    let names: Vec<String> = ARCHITECTURES.iter().map(ToString::to_string).collect();
    let _ = writeln!(text, "| file | constants | kernel | {} |", names.join(" | "));
    let _ = writeln!(text, "| --- | --- | --- |{}", " --- |".repeat(names.len()));
    for ((unit, constants, name), resources) in record {
        let cell = |r: &Option<Resources>| {
            r.map_or_else(|| "-".to_owned(), |r| format!("{}/{}/{}", r.registers, r.shared, r.spilled))
        };
        let cells: Vec<String> = resources.iter().map(cell).collect();
        let _ = writeln!(text, "| {unit} | {constants} | {name} | {} |", cells.join(" | "));
    }
    text
}

/// The rows of a rendered record; what is not a row is passed over.
fn read(text: &str) -> Record {
    let row = |line: &str| {
        let cells: Vec<&str> =
            line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
        let [unit, constants, name, rest @ ..] = &cells[..] else { return None };
        let cell = |text: &str| {
            let mut numbers = text.split('/').map(str::parse);
            let mut next = || numbers.next()?.ok();
            Some(Resources { registers: next()?, shared: next()?, spilled: next()? })
        };
        let resources: [Option<Resources>; ARCHITECTURES.len()] =
            rest.iter().map(|text| cell(text)).collect::<Vec<_>>().try_into().ok()?;
        let kernel = ((*unit).to_owned(), (*constants).to_owned(), (*name).to_owned());
        resources.iter().any(Option::is_some).then_some((kernel, resources))
    };
    text.lines().filter_map(row).collect()
}

/// What is worse than the record, or not in it.
fn compare(new: &Record, old: &Record) -> Vec<String> {
    let again = "after a wanted change: cargo xtask kernels --update, and read the difference";
    let mut failures = Vec::new();
    for (kernel @ (unit, constants, name), resources) in new {
        let Some(recorded) = old.get(kernel) else {
            failures.push(format!("{unit} {constants} {name}: not in the record ({again})"));
            continue;
        };
        for ((now, was), architecture) in resources.iter().zip(recorded).zip(ARCHITECTURES) {
            let (now, was) = (now.unwrap_or_default(), was.unwrap_or_default());
            if now.spilled > was.spilled {
                let text = format!("spills {} bytes, {} in the record", now.spilled, was.spilled);
                failures.push(format!("{unit} {constants} {name} on {architecture}: {text} ({again})"));
            }
            if now.shared > architecture.shared_memory() {
                failures
                    .push(format!("{unit} {constants} {name} on {architecture}: {} B shared", now.shared));
            }
        }
    }
    let gone = old.keys().filter(|kernel| !new.contains_key(*kernel));
    failures.extend(
        gone.map(|(unit, constants, name)| {
            format!("{unit} {constants} {name}: in the record only ({again})")
        }),
    );
    failures
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(spilled: u32) -> Record {
        let mut resources = [None; ARCHITECTURES.len()];
        resources[3] = Some(Resources { registers: 168, shared: 1024, spilled });
        Record::from([(("experts/forward".into(), "DIM=64 W=1".into(), "gate_up".into()), resources)])
    }

    #[test]
    fn a_rendered_record_is_read_back() {
        assert_eq!(read(&render(&record(8))), record(8));
        assert_eq!(compare(&record(8), &record(8)), Vec::<String>::new());
    }

    #[test]
    fn more_spills_a_new_kernel_and_a_lost_one_are_failures() {
        assert_eq!(compare(&record(12), &record(8)).len(), 1);
        assert_eq!(compare(&record(0), &record(8)).len(), 0);
        assert_eq!(compare(&record(8), &Record::new()).len(), 1);
        assert_eq!(compare(&Record::new(), &record(8)).len(), 1);
    }
}
