//! CUDA C++ to a binary for one architecture, by NVRTC, and the key under which the result is kept.
//!
//! No CUDA header is used, so NVRTC needs nothing but our own texts. A card is not needed either.

use std::ffi::{CStr, CString, c_char};

use cudarc::nvrtc::sys;
use sha2::{Digest as _, Sha256};

use super::architecture::Architecture;
use super::error::{CudaError, Result, require};
use super::library::Library;
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
/// There is none.
#[expect(unsafe_code, reason = "calls NVRTC")]
pub fn version() -> Result<(i32, i32)> {
    require(Library::Nvrtc)?;
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to integers that live through the call.
    check("nvrtcVersion", unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    Ok((major, minor))
}

/// Compiles a file.
///
/// # Errors
/// There is no NVRTC, it does not know the architecture, or the text is wrong: then with its log.
pub fn compile(unit: &'static Unit, architecture: Architecture, options: &[String]) -> Result<Binary> {
    require(Library::Nvrtc)?;
    let program = Program::new(unit)?;
    let constants: Vec<String> = constants(unit).collect();
    let options = texts(options.iter().chain(&constants).map(String::as_str));
    let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    #[expect(unsafe_code, reason = "calls NVRTC")]
    // SAFETY: the program is alive, and the pointers are to C strings that live through the call.
    let result = unsafe { sys::nvrtcCompileProgram(program.0, pointers.len() as i32, pointers.as_ptr()) };
    let log = program.log()?;
    if result == sys::nvrtcResult::NVRTC_ERROR_COMPILATION {
        return Err(CudaError::Compile { unit: unit.id, architecture: architecture.to_string(), log });
    }
    check("nvrtcCompileProgram", result)
        .map_err(|_| CudaError::Nvrtc { call: "nvrtcCompileProgram", text: format!("{result:?}: {log}") })?;
    Ok(Binary { image: program.image()?, log })
}

/// NVRTC's program, destroyed at the end.
struct Program(sys::nvrtcProgram);

#[expect(unsafe_code, reason = "calls NVRTC")]
impl Program {
    fn new(unit: &Unit) -> Result<Self> {
        let text = texts([unit.text]);
        let name = texts([format!("{}.cu", unit.id).as_str()]);
        let header_texts = texts(HEADERS.iter().map(|(_, text)| *text));
        let header_names = texts(HEADERS.iter().map(|(name, _)| *name));
        let text_pointers: Vec<*const c_char> = header_texts.iter().map(|t| t.as_ptr()).collect();
        let name_pointers: Vec<*const c_char> = header_names.iter().map(|t| t.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: all pointers are to C strings that live through the call, which copies them.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                text[0].as_ptr(),
                name[0].as_ptr(),
                HEADERS.len() as i32,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        })?;
        Ok(Self(program))
    }

    fn log(&self) -> Result<String> {
        let mut size = 0;
        // SAFETY: the program is alive and `size` lives through the call.
        check("nvrtcGetProgramLogSize", unsafe { sys::nvrtcGetProgramLogSize(self.0, &raw mut size) })?;
        let mut log = vec![0u8; size.max(1)];
        // SAFETY: the buffer has the size that NVRTC asked for.
        check("nvrtcGetProgramLog", unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) })?;
        let text = CStr::from_bytes_until_nul(&log).map_or(&log[..], CStr::to_bytes);
        Ok(String::from_utf8_lossy(text).trim().to_owned())
    }

    fn image(&self) -> Result<Vec<u8>> {
        let mut size = 0;
        // SAFETY: the program is alive and `size` lives through the call.
        check("nvrtcGetCUBINSize", unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut size) })?;
        let mut image = vec![0u8; size];
        // SAFETY: the buffer has the size that NVRTC asked for.
        check("nvrtcGetCUBIN", unsafe { sys::nvrtcGetCUBIN(self.0, image.as_mut_ptr().cast()) })?;
        Ok(image)
    }
}

#[expect(unsafe_code, reason = "calls NVRTC")]
impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program is alive and not used again. A failure would leak memory and no more.
        let _ = unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// C strings of our own texts.
fn texts<'a>(from: impl IntoIterator<Item = &'a str>) -> Vec<CString> {
    let text = |text| CString::new(text).expect("our own texts have no zero bytes");
    from.into_iter().map(text).collect()
}

fn check(call: &'static str, result: sys::nvrtcResult) -> Result<()> {
    match result {
        sys::nvrtcResult::NVRTC_SUCCESS => Ok(()),
        other => Err(CudaError::Nvrtc { call, text: format!("{other:?}") }),
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
        ("decode/experts", "MAX_EXPERTS"),
        ("decode/experts_nf4", "MAX_EXPERTS"),
        ("decode/experts_sm90", "MAX_EXPERTS"),
        ("decode/experts_wide_sm90", "CHAINS"),
        ("decode/experts_wide_sm90", "MAX_EXPERTS"),
        ("decode/experts_wide_sm90", "STAGES"),
        ("decode/route_sm90", "BLOCKS"),
        ("decode/rows", "MAX_EXPERTS"),
        ("decode/rows", "MAX_WIDTH"),
        ("decode/wide", "STAGES"),
        ("experts/few", "MAX_EXPERTS"),
        ("experts/few", "BLOCKS"),
        ("experts/few_nf4", "MAX_EXPERTS"),
        ("experts/few_nf4", "BLOCKS"),
        ("experts/low_rank", "MAX_EXPERTS"),
        ("experts/low_rank", "STAGES"),
        ("layer/gradients", "JOBS"),
        ("layer/gradients", "PARTS"),
        ("layer/lora", "FACTORS"),
        ("layer/lora", "PARTS"),
        ("layer/thin", "PARTS"),
        ("low_rank/few", "RANK_WIDTH"),
        ("route/sort", "MAX_EXPERTS"),
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
}
