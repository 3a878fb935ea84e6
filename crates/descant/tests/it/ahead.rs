//! `descant plan` before anything is downloaded: an empty home, a hub that would notice any connection.

use std::path::Path;

use descant_testkit::loopback::LoopbackHub;
use serde_json::Value;
use tempfile::TempDir;

use crate::binary::{Ran, descant, descant_with, root};

struct Empty {
    hub: LoopbackHub,
    home: TempDir,
}

impl Empty {
    fn new() -> Self {
        Self { hub: LoopbackHub::start(), home: tempfile::tempdir().unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let home = self.home.path().display().to_string();
        let variables = [("HOME", home.as_str()), ("HF_ENDPOINT", &self.hub.endpoint())];
        let ran = descant_with(self.home.path(), &[&["plan"], arguments].concat(), &variables);
        assert_eq!(self.hub.connections(), 0, "a plan opens no socket");
        ran
    }

    fn json(&self, arguments: &[&str]) -> (Value, i32) {
        let ran = self.run(&[arguments, &["--json"]].concat());
        (serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{}", ran.err)), ran.code)
    }
}

#[test]
fn a_recipe_is_planned_with_an_empty_home_and_nothing_is_written() {
    let empty = Empty::new();
    let (plan, code) = empty.json(&["--recipe", "multilingual-thinking", "--card", "24GB"]);
    assert_eq!((code, &plan["fits"]), (0, &Value::Bool(true)), "{plan}");
    assert_eq!([&plan["model_is_here"], &plan["data_is_here"]], [&Value::Bool(false); 2]);
    assert_eq!((plan["examples"].as_u64(), plan["steps"].as_u64()), (Some(1000), Some(60)));
    // 60 steps of 16 rows of 1,182 tokens.
    assert_eq!(plan["tokens"], 1_134_720);
    assert_eq!(plan["tokens_at_most"], 60 * 16 * 4096);
    let download = plan["disk_bytes"]["download"].as_u64().unwrap();
    assert!((13_765_000_000..13_770_000_000).contains(&download), "{download}");
    assert!(
        plan["memory_bytes"]["held_out_prompts"].as_u64().unwrap() > 0,
        "the recipe's own questions are asked"
    );
    let said = empty.run(&["--recipe", "multilingual-thinking", "--card", "24GB"]).out;
    for words in [
        "not here yet, 12.82 GiB to download",
        "estimated from the data set's card",
        "RTX 4090 (165 TFLOP/s)",
    ] {
        assert!(said.replace("\n            ", " ").contains(words), "{words}: {said}");
    }
    assert_eq!(std::fs::read_dir(empty.home.path()).unwrap().count(), 0, "a plan writes nothing");
}

#[test]
fn a_model_is_planned_for_cards_that_are_not_here() {
    let empty = Empty::new();
    let on = |model: &str, card: &str| empty.json(&["--model", model, "--card", card]);
    let (plan, code) = on("openai/gpt-oss-120b", "24GB");
    assert_eq!((code, &plan["fits"]), (0, &Value::Bool(true)), "{plan}");
    assert!(plan["placement"]["streamed_layers"].as_u64().unwrap() > 20);
    assert_eq!((&plan["tokens"], &plan["examples"]), (&Value::Null, &Value::Null), "nobody knows the data");
    assert_eq!(plan["trained_parameters"], 5_971_968);
    assert_eq!(on("openai/gpt-oss-120b", "80GB").0["placement"]["streamed_layers"], 0);
    let (small, code) = on("openai/gpt-oss-120b", "4GB");
    assert_eq!((code, &small["fits"]), (1, &Value::Bool(false)), "{small}");
    // Four times the bytes of the published form.
    let bytes = |model: &str| on(model, "80GB").0["disk_bytes"]["download"].as_u64().unwrap();
    assert!(bytes("unsloth/gpt-oss-20b-BF16") > 3 * bytes("openai/gpt-oss-20b"));
}

#[test]
fn a_card_is_planned_by_its_name_and_the_time_is_marked_as_predicted() {
    let empty = Empty::new();
    let arguments = |card| ["--recipe", "multilingual-thinking", "--card", card];
    let (small, code) = empty.json(&arguments("RTX 3060 12GB"));
    assert_eq!((code, &small["fits"]), (0, &Value::Bool(true)), "{small}");
    let (large, _) = empty.json(&arguments("geforce rtx 4090"));
    let seconds = |plan: &Value, key: &str| plan[key].as_f64().unwrap();
    assert!(seconds(&small, "seconds_predicted") > 2.0 * seconds(&large, "seconds_predicted"));
    let least = large["seconds_at_least_on"][0]["seconds"].as_f64().unwrap();
    assert!(seconds(&large, "seconds_predicted") > least);
    let said = empty.run(&arguments("RTX 3060")).out.replace("\n            ", " ");
    for words in ["RTX 3060 that is not here", "360 GB/s, PCIe 4.0 x16", "predicted, from"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let unknown = empty.run(&arguments("GTX 1080"));
    assert!(unknown.err.contains("RTX 5090") && unknown.code == 2, "{}", unknown.err);
}

/// The 20b, and more arguments.
fn asked<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["--model", "openai/gpt-oss-20b"], more].concat()
}

#[test]
fn a_limit_bounds_the_plan_on_a_card_that_is_not_here() {
    let empty = Empty::new();
    let plan = |more: &[&str]| empty.json(&asked(more));
    let peak = |plan: &Value| {
        plan["peak_bytes"].as_object().unwrap().values().map(|bytes| bytes.as_u64().unwrap()).max().unwrap()
    };
    let [all, max] = [&["--card", "H200"][..], &["--card", "H200", "--memory", "max"]].map(plan);
    for key in ["memory_bytes", "peak_bytes", "placement"] {
        assert_eq!(all.0[key], max.0[key], "max limits nothing");
    }
    assert!(peak(&all.0) > 20_000_000_000 && all.0["memory_bytes"]["limit"].is_null(), "{}", all.0);
    for limited in [
        &["--card", "H200", "--memory", "12GB"][..],
        &["--card", "H200", "--set", "memory.limit=12GB"],
        &["--card", "24GB", "--memory", "12GB"],
    ] {
        let (plan, code) = plan(limited);
        assert_eq!((code, &plan["fits"]), (0, &Value::Bool(true)), "{plan}");
        assert!(peak(&plan) <= 12_000_000_000, "{plan}");
        assert_eq!(plan["memory_bytes"]["limit"], 12_000_000_000_u64);
        assert_eq!(plan["placement"]["embedding_on_host"], true, "{plan}");
        assert!(plan["placement"]["streamed_layers"].as_u64().unwrap() > 0, "{plan}");
    }
    // The smaller of both counts.
    let [small, under] = [&["--card", "12GB"][..], &["--card", "12GB", "--memory", "24GB"]].map(plan);
    assert_eq!(small.0["memory_bytes"]["free"], under.0["memory_bytes"]["free"]);
    assert_eq!(small.0["placement"], under.0["placement"]);
    let (none, code) = plan(&["--card", "H200", "--memory", "4GB"]);
    assert_eq!((code, &none["fits"]), (1, &Value::Bool(false)), "{none}");
    let said = empty.run(&asked(&["--card", "H200", "--memory", "12GB"])).out;
    assert!(said.contains("memory.limit is 12GB") && said.contains("of 10.68 GiB free"), "{said}");
    let said = empty.run(&asked(&["--card", "H200", "--memory", "max"])).out;
    assert!(said.contains("memory.limit is max: all of the device's memory"), "{said}");
    let wrong = empty.run(&asked(&["--card", "H200", "--memory", "most"]));
    assert!(wrong.err.contains("`max` is all of the memory"), "{}", wrong.err);
}

#[test]
fn without_a_card_every_size_of_cards_is_looked_at() {
    let empty = Empty::new();
    let (plan, _) = empty.json(&["--recipe", "multilingual-thinking", "--device", "cpu"]);
    let cards = plan["cards"].as_array().unwrap();
    let fits: Vec<bool> = cards.iter().map(|card| card["fits"].as_bool().unwrap()).collect();
    assert_eq!(fits.len(), 6);
    assert!(fits.is_sorted() && fits[5], "a larger card fits what a smaller one does: {plan}");
    let tiny = descant(root(), &["plan", "--device", "cpu", "--json"]);
    let tiny: Value = serde_json::from_str(&tiny.out).unwrap();
    assert_eq!(tiny["cards"].as_array().unwrap().len(), 0, "any card holds the tiny model");
}

#[test]
fn own_rows_are_counted_before_the_model_is_there_and_the_built_in_shape_is_the_published_one() {
    let empty = Empty::new();
    let rows = root().join("fixtures/tiny-gpt-oss/data/held-out.jsonl");
    let sets = [
        format!("data.path={}", rows.display()),
        "train.max_steps=1".to_owned(),
        "train.warmup_steps=0".to_owned(),
        "train.accumulation=100".to_owned(),
        "train.micro_batch=1".to_owned(),
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set.as_str()]).collect();
    let plan = |model: &str| {
        let (mut plan, code) = empty.json(&[&["--model", model, "--card", "24GB"], &sets[..]].concat());
        assert_eq!(code, 0);
        assert_eq!(plan["data_is_here"], true);
        plan.as_object_mut()
            .unwrap()
            .retain(|key, _| !["model", "model_is_here", "disk_bytes"].contains(&key.as_str()));
        plan
    };
    let ahead = plan("openai/gpt-oss-20b");
    let rendered = descant(root(), &["data", "render", "--input", rows.to_str().unwrap(), "--json"]);
    let ids = |line: &str| serde_json::from_str::<Value>(line).unwrap()["ids"].as_array().unwrap().len();
    // Outside of a checkout the built-in tokenizer renders, as here.
    let outside =
        descant(empty.home.path(), &["data", "render", "--input", rows.to_str().unwrap(), "--json"]);
    assert_ne!(outside.out, rendered.out, "the control: another tokenizer gives other lengths");
    assert_eq!(ahead["tokens"], outside.out.lines().map(ids).sum::<usize>());
    let folder = empty.home.path().join("gpt-oss-20b");
    let built = descant(empty.home.path(), &["tokenizer", "build", "--out", folder.to_str().unwrap()]);
    assert_eq!(built.code, 0, "{}", built.err);
    let published = std::fs::read_to_string(root().join("fixtures/configs/gpt-oss-20b.json")).unwrap();
    let write = |config: &str| {
        descant_files::write_atomic(&folder.join("config.json"), config.as_bytes()).unwrap();
    };
    write(&published);
    assert_eq!(ahead, plan(folder.to_str().unwrap()));
    // The same shape as bitsandbytes packs it, known from the configuration alone.
    let mut nf4: Value = serde_json::from_str(&published).unwrap();
    nf4["quantization_config"] = serde_json::json!({
        "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
        "bnb_4bit_use_double_quant": true, "llm_int8_skip_modules": ["lm_head", "router"],
    });
    write(&nf4.to_string());
    let ahead_nf4 = plan("unsloth/gpt-oss-20b-unsloth-bnb-4bit");
    assert_eq!(ahead_nf4, plan(folder.to_str().unwrap()));
    let base = |plan: &Value| plan["memory_bytes"]["base"].as_u64().unwrap();
    // Attention packed, and an eighth of a bit less a number of experts.
    assert!(base(&ahead) - base(&ahead_nf4) > 1_000_000_000, "{ahead_nf4}");
    // Layers that are left alone, as in dynamic checkpoints, take their room.
    nf4["quantization_config"]["llm_int8_skip_modules"] = serde_json::json!(["model.layers.3.self_attn"]);
    write(&nf4.to_string());
    let more = base(&plan(folder.to_str().unwrap())) - base(&ahead_nf4);
    let attention = (2 * 2880 * (4096 + 512)) as f64;
    assert!(
        (f64::from(u32::try_from(more).unwrap()) / (attention * (16.0 - 4.127) / 8.0) - 1.0).abs() < 0.01,
        "{more}"
    );
}

#[test]
fn what_is_not_known_is_an_error_that_says_what_is() {
    let empty = Empty::new();
    let refused = |arguments: &[&str], words: &[&str]| {
        let ran = empty.run(arguments);
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{arguments:?}");
        for word in words {
            assert!(ran.err.contains(word), "{word}: {}", ran.err);
        }
    };
    refused(
        &["--model", "somebody/gpt-oss-9b"],
        &["its shape is not built in", "descant download somebody/gpt-oss-9b", "openai/gpt-oss-120b"],
    );
    refused(
        &["--model", "gpt-oss-20b"],
        &["folder gpt-oss-20b does not exist", "--model openai/gpt-oss-20b"],
    );
    refused(&["--recipe", "nothing"], &["no recipe `nothing`", "multilingual-thinking"]);
    let missing = Path::new("there/is/none.jsonl");
    let set = format!("data.path={}", missing.display());
    refused(&["--model", "openai/gpt-oss-20b", "--set", &set], &["there/is/none.jsonl"]);
}
