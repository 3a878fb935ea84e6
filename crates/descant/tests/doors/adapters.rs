//! An adapter directory as PEFT writes it.

use descant_lora::peft;
use descant_model::Config;
use descant_testkit::door::{Limits, check};

use crate::{fixtures, put, turn};

#[test]
fn adapters() {
    let _turn = turn();
    let golden = fixtures().join("golden/peft_tiny");
    let config = Config::from_dir(&golden.join("base")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (settings, tensors) =
        (dir.path().join("adapter_config.json"), dir.path().join("adapter_model.safetensors"));
    let read = |name: &str| std::fs::read(golden.join("adapter").join(name)).unwrap();
    let (good_settings, good_tensors) = (read("adapter_config.json"), read("adapter_model.safetensors"));
    put(&tensors, &good_tensors);
    let limits = Limits { heap: Limits::default().heap + 4 * good_tensors.len(), ..Limits::default() };
    check("adapter_config.json", &good_settings, limits, |bytes| {
        put(&settings, bytes);
        peft::load(dir.path(), &config).is_ok()
    });
    put(&settings, &good_settings);
    check("adapter_model.safetensors", &good_tensors, limits, |bytes| {
        put(&tensors, bytes);
        peft::load(dir.path(), &config).is_ok()
    });
}
