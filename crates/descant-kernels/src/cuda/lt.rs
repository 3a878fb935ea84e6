//! cuBLASLt's objects with owners, and its calls with errors.

use std::ffi::c_void;

use cudarc::cublaslt::sys;

use super::driver::Stream;
use super::error::{CudaError, Result, require};
use super::library::Library;
use super::spec::{Element, Layout, MatmulSpec};

/// An algorithm, as cuBLASLt lets it be kept.
pub(crate) type Algorithm = sys::cublasLtMatmulAlgo_t;

/// In which order an algorithm adds, as far as cuBLASLt says: its family of kernels, the shape of their instructions, in
/// how many parts it cuts a sum and how it adds these. On an H200 all that agree in this gave the same bits at every
/// size that was tried, whatever their tiles, stages and clusters (docs/numerics.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Order {
    family: u32,
    instruction: u16,
    parts: u32,
    reduction: u32,
}

/// That of an algorithm.
pub(crate) fn order(algorithm: &Algorithm) -> Order {
    use sys::cublasLtMatmulAlgoConfigAttributes_t as Attribute;
    Order {
        family: setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_ID),
        instruction: setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID),
        parts: setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
        reduction: setting(algorithm, Attribute::CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME),
    }
}

/// A setting of an algorithm; 0 where it has none.
#[expect(unsafe_code, reason = "calls cuBLASLt")]
fn setting<T: Copy + Default>(
    algorithm: &Algorithm,
    attribute: sys::cublasLtMatmulAlgoConfigAttributes_t,
) -> T {
    let (mut value, mut written) = (T::default(), 0);
    // SAFETY: the algorithm came from the library, and the value has room for as many bytes as are said.
    let status = unsafe {
        sys::cublasLtMatmulAlgoConfigGetAttribute(
            algorithm,
            attribute,
            (&raw mut value).cast(),
            size_of::<T>(),
            &raw mut written,
        )
    };
    if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS { value } else { T::default() }
}

/// Addresses of a product's matrices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Addresses {
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) c: u64,
    pub(crate) d: u64,
    pub(crate) workspace: u64,
    pub(crate) workspace_bytes: usize,
}

/// The library's handle; kept for the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Handle(sys::cublasLtHandle_t);

#[expect(unsafe_code, reason = "a handle may be used from any thread")]
// SAFETY: the library says that a handle may be used from several threads.
unsafe impl Send for Handle {}

#[expect(unsafe_code, reason = "calls cuBLASLt")]
impl Handle {
    pub(crate) fn new() -> Result<Self> {
        require(Library::CublasLt)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        let status = unsafe { sys::cublasLtCreate(&raw mut handle) };
        check("cublasLtCreate", status, None)?;
        Ok(Self(handle))
    }

    /// The library's version, as a number.
    pub(crate) fn version() -> usize {
        // SAFETY: no conditions; there is a handle, so the library was found.
        unsafe { sys::cublasLtGetVersion() }
    }
}

/// A product's descriptions.
pub(crate) struct Description<'a> {
    pub(super) spec: &'a MatmulSpec,
    pub(super) handle: Handle,
    product: sys::cublasLtMatmulDesc_t,
    /// First, second, C, D.
    matrices: [sys::cublasLtMatrixLayout_t; 4],
}

const fn element(element: Element) -> sys::cudaDataType {
    match element {
        Element::Bf16 => sys::cudaDataType::CUDA_R_16BF,
        Element::F32 => sys::cudaDataType::CUDA_R_32F,
    }
}

#[expect(unsafe_code, reason = "calls cuBLASLt")]
impl<'a> Description<'a> {
    /// Describes a product, with the address of its bias where it has one.
    pub(crate) fn new(handle: Handle, spec: &'a MatmulSpec, bias: u64) -> Result<Self> {
        use sys::cublasLtMatmulDescAttributes_t as Attribute;
        let compute = sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let mut new =
            Self { spec, handle, product: std::ptr::null_mut(), matrices: [std::ptr::null_mut(); 4] };
        // SAFETY: the pointer is to a field that lives through the call.
        let status = unsafe {
            sys::cublasLtMatmulDescCreate(&raw mut new.product, compute, sys::cudaDataType::CUDA_R_32F)
        };
        check("cublasLtMatmulDescCreate", status, Some(spec))?;
        let columns = spec.columns();
        new.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, i32::from(columns.first.transposed))?;
        new.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, i32::from(columns.second.transposed))?;
        if let Some(kind) = spec.bias {
            let epilogue = sys::cublasLtEpilogue_t::CUBLASLT_EPILOGUE_BIAS as u32;
            new.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue)?;
            new.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias)?;
            new.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, element(kind) as u32)?;
        }
        for (at, layout) in [columns.first, columns.second, columns.c, columns.d].into_iter().enumerate() {
            new.matrices[at] = new.matrix(layout)?;
        }
        Ok(new)
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulDescAttributes_t, value: T) -> Result<()> {
        // SAFETY: the description is alive, and the value has the size and type that the attribute wants.
        let status = unsafe {
            sys::cublasLtMatmulDescSetAttribute(
                self.product,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        };
        check("cublasLtMatmulDescSetAttribute", status, Some(self.spec))
    }

    fn matrix(&self, layout: Layout) -> Result<sys::cublasLtMatrixLayout_t> {
        use sys::cublasLtMatrixLayoutAttribute_t as Attribute;
        let mut matrix = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        let status = unsafe {
            sys::cublasLtMatrixLayoutCreate(
                &raw mut matrix,
                element(layout.element),
                layout.rows,
                layout.columns,
                layout.leading,
            )
        };
        check("cublasLtMatrixLayoutCreate", status, Some(self.spec))?;
        if self.spec.count > 1 {
            let set = |attribute, value: *const c_void, bytes| {
                // SAFETY: the layout is alive, and the value has the size and type that the attribute wants.
                let status =
                    unsafe { sys::cublasLtMatrixLayoutSetAttribute(matrix, attribute, value, bytes) };
                check("cublasLtMatrixLayoutSetAttribute", status, Some(self.spec))
            };
            let (count, step) = (self.spec.count as i32, layout.step);
            set(Attribute::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, (&raw const count).cast(), 4)?;
            set(Attribute::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, (&raw const step).cast(), 8)?;
        }
        Ok(matrix)
    }

    /// The library's best guesses, best first.
    ///
    /// Sums over k are only ever cut so that the parts are added in order: without reduction, or by a second pass
    /// in f32.
    pub(crate) fn guesses(&self, alignment: u32, workspace: usize, wanted: usize) -> Result<Vec<Algorithm>> {
        use sys::cublasLtMatmulPreferenceAttributes_t as Attribute;
        let preference = Preference::new(self.spec)?;
        let ordered = sys::cublasLtReductionScheme_t::CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE as u32;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace)?;
        preference.set(Attribute::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, ordered)?;
        for attribute in [
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Attribute::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ] {
            preference.set(attribute, alignment)?;
        }
        let mut results: Vec<std::mem::MaybeUninit<sys::cublasLtMatmulHeuristicResult_t>> =
            vec![std::mem::MaybeUninit::uninit(); wanted];
        let mut found = 0;
        let [first, second, c, d] = self.matrices;
        // SAFETY: all objects are alive, and there is room for as many results as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.handle.0,
                self.product,
                first,
                second,
                c,
                d,
                preference.0,
                wanted as i32,
                results.as_mut_ptr().cast(),
                &raw mut found,
            )
        };
        check("cublasLtMatmulAlgoGetHeuristic", status, Some(self.spec))?;
        // SAFETY: the library filled the first `found` results.
        let filled = results.iter().take(found as usize).map(|result| unsafe { result.assume_init() });
        Ok(filled.filter(|r| r.state == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS).map(|r| r.algo).collect())
    }

    /// Whether an algorithm that was kept can do this product in this workspace.
    pub(crate) fn fits(&self, algorithm: &Algorithm, workspace: usize) -> bool {
        let mut result = std::mem::MaybeUninit::<sys::cublasLtMatmulHeuristicResult_t>::uninit();
        let [first, second, c, d] = self.matrices;
        // SAFETY: all objects are alive, and there is room for the result, which is read only where it was written.
        unsafe {
            let status = sys::cublasLtMatmulAlgoCheck(
                self.handle.0,
                self.product,
                first,
                second,
                c,
                d,
                algorithm,
                result.as_mut_ptr(),
            );
            status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS
                && result.assume_init().workspaceSize <= workspace
        }
    }

    /// Puts the product on the stream.
    pub(crate) fn run(&self, stream: Stream, algorithm: &Algorithm, at: &Addresses) -> Result<()> {
        let [first, second, c, d] = self.matrices;
        let address = |address: u64| address as usize as *mut c_void;
        // SAFETY: all objects are alive; the caller holds buffers of these sizes until the stream is past them.
        let status = unsafe {
            sys::cublasLtMatmul(
                self.handle.0,
                self.product,
                (&raw const self.spec.alpha).cast(),
                address(at.b),
                first,
                address(at.a),
                second,
                (&raw const self.spec.beta).cast(),
                address(at.c),
                c,
                address(at.d),
                d,
                algorithm,
                address(at.workspace),
                at.workspace_bytes,
                stream.cast(),
            )
        };
        check("cublasLtMatmul", status, Some(self.spec))
    }
}

#[expect(unsafe_code, reason = "calls cuBLASLt")]
impl Drop for Description<'_> {
    fn drop(&mut self) {
        for matrix in self.matrices.into_iter().filter(|matrix| !matrix.is_null()) {
            // SAFETY: the layout is ours and not used again.
            let _ = unsafe { sys::cublasLtMatrixLayoutDestroy(matrix) };
        }
        if !self.product.is_null() {
            // SAFETY: the description is ours and not used again.
            let _ = unsafe { sys::cublasLtMatmulDescDestroy(self.product) };
        }
    }
}

/// What a guess may use.
struct Preference<'a>(sys::cublasLtMatmulPreference_t, &'a MatmulSpec);

#[expect(unsafe_code, reason = "calls cuBLASLt")]
impl<'a> Preference<'a> {
    fn new(spec: &'a MatmulSpec) -> Result<Self> {
        let mut preference = std::ptr::null_mut();
        // SAFETY: the pointer is to a variable that lives through the call.
        let status = unsafe { sys::cublasLtMatmulPreferenceCreate(&raw mut preference) };
        check("cublasLtMatmulPreferenceCreate", status, Some(spec))?;
        Ok(Self(preference, spec))
    }

    fn set<T>(&self, attribute: sys::cublasLtMatmulPreferenceAttributes_t, value: T) -> Result<()> {
        // SAFETY: the preference is alive, and the value has the size and type that the attribute wants.
        let status = unsafe {
            sys::cublasLtMatmulPreferenceSetAttribute(
                self.0,
                attribute,
                (&raw const value).cast(),
                size_of::<T>(),
            )
        };
        check("cublasLtMatmulPreferenceSetAttribute", status, Some(self.1))
    }
}

#[expect(unsafe_code, reason = "calls cuBLASLt")]
impl Drop for Preference<'_> {
    fn drop(&mut self) {
        // SAFETY: the preference is ours and not used again.
        let _ = unsafe { sys::cublasLtMatmulPreferenceDestroy(self.0) };
    }
}

fn check(call: &'static str, status: sys::cublasStatus_t, spec: Option<&MatmulSpec>) -> Result<()> {
    if status == sys::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    let product = spec.map_or_else(|| "no product".to_owned(), ToString::to_string);
    Err(CudaError::Blas { call, status, product })
}
