//! What every command begins with: a device, a model, an adapter.

use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use burn::tensor::Device;
use descant_harmony::Renderer;
use descant_kernels::Keep;
use descant_lora::LoraAdapters;
use descant_model::{Bare, Config, GptOss, Overlay, Placement, SiteKind};

use crate::failure::Hinted;
use crate::settings::{EMBEDDED_MODEL, Settings};
use crate::talk::Talk;
use crate::words::is_hub_name;

/// A device, and how it was chosen.
pub(crate) struct Chosen {
    /// The device.
    pub(crate) device: Device,
    /// What kind it is, as far as numbers depend on it: no index, no count of threads.
    pub(crate) name: String,
    /// For people.
    pub(crate) why: String,
    /// Which card, if it is one.
    card: Option<usize>,
}

impl Chosen {
    /// Free bytes of a card; `None` where it is not reported, and on the CPU.
    pub(crate) fn free(&self) -> Option<u64> {
        self.card.and_then(free)
    }
}

#[cfg(feature = "cuda")]
fn free(card: usize) -> Option<u64> {
    let (free, _) = descant_kernels::cuda::Gpu::of(card).ok()?.memory().ok()?;
    Some(free as u64)
}

#[cfg(not(feature = "cuda"))]
fn free(_card: usize) -> Option<u64> {
    None
}

/// The device of `--device`, which a line says: of `auto` it is not plain.
pub(crate) fn said_device(wanted: &str, talk: Talk) -> Result<Chosen> {
    let device = device(wanted)?;
    talk.item("device", &device.why);
    Ok(device)
}

/// The device that `auto`, `cpu`, `cuda` or `cuda:N` means in this build.
pub(crate) fn device(wanted: &str) -> Result<Chosen> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpu = |why: &str| Chosen {
        device: Device::flex(),
        name: "cpu".to_owned(),
        why: format!("cpu, {threads} threads ({why})"),
        card: None,
    };
    match wanted.split_once(':').unwrap_or((wanted, "")) {
        ("cpu", "") => Ok(cpu("as asked")),
        ("auto", "") => Ok(first_card().unwrap_or_else(|why| cpu(&why))),
        ("cuda", index) => cuda(wanted, index),
        _ => Err(anyhow!("device is `{wanted}`; expected auto, cpu, cuda or cuda:N")),
    }
}

/// Which kernels a card takes, behind its name.
#[cfg(feature = "cuda")]
fn kernels(card: usize) -> String {
    let gpu = descant_kernels::cuda::Gpu::of(card).ok();
    let row = gpu.as_ref().and_then(descant_kernels::cuda::Gpu::kernels);
    row.map_or_else(String::new, |row| format!("; {}", row.words()))
}

/// The first CUDA card, or why there is none to be used.
#[cfg(feature = "cuda")]
fn first_card() -> Result<Chosen, String> {
    let name = super::kept::open(0).map_err(|error| format!("no CUDA card: {error:#}"))?;
    let why = format!("cuda:0, {name}{}", kernels(0));
    Ok(Chosen { device: Device::cuda(0), name, why, card: Some(0) })
}

#[cfg(not(feature = "cuda"))]
fn first_card() -> Result<Chosen, String> {
    Err("this build has no CUDA".to_owned())
}

#[cfg(feature = "cuda")]
fn cuda(wanted: &str, index: &str) -> Result<Chosen> {
    let index: usize = match index {
        "" => 0,
        index => index.parse().with_context(|| format!("device is `{wanted}`; expected cuda or cuda:N"))?,
    };
    let name = super::kept::open(index).with_context(|| format!("cuda:{index}"))?;
    let why = format!("cuda:{index}, {name} (as asked){}", kernels(index));
    Ok(Chosen { device: Device::cuda(index), name, why, card: Some(index) })
}

#[cfg(not(feature = "cuda"))]
fn cuda(wanted: &str, _index: &str) -> Result<Chosen> {
    let error = anyhow!("device is `{wanted}`, but this build has no CUDA");
    Err(Hinted::new(error, "build with `--features cuda`, or run `cargo xtask --cuda ...`").into())
}

/// Says at once when a folder is not a model directory at all.
pub(crate) fn check_dir(dir: &Path) -> Result<()> {
    if dir.join("config.json").is_file() {
        return Ok(());
    }
    let error = anyhow!("{} is not a model directory: it has no config.json", dir.display());
    if let Some(name) =
        dir.to_str().filter(|name| !dir.exists() && is_hub_name(name) && !dir.starts_with("fixtures"))
    {
        return Err(Hinted::new(error, format!("a repository of a hub is written hf://{name}")).into());
    }
    let hint = if dir == Path::new(EMBEDDED_MODEL) {
        "that is the default, in a clone of Descant's repository: run the command there, or name a model with --model, or \
         with model.path in the settings"
    } else {
        "give a folder with config.json, the safetensors files, tokenizer.json and chat_template.jinja"
    };
    Err(Hinted::new(error, hint).into())
}

/// Says before a model is loaded when a folder is not an adapter's.
pub(crate) fn check_adapter(dir: &Path) -> Result<()> {
    let has_config = |dir: &Path| dir.join("adapter_config.json").is_file();
    if has_config(dir) {
        return Ok(());
    }
    let error = if dir.exists() {
        anyhow!("{} is not an adapter: it has no adapter_config.json", dir.display())
    } else {
        anyhow!("adapter {} does not exist", dir.display())
    };
    let within = dir.join("adapter");
    let hint = if has_config(&within) {
        format!("a run writes its adapter to RUN/adapter: write --adapter {}", within.display())
    } else {
        "a run writes its adapter to RUN/adapter".to_owned()
    };
    Err(Hinted::new(error, hint).into())
}

/// What turns conversations into the ids of a model directory.
pub(crate) fn renderer_of(dir: &Path) -> Result<Renderer> {
    Renderer::load(dir, None).with_context(|| format!("model {}", dir.display()))
}

/// What turns conversations into the ids of the model that the settings name.
pub(crate) fn renderer(settings: &Settings) -> Result<Renderer> {
    let model = &settings.model;
    check_dir(&model.path)?;
    Renderer::load(&model.path, model.chat_template.as_deref())
        .with_context(|| format!("model {}", model.path.display()))
}

/// The configuration of a model directory.
pub(crate) fn config(dir: &Path) -> Result<Config> {
    let config = Config::from_dir(dir).and_then(|config| config.as_stored(dir));
    config.with_context(|| format!("model {}", dir.display()))
}

/// The frozen base of a model directory, with these weights on the host; on a card within this limit.
pub(crate) fn model(
    dir: &Path,
    device: &Device,
    placement: Placement,
    (limit, keep): (Option<u64>, Keep),
) -> Result<GptOss> {
    let model = GptOss::load_within(dir, device, placement, limit)
        .with_context(|| format!("model {}", dir.display()))?;
    model.workspace().set(limit, keep);
    Ok(model)
}

/// The adapter of a PEFT directory, not to be trained; the bare model without one.
pub(crate) fn overlay(adapter: Option<&Path>, model: &GptOss) -> Result<Box<dyn Overlay>> {
    let Some(dir) = adapter else { return Ok(Box::new(Bare)) };
    Ok(Box::new(LoraAdapters::load_peft(dir, &model.config, model.device())?))
}

/// Parameters of the base, packed ones counted as the numbers they are.
pub(crate) fn n_parameters(config: &Config) -> u64 {
    let matrix = |kind: SiteKind| {
        let dims = config.site_dims(kind);
        // Every product of gpt-oss has a bias.
        (dims.n_matrices * (dims.d_in + 1) * dims.d_out) as u64
    };
    let products: u64 = SiteKind::ALL.into_iter().map(matrix).sum();
    let (hidden, heads) = (config.hidden_size as u64, config.num_attention_heads as u64);
    let layer = products + heads + 2 * hidden;
    config.num_hidden_layers as u64 * layer + 2 * config.vocab_size as u64 * hidden + hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_the_models() {
        let fixtures = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures"));
        let tiny = Config::from_dir(&fixtures.join("tiny-gpt-oss")).unwrap();
        assert_eq!(n_parameters(&tiny), 3_273_440);
        let read = |name: &str| std::fs::read(fixtures.join("configs").join(name)).unwrap();
        let published = Config::from_slice(&read("gpt-oss-20b.json")).unwrap();
        assert_eq!(n_parameters(&published), 20_914_757_184);
    }

    #[test]
    fn devices_are_those_of_this_build() {
        assert!(device("cpu").is_ok() && device("auto").is_ok());
        for wrong in ["", "gpu", "cpu:0", "auto:1", "cuda:x"] {
            assert!(device(wrong).is_err(), "{wrong}");
        }
        #[cfg(not(feature = "cuda"))]
        assert!(device("cuda:0").is_err());
    }
}
