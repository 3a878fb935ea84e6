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
