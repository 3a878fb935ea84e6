//! Matrices in device memory as Hopper's tensor copies see them: cut into boxes, which land in shared memory in the
//! swizzle that products read.

use cudarc::driver::sys;

use super::args::TensorMap;
use super::driver::check;
use super::error::Result;

/// A matrix whose rows are copied box by box.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Boxes {
    /// Of the first element; a multiple of 16.
    pub(crate) address: u64,
    pub(crate) element: BoxElement,
    /// Beyond them a box is filled with zeros.
    pub(crate) rows: usize,
    /// As `rows`.
    pub(crate) columns: usize,
    /// Elements from a row to the next, a multiple of 16 bytes.
    pub(crate) stride: usize,
    /// Rows of a box.
    pub(crate) height: u32,
}

/// Type of the elements, and with it the width of a box and how it is swizzled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoxElement {
    /// 64 in a row, 128-byte swizzle.
    Bf16,
    /// 32 in a row, 32-byte swizzle.
    U8,
    /// 128 in a row, 128-byte swizzle.
    E4m3,
    /// So many in a row, as they lie.
    U64(u32),
}

impl Boxes {
    /// The argument of a kernel.
    ///
    /// # Errors
    /// The driver refuses: an address or a stride is not a multiple of 16 bytes.
    pub(crate) fn map(&self) -> Result<TensorMap> {
        use sys::CUtensorMapDataType_enum as Type;
        use sys::CUtensorMapSwizzle_enum as Swizzle;
        let (kind, swizzle, bytes, width) = match self.element {
            BoxElement::Bf16 => {
                (Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, Swizzle::CU_TENSOR_MAP_SWIZZLE_128B, 2, 64)
            }
            BoxElement::U8 => {
                (Type::CU_TENSOR_MAP_DATA_TYPE_UINT8, Swizzle::CU_TENSOR_MAP_SWIZZLE_32B, 1, 32)
            }
            BoxElement::E4m3 => {
                (Type::CU_TENSOR_MAP_DATA_TYPE_UINT8, Swizzle::CU_TENSOR_MAP_SWIZZLE_128B, 1, 128)
            }
            BoxElement::U64(width) => {
                (Type::CU_TENSOR_MAP_DATA_TYPE_UINT64, Swizzle::CU_TENSOR_MAP_SWIZZLE_NONE, 8, width)
            }
        };
        // A matrix without rows has none that is read, but the driver wants one.
        let sizes = [self.columns as u64, self.rows.max(1) as u64];
        let strides = [(self.stride * bytes) as u64];
        let (edges, steps) = ([width, self.height], [1, 1]);
        let mut map = sys::CUtensorMap { opaque: [0; 16] };
        #[expect(unsafe_code, reason = "calls the driver")]
        // SAFETY: the arrays have as many entries as the rank of 2 asks for and live through the call.
        let result = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                kind,
                2,
                self.address as *mut std::ffi::c_void,
                sizes.as_ptr(),
                strides.as_ptr(),
                edges.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave_enum::CU_TENSOR_MAP_INTERLEAVE_NONE,
                swizzle,
                sys::CUtensorMapL2promotion_enum::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill_enum::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("cuTensorMapEncodeTiled", result)?;
        Ok(TensorMap(map.opaque))
    }
}
