//! What a kernel is launched with: arguments of known size, and the shape of a grid.

use std::ffi::c_void;

/// One argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg<'a> {
    /// An address on the device, or 0 for none.
    Ptr(u64),
    /// `int`.
    I32(i32),
    /// `unsigned`.
    U32(u32),
    /// `long long`.
    I64(i64),
    /// `float`.
    F32(f32),
    /// A `CUtensorMap`, `const __grid_constant__`.
    Tensor(TensorMap),
    /// A struct, `const __grid_constant__`, as its bytes.
    Struct(&'a [u8]),
}

/// The bytes of a `CUtensorMap`, aligned as CUDA wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct TensorMap(pub [u64; 16]);

impl Arg<'_> {
    /// An address, none where there is none.
    pub fn maybe(pointer: Option<u64>) -> Self {
        Self::Ptr(pointer.unwrap_or(0))
    }

    /// A size.
    ///
    /// # Panics
    /// If it does not fit: sizes are checked where tensors are made, and kernels count in 32 bits.
    pub fn size(n: usize) -> Self {
        Self::I32(i32::try_from(n).expect("sizes of tensors fit 31 bits"))
    }

    /// Addresses, and behind them sizes, as most kernels take them.
    ///
    /// # Panics
    /// As [`size`](Self::size).
    pub fn list<const N: usize, const M: usize>(addresses: [u64; N], sizes: [usize; M]) -> Vec<Self> {
        addresses.into_iter().map(Self::Ptr).chain(sizes.into_iter().map(Self::size)).collect()
    }

    /// Bytes of the parameter.
    pub const fn bytes(&self) -> usize {
        match self {
            Self::Ptr(_) | Self::I64(_) => 8,
            Self::I32(_) | Self::U32(_) | Self::F32(_) => 4,
            Self::Tensor(_) => 128,
            Self::Struct(bytes) => bytes.len(),
        }
    }

    /// Where the value lies.
    fn address(&self) -> *mut c_void {
        let address: *const c_void = match self {
            Self::Ptr(value) => std::ptr::from_ref(value).cast(),
            Self::I32(value) => std::ptr::from_ref(value).cast(),
            Self::U32(value) => std::ptr::from_ref(value).cast(),
            Self::I64(value) => std::ptr::from_ref(value).cast(),
            Self::F32(value) => std::ptr::from_ref(value).cast(),
            Self::Tensor(value) => std::ptr::from_ref(value).cast(),
            Self::Struct(bytes) => bytes.as_ptr().cast(),
        };
        address.cast_mut()
    }
}

/// Addresses of the arguments' values, as `cuLaunchKernel` takes them; valid as long as `arguments` stay in place.
pub fn pack(arguments: &[Arg<'_>]) -> Vec<*mut c_void> {
    arguments.iter().map(Arg::address).collect()
}

/// How `arguments` differ from the parameter sizes of a kernel, if they do.
pub fn mismatch(arguments: &[Arg<'_>], parameters: &[usize]) -> Option<String> {
    if arguments.len() != parameters.len() {
        return Some(format!("takes {} arguments, not {}", parameters.len(), arguments.len()));
    }
    let differs = arguments.iter().zip(parameters).position(|(argument, size)| argument.bytes() != *size)?;
    let (has, wants) = (arguments[differs].bytes(), parameters[differs]);
    Some(format!("argument {differs} has {wants} bytes, not {has}"))
}

/// Blocks of a grid or threads of a block, in x, y and z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent(pub [u32; 3]);

impl Extent {
    /// Whether there is nothing in it.
    pub const fn is_empty(self) -> bool {
        self.0[0] == 0 || self.0[1] == 0 || self.0[2] == 0
    }
}

impl From<u32> for Extent {
    fn from(x: u32) -> Self {
        Self([x, 1, 1])
    }
}

impl From<usize> for Extent {
    fn from(x: usize) -> Self {
        Self([x as u32, 1, 1])
    }
}

impl From<(u32, u32)> for Extent {
    fn from((x, y): (u32, u32)) -> Self {
        Self([x, y, 1])
    }
}

impl From<(usize, usize)> for Extent {
    fn from((x, y): (usize, usize)) -> Self {
        Self([x as u32, y as u32, 1])
    }
}

impl From<[u32; 3]> for Extent {
    fn from(extent: [u32; 3]) -> Self {
        Self(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_addresses_lead_to_the_values() {
        let map = TensorMap(std::array::from_fn(|i| i as u64 + 7));
        let arguments = [
            Arg::Ptr(0x1234_5678_9abc),
            Arg::I32(-3),
            Arg::U32(9),
            Arg::I64(-1),
            Arg::F32(0.5),
            Arg::Tensor(map),
            Arg::Struct(&[1, 2, 3]),
        ];
        let packed = pack(&arguments);
        let read = |i: usize| {
            let bytes = arguments[i].bytes();
            #[expect(unsafe_code, reason = "reads as the driver does")]
            // SAFETY: the address is that of the value of this size in `arguments`, which is alive.
            unsafe { std::slice::from_raw_parts(packed[i].cast::<u8>(), bytes) }.to_vec()
        };
        assert_eq!(read(0), 0x1234_5678_9abcu64.to_le_bytes());
        assert_eq!(read(1), (-3i32).to_le_bytes());
        assert_eq!(read(2), 9u32.to_le_bytes());
        assert_eq!(read(3), (-1i64).to_le_bytes());
        assert_eq!(read(4), 0.5f32.to_le_bytes());
        assert_eq!(read(5)[8..16], 8u64.to_le_bytes());
        assert_eq!(read(6), [1, 2, 3]);
        assert_eq!(packed[5] as usize % 64, 0, "a tensor map is aligned");
    }

    #[test]
    fn wrong_arguments_are_named() {
        let good = [Arg::Ptr(1), Arg::size(5), Arg::F32(1.0)];
        assert_eq!(mismatch(&good, &[8, 4, 4]), None);
        assert_eq!(mismatch(&good, &[8, 4]).as_deref(), Some("takes 2 arguments, not 3"));
        assert_eq!(mismatch(&good, &[8, 8, 4]).as_deref(), Some("argument 1 has 8 bytes, not 4"));
        assert_eq!(Arg::maybe(None), Arg::Ptr(0));
    }

    #[test]
    fn an_extent_with_a_zero_is_empty() {
        assert!(Extent::from(0usize).is_empty() && Extent::from((3u32, 0)).is_empty());
        assert!(!Extent::from([1, 2, 3]).is_empty());
        assert_eq!(Extent::from((3usize, 4)).0, [3, 4, 1]);
    }
}
