//! What the parts of both directions have in common: sizes, the addresses of a phase, and the launches that several
//! of them make.
//!
//! Everything here is called on CubeCL's thread, inside one closure a direction; nothing waits and nothing is
//! allocated. Order is the order of burn's stream.

use super::factors::Pair;
use super::fp8::Fp8;
use super::frozen::DenseData;
use super::operands::Operands;
use super::types::LayerSpec;
use crate::cuda::{CudaError, Element, MatmulSpec, Matrices, Result, Run};
use crate::memory::layout::{At, Layout};
use crate::memory::sizes::Plan;
use crate::memory::table::{Buffer, Phase, WORKSPACE};
use crate::op::attention::cuda as attention;
use crate::op::attention::table::Sequences;
use crate::op::experts::LowRank;
use crate::op::experts::cuda::Sorted;
use crate::op::experts::matrices::Experts;
use crate::op::linear::cuda::unpack;
use crate::op::norm::cuda as norm;
use crate::op::rotary::cuda as rotary;
use crate::op::route::cuda as route;
use crate::site::{PerSite, SiteKind};

/// Rank and factor of a pair.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairSpec {
    pub(super) rank: usize,
    pub(super) scaling: f32,
}

/// A call inside its closure, in one phase; in the experts' phases of one chunk of the tokens.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) run: &'a Run<'a>,
    pub(super) spec: &'a LayerSpec,
    pub(super) plan: &'a Plan,
    pub(super) layout: &'a Layout,
    pub(super) operands: &'a Operands<u64>,
    pub(super) pairs: &'a PerSite<Option<PairSpec>>,
    pub(super) sequences: &'a Sequences,
    /// What products of experts in fp8 are made with, in a step that has them.
    pub(super) fp8: Option<&'a Fp8>,
    /// Where kept memory and scratch begin.
    pub(super) kept: u64,
    pub(super) scratch: u64,
    pub(super) phase: Phase,
    pub(super) chunk: Chunk,
}

/// The tokens that a frame is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunk {
    /// Which.
    pub(super) index: usize,
    pub(super) first: usize,
    pub(super) tokens: usize,
}

impl Chunk {
    /// All of them.
    pub(super) fn whole(tokens: usize) -> Self {
        Self { index: 0, first: 0, tokens }
    }
}

/// Operands of a dense product.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub(super) a: u64,
    pub(super) b: u64,
    /// What the result is added to, where the product says so.
    pub(super) c: Option<u64>,
    pub(super) d: u64,
    pub(super) bias: Option<u64>,
}

impl Product {
    /// `d = a b`
    pub(super) fn new(a: u64, b: u64, d: u64) -> Self {
        Self { a, b, c: None, d, bias: None }
    }
}

impl Frame<'_> {
    /// The same in another phase.
    pub(super) fn during(&self, phase: Phase) -> Self {
        Self { phase, ..*self }
    }

    /// The same in an experts' phase, chunk after chunk.
    pub(super) fn chunks(&self, phase: Phase) -> impl Iterator<Item = Self> {
        let (frame, Plan { tokens, chunk: length, .. }) = (self.during(phase), *self.plan);
        (0..self.plan.chunks()).map(move |index| {
            let first = index * length;
            Self { chunk: Chunk { index, first, tokens: length.min(tokens - first) }, ..frame }
        })
    }

    pub(super) fn is_first_chunk(&self) -> bool {
        self.chunk.index == 0
    }

    pub(super) fn is_last_chunk(&self) -> bool {
        self.chunk.index + 1 == self.plan.chunks()
    }

    /// Where this chunk of a stream of all tokens begins.
    pub(super) fn part_of(&self, stream: u64) -> u64 {
        stream + (self.chunk.first * self.plan.sizes.hidden * Element::Bf16.bytes()) as u64
    }

    /// The address of a buffer.
    ///
    /// # Errors
    /// It is not alive in this phase: what is read there would be another's.
    pub(super) fn at(&self, buffer: Buffer) -> Result<u64> {
        match self.layout.find(buffer, self.phase, self.chunk.index) {
            Some(At::Kept(offset)) => Ok(self.kept + offset),
            Some(At::Scratch(offset)) => Ok(self.scratch + offset),
            None => {
                Err(CudaError::NotAlive { buffer: format!("{buffer:?}"), phase: format!("{:?}", self.phase) })
            }
        }
    }

    /// The pair at a site.
    pub(super) fn pair(&self, kind: SiteKind) -> Option<Pair> {
        let (spec, at) = (self.pairs[kind]?, self.operands.pairs[kind]?);
        Some(Pair { a: at.a, b: at.b, rank: spec.rank, scaling: spec.scaling })
    }

    pub(super) fn tokens(&self) -> usize {
        self.chunk.tokens
    }

    /// Pairs of a token and an expert.
    pub(super) fn n_pairs(&self) -> usize {
        self.tokens() * self.plan.sizes.top_k
    }

    pub(super) fn matmul(&self, name: &'static str, spec: &MatmulSpec, of: Product) -> Result<()> {
        let (m, n, k) = (spec.m as f64, spec.n as f64, spec.k as f64);
        let bytes = 2.0 * (m * k + n * k)
            + m * n * (spec.d.element.bytes() as f64) * if spec.beta == 0.0 { 1.0 } else { 2.0 };
        let Product { a, b, c, d, bias } = of;
        let workspace = (self.at(Buffer::Workspace)?, WORKSPACE);
        let matrices = Matrices { a, b, c, d, bias, workspace };
        self.run.stage(name, 2.0 * m * n * k, bytes, || self.run.blas().matmul(spec, &matrices))
    }

    /// Where a dense matrix is in bf16: where it is, or where it is unpacked to, until the next is.
    pub(super) fn dense(&self, of: &DenseData<u64>) -> Result<u64> {
        let parts = match of {
            DenseData::Plain(address) => return Ok(*address),
            DenseData::Packed(parts) => parts,
        };
        let first = self.at(Buffer::Unpacked)?;
        let numbers: usize = parts.iter().map(|(_, numbers)| numbers).sum();
        self.run.stage("unpack", 0.0, 2.5 * numbers as f64, || {
            let mut to = first;
            for (data, numbers) in parts {
                unpack(self.run, data, *numbers, to)?;
                to += (numbers * Element::Bf16.bytes()) as u64;
            }
            Ok(())
        })?;
        Ok(first)
    }

    pub(super) fn norm_rows(&self) -> norm::Rows {
        let width = self.plan.sizes.hidden;
        norm::Rows { count: self.tokens(), width, stride: width, epsilon: self.spec.epsilon }
    }

    pub(super) fn normed(&self, x: u64, weight: u64, out: Buffer, rms: Buffer) -> Result<()> {
        let (out, rms) = (self.at(out)?, self.at(rms)?);
        let bytes = 4.0 * (self.tokens() * self.plan.sizes.hidden) as f64;
        self.run.stage("norm", 0.0, bytes, || {
            norm::forward(self.run, x, weight, out, Some(rms), self.norm_rows())
        })
    }

    /// Turns queries and keys in place by their angles times `sign`.
    pub(super) fn turn(&self, qkv: u64, sign: f32) -> Result<()> {
        let heads = self.spec.n_heads + self.spec.n_kv;
        let bytes = 4.0 * (self.tokens() * heads * self.spec.head_dim) as f64;
        let strides = [self.plan.sizes.qkv(); 2];
        let heads = rotary::Heads { n_tokens: self.tokens(), count: heads, dim: self.spec.head_dim, strides };
        let (cos, sin) = (self.operands.cos, self.operands.sin);
        self.run.stage("rotary", 0.0, bytes, || rotary::turn(self.run, qkv, cos, sin, qkv, heads, sign))
    }

    pub(super) fn attention_shape(&self) -> attention::Shape {
        attention::Shape {
            n_tokens: self.tokens(),
            n_heads: self.spec.n_heads,
            n_kv: self.spec.n_kv,
            head_dim: self.spec.head_dim,
            window: self.spec.window,
            scale: (self.spec.head_dim as f32).sqrt().recip(),
        }
    }

    pub(super) fn attention_name(&self, full: &'static str, window: &'static str) -> &'static str {
        if self.spec.window.is_some() { window } else { full }
    }

    pub(super) fn attention_flops(&self) -> f64 {
        4.0 * self.plan.sizes.query as f64 * self.sequences.visible(self.spec.window)
    }

    /// Query, key and value in packed rows.
    pub(super) fn qkv_parts(&self, qkv: u64) -> attention::Packed {
        let s = &self.plan.sizes;
        let at = |kind| qkv + (s.first_row(kind) * Element::Bf16.bytes()) as u64;
        let [query, key, value] = [SiteKind::Query, SiteKind::Key, SiteKind::Value].map(at);
        attention::Packed { query, key, value, stride: s.qkv() }
    }

    pub(super) fn router_weight(&self) -> Result<route::RouterWeight> {
        Ok(match self.pairs[SiteKind::Router] {
            Some(_) => route::RouterWeight::F32(self.at(Buffer::MergedRouter)?),
            None => route::RouterWeight::Bf16(self.operands.frozen.router),
        })
    }

    /// Rows sorted by expert: `data` has one a pair, in order.
    pub(super) fn sorted(&self, data: u64, stride: usize) -> Result<Sorted> {
        Ok(Sorted {
            data,
            stride,
            pairs: None,
            top_k: self.spec.top_k,
            offsets: self.at(Buffer::Offsets)?,
            places: self.n_pairs(),
            is_apart: false,
        })
    }

    /// Rows sorted by expert: `data` has one a token.
    pub(super) fn gathered(&self, data: u64, stride: usize) -> Result<Sorted> {
        Ok(Sorted { pairs: Some(self.at(Buffer::Pairs)?), ..self.sorted(data, stride)? })
    }

    /// Rows for a product with `experts`: `data` has one a token. Copied into their order, to `to`, where the card's
    /// form of the product wants that.
    pub(super) fn rows_for(&self, experts: &Experts, data: u64, to: Buffer) -> Result<Sorted> {
        let hidden = self.plan.sizes.hidden;
        if !self.plan.in_order || !experts.data.packing().is_packed() {
            return self.gathered(data, hidden);
        }
        let (to, places) = (self.at(to)?, self.at(Buffer::Places)?);
        let bytes = 2.0 * ((self.tokens() + self.n_pairs()) * hidden) as f64;
        self.run.stage("rows in order", 0.0, bytes, || {
            route::take(self.run, data, places, to, [self.tokens(), hidden, self.spec.top_k])
        })?;
        self.sorted(to, hidden)
    }

    /// Operations and bytes of a product with `experts`.
    pub(super) fn expert_cost(&self, experts: &Experts) -> (f64, f64) {
        let (pairs, features) = (self.n_pairs() as f64, experts.rows * experts.columns);
        let rows = 2.0 * pairs * (experts.rows + experts.columns) as f64;
        (2.0 * pairs * features as f64, experts.bytes() as f64 + rows)
    }

    pub(super) fn low_rank(&self, pair: &Pair, features: usize) -> LowRank {
        LowRank { experts: self.plan.sizes.n_experts, features, rank: pair.rank }
    }
}
