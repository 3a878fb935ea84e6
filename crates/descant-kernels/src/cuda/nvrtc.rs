//! CUDA C++ to a binary for one architecture, by NVRTC, and the key under which the result is kept.
//!
//! No CUDA header is used, so NVRTC needs nothing but our own texts. A card is not needed either.

use std::sync::Once;

use sha2::{Digest as _, Sha256};

use super::architecture::Architecture;
use super::ending::{self, enter, is_over};
use super::error::{CudaError, Result, require};
use super::library::Library;
use super::program::{self, Answer, Program};
use super::table::{Define, HEADERS, Unit};

/// Raised when the same texts and options would have to be compiled again.
const GENERATION: u32 = 1;

/// A compiled kernel file.
#[derive(Debug)]
pub struct Binary {
    /// What `cuModuleLoadData` takes.
    pub image: Vec<u8>,
    /// The compiler's and assembler's words: warnings, and with `verbose` registers, shared memory and spills.
    pub log: String,
}

/// The compiler's options for one architecture and one set of constants.
pub fn options(architecture: Architecture, defines: &[Define], verbose: bool) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={architecture}"),
        "--std=c++17".to_owned(),
        // A function without a space specifier is the device's.
        "-default-device".to_owned(),
    ];
    if verbose {
        options.push("--ptxas-options=-v".to_owned());
    }
    options.extend(defines.iter().map(option));
    options
}

/// A constant, as it is passed to the compiler.
fn option((name, value): &Define) -> String {
    format!("-D{name}={value}")
}

/// Those that a file is always compiled with.
fn constants(unit: &Unit) -> impl Iterator<Item = String> {
    unit.constants.iter().map(option)
}

/// The name under which a compiled file is kept: everything its bytes depend on is in it.
pub fn key(unit: &Unit, options: &[String], version: (i32, i32)) -> String {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(&GENERATION.to_le_bytes());
    part(&version.0.to_le_bytes());
    part(&version.1.to_le_bytes());
    part(unit.text.as_bytes());
    for option in constants(unit) {
        part(option.as_bytes());
    }
    for (name, text) in HEADERS {
        part(name.as_bytes());
        part(text.as_bytes());
    }
    for option in options {
        part(option.as_bytes());
    }
    let mut first = [0; 16];
    first.copy_from_slice(&hash.finalize()[..16]);
    let id = unit.id.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    format!("{id}-{:032x}.cubin", u128::from_be_bytes(first))
}

/// Version of the NVRTC that is found.
///
/// # Errors
/// There is none, or the process ends.
pub fn version() -> Result<(i32, i32)> {
    let _inside = enter().ok_or(CudaError::Ending)?;
    require(Library::Nvrtc)?;
    program::version()
}

/// The least that can be compiled.
static LEAST: Unit = Unit {
    id: "least",
    text: "extern \"C\" __global__ void least(float* x) { x[0] = 1; }",
    variants: &[&[]],
    constants: &[],
    only: None,
};

/// Loads the compiler and has it compile the least; what it does at the process's end is registered then, and waits.
pub(super) fn open(architecture: Architecture) {
    static OPEN: Once = Once::new();
    OPEN.call_once(|| {
        let Some(_inside) = enter() else { return };
        // What is wrong is the answer to whoever compiles a file.
        let _ = compile_inside(&LEAST, architecture, &options(architecture, &[], false));
        ending::wait_at_end();
    });
}

/// Does `work` in a thread of its own, once the compiler is open there.
#[cfg(any(feature = "cuda", test))]
pub(super) fn beside(architecture: Architecture, work: impl FnOnce() + Send + 'static) {
    let beginning = ending::begin();
    std::thread::spawn(move || {
        open(architecture);
        drop(beginning);
        work();
    });
}

/// Compiles a file.
///
/// # Errors
/// There is no NVRTC, it does not know the architecture, or the text is wrong: then with its log. Or the process ends.
pub fn compile(unit: &'static Unit, architecture: Architecture, options: &[String]) -> Result<Binary> {
    open(architecture);
    let _inside = enter().ok_or(CudaError::Ending)?;
    compile_inside(unit, architecture, options)
}

fn compile_inside(unit: &'static Unit, architecture: Architecture, options: &[String]) -> Result<Binary> {
    require(Library::Nvrtc)?;
    let program = Program::new(unit.id, unit.text, HEADERS)?;
    program.give_up_at_end();
    let constants: Vec<String> = constants(unit).collect();
    let answer = program.compile(options.iter().chain(&constants).map(String::as_str))?;
    if is_over() {
        return Err(CudaError::Ending);
    }
    let log = program.log()?;
    match answer {
        Answer::Made => Ok(Binary { image: program.image()?, log }),
        Answer::WrongText => {
            Err(CudaError::Compile { unit: unit.id, architecture: architecture.to_string(), log })
        }
        Answer::Refused(code) => {
            let text = format!("error {code}: {log}");
            Err(CudaError::Nvrtc { call: "nvrtcCompileProgram", text })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::architecture::{ARCHITECTURES, Capability};
    use crate::cuda::table::UNITS;

    const HOPPER: Architecture = Architecture::of(Capability { major: 9, minor: 0 });

    #[test]
    fn options_name_the_architecture_and_the_constants_in_order() {
        assert_eq!(
            options(HOPPER, &[("DIM", 64), ("WINDOW", -1)], false),
            ["--gpu-architecture=sm_90a", "--std=c++17", "-default-device", "-DDIM=64", "-DWINDOW=-1"]
        );
        assert!(options(HOPPER, &[], true).contains(&"--ptxas-options=-v".to_owned()));
    }

    #[test]
    fn a_key_changes_with_everything_the_binary_depends_on() {
        let unit = &UNITS[0];
        let constant = Unit { constants: &[("A", 1)], ..*unit };
        let other = Unit { id: unit.id, text: "// other", variants: &[&[]], constants: &[], only: None };
        let at = |architecture, defines: &[Define]| options(architecture, defines, false);
        let keys = [
            key(unit, &at(HOPPER, &[]), (13, 0)),
            key(unit, &at(HOPPER, &[]), (12, 9)),
            key(unit, &at(HOPPER, &[("A", 1)]), (13, 0)),
            key(unit, &at(HOPPER, &[("A", 11)]), (13, 0)),
            key(unit, &at(HOPPER, &[("A", 1), ("B", 1)]), (13, 0)),
            key(unit, &at(ARCHITECTURES[0], &[]), (13, 0)),
            key(&other, &at(HOPPER, &[]), (13, 0)),
            key(&constant, &at(HOPPER, &[]), (13, 0)),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b), "{a} stands for two binaries");
        }
        assert_eq!(keys[0], key(unit, &at(HOPPER, &[]), (13, 0)), "and is the same for the same");
    }

    #[test]
    fn a_key_is_a_plain_file_name() {
        let unit = Unit { id: "attention/backward", text: "", variants: &[&[]], constants: &[], only: None };
        let key = key(&unit, &[], (13, 0));
        assert!(key.starts_with("attention-backward-"), "{key}");
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        assert_eq!(key.strip_suffix(".cubin").map(|stem| stem.chars().all(plain)), Some(true), "{key}");
    }

    #[test]
    fn without_a_compiler_the_error_says_so_and_with_one_a_wrong_text_is_shown() {
        static WRONG: Unit =
            Unit { id: "wrong", text: "this is not C++", variants: &[&[]], constants: &[], only: None };
        match compile(&WRONG, HOPPER, &options(HOPPER, &[], false)) {
            Err(CudaError::NoLibrary { library: Library::Nvrtc }) => {}
            Err(CudaError::Compile { unit: "wrong", log, .. }) => assert!(log.contains("error"), "{log}"),
            other => panic!("{other:?}"),
        }
    }

    /// What a file takes as it is given, so that host and file cannot disagree.
    const FOLLOWED: &[(&str, &str)] = &[
        ("decode/attend", "MOST_SPLITS"),
        ("decode/attend", "LEAST_TILES"),
        ("decode/experts", "BLOCKS"),
        ("decode/experts", "MAX_EXPERTS"),
        ("decode/experts_nf4", "BLOCKS"),
        ("decode/experts_nf4", "MAX_EXPERTS"),
        ("decode/experts_sm90", "MAX_EXPERTS"),
        ("decode/experts_wide_sm90", "CHAINS"),
        ("decode/experts_wide_sm90", "MAX_EXPERTS"),
        ("decode/experts_wide_sm90", "STAGES"),
        ("decode/route_sm90", "BLOCKS"),
        ("decode/rows", "MAX_WIDTH"),
        ("decode/wide", "STAGES"),
        ("experts/few", "MAX_EXPERTS"),
        ("experts/fp8_rows_sm90", "LEAST_REFERENCE"),
        ("experts/fp8_sm90", "LEAST_REFERENCE"),
        ("experts/few", "BLOCKS"),
        ("experts/few_nf4", "MAX_EXPERTS"),
        ("experts/few_nf4", "BLOCKS"),
        ("experts/low_rank", "MAX_EXPERTS"),
        ("experts/low_rank", "STAGES"),
        ("low_rank/few", "RANK_WIDTH"),
        ("pick/draw", "ONE"),
        ("rotary", "HEADS"),
        ("route/rows_sm90", "MAX_K"),
        ("route/sort", "MAX_EXPERTS"),
        ("swiglu", "FORWARD_VECTORS"),
        ("swiglu/fp8_sm90", "VECTORS"),
    ];

    #[test]
    fn a_launch_by_other_numbers_than_a_file_needs_does_not_compile() {
        let mut refused = 0;
        for unit in UNITS.iter().filter(|unit| !unit.constants.is_empty()) {
            for at in
                (0..unit.constants.len()).filter(|at| !FOLLOWED.contains(&(unit.id, unit.constants[*at].0)))
            {
                let mut constants = unit.constants.to_vec();
                constants[at].1 += 1;
                let wrong = Box::leak(Box::new(Unit { constants: constants.leak(), ..*unit }));
                let what = format!("{} with {:?}", unit.id, wrong.constants[at]);
                match compile(wrong, HOPPER, &options(HOPPER, unit.variants[0], false)) {
                    Err(CudaError::NoLibrary { library: Library::Nvrtc }) => return,
                    Err(CudaError::Compile { log, .. }) => {
                        assert!(log.contains("static assertion failed"), "{what}: {log}");
                    }
                    other => panic!("{what}: {:?}", other.map(|_| "it compiles")),
                }
                refused += 1;
            }
        }
        assert_eq!(refused, UNITS.iter().map(|unit| unit.constants.len()).sum::<usize>() - FOLLOWED.len());
    }
    /// How long a process compiles before it ends, in ms: while the compiler is loaded, in its first compilation, and later.
    const DELAYS: [u64; 9] = [0, 2, 8, 15, 25, 40, 80, 200, 500];
    /// How this test's process compiles in threads, and for how long before it ends; none where it is the test itself.
    const WAY: &str = "DESCANT_TEST_ENDING";

    /// Compiles in threads and ends meanwhile.
    fn end_while_compiling(way: &str) {
        let (way, delay) = way.rsplit_once(' ').expect("a way and a delay");
        let all = |compile: fn(&'static Unit, Architecture, &[String]) -> Result<Binary>| {
            move || {
                for unit in UNITS {
                    drop(compile(unit, HOPPER, &options(HOPPER, unit.variants[0], false)));
                }
            }
        };
        for _ in 0..3 {
            match way {
                "waits" => beside(HOPPER, all(compile)),
                _ => drop(std::thread::spawn(all(compile_inside))),
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(delay.parse().expect("a number")));
    }

    #[test]
    fn a_process_may_end_while_threads_compile() {
        if let Ok(way) = std::env::var(WAY) {
            return end_while_compiling(&way);
        }
        let ends_well = |way: &str, delay: u64| {
            let name = "cuda::nvrtc::tests::a_process_may_end_while_threads_compile";
            let mut process = std::process::Command::new(std::env::current_exe().unwrap());
            let ended = process.args(["--exact", name]).env(WAY, format!("{way} {delay}")).output().unwrap();
            assert!(String::from_utf8_lossy(&ended.stdout).contains("1 passed"), "{ended:?}");
            ended.status.success()
        };
        for delay in DELAYS {
            assert!(ends_well("waits", delay), "after {delay} ms");
        }
        // The control: without what waits some crash.
        let crashes = || DELAYS.iter().any(|delay| !ends_well("does not wait", *delay));
        assert!(version().is_err() || (0..5).any(|_| crashes()), "nothing was at stake");
    }
}
