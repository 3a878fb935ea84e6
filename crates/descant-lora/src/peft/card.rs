//! The model card that lies beside an adapter.

use super::base::Base;
use super::base_name::hub_name;
use super::manifest::Manifest;

/// The text of `README.md`: front matter that hubs index, what this is, what was trained.
pub(super) fn card(
    base: Base<'_>,
    targets: &[String],
    rank: usize,
    alpha: f64,
    manifest: &Manifest,
) -> String {
    let hub = hub_name(base.name);
    let base_model = hub.map_or_else(String::new, |name| format!("base_model: {name}\n"));
    let name = hub.unwrap_or("a local gpt-oss");
    let targets = targets.iter().map(|target| format!("`{target}`")).collect::<Vec<_>>().join(", ");
    let tensors = manifest.tensors.len();
    let total = manifest.total;
    let experts = base
        .experts
        .map_or_else(String::new, |numbers| format!("| experts | {numbers} in training steps |\n"));
    format!(
        "---\n\
         {base_model}\
         library_name: peft\n\
         pipeline_tag: text-generation\n\
         tags:\n\
         - lora\n\
         - gpt-oss\n\
         - descant\n\
         ---\n\
         \n\
         # LoRA adapter for {name}\n\
         \n\
         Trained with Descant on the frozen model; the model itself is unchanged.\n\
         \n\
         | | |\n\
         | --- | --- |\n\
         | rank | {rank} |\n\
         | alpha | {alpha} |\n\
         | targets | {targets} |\n\
         | tensors | {tensors} |\n\
         | parameters | {total} |\n\
         {experts}\
         \n\
         It is in PEFT's format: `PeftModel.from_pretrained(base_model, folder)` loads it.\n"
    )
}
