//! NVRTC's functions, as those of a program.

use std::ffi::{CStr, CString, c_char, c_int, c_void};

use cudarc::nvrtc::sys;

use super::ending::is_over;
use super::error::{CudaError, Result};

/// The library's version.
#[expect(unsafe_code, reason = "calls NVRTC")]
pub(super) fn version() -> Result<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both point to integers that live through the call.
    check("nvrtcVersion", unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) })?;
    Ok((major, minor))
}

/// What the compiler answers.
pub(super) enum Answer {
    Made,
    WrongText,
    /// For another reason, by its number.
    Refused(c_int),
}

/// NVRTC's program, destroyed at the end.
pub(super) struct Program(sys::nvrtcProgram);

#[expect(unsafe_code, reason = "calls NVRTC")]
impl Program {
    /// Of a text with a name, and of those that it may include, by name.
    pub(super) fn new(id: &str, text: &str, headers: &[(&str, &str)]) -> Result<Self> {
        let text = texts([text]);
        let name = texts([format!("{id}.cu").as_str()]);
        let header_texts = texts(headers.iter().map(|(_, text)| *text));
        let header_names = texts(headers.iter().map(|(name, _)| *name));
        let text_pointers: Vec<*const c_char> = header_texts.iter().map(|t| t.as_ptr()).collect();
        let name_pointers: Vec<*const c_char> = header_names.iter().map(|t| t.as_ptr()).collect();
        let mut program = std::ptr::null_mut();
        // SAFETY: all pointers are to C strings that live through the call, which copies them.
        check("nvrtcCreateProgram", unsafe {
            sys::nvrtcCreateProgram(
                &raw mut program,
                text[0].as_ptr(),
                name[0].as_ptr(),
                headers.len() as i32,
                text_pointers.as_ptr(),
                name_pointers.as_ptr(),
            )
        })?;
        Ok(Self(program))
    }

    /// Has the compiler ask from time to time whether to give up, where it does (since 12.8).
    pub(super) fn give_up_at_end(&self) {
        type Asked = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
        type SetFlowCallback = unsafe extern "C" fn(sys::nvrtcProgram, Asked, *mut c_void) -> c_int;
        unsafe extern "C" fn asked(_: *mut c_void, _: *mut c_void) -> c_int {
            c_int::from(is_over())
        }
        // SAFETY: the library is there, this is the function's type, and the program is alive; `asked` uses no argument. Where
        // it is refused, the end waits longer.
        unsafe {
            if let Ok(set) = sys::culib().get::<SetFlowCallback>(b"nvrtcSetFlowCallback") {
                let _ = set(self.0, asked, std::ptr::null_mut());
            }
        }
    }

    /// Compiles. The answer comes as a number, because a library newer than our bindings has some that they do not know.
    pub(super) fn compile<'a>(&self, options: impl IntoIterator<Item = &'a str>) -> Result<Answer> {
        type Compile = unsafe extern "C" fn(sys::nvrtcProgram, c_int, *const *const c_char) -> c_int;
        const MADE: c_int = sys::nvrtcResult::NVRTC_SUCCESS as c_int;
        const WRONG_TEXT: c_int = sys::nvrtcResult::NVRTC_ERROR_COMPILATION as c_int;
        let call = "nvrtcCompileProgram";
        let options = texts(options);
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        // SAFETY: the library is there, this is the function's type, the program is alive, and the pointers are to C strings
        // that live through the call.
        let code = unsafe {
            let compile = sys::culib().get::<Compile>(call.as_bytes());
            let compile = compile.map_err(|error| CudaError::Nvrtc { call, text: error.to_string() })?;
            compile(self.0, pointers.len() as c_int, pointers.as_ptr())
        };
        Ok(match code {
            MADE => Answer::Made,
            WRONG_TEXT => Answer::WrongText,
            other => Answer::Refused(other),
        })
    }

    /// The compiler's words.
    pub(super) fn log(&self) -> Result<String> {
        let mut size = 0;
        // SAFETY: the program is alive and `size` lives through the call.
        check("nvrtcGetProgramLogSize", unsafe { sys::nvrtcGetProgramLogSize(self.0, &raw mut size) })?;
        let mut log = vec![0u8; size.max(1)];
        // SAFETY: the buffer has the size that NVRTC asked for.
        check("nvrtcGetProgramLog", unsafe { sys::nvrtcGetProgramLog(self.0, log.as_mut_ptr().cast()) })?;
        let text = CStr::from_bytes_until_nul(&log).map_or(&log[..], CStr::to_bytes);
        Ok(String::from_utf8_lossy(text).trim().to_owned())
    }

    /// What was made.
    pub(super) fn image(&self) -> Result<Vec<u8>> {
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
