//! A matrix product as we think of it, in rows, and as cuBLASLt does, in columns.
//!
//! D = alpha · op(A) op(B) + beta · C (+ bias a column), all row-major, with A `[m, k]` and B `[k, n]` after op. A
//! row-major matrix read by columns is its transpose, so cuBLASLt is asked for D^T = op(B)^T op(A)^T: the operands
//! change places, and nothing is moved.

/// Type of a matrix' elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Element {
    /// bfloat16.
    Bf16,
    /// float.
    F32,
}

impl Element {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }
}

/// A matrix, or several of one shape at equal distances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Operand {
    /// Type of its elements.
    pub element: Element,
    /// Whether it is stored as the transpose of what the product takes.
    pub transposed: bool,
    /// Elements from a stored row to the next.
    pub stride: usize,
    /// Elements from a matrix to the next, where there are several.
    pub step: usize,
}

/// A product, or several of one shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatmulSpec {
    /// Rows of D: in most products, tokens.
    pub m: usize,
    /// Columns of D.
    pub n: usize,
    /// What is summed over.
    pub k: usize,
    /// How many products.
    pub count: usize,
    /// `[m, k]`, or stored `[k, m]` where transposed.
    pub a: Operand,
    /// `[k, n]`, or stored `[n, k]` where transposed.
    pub b: Operand,
    /// `[m, n]`; never transposed. Read only where `beta` is not 0.
    pub c: Operand,
    /// `[m, n]`; never transposed. May be C itself.
    pub d: Operand,
    /// Type of the bias `[n]`, where there is one.
    pub bias: Option<Element>,
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
}

impl MatmulSpec {
    /// One product of dense bf16 matrices: A `[m, k]`, B stored `[n, k]` as weights are, D `[m, n]`.
    pub const fn forward(m: usize, n: usize, k: usize) -> Self {
        Self {
            m,
            n,
            k,
            count: 1,
            a: Operand { element: Element::Bf16, transposed: false, stride: k, step: 0 },
            b: Operand { element: Element::Bf16, transposed: true, stride: k, step: 0 },
            c: Operand { element: Element::Bf16, transposed: false, stride: n, step: 0 },
            d: Operand { element: Element::Bf16, transposed: false, stride: n, step: 0 },
            bias: None,
            alpha: 1.0,
            beta: 0.0,
        }
    }

    /// The backward of [`forward`](Self::forward) to its input: A `[m, k]` gradients, B stored `[k, n]` the same
    /// weights, D `[m, n]`.
    pub const fn backward(m: usize, n: usize, k: usize) -> Self {
        let mut spec = Self::forward(m, n, k);
        spec.b.transposed = false;
        spec.b.stride = n;
        spec
    }

    /// The matrices in cuBLASLt's order, by columns.
    pub const fn columns(&self) -> Columns {
        Columns {
            first: by_columns(self.b, self.k, self.n),
            second: by_columns(self.a, self.m, self.k),
            c: by_columns(self.c, self.m, self.n),
            d: by_columns(self.d, self.m, self.n),
        }
    }

    /// Bytes from the first element of D to behind its last.
    pub const fn d_bytes(&self) -> usize {
        if self.m == 0 || self.n == 0 || self.count == 0 {
            return 0;
        }
        ((self.count - 1) * self.d.step + (self.m - 1) * self.d.stride + self.n) * self.d.element.bytes()
    }

    /// What is wrong with the sizes, if anything.
    pub fn wrong(&self) -> Option<&'static str> {
        let row = |operand: Operand, rows: usize, columns: usize| {
            if operand.transposed { rows } else { columns }
        };
        let several = self.count > 1;
        if self.k == 0 || self.count == 0 {
            return Some("an empty sum or no product");
        }
        if self.c.transposed || self.d.transposed {
            return Some("C and D cannot be transposed");
        }
        if self.a.element != self.b.element {
            return Some("A and B are of two types");
        }
        if self.c.element != self.d.element {
            return Some("C and D are of two types");
        }
        if self.a.stride < row(self.a, self.m, self.k) {
            return Some("rows of A overlap");
        }
        if self.b.stride < row(self.b, self.k, self.n) {
            return Some("rows of B overlap");
        }
        if self.c.stride < self.n || self.d.stride < self.n {
            return Some("rows of C or D overlap");
        }
        if several && self.d.step == 0 {
            return Some("several products into one matrix");
        }
        None
    }
}

impl std::fmt::Display for MatmulSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let form =
            |o: Operand| format!("{:?}{}/{}", o.element, if o.transposed { "T" } else { "" }, o.stride);
        write!(f, "{}x {}x{}x{}, ", self.count, self.m, self.n, self.k)?;
        write!(f, "A {} B {} C {} D {}", form(self.a), form(self.b), form(self.c), form(self.d))?;
        write!(f, ", beta {}, bias {:?}", self.beta, self.bias)
    }
}

/// A matrix by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Type of its elements.
    pub element: Element,
    /// Rows as stored.
    pub rows: u64,
    /// Columns as stored.
    pub columns: u64,
    /// Elements from a column to the next.
    pub leading: i64,
    /// Elements from a matrix to the next.
    pub step: i64,
    /// Whether the product takes its transpose.
    pub transposed: bool,
}

/// A product by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Our B.
    pub first: Layout,
    /// Our A.
    pub second: Layout,
    /// Our C.
    pub c: Layout,
    /// Our D.
    pub d: Layout,
}

/// Of an operand that is `[rows, columns]` after op. Its stored rows become columns; the op stays, because both
/// the matrix and the product are transposed.
const fn by_columns(operand: Operand, rows: usize, columns: usize) -> Layout {
    let (stored_rows, stored_columns) = if operand.transposed { (columns, rows) } else { (rows, columns) };
    Layout {
        element: operand.element,
        rows: stored_columns as u64,
        columns: stored_rows as u64,
        leading: operand.stride as i64,
        step: operand.step as i64,
        transposed: operand.transposed,
    }
}

/// `n` up to the next power of two, or the next eight: what was chosen for one size serves its neighbours, so that
/// batches of many lengths do not each begin with a search. Sides of weights are distinguished by their strides.
pub const fn bucket(n: usize) -> usize {
    if n <= 64 { n.next_multiple_of(8) } else { n.next_power_of_two() }
}

/// Largest power of two, at most 256, that divides all addresses: what an algorithm may assume of them.
pub fn alignment(addresses: &[u64]) -> u32 {
    addresses.iter().fold(256, |least, address| least.min(1u32 << address.trailing_zeros().min(8)))
}

/// For which sizes an algorithm is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// All of an octave; see [`bucket`].
    Octave,
    /// These alone.
    Exact,
}

/// The name under which the algorithm for a product is kept.
pub fn key(
    spec: &MatmulSpec,
    sizes: Sizes,
    alignment: u32,
    workspace: usize,
    library: usize,
    card: &str,
) -> String {
    let (size, mark) = match sizes {
        Sizes::Octave => (bucket as fn(usize) -> usize, ""),
        Sizes::Exact => (std::convert::identity as fn(usize) -> usize, "-exact"),
    };
    let operand = |o: Operand| {
        let element = if o.element == Element::Bf16 { 'b' } else { 'f' };
        format!("{element}{}{}-{}", if o.transposed { 't' } else { 'n' }, o.stride, o.step)
    };
    let bias = match spec.bias {
        None => "",
        Some(Element::Bf16) => "-bias",
        Some(Element::F32) => "-fbias",
    };
    let card: String = card.chars().filter(char::is_ascii_alphanumeric).collect();
    format!(
        "lt{library}-{card}-{}x{}x{}x{}-{}-{}-{}-{}{bias}{}-{alignment}-{workspace}{mark}.algo",
        spec.count,
        size(spec.m),
        size(spec.n),
        size(spec.k),
        operand(spec.a),
        operand(spec.b),
        operand(spec.c),
        operand(spec.d),
        if spec.beta == 0.0 { "" } else { "-add" },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// cuBLAS' definition on a flat column-major store: element (i, j) of op(X).
    fn at(layout: Layout, data: &[f32], i: usize, j: usize) -> f32 {
        let (row, column) = if layout.transposed { (j, i) } else { (i, j) };
        assert!(row < layout.rows as usize && column < layout.columns as usize, "inside the matrix");
        data[column * layout.leading as usize + row]
    }

    #[test]
    fn columns_give_the_product_of_the_rows() {
        let (m, n, k) = (3, 5, 4);
        let (a, b): (Vec<f32>, Vec<f32>) =
            ((0..60).map(|i| (i * 7 % 11) as f32).collect(), (0..60).map(|i| (i * 5 % 13) as f32).collect());
        for a_transposed in [false, true] {
            for b_transposed in [false, true] {
                let mut spec = MatmulSpec::forward(m, n, k);
                spec.a = Operand { transposed: a_transposed, stride: 6, ..spec.a };
                spec.b = Operand { transposed: b_transposed, stride: 7, ..spec.b };
                spec.d.stride = 9;
                assert_eq!(spec.wrong(), None);
                let c = spec.columns();
                // cuBLASLt's own sizes: an n by m result.
                assert_eq!((c.d.rows, c.d.columns, c.d.leading), (n as u64, m as u64, 9));
                for i in 0..m {
                    for j in 0..n {
                        let rows: f32 = (0..k)
                            .map(|l| {
                                let x = if a_transposed { a[l * 6 + i] } else { a[i * 6 + l] };
                                let y = if b_transposed { b[j * 7 + l] } else { b[l * 7 + j] };
                                x * y
                            })
                            .sum();
                        let columns: f32 =
                            (0..k).map(|l| at(c.first, &b, j, l) * at(c.second, &a, l, i)).sum();
                        assert_eq!(rows.to_bits(), columns.to_bits(), "{i} {j}");
                    }
                }
            }
        }
    }

    #[test]
    fn wrong_sizes_are_refused() {
        let good = MatmulSpec::forward(4, 6, 8);
        assert_eq!(good.wrong(), None);
        assert_eq!(MatmulSpec::backward(4, 6, 8).wrong(), None);
        let mut wrong = [good; 6];
        wrong[0].a.stride = 7;
        wrong[1].b.stride = 7;
        wrong[2].d.stride = 5;
        wrong[3].count = 2;
        wrong[4].k = 0;
        wrong[5].a.element = Element::F32;
        assert!(wrong.iter().all(|spec| spec.wrong().is_some()));
    }

    #[test]
    fn buckets_are_near_and_keep_the_sizes_of_the_model() {
        for n in 1..5000 {
            let bucket = bucket(n);
            assert!(bucket >= n && bucket < 2 * n.max(8), "{n} -> {bucket}");
        }
        assert_eq!([1024, 4096, 5120, 16384].map(bucket), [1024, 4096, 8192, 16384]);
    }

    #[test]
    fn keys_tell_products_apart_and_neighbours_share_one() {
        let of = |spec: &MatmulSpec, sizes| key(spec, sizes, 256, 32 << 20, 130_000, "NVIDIA H200");
        let key = |spec: &MatmulSpec| of(spec, Sizes::Octave);
        let spec = MatmulSpec::forward(4096, 5120, 2880);
        let with_bias = MatmulSpec { bias: Some(Element::Bf16), ..spec };
        let adding = MatmulSpec { beta: 1.0, ..spec };
        let wide = MatmulSpec { a: Operand { stride: 2944, ..spec.a }, ..spec };
        let all = [spec, with_bias, adding, wide, MatmulSpec::backward(4096, 5120, 2880)].map(|s| key(&s));
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{a} occurs twice");
            assert!(a.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.'), "{a}");
        }
        assert_eq!(key(&spec), key(&MatmulSpec { m: 4090, ..spec }));
        assert_ne!(key(&spec), key(&MatmulSpec { m: 2000, ..spec }));
        let exact = |m| of(&MatmulSpec { m, ..spec }, Sizes::Exact);
        assert!(exact(4096) != exact(4090) && exact(4096) != key(&spec), "not fitting has a name of its own");
    }

    #[test]
    fn alignment_is_that_of_the_worst_address() {
        assert_eq!(alignment(&[0x1000, 0x200, 0]), 256);
        assert_eq!(alignment(&[0x1000, 0x1010]), 16);
        assert_eq!(alignment(&[0x1002]), 2);
    }

    #[test]
    fn d_ends_behind_its_last_element() {
        let mut spec = MatmulSpec::forward(3, 5, 4);
        spec.d.stride = 10;
        assert_eq!(spec.d_bytes(), 50);
        spec.count = 2;
        spec.d.step = 100;
        assert_eq!(spec.d_bytes(), 250);
        assert_eq!(MatmulSpec::forward(0, 5, 4).d_bytes(), 0);
    }
}
