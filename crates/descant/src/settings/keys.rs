//! The known keys, and which of them somebody may have meant.
//!
//! People are used to the spellings of TRL, axolotl and unsloth. For those the error names our key; they are not
//! accepted, so that each thing has one spelling.

use descant_harmony::read::Format;

use descant_train::{Experts, GuardConfig, OnDeviation, TrainConfig};

use super::{Card, Data, Evaluate, Memory, Model, Run, Settings, Source, Validate, ValidationData};

/// Spellings of other tools: what they are here, or why there is no such key.
const ELSEWHERE: [(&str, &str); 57] = [
    ("adam_beta1", "train.beta1"),
    ("adam_beta2", "train.beta2"),
    ("adam_epsilon", "train.epsilon"),
    ("base_model", "model.path"),
    ("batch_size", "train.micro_batch"),
    ("bf16", "=not needed: the base stays as published, adapters are f32"),
    ("cutoff_len", "train.max_sequence"),
    ("data_seed", "train.seed"),
    ("dataset", "data.path"),
    ("dataset_name", "data.path"),
    ("datasets", "data.path"),
    ("dropout", "=not supported: adapters are trained without dropout"),
    ("early_stopping_patience", "validate.patience"),
    ("epochs", "train.max_steps, in steps: epochs x rows / (train.micro_batch x train.accumulation)"),
    ("eval_file", "data.held_out"),
    ("eval_steps", "validate.every"),
    ("gradient_accumulation_steps", "train.accumulation"),
    ("gradient_clipping", "train.max_grad_norm"),
    ("load_in_4bit", "=not needed: the base stays as published, with experts packed in MXFP4"),
    ("lora_alpha", "lora.alpha"),
    ("lora_dropout", "=not supported: adapters are trained without dropout"),
    ("lora_modules", "lora.targets"),
    ("lora_r", "lora.r"),
    ("lora_rank", "lora.r"),
    ("lora_target_modules", "lora.targets"),
    ("lr", "train.learning_rate"),
    ("lr_scheduler", "train.schedule"),
    ("lr_scheduler_type", "train.schedule"),
    ("max_length", "train.max_sequence"),
    ("max_seq_len", "train.max_sequence"),
    ("max_seq_length", "train.max_sequence"),
    ("micro_batch_size", "train.micro_batch"),
    ("model_name", "model.path"),
    ("model_name_or_path", "model.path"),
    ("num_epochs", "train.max_steps, in steps: epochs x rows / (train.micro_batch x train.accumulation)"),
    (
        "num_train_epochs",
        "train.max_steps, in steps: epochs x rows / (train.micro_batch x train.accumulation)",
    ),
    ("optim", "train.optimizer"),
    ("output_dir", "run.folder"),
    ("per_device_train_batch_size", "train.micro_batch"),
    ("random_state", "train.seed"),
    ("rank", "lora.r"),
    ("reasoning_effort", "data.effort for rows that name none, evaluate.efforts for the measurement"),
    ("report_to", "=not needed: metrics.jsonl and tensorboard/ are always in the run's folder"),
    (
        "resume_from_checkpoint",
        "=not needed: running the same command again resumes from the newest checkpoint",
    ),
    ("sample_packing", "train.packing"),
    ("save_steps", "run.save_every"),
    ("save_total_limit", "run.keep"),
    ("sequence_len", "train.max_sequence"),
    ("steps", "train.max_steps"),
    ("target_modules", "lora.targets"),
    ("test_file", "data.held_out"),
    ("train_file", "data.path"),
    ("train_on_responses_only", "data.mask = \"final_only\" (answers) or \"assistant\" (reasoning too)"),
    ("val_set", "data.validation"),
    ("val_set_size", "data.validation"),
    ("validation_file", "data.validation"),
    ("warmup_ratio", "train.warmup_steps, in steps"),
];

/// All keys as `section.key`, or `section.part.key`. The optional ones are among them.
pub(super) fn known() -> Vec<String> {
    let everything = Settings {
        model: Model {
            name: Some("x/y".into()),
            chat_template: Some("x".into()),
            preflight: false,
            ..Model::default()
        },
        data: Data {
            held_out: Some("x".into()),
            format: Some(Format::Text),
            validation: Some(ValidationData::Share(0.1)),
            sources: vec![Source { path: "x".into(), share: None, format: None }],
            ..Data::default()
        },
        validate: Validate { patience: Some(1), ..Validate::default() },
        evaluate: Evaluate { prompts: Some(1), temperature: Some(0.0), ..Evaluate::default() },
        train: TrainConfig { experts: Experts::Fp8, ..TrainConfig::default() },
        guard: GuardConfig { on_deviation: OnDeviation::Warn, ..GuardConfig::default() },
        card: Card { license: Some("x".into()) },
        memory: Memory { limit: Some("1".into()), ..Memory::default() },
        run: Run { folder: Some("x".into()), cache: Some("none".into()), ..Run::default() },
        ..Settings::default()
    };
    let table = toml::Table::try_from(everything).expect("settings are a table of tables");
    let mut keys = Vec::new();
    flatten("", &table, &mut keys);
    keys
}

/// Every key of a table and of the tables in it, with the names of the tables before it.
fn flatten(before: &str, table: &toml::Table, keys: &mut Vec<String>) {
    for (key, value) in table {
        let full = if before.is_empty() { key.clone() } else { format!("{before}.{key}") };
        match value.as_table() {
            Some(inner) => flatten(&full, inner, keys),
            None => keys.push(full),
        }
    }
}

/// A hint for a key that does not exist. `key` may have a section before it or none.
pub(super) fn meant(key: &str) -> Option<String> {
    let name = key.rsplit('.').next().unwrap_or(key);
    let plain = name.trim_start_matches('-').replace('-', "_").to_lowercase();
    if let Some((_, ours)) = ELSEWHERE.iter().find(|(theirs, _)| *theirs == plain) {
        return Some(ours.strip_prefix('=').map_or_else(|| format!("write {ours}"), str::to_owned));
    }
    let known = known();
    let exact = known.iter().filter(|full| last(full) == plain);
    if let Some(exact) = exact.min_by_key(|full| edit_distance(full, key)) {
        return Some(format!("did you mean {exact}?"));
    }
    let sections = known.iter().filter_map(|full| full.split('.').next());
    if let Some(section) = sections.min_by_key(|section| edit_distance(section, key))
        && edit_distance(section, key) <= 2
    {
        return Some(format!("did you mean [{section}]?"));
    }
    let distance = |full: &String| edit_distance(last(full), &plain).min(edit_distance(full, key));
    let nearest = known.iter().min_by_key(|full| distance(full))?;
    (distance(nearest) <= 1 + plain.len() / 4).then(|| format!("did you mean {nearest}?"))
}

fn last(full: &str) -> &str {
    full.rsplit('.').next().unwrap_or(full)
}

/// Letters to insert, remove or replace to make `b` of `a`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_other_tools_lead_to_keys_that_exist() {
        let known = known();
        for (theirs, ours) in ELSEWHERE {
            let key = ours.split([' ', ',']).next().unwrap();
            assert!(ours.starts_with('=') || known.iter().any(|k| k == key), "{theirs} -> {ours}");
            assert!(!known.iter().any(|k| last(k) == theirs), "{theirs} is a key of ours");
        }
        assert!(ELSEWHERE.is_sorted(), "kept in order");
    }

    #[test]
    fn the_key_that_was_meant_is_found() {
        for (wrong, hint) in [
            ("train.per_device_train_batch_size", "write train.micro_batch"),
            ("train.lora_alpha", "write lora.alpha"),
            ("lora-alpha", "write lora.alpha"),
            ("lora.dropout_rate", ""),
            ("train.lora_dropout", "not supported: adapters are trained without dropout"),
            ("train.learning_rat", "did you mean train.learning_rate?"),
            ("train.max_step", "did you mean train.max_steps?"),
            ("learning_rate", "did you mean train.learning_rate?"),
            ("trian.seed", "did you mean train.seed?"),
            ("modle.path", "did you mean model.path?"),
            ("trainer", "did you mean [train]?"),
            ("completely_else", ""),
        ] {
            assert_eq!(meant(wrong).unwrap_or_default(), hint, "{wrong}");
        }
    }
}
