//! Models and adapters to compare: the golden one that has every site, and random ones at sizes that the fast kernels
//! take, with tails everywhere.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use descant_lora::{LoraAdapters, LoraConfig};
use descant_model::{GptOss, Placement, SiteKind};
use descant_testkit::Dice;
use descant_testkit::micro::{Micro, Options, Sizes};
use descant_testkit::nf4;
use descant_testkit::shard::{self, tensors_of};

/// A model directory and the adapter to compare with it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) model: PathBuf,
    adapter: Adapter,
    /// Lengths of the sequences that are compared.
    pub(crate) lengths: &'static [usize],
    /// Whether an expert near the edge of the chosen ones may be another in bf16.
    pub(crate) may_choose_otherwise: bool,
    _folder: Option<tempfile::TempDir>,
}

enum Adapter {
    File(PathBuf),
    /// Fresh pairs of this rank at these sites.
    Random(usize, &'static [SiteKind]),
}

/// The shapes of the 20b in small: 64 wide heads, eight to a key, a window of 128.
const LIKE_20B: Sizes = Sizes {
    hidden_size: 320,
    intermediate_size: 352,
    num_hidden_layers: 4,
    num_attention_heads: 16,
    num_key_value_heads: 2,
    head_dim: 64,
    num_local_experts: 8,
    num_experts_per_tok: 4,
    sliding_window: 128,
};
/// As that, with more layers than have their inputs on the card where some wait on the host.
const DEEP: Sizes = Sizes { num_hidden_layers: 6, ..LIKE_20B };
/// As the first, with sizes that 64 divides, as blocks of NF4 want it of rows and products in fp8 of all.
const OF_64: Sizes = Sizes { intermediate_size: 384, ..LIKE_20B };
/// As that, with fewer tokens than experts have slots, so that some get none and some get one.
const MANY_EXPERTS: Sizes = Sizes { num_local_experts: 32, num_hidden_layers: 2, ..LIKE_20B };

/// As that, where no choice can differ between bf16 and f32: every token goes to every expert.
const ALL_EXPERTS: Sizes = Sizes { num_local_experts: 4, ..LIKE_20B };

/// Powers of two that quiet experts' second matrices are smaller by.
const QUIET: u8 = 6;

const ATTENTION: [SiteKind; 4] = [SiteKind::Query, SiteKind::Key, SiteKind::Value, SiteKind::Output];

/// All cases.
pub(crate) fn all() -> Vec<Case> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden").join("parity-b");
    vec![
        Case {
            name: "golden parity-b, its own adapter of rank 3 at all sites",
            adapter: Adapter::File(golden.join("adapter")),
            model: golden,
            lengths: &[31, 7, 1, 40],
            may_choose_otherwise: true,
            _folder: None,
        },
        random("like the 20b, q k v o", LIKE_20B, &ATTENTION, 8, &[300, 1, 129, 77]),
        random("like the 20b, all sites", LIKE_20B, &SiteKind::ALL, 8, &[300, 1, 129, 77]),
        random(
            "every expert takes every token, all sites",
            ALL_EXPERTS,
            &SiteKind::ALL,
            8,
            &[300, 1, 129, 77],
        ),
        random("two tokens, all sites", LIKE_20B, &SiteKind::ALL, 5, &[2]),
        random("more experts than rows", MANY_EXPERTS, &SiteKind::ALL, 16, &[3, 2]),
        random("no adapter", LIKE_20B, &[], 8, &[300, 1, 129, 77]),
        random("router alone", LIKE_20B, &[SiteKind::Router], 8, &[300, 1, 129, 77]),
        random("experts' first product alone", LIKE_20B, &[SiteKind::GateUp], 8, &[300, 1, 129, 77]),
        random("experts' second product alone", LIKE_20B, &[SiteKind::Down], 8, &[300, 1, 129, 77]),
        random("long sequences", LIKE_20B, &SiteKind::ALL, 8, &[700, 513, 256]),
        tiny("unpacked experts", false),
        tiny("packed by bitsandbytes", true),
        nf4_varied(),
        nf4(
            "NF4, every expert takes every token",
            Sizes { num_local_experts: 4, ..OF_64 },
            &[300, 1, 129, 77],
        ),
        nf4("NF4, two tokens", OF_64, &[2]),
    ]
}

/// The golden model of PEFT, with the numbers that NF4 leaves of it, in either layout. Every token goes to every expert:
/// of so few tokens one that chooses otherwise would be seen.
fn tiny(name: &'static str, packed: bool) -> Case {
    let folder = tempfile::tempdir().expect("a folder");
    let mut model = nf4::Model::tiny();
    model.config["num_experts_per_tok"] = model.config["num_local_experts"].clone();
    let tensors = if packed {
        &model.packed
    } else {
        model.config.as_object_mut().expect("an object").remove("quantization_config");
        &model.unpacked
    };
    let files = [
        ("config.json", model.config.to_string().into_bytes()),
        ("model.safetensors", shard::file_of(tensors)),
    ];
    for (name, bytes) in files {
        descant_files::write_atomic(&folder.path().join(name), &bytes).expect("writes");
    }
    Case {
        name,
        model: folder.path().to_owned(),
        adapter: Adapter::Random(8, &SiteKind::ALL),
        lengths: &[70, 1, 33, 12],
        may_choose_otherwise: false,
        _folder: Some(folder),
    }
}

/// The case whose sites and lengths are the most varied.
pub(crate) fn varied() -> Case {
    random("like the 20b, deeper, all sites", DEEP, &SiteKind::ALL, 8, &[300, 1, 129, 77])
}

/// The same with sizes that products in fp8 take.
pub(crate) fn fp8_varied() -> Case {
    random("sizes for fp8, all sites", OF_64, &SiteKind::ALL, 8, &[300, 1, 129, 77])
}

/// The same with experts that add little to the stream, as in a network that has learned: their second matrices are smaller.
pub(crate) fn fp8_quiet() -> Case {
    let case = Case { name: "sizes for fp8, quiet experts", ..fp8_every_expert() };
    let path = case.model.join("model.safetensors");
    let mut tensors = tensors_of(&std::fs::read(&path).expect("the model's file"));
    for (name, (_, _, bytes)) in &mut tensors {
        if name.ends_with("down_proj_scales") {
            for scale in bytes {
                *scale -= QUIET;
            }
        }
    }
    descant_files::write_atomic(&path, &shard::file_of(&tensors)).expect("writes");
    case
}

/// The same where every token goes to every expert.
pub(crate) fn fp8_every_expert() -> Case {
    let sizes = Sizes { num_local_experts: 4, ..OF_64 };
    random("sizes for fp8, every expert, all sites", sizes, &SiteKind::ALL, 8, &[300, 1, 129, 77])
}

/// The same packed by bitsandbytes.
pub(crate) fn nf4_varied() -> Case {
    nf4("NF4, all sites", OF_64, &[300, 1, 129, 77])
}

/// A random model packed by bitsandbytes, with pairs at all sites.
fn nf4(name: &'static str, sizes: Sizes, lengths: &'static [usize]) -> Case {
    let plain = random(name, sizes, &SiteKind::ALL, 8, lengths);
    let folder = tempfile::tempdir().expect("a folder");
    let model = nf4::Model::of(&plain.model);
    let files = [
        ("config.json", model.config.to_string().into_bytes()),
        ("model.safetensors", shard::file_of(&model.packed)),
    ];
    for (name, bytes) in files {
        descant_files::write_atomic(&folder.path().join(name), &bytes).expect("writes");
    }
    Case { model: folder.path().to_owned(), _folder: Some(folder), ..plain }
}

fn random(
    name: &'static str,
    sizes: Sizes,
    sites: &'static [SiteKind],
    rank: usize,
    lengths: &'static [usize],
) -> Case {
    let folder = tempfile::tempdir().expect("a folder");
    let options = Options { sizes, seed: 5, ..Options::default() };
    let model = Micro::write(folder.path(), &options).expect("a model").model;
    let may_choose_otherwise = sizes.num_local_experts > sizes.num_experts_per_tok;
    let adapter = Adapter::Random(rank, sites);
    Case { name, model, adapter, lengths, may_choose_otherwise, _folder: Some(folder) }
}

impl Case {
    /// Conversations to train a random model on.
    pub(crate) fn data(&self) -> PathBuf {
        self.model.with_file_name("data.jsonl")
    }

    pub(crate) fn load(&self, device: &Device) -> GptOss {
        self.load_placed(device, Placement::default())
    }

    pub(crate) fn load_placed(&self, device: &Device, placement: Placement) -> GptOss {
        GptOss::load_placed(&self.model, device, placement).expect("the model loads")
    }

    /// The adapter; the same values on every device. Neither factor is zero, so that every gradient has a size.
    pub(crate) fn adapter(&self, model: &GptOss) -> LoraAdapters {
        let graph = model.device().clone().autodiff();
        match &self.adapter {
            Adapter::File(dir) => {
                LoraAdapters::load_peft(dir, &model.config, &graph).expect("the adapter loads")
            }
            Adapter::Random(_, []) => LoraAdapters::from_pairs(std::collections::BTreeMap::new()),
            Adapter::Random(rank, sites) => {
                let targets = sites.iter().map(|kind| kind.name().to_owned()).collect();
                let lora = LoraConfig { r: *rank, targets, ..LoraConfig::default() };
                let mut adapters = LoraAdapters::init(&model.config, &lora, 3, &graph).expect("valid");
                let mut dice = Dice::new(9);
                adapters
                    .update(|index, tensor| if index % 2 == 1 { small(&tensor, &mut dice) } else { tensor });
                adapters
            }
        }
    }

    /// Ids of each sequence.
    pub(crate) fn sequences(&self, vocabulary: usize) -> Vec<Vec<u32>> {
        let mut dice = Dice::new(11);
        let mut ids = |length: &usize| (0..*length).map(|_| dice.below(vocabulary) as u32).collect();
        self.lengths.iter().map(&mut ids).collect()
    }
}

/// A leaf like `tensor` with values of about a twentieth.
fn small(tensor: &Tensor<3>, dice: &mut Dice) -> Tensor<3> {
    let values: Vec<f32> =
        (0..tensor.dims().iter().product::<usize>()).map(|_| (dice.unit() - 0.5) as f32 * 0.1).collect();
    let data = burn::tensor::TensorData::new(values, tensor.dims());
    Tensor::from_data(data, &tensor.device()).require_grad()
}
